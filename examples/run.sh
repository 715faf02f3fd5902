#!/bin/sh
# The main job, once through, on the embedded defaults: start a server, make a Git repository of the
# example agents, deploy one, call it; then serve until Ctrl-C.  `make run` calls this from the
# project's root with p-cli on PATH.  Every step is a command that you could type yourself.
set -eu

state=.ploinky
agents=$state/agents
key_file=$state/admin.key
umask 077
mkdir -p "$state"

make_repository() {
    rm -rf "$agents.new"
    cp -R examples/agents "$agents.new"
    git -C "$agents.new" init -q -b main
    git -C "$agents.new" add -A
    git -C "$agents.new" -c user.name=Ploinky -c user.email=ploinky@localhost \
        -c commit.gpgsign=false commit -q -m "Example agents"
    rm -rf "$agents"
    mv "$agents.new" "$agents"
}

serve_until_interrupted() {
    trap 'exit 0' INT TERM
    while p-cli cloud status --json >/dev/null 2>&1; do
        sleep 2 &
        wait $!
    done
    echo "The server has stopped." >&2
    exit 1
}

p-cli cloud start
trap 'trap - INT TERM EXIT; p-cli cloud stop' EXIT
PLOINKY_URL=$(p-cli cloud url)
export PLOINKY_URL

if [ ! -s "$key_file" ]; then
    p-cli cloud init --json | sed -n 's/.*"apiKey": "\(.*\)".*/\1/p' >"$key_file"
fi
p-cli cloud connect "$PLOINKY_URL" >/dev/null
p-cli cloud login - <"$key_file"

make_repository
if ! p-cli cloud repo list --json | grep -q '"PloinkyDemo"'; then
    p-cli cloud repo add PloinkyDemo "file://$PWD/$agents"
fi
p-cli cloud repo sync PloinkyDemo
p-cli cloud deploy localhost /demo demo
printf '\n$ p-cli cloud call /demo hello World\n'
p-cli cloud call /demo hello World

cat <<TEXT

Admin API key: $(cat "$key_file")   (kept in $key_file)
Dashboard:     $PLOINKY_URL/management

Type next, in another terminal, in this directory:
  . .venv/bin/activate
  p-cli cloud deployments
  p-cli cloud agent list
  p-cli cloud call /demo hello you
  curl -d '{"command":"hello","params":["World"]}' $PLOINKY_URL/demo

Serving on $PLOINKY_URL.  Ctrl-C stops the server; containers go on running.
TEXT
serve_until_interrupted
