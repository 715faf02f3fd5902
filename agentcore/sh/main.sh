# The sh engine: serves the file queue where an image has neither Node nor Python.
#
# Sourced by run.sh, which gives $here and fail().  The loop below claims tasks and
# gives each to a task.sh of its own; it tells those that must end, and removes what
# they leave.  New tasks are seen through busybox inotifyd where there is one, else
# by looking often.  Needs sh, od, awk and the usual file commands.

# Times are in hundredths of a second.
RESCAN_AFTER=100
KILL_AFTER=200
STOP_AFTER=500
LOCK_GRACE=200
DRAIN_AFTER=20

queue=$PLOINKY_QUEUE
awk_dir=$here/sh
. "$awk_dir/common.sh"

# --- time ---------------------------------------------------------------------

# Sets $now, in hundredths of a second since 1970, without starting a process.
look_at_clock() {
	read -r now _ </proc/uptime
	now=$((${now%.*} * 100 + 1${now#*.} - 100 + ${booted:-0}))
}

set_clock() {
	look_at_clock
	stamp=$(date +%s%N)
	case $stamp in
	*[!0-9]*) booted=$(($(date +%s) * 100 + 50 - now)) ;; # busybox tells whole seconds
	*) booted=$((${stamp%???????} - now)) ;;
	esac
}

# Sets $pause_with: `read -t` on a pipe can be woken and starts no process.
choose_pause() {
	pause_with=sleep
	sleep 0.01 2>/dev/null || pause_with=long_sleep
	pipe=$queue/tmp/wakeup.$$
	mkfifo "$pipe" 2>/dev/null || return 0
	exec 3<>"$pipe"
	rm -f "$pipe"
	if (echo >&3 && read -r -t 0.1 _ <&3) 2>/dev/null; then pause_with=listen; else exec 3>&-; fi
}

listen() { read -r -t "$1" _ <&3; }
long_sleep() { sleep 1; }

# --- tasks ----------------------------------------------------------------------

# Each entry of $running is id:pid:due:end:kill.  due is - until known; end, until the
# script has ended and only its output is waited for; kill, until the task was told to end.
running=''
count=0

scan() {
	for file in "$queue"/tasks/*; do
		id=${file##*/}
		case $id in [!A-Za-z0-9_]* | *[!A-Za-z0-9_.-]*) continue ;; esac
		case $running in *" $id:"*) continue ;; esac
		if [ -e "$queue/locks/$id" ]; then
			[ -z "$rescanning" ] || break_lock
		elif [ "$count" -lt "$concurrency" ] && mkdir "$queue/locks/$id" 2>/dev/null; then
			begin
		fi
	done
}

begin() {
	TASK_ID=$id AGENTCORE_NOW=$now $setsid sh "$awk_dir/task.sh" &
	running="$running $id:$!:-:-:-"
	count=$((count + 1))
}

# Ends the task of an executor that died: it is done, or past its deadline.
break_lock() {
	if [ ! -e "$queue/results/$id" ] && [ ! -e "$queue/errors/$id" ]; then
		eval "$(TASK_ID=$id read_bytes task "$file" 2>/dev/null)"
		due=${deadline%?}
		[ -n "$due" ] || due=$((($(date -r "$queue/locks/$id" +%s) + ${timeout:-30}) * 100))
		[ "$now" -gt $((due + LOCK_GRACE)) ] && [ -e "$file" ] || return 0
		publish_error "$id" 504 TASK_TIMEOUT 'The agent ended while it ran this task.' || return 0
	fi
	rm -f "$file"
	rmdir "$queue/locks/$id" 2>/dev/null || rm -f "$queue/locks/$id" # another engine's may be a file
}

check_all() {
	entries=$running
	running=''
	count=0
	for entry in $entries; do
		IFS=:
		set -- $entry
		unset IFS
		if [ "$5" = - ]; then check "$@"; elif [ "$now" -lt "$5" ]; then keep "$@"; else end "$@"; fi
	done
}

keep() { # id pid due end kill
	running="$running $1:$2:$3:$4:$5"
	[ "$5" != - ] || count=$((count + 1))
}

check() { # id pid due end kill
	due=$3
	[ "$due" != - ] || { read -r due <"$queue/tmp/$1.due" || due=-; } 2>/dev/null
	if [ -e "$queue/tmp/$1.done" ]; then
		forget "$1" "$2"
	elif has_ended "$2"; then
		end "$1" "$2"
	elif [ ! -e "$queue/tasks/$1" ] || { [ "$due" != - ] && [ "$now" -ge "$due" ]; }; then
		signal TERM "$2"
		keep "$1" "$2" "$due" - $((now + KILL_AFTER))
	elif [ "$4" = - ]; then
		ended=-
		[ ! -e "$queue/tmp/$1.status" ] || ended=$now
		keep "$1" "$2" "$due" $ended -
	else
		[ "$now" -lt $(($4 + DRAIN_AFTER)) ] || drain "$1" $(($4 + KILL_AFTER))
		keep "$@"
	fi
}

