"""What every engine promises on every wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agentcore.running import Agent, Client, late


def test_handler_answers_with_json(client: Client) -> None:
    """The hello of the quick start."""
    answer = client.call("hello", "World")
    assert (answer.status, answer.body) == (200, {"message": "Hello World"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "it's",
        'say "hi"',
        "$HOME `id` $(id)",
        "é ☃ 😀",
        "-n",
        "a\\b",
        "*",
        "\u2028",
        "a\x7fb",
    ],
)
def test_any_text_arrives_as_it_was_sent(client: Client, text: str) -> None:
    """Nothing in a parameter is the shell's to read."""
    assert client.call("hello", text).body == {"message": f"Hello {text}"}


def test_manifest_commands_take_params_as_arguments(client: Client) -> None:
    """Strings as they are, everything else as JSON."""
    params = ["a b", "", "two\nlines", 1.5, None, True, {"k": [1, "é"]}, []]
    lines = client.call("lines", *params).body.split("\n")
    assert lines[:4] == ["a b", "", "two", "lines"]
    assert [json.loads(line) for line in lines[4:]] == params[3:]


def test_params_may_be_left_out(text_client: Client) -> None:
    """A task without params has none."""
    if text_client.wire == "http":
        answer = text_client.call_raw(b'{"command": "empty"}')
    else:
        answer = text_client.call_raw(b' {"command":"empty"}\r\n\t')
    assert (answer.status, answer.body) == (200, "")


def test_script_finds_its_task_on_stdin(client: Client) -> None:
    """With what is known about the caller."""
    task = client.call("task", 1, {"a": "é"}, user="Admin", request_id="r-1", task_id="abc").body
    assert task["command"] == "task"
    assert task["params"] == [1, {"a": "é"}]
    assert (task["id"], task["user"], task["requestId"]) == ("abc", "Admin", "r-1")


def test_script_need_not_read_its_task(client: Client) -> None:
    """However long that is."""
    assert client.call("unread", *["x" * 1000] * 80).status == 200


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("say", "x"),
        ("empty", ""),
        ("number", 1.5),
        ("junk", "{not json"),
        ("bytes", "a\ufffdb\u00e9"),
    ],
)
def test_output_that_is_not_json_is_a_string(client: Client, command: str, result: object) -> None:
    """And JSON is what it says."""
    assert client.call(command, *["x"] if command == "say" else []).body == result


def test_what_a_script_leaves_running_is_not_waited_for(client: Client, mark: Path) -> None:
    """Although it keeps the script's stdout."""
    mark.touch()
    assert client.call("background", str(mark)).body == "started"
    mark.unlink()


def test_what_was_printed_is_not_lost_on_a_busy_machine(
    make: Callable[..., Agent], mark: Path
) -> None:
    """Who passes it on may come to it late, and something else may keep it open."""
    agent = make("dash", "everything", **late(mark.parent, 1.5, "cat")).start()
    mark.touch()
    assert agent.client("file").call("background", str(mark)).body == "started"
    mark.unlink()


def test_script_that_fails_is_explained(client: Client) -> None:
    """By its exit status and the end of what it wrote to stderr."""
    answer = client.call("fail")
    assert (answer.status, answer.code) == (500, "HANDLER_FAILED")
    assert answer.message == "fail ended with exit status 3: it is broken"
    assert answer.body["details"] == {"exitStatus": 3, "stderr": "at first\nit is broken"}
    assert "it is broken" in client.agent.log


def test_script_that_is_killed_is_explained(client: Client) -> None:
    """By the signal."""
    answer = client.call("killed")
    assert (answer.status, answer.code) == (500, "HANDLER_FAILED")
    assert answer.message.startswith("killed was killed by SIGKILL")
    assert answer.body["details"]["signal"] == "SIGKILL"


def test_a_high_exit_status_is_no_signal(client: Client) -> None:
    """Where there is no such signal, the script itself ended so."""
    answer = client.call("high")
    assert answer.message == "high ended with exit status 250"
    assert answer.body["details"]["exitStatus"] == 250


