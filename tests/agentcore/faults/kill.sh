#!/bin/sh
# Stands in PATH for a command of the sh engine's, and kills the engine after the n-th
# call for the files of one task; see test_killed.py.  Its name is the command's.

name=${0##*/}
PATH=${PATH#*:} "$name" "$@"
status=$?
case "$* " in
*"/$FAULT_TASK"[!A-Za-z0-9_]*)
	echo "$name" >>"$FAULT_LOG"
	if [ "$(wc -l <"$FAULT_LOG")" -eq "$FAULT_AFTER" ]; then
		pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/' "$PLOINKY_QUEUE/ready")
		kill -KILL "$pid"
		[ "$PPID" = "$pid" ] || kill -KILL "$PPID"
	fi
	;;
esac
exit $status
