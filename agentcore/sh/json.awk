# A strict JSON reader over bytes, for any awk.
#
# Input is the decimal bytes that `od -An -v -tu1` prints, so that no locale, NUL or
# line end is in the way; run it with LC_ALL=C.  The next byte is always in C (-1 at
# the end).  After an error BAD is 1 and WHY says what and where; nothing read after
# that counts.
#
#   begin_reading()             once, first
#   value(depth)                skips any one value; DEPTH_LIMIT deep
#   text()                      reads a string into TEXT, as UTF-8; HAS_NUL if \u0000 was in it
#   raw(depth)                  reads any value, gives its JSON text
#   open(depth), has_member(depth) -> KEY, has_element(depth)
#   end_reading()               nothing but white space may be left

function begin_reading(i) {
	for (i = 1; i < 256; i++) CHR[i] = sprintf("%c", i)
	for (i = 0; i < 10; i++) HEX[48 + i] = i
	for (i = 10; i < 16; i++) HEX[55 + i] = HEX[87 + i] = i
	UNKNOWN = CHR[239] CHR[191] CHR[189]
	DEPTH_LIMIT = 500
	LINE = 1
	BYTE = 0
	next_byte()
	skip()
}

function end_reading() {
	if (!BAD && C != -1) fail("unexpected text after the end")
}

function next_byte() {
	if (C == 10) { LINE++; COLUMN = 0 }
	if (KEEPING) keep(CHR[C])
	while (++BYTE > NF) {
		if ((getline) <= 0) { C = -1; COLUMN++; return }
		BYTE = 0
	}
	C = $BYTE + 0
	COLUMN++
}

function fail(message) {
	if (BAD) return
	BAD = 1
	WHY = message " at line " LINE ", column " COLUMN
}

function skip() {
	while (C == 32 || C == 10 || C == 13 || C == 9) next_byte()
}

# Strings grow by pieces: adding one byte at a time to a long one would copy it each time.
function keep(bytes) {
	PIECE = PIECE bytes
	if (++PIECES == 256) { KEPT = KEPT PIECE; PIECE = ""; PIECES = 0 }
}

function raw(depth) {
	KEPT = PIECE = ""
	PIECES = 0
	KEEPING = 1
	bare_value(depth)
	KEEPING = 0
	skip()
	return KEPT PIECE
}

function value(depth) {
	bare_value(depth)
	skip()
}

function bare_value(depth) {
	if (depth > DEPTH_LIMIT) fail("nested too deeply")
	else if (C == 34) text()
	else if (C == 123) { open(depth); while (has_member(depth)) value(depth + 1) }
	else if (C == 91) { open(depth); while (has_element(depth)) value(depth + 1) }
	else if (C == 116) literal("114 117 101")
	else if (C == 102) literal("97 108 115 101")
	else if (C == 110) literal("117 108 108")
	else if (C == 45 || is_digit()) numeral()
	else fail(C == -1 ? "unexpected end" : "unexpected character")
}

function open(depth) {
	FIRST[depth] = 1
	next_byte()
	skip()
}

# Steps to the next item of what open() entered; `end` is its closing bracket.
function has_item(depth, end) {
	if (BAD) return 0
	skip()
	if (C == end) { next_byte(); return 0 }
	if (FIRST[depth]) FIRST[depth] = 0
	else if (C != 44) { fail("expected a comma or the end of the list"); return 0 }
	else {
		next_byte()
		skip()
		if (C == end) { fail("a comma too many"); return 0 }
	}
	return 1
}

function has_element(depth) {
	return has_item(depth, 93)
}

function has_member(depth) {
	if (!has_item(depth, 125)) return 0
	if (C != 34) { fail("expected a name in double quotes"); return 0 }
	text()
	KEY = TEXT
	skip()
	if (C != 58) { fail("expected a colon"); return 0 }
	next_byte()
	skip()
	return !BAD
}

function literal(rest, bytes, count, i) {
	count = split(rest, bytes, " ")
	for (i = 1; i <= count; i++) {
		next_byte()
		if (C != bytes[i] + 0) { fail("unexpected word"); return }
	}
	next_byte()
}

