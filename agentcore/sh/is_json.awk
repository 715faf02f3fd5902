# Exit status 0 where the input is one JSON value.

BEGIN {
	begin_reading()
	value(0)
	end_reading()
	exit BAD
}
