# The command's name is in TASK_COMMAND, the params are $1, $2 ..., the task is on stdin.
case $TASK_COMMAND in
hello)
	printf '{"message": "Hello %s"}\n' "${1:-World}"
	;;
count)
	echo $#
	;;
*)
	echo "I know hello and count, not $TASK_COMMAND" >&2
	exit 64
	;;
esac
