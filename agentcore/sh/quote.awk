# Prints the input as a JSON string, without the line ends it closes with; what is
# not UTF-8 becomes U+FFFD.

BEGIN {
	begin_quoting()
	printf "\""
	for (next_byte(); C != -1; ) {
		if (C == 10) {
			ends++
			next_byte()
			continue
		}
		for (; ends > 0; ends--) printf "\\n"
		if (C < 128) { printf "%s", QUOTED[C]; next_byte() }
		else copy_sequence()
	}
	printf "\""
}

function begin_quoting(i) {
	for (i = 0; i < 32; i++) QUOTED[i] = sprintf("\\u%04x", i)
	for (i = 32; i < 256; i++) QUOTED[i] = CHR[i] = sprintf("%c", i)
	QUOTED[34] = "\\\""
	QUOTED[92] = "\\\\"
	QUOTED[9] = "\\t"
	QUOTED[13] = "\\r"
	UNKNOWN = CHR[239] CHR[191] CHR[189]
	BYTE = ends = 0
}

# Copies a UTF-8 sequence; a byte that ends it too early starts the next one.
function copy_sequence(bytes, more, low, high) {
	more = tail_length(C)
	low = (C == 224) ? 160 : (C == 240) ? 144 : 128
	high = (C == 237) ? 159 : (C == 244) ? 143 : 191
	bytes = more ? CHR[C] : UNKNOWN
	for (next_byte(); more > 0; more--) {
		if (C < low || C > high) {
			bytes = UNKNOWN
			break
		}
		bytes = bytes CHR[C]
		low = 128
		high = 191
		next_byte()
	}
	printf "%s", bytes
}