# Lets go of output that something keeps open, once what was printed has been passed on: who
# does so sleeps where there is no more of it.  Where it goes on coming, not for ever.
drain() { # id limit
	read -r copier 2>/dev/null <"$queue/tmp/$1.copier" || return 0
	look_at_process "$copier" || return 0
	[ "$state" = S ] || [ "$now" -ge "$2" ] || return 0
	kill "$copier" 2>/dev/null || :
}

has_ended() { # pid
	look_at_process "$1" || return 0
	[ "$state" = Z ]
}

# Sets $state; fails where there is no such process.
look_at_process() { # pid
	{ read -r _ _ state _ <"/proc/$1/stat"; } 2>/dev/null
}

signal() { # name pid
	if [ -n "$setsid" ]; then kill -s "$1" -- "-$2"; else kill -s "$1" "$2"; fi 2>/dev/null
}

# Kills what is left of a task, and answers for it where it did not do so itself.
end() { # id pid [due end kill, where it was told to end]
	signal KILL "$2"
	if [ -e "$queue/tasks/$1" ]; then
		if [ "${3:--}" = - ]; then
			publish_error "$1" 500 HANDLER_FAILED 'The shell that ran this task was killed.'
		else
			publish_error "$1" 504 TASK_TIMEOUT 'The task was not done by its deadline.'
		fi || return 0
		rm -f "$queue/tasks/$1"
	fi
	[ ! -d "$queue/locks/$1" ] || rmdir "$queue/locks/$1"
	forget "$1" "$2"
}

forget() { # id pid
	wait "$2" 2>/dev/null
	for suffix in out err status copier due done result error; do set -- "$@" "$queue/tmp/$1.$suffix"; done
	shift 2
	rm -f "$@"
}

# --- the loop -------------------------------------------------------------------

prepare() {
	mkdir -p "$queue/tasks" "$queue/results" "$queue/errors" "$queue/locks" "$queue/tmp" ||
		fail QUEUE_UNUSABLE "The queue directory $queue cannot be written."
	for tool in od awk; do
		command -v $tool >/dev/null || fail ENGINE_MISSING "The sh engine needs $tool, which this image does not have; use an image with Node, Python or busybox."
	done
	manifest=$(if [ -e manifest.json ]; then cat manifest.json; else echo '{}'; fi | read_bytes manifest)
	eval "$manifest"
	[ -z "$manifest_error" ] || fail MANIFEST_INVALID "$manifest_error"
	concurrency=${PLOINKY_CONCURRENCY:-${concurrency:-64}}
	setsid=$(command -v setsid >/dev/null && echo setsid)
	set_clock
	choose_pause
	AGENTCORE_SH=$awk_dir AGENTCORE_MANIFEST=$manifest AGENTCORE_WAKEUP=
	[ $pause_with != listen ] || AGENTCORE_WAKEUP=1
	export AGENTCORE_SH AGENTCORE_MANIFEST AGENTCORE_WAKEUP
}

watch() {
	watcher=
	[ $pause_with = listen ] && command -v inotifyd >/dev/null || return 0
	# From inside: it would take a colon in the path for its own.
	(cd "$queue/tasks" && exec inotifyd - .:nydm) >&3 2>/dev/null &
	watcher=$!
}

# Looks often while there is something to do and for two seconds after; else waits
# for the watcher, or looks ten times a second.
pause() {
	if [ -n "$running" ] || [ "$quiet" -lt 100 ]; then
		quiet=$((quiet + 1))
		$pause_with 0.02
	elif [ -n "$watcher" ]; then
		$pause_with 1
	else
		$pause_with 0.1
	fi
}

# Whether one of those that were told to end has not said so yet.
is_unanswered() {
	for entry in $running; do
		[ ! -e "$queue/tasks/${entry%%:*}" ] || return 0
	done
	return 1
}

stop() {
	rm -f "$queue/ready"
	look_at_clock
	stop_by=$((now + STOP_AFTER))
	while [ "$count" -gt 0 ] && [ "$now" -lt "$stop_by" ]; do
		$pause_with 0.05
		look_at_clock
		check_all
	done
	for entry in $running; do
		rest=${entry#*:}
		signal TERM "${rest%%:*}"
	done
	[ -z "$running" ] || sleep 1
	look_at_clock
	stop_by=$((now + KILL_AFTER))
	while is_unanswered && [ "$now" -lt "$stop_by" ]; do
		$pause_with 0.05
		look_at_clock
	done
	for entry in $running; do
		rest=${entry#*:}
		end "${entry%%:*}" "${rest%%:*}"
	done
	[ -z "$watcher" ] || kill "$watcher" 2>/dev/null
	exit 0
}

prepare
watch
stopping=''
trap 'stopping=1' TERM INT
quiet=0
next_scan=0
printf '{"engine":"sh","version":"posix","transports":["file"],"pid":%s}' $$ >"$queue/tmp/ready.$$" &&
	mv "$queue/tmp/ready.$$" "$queue/ready"
while [ -z "$stopping" ]; do
	look_at_clock
	rescanning=
	[ "$now" -lt "$next_scan" ] || { rescanning=1 next_scan=$((now + RESCAN_AFTER)); }
	[ -z "$running" ] || { check_all; quiet=0; }
	scan
	pause
done
stop