function is_digit() {
	return C >= 48 && C <= 57
}

function digits() {
	if (!is_digit()) fail("expected a digit")
	while (is_digit()) next_byte()
}

function numeral() {
	if (C == 45) next_byte()
	if (C == 48) next_byte()
	else digits()
	if (C == 46) { next_byte(); digits() }
	if (C == 101 || C == 69) {
		next_byte()
		if (C == 43 || C == 45) next_byte()
		digits()
	}
}

# --- strings ------------------------------------------------------------------

function text(whole, piece, count, character) {
	whole = piece = ""
	count = HIGH = HAS_NUL = 0
	for (next_byte(); C != 34; next_byte()) {
		if (C < 32) { fail(C == -1 ? "unexpected end of a string" : "a control character in a string"); return }
		if (C == 92) character = escape()
		else character = after_high(C < 128 ? CHR[C] : sequence())
		if (BAD) return
		piece = piece character
		if (++count == 256) { whole = whole piece; piece = ""; count = 0 }
	}
	TEXT = whole piece after_high("")
	next_byte()
}

# Half a surrogate pair that its other half does not follow stands for nothing.
function after_high(character) {
	if (!HIGH) return character
	HIGH = 0
	return UNKNOWN character
}

function escape(code, i) {
	next_byte()
	if (C == 34 || C == 92 || C == 47) return after_high(CHR[C])
	if (C == 110) return after_high("\n")
	if (C == 116) return after_high("\t")
	if (C == 114) return after_high("\r")
	if (C == 98) return after_high(CHR[8])
	if (C == 102) return after_high(CHR[12])
	if (C != 117) { fail("an unknown escape"); return "" }
	code = 0
	for (i = 0; i < 4; i++) {
		next_byte()
		if (!(C in HEX)) { fail("expected a hexadecimal digit"); return "" }
		code = code * 16 + HEX[C]
	}
	return code_unit(code)
}

function code_unit(code, pair) {
	if (code >= 56320 && code <= 57343) {
		if (!HIGH) return UNKNOWN
		pair = 65536 + (HIGH - 55296) * 1024 + code - 56320
		HIGH = 0
		return utf8(pair)
	}
	if (code >= 55296 && code <= 56319) {
		pair = after_high("")
		HIGH = code
		return pair
	}
	if (code == 0) HAS_NUL = 1
	return after_high(utf8(code))
}

function utf8(code) {
	if (code < 128) return CHR[code]
	if (code < 2048) return CHR[192 + int(code / 64)] CHR[128 + code % 64]
	if (code < 65536) return CHR[224 + int(code / 4096)] CHR[128 + int(code / 64) % 64] CHR[128 + code % 64]
	return CHR[240 + int(code / 262144)] CHR[128 + int(code / 4096) % 64] CHR[128 + int(code / 64) % 64] CHR[128 + code % 64]
}

# Reads one UTF-8 sequence, the first byte of which is in C.
function sequence(bytes, more, low, high) {
	more = tail_length(C)
	if (!more) { fail("text that is not UTF-8"); return "" }
	low = (C == 224) ? 160 : (C == 240) ? 144 : 128
	high = (C == 237) ? 159 : (C == 244) ? 143 : 191
	for (bytes = CHR[C]; more > 0; more--) {
		next_byte()
		if (C < low || C > high) { fail("text that is not UTF-8"); return "" }
		bytes = bytes CHR[C]
		low = 128
		high = 191
	}
	return bytes
}

# How many bytes follow the first one of a UTF-8 sequence; 0 where it is none.
function tail_length(first) {
	return (first >= 194 && first <= 223) ? 1 : (first >= 224 && first <= 239) ? 2 : (first >= 240 && first <= 244) ? 3 : 0
}

# --- for the shell --------------------------------------------------------------

# Gives a word that the shell reads as exactly this text.
function quoted(string, parts, count, i, word) {
	# A regular expression: some awks also split at line ends where it is one character.
	count = split(string, parts, /'/)
	word = "'" parts[1]
	for (i = 2; i <= count; i++) word = word "'\\''" parts[i]
	return word "'"
}

function is_name(name) {
	return name ~ /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/ && length(name) <= 200
}
