# Turns an agent's manifest.json into shell code: manifest_error, manifest_engine,
# manifest_names, run_task, timeout and concurrency (empty where not given), and the
# function manifest_command, which sets shell_command for a command that it has.

BEGIN {
	begin_reading()
	if (C != 123) wrong("expected an object")
	else {
		open(0)
		while (has_member(0)) field(KEY)
		skip()
		end_reading()
	}
	if (BAD) error = "manifest.json is not JSON: " WHY
	if (error != "") cases = names = ""
	print "manifest_error=" quoted(error)
	print "manifest_engine=" quoted(engine)
	print "manifest_names=" quoted(names)
	print "run_task=" quoted(run_task)
	print "timeout=" quoted(timeout)
	print "concurrency=" quoted(concurrency)
	print "manifest_command() { case $1 in" cases " *) return 1 ;; esac; }"
}

function wrong(message) {
	if (error == "") error = "manifest.json: " message
}

function field(name, number) {
	if (name == "commands") commands()
	else if (name == "engine") engine = string_or_null(name)
	else if (name == "runTask") run_task = string_or_null(name)
	else if (name == "timeout" || name == "concurrency") {
		number = raw(1)
		if (number == "null") number = ""
		else if (number + 0 <= 0 || number ~ /"/) wrong(name ": expected a number above 0")
		if (name == "concurrency") concurrency = number
		else timeout = (number == "") ? "" : int(number + 0.999)
	}
	else value(1)
}

function string_or_null(name) {
	if (C == 34) {
		text()
		skip()
		return TEXT
	}
	if (raw(1) != "null") wrong(name ": expected a string")
	return ""
}

function commands(name) {
	if (C != 123) {
		value(1)
		wrong("commands: expected an object of shell commands")
		return
	}
	open(1)
	while (has_member(1)) {
		name = KEY
		if (!is_name(name)) wrong("commands: " name " is not a command's name")
		if (C != 34) {
			value(2)
			wrong("commands." name ": expected a string")
			continue
		}
		text()
		# Of two members of one name, the last counts.
		cases = " " quoted(name) ") shell_command=" quoted(TEXT) " ;;" cases
		names = names " " name
	}
	skip()
}
