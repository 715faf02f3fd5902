#!/bin/sh
# Starts an agent: picks the engine that the image has and that its code is for.
#
# Node (14 or newer), else Python (3.8 or newer), else sh with the file queue alone.
# PLOINKY_ENGINE or the manifest's "engine" names one; an agent that has only Python
# code takes Python where both are there.

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) || exit 1
: "${AGENT_DIR:=/agent}"
: "${PLOINKY_QUEUE:=$AGENT_DIR/.ploinky/queue}"
export AGENT_DIR PLOINKY_QUEUE

# Says why the agent cannot be served, to the server and on stderr.
fail() { # code message
	printf '%s: %s\n' "$1" "$2" >&2
	text=$(printf '%s' "$2" | tr '\n\t"\\' "  ''")
	[ -d "$PLOINKY_QUEUE" ] && mkdir -p "$PLOINKY_QUEUE/tmp" &&
		printf '{"code":"%s","message":"%s"}' "$1" "$text" >"$PLOINKY_QUEUE/tmp/failed.$$" &&
		mv "$PLOINKY_QUEUE/tmp/failed.$$" "$PLOINKY_QUEUE/failed"
	exit 1
}

# Options that it refuses are for the engine to die of: no other one can serve the code.
find_node() {
	case $(NODE_OPTIONS='' node --version 2>/dev/null) in
	v[0-9].* | v1[0-3].* | '') return 1 ;;
	esac
}

find_python() {
	for python in python3 python; do
		case $("$python" --version 2>/dev/null) in
		'Python 3.'[0-7] | 'Python 3.'[0-7].*) ;;
		'Python 3.'*) return 0 ;;
		esac
	done
	return 1
}

any() { # files: is there one of them?
	for file; do
		[ -f "$file" ] && return 0
	done
	return 1
}

# The agent's code is Python's alone.
is_python() {
	any agent.py handlers/*.py && ! any index.js index.mjs handlers/*.js handlers/*.cjs handlers/*.mjs
}

named_engine() {
	grep -q '"engine"' manifest.json 2>/dev/null || return 0
	eval "$(od -An -v -tu1 manifest.json | LC_ALL=C awk -f "$here/sh/json.awk" -f "$here/sh/manifest.awk")"
	echo "$manifest_engine"
}

start() { # engine
	case $1 in
	node) find_node && exec node "$here/node/main.js" ;;
	python) find_python && exec "$python" "$here/python" ;;
	sh) . "$here/sh/main.sh" ;;
	*) fail ENGINE_UNKNOWN "The engine $1 is not known: there are node, python and sh." ;;
	esac
}

cd -- "$AGENT_DIR" || fail AGENT_BROKEN "The agent's directory $AGENT_DIR cannot be entered."
engine=${PLOINKY_ENGINE:-$(named_engine)}
if [ -n "$engine" ]; then
	start "$engine"
	fail ENGINE_MISSING "The agent asks for the engine $engine, which this image does not have (node: 14 or newer; python: 3.8 or newer)."
fi
is_python && start python
start node
start python
start sh
