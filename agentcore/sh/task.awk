# Turns a task file into shell code: error_code and error_message, or command,
# deadline (Unix ms; empty where there is none) and the parameters as $1, $2 ...
# A parameter that is not a string is its JSON text.

BEGIN {
	begin_reading()
	if (C != 123) value(0)
	else {
		is_object = 1
		open(0)
		while (has_member(0)) field(KEY)
		skip()
	}
	end_reading()
	if (BAD) refuse("BAD_JSON", "The task is not JSON: " WHY ".")
	else if (!is_object) refuse("BAD_JSON", "A task is a JSON object: {\"command\": \"name\", \"params\": [...]}.")
	else if (!has_command) refuse("BAD_COMMAND", "The task names no \"command\".")
	else if (!is_name(command)) refuse("BAD_COMMAND", quoted(substr(command, 1, 100)) " is not a command's name: it takes letters, digits, \"_\", \".\" and \"-\", and starts with a letter, digit or \"_\".")
	else if (not_a_list) refuse("BAD_JSON", "\"params\" is a list: {\"command\": \"name\", \"params\": [...]}.")
	else if (has_id && identity != ENVIRON["TASK_ID"]) refuse("BAD_JSON", "The task file " ENVIRON["TASK_ID"] " holds the task " quoted(identity) ".")
	else if (has_nul) refuse("BAD_REQUEST", "A parameter of " command " has a NUL character, which a command line cannot carry.")
	print "error_code=" quoted(error_code)
	print "error_message=" quoted(error_message)
	print "command=" quoted(command)
	print "deadline=" (deadline ~ /^[1-9][0-9]*$/ && length(deadline) < 16 ? deadline : "''")
	print "set --" params
}

function refuse(code, message) {
	error_code = code
	error_message = message
	command = params = ""
}

function field(name) {
	if (name == "command") {
		has_command = 1
		# With a blank it is no name, whatever it looks like.
		if (C != 34) command = raw(1) " "
		else command = string() (HAS_NUL ? " " : "")
	}
	else if (name == "id") {
		has_id = 1
		identity = (C == 34) ? string() : raw(1)
	}
	else if (name == "deadline") {
		deadline = raw(1)
		sub(/\.[0-9]*$/, "", deadline)
	}
	else if (name == "params") parameters()
	else value(1)
}

function string() {
	text()
	skip()
	return TEXT
}

function parameters() {
	params = ""
	not_a_list = has_nul = 0
	if (C != 91) {
		value(1)
		not_a_list = 1
		return
	}
	open(1)
	while (has_element(1)) {
		if (C == 34) {
			params = params " " quoted(string())
			if (HAS_NUL) has_nul = 1
		}
		else params = params " " quoted(raw(2))
	}
	skip()
}