@pytest.mark.parametrize("command", ["big", "endless"])
def test_output_without_measure_is_refused(client: Client, command: str) -> None:
    """With the limit and what to do about it; the script is ended."""
    answer = client.call(command)
    assert (answer.status, answer.code) == (500, "HANDLER_FAILED")
    assert "more than 1000000 bytes" in answer.message
    assert "PLOINKY_MAX_RESULT_BYTES" in answer.message


def test_first_handler_that_there_is_serves(client: Client) -> None:
    """Manifest, then the engine's own files, then scripts, then functions."""
    in_process = client.engine.is_in_process
    assert client.call("first").body == "command"
    assert client.call("second").body == ("handler" if in_process else "script")
    assert client.call("third").body == "script"
    assert client.call("fourth", "x").body == "executable x"
    if in_process:
        assert client.call("fifth").body == "function"


def test_unknown_command_is_refused_with_the_list(client: Client) -> None:
    """Helpers that are not public, not executable or no functions are not in it."""
    answer = client.call("nothere")
    assert (answer.status, answer.code) == (404, "UNKNOWN_COMMAND")
    commands = answer.body["details"]["commands"]
    assert {"hello", "say", "fourth", "patient"} <= set(commands)
    assert commands == sorted(commands)
    assert not {"notes", "secret", "_secret", "Unlisted", "Path", "join", "constructor"} & set(
        commands
    )
    assert "There is no command nothere. There are: " in answer.message
    for name in ("notes", "constructor", "__proto__", "index", "toString"):
        assert client.call(name).code == "UNKNOWN_COMMAND"


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..",
        ".",
        "",
        "a/b",
        "-x",
        ".x",
        "a b",
        "a\n",
        "é",
        "a\0",
        "x" * 201,
        5,
        None,
        ["say"],
        True,
    ],
)
def test_command_is_never_a_path(client: Client, name: object) -> None:
    """Nor anything else but a name."""
    answer = client.call(name)
    assert (answer.status, answer.code) == (400, "BAD_COMMAND")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "BAD_JSON"),
        (b"hello", "BAD_JSON"),
        (b'{"command": "say",}', "BAD_JSON"),
        (b'{"command": "say"} {}', "BAD_JSON"),
        (b"{'command': 'say'}", "BAD_JSON"),
        (b'{"command": "say", "params": [NaN]}', "BAD_JSON"),
        (b'{"command": "say", "params": ["\xff"]}', "BAD_JSON"),
        (b'{"command": "say", "params": ["\n"]}', "BAD_JSON"),
        (b'{"command": "say", "params": [01]}', "BAD_JSON"),
        (b'{"command": "say", "params": {"a": 1}}', "BAD_JSON"),
        (b'{"command": "say", "params": "x"}', "BAD_JSON"),
        (b'["say"]', "BAD_JSON"),
        (b"null", "BAD_JSON"),
        (b'{"params": []}', "BAD_COMMAND"),
    ],
)
def test_malformed_task_is_refused(text_client: Client, body: bytes, code: str) -> None:
    """And says what is wrong."""
    answer = text_client.call_raw(body)
    assert (answer.status, answer.code) == (400, code)


def test_what_no_command_line_can_carry_is_refused(client: Client) -> None:
    """A NUL, and more than the system takes."""
    assert client.call("say", "a\0b").code == "BAD_REQUEST"
    answer = client.call("say", "x" * 200_000)
    assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize("wire", ["http", "file"])
def test_run_task_serves_what_nothing_else_does(
    running: Callable[[str, str], Agent], engine: str, wire: str
) -> None:
    """With the command's name in TASK_COMMAND."""
    agent = running(engine, "fallback")
    if wire not in agent.ready["transports"]:
        return
    client = agent.client(wire)
    assert client.call("anything", "a b").body == "anything 1 a b"
    assert client.call("say", "x").body == "x"
    assert client.call("../x").code == "BAD_COMMAND"


def test_many_at_once_are_all_answered(client: Client) -> None:
    """Each with its own result."""
    calls = [client.begin("hello", str(number)) for number in range(40)]
    messages = [call.answer().body["message"] for call in calls]
    assert messages == [f"Hello {number}" for number in range(40)]
