#!/bin/sh
# Runs one task, the lock of which main.sh holds, and publishes what came of it.
#
# It leads a session of its own, so that all that a script starts can be signalled
# together.  SIGTERM says that the task must end now: what that means, the
# task file and queue/ready tell.  Its temporary files are
# main.sh's to remove; tmp/<id>.done tells it that the task is over.

aborted=
trap 'aborted=1' TERM

# From here on nothing interrupts, neither this shell nor what it starts: a signal to
# the session would cut short what is being published.
conclude() {
	trap '' TERM
	[ -z "$aborted" ] || abort
}

id=$TASK_ID
queue=$PLOINKY_QUEUE
awk_dir=$AGENTCORE_SH
wakeup=$AGENTCORE_WAKEUP
started=$AGENTCORE_NOW
limit=${PLOINKY_MAX_RESULT_BYTES:-16777216}
tmp=$queue/tmp/$id
. "$awk_dir/common.sh"
eval "$AGENTCORE_MANIFEST"
unset TASK_ID AGENTCORE_SH AGENTCORE_WAKEUP AGENTCORE_NOW AGENTCORE_MANIFEST

finish() {
	: >"$tmp.done"
	rm -f "$queue/tasks/$id"
	rmdir "$queue/locks/$id"
	[ -z "$wakeup" ] || echo >&3
	exit 0
}

# A result that cannot be written leaves the lock: without it the task would be run again.
fail() { # status code message [details]
	trap '' TERM
	[ ! -e "$queue/tasks/$id" ] || publish_error "$id" "$@" || exit 1
	finish
}

too_large() {
	fail 500 HANDLER_FAILED "$command printed more than $limit bytes, the most that is taken. Print less, in pages, or raise PLOINKY_MAX_RESULT_BYTES."
}

size_of() { # file
	set -- $(wc -c <"$1")
	echo "$1"
}

commands() {
	{
		printf '%s\n' $manifest_names
		for file in handlers/*; do
			name=${file##*/}
			case $name in
			*.sh) [ -f "$file" ] && printf '%s\n' "${name%.sh}" ;;
			*) [ -f "$file" ] && [ -x "$file" ] && printf '%s\n' "$name" ;;
			esac
		done
	} | sort -u
}

unknown() {
	names=$(commands)
	list='' quoted=''
	for name in $names; do
		list="$list${list:+, }$name"
		quoted="$quoted${quoted:+,}\"$name\""
	done
	message="There is no command $command. "
	for file in "handlers/$command.js" "handlers/$command.py"; do
		[ ! -f "$file" ] || message="$message($file is there, but this agent runs on sh.) "
	done
	fail 404 UNKNOWN_COMMAND "$message${list:+There are: $list.}" "{\"commands\":[$quoted]}"
}

# Runs a command line.  What it prints passes through a cat that may not write more
# than is taken, so that no script fills the disk; main.sh ends the cat where
# something that the script left running keeps it waiting.
run() { # argv
	{
		TASK_COMMAND=$command "$@" <"$queue/tasks/$id" 2>"$tmp.err" 3>&-
		echo $? >"$tmp.status"
	} | (ulimit -f $((limit / 512 + 2)) && exec cat) >"$tmp.out" &
	echo $! >"$tmp.copier"
	wait $! 2>/dev/null
	conclude
	size=$(size_of "$tmp.out")
	[ "$size" -le "$limit" ] || too_large
	read -r status <"$tmp.status"
	cat "$tmp.err" >&2
	[ "$status" -eq 0 ] || exited
}

abort() {
	trap '' TERM
	if [ ! -e "$queue/tasks/$id" ]; then
		rmdir "$queue/locks/$id"
		exit 0
	fi
	[ -e "$queue/ready" ] || fail 503 DRAINING 'The agent stopped before the task was done.'
	timed_out
}

timed_out() {
	fail 504 TASK_TIMEOUT "${command:-The task} was not done by its deadline."
}

exited() {
	stderr=$(tail -c 4096 "$tmp.err")
	last=$(printf '%s\n' "$stderr" | tail -n 1)
	# What this shell itself says where it cannot start another: the arguments are too many.
	case $status:$last in
	126:"$0: "*' too long') fail 413 BODY_TOO_LARGE "The parameters of $command are too long for a command line." ;;
	esac
	how="ended with exit status $status"
	what="\"exitStatus\":$status"
	signal=
	[ "$status" -le 128 ] || signal=$(kill -l $((status - 128)) 2>/dev/null)
	case $signal in
	'' | [0-9]*) ;; # there is no such signal: the script itself ended so
	*)
		how="was killed by SIG$signal"
		what="\"signal\":\"SIG$signal\""
		;;
	esac
	fail 500 HANDLER_FAILED "$command $how${last:+: $last}" \
		"{$what,\"stderr\":$(printf '%s' "$stderr" | read_bytes quote)}"
}

publish_result() {
	{
		printf '{"id":"%s","data":' "$id"
		if read_bytes is_json "$tmp.out"; then cat "$tmp.out"; else read_bytes quote "$tmp.out"; fi
		printf '}'
	} >"$tmp.result" && [ -e "$queue/tasks/$id" ] && mv "$tmp.result" "$queue/results/$id"
}

parsed=$(TASK_ID=$id read_bytes task "$queue/tasks/$id" 2>/dev/null)
[ -z "$aborted" ] || abort
[ -e "$queue/tasks/$id" ] || finish
eval "$parsed"
[ -z "$error_code" ] || fail 400 "$error_code" "$error_message"

# In hundredths of a second, as main.sh counts.
due=${deadline%?}
[ -n "$due" ] || due=$((started + ${timeout:-30} * 100))
[ "$started" -lt "$due" ] || timed_out
echo "$due" >"$tmp.due"

if manifest_command "$command"; then
	run sh -c "$shell_command \"\$@\"" "$command" "$@"
elif [ -f "handlers/$command.sh" ]; then
	if [ -x "handlers/$command.sh" ]; then
		run sh -c 'exec "$0" "$@"' "$AGENT_DIR/handlers/$command.sh" "$@"
	else
		run sh "$AGENT_DIR/handlers/$command.sh" "$@"
	fi
elif [ -f "handlers/$command" ] && [ -x "handlers/$command" ]; then
	run sh -c 'exec "$0" "$@"' "$AGENT_DIR/handlers/$command" "$@"
elif [ -n "$run_task" ]; then
	run sh -c "$run_task \"\$@\"" "$command" "$@"
else
	unknown
fi
publish_result || [ ! -e "$queue/tasks/$id" ] || exit 1
finish
