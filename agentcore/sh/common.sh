# What main.sh and task.sh share.  Sourced; needs $queue and $awk_dir.

# Runs an awk program over the bytes of a file, or of stdin.
read_bytes() { # program [file]
	program=$1
	shift
	od -An -v -tu1 "$@" | LC_ALL=C awk -f "$awk_dir/json.awk" -f "$awk_dir/$program.awk"
}

# Puts errors/<id> into place: written in tmp/, then renamed.
publish_error() { # id status code message [details]
	printf '{"id":"%s","error":{"status":%s,"code":"%s","message":%s%s}}' \
		"$1" "$2" "$3" "$(printf '%s' "$4" | read_bytes quote)" "${5:+,\"details\":$5}" >"$queue/tmp/$1.error" &&
		mv "$queue/tmp/$1.error" "$queue/errors/$1"
}
