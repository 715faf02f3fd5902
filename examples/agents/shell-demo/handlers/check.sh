# Fails with exit status 1 where a file is not there; the caller sees stderr.
if [ ! -e "$1" ]; then
	echo "$1: no such file" >&2
	exit 1
fi
echo "$1 is there"
