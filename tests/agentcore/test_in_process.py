"""Handlers in Node and Python: what they are given, and what they may do wrong."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agentcore.running import DEADLINE_SECONDS, Agent, Client, wait_for, wait_for_end

VALUES: list[object] = [
    None,
    True,
    0,
    1.5,
    "é😀\u2028\0",
    "\ud800",
    [],
    {},
    {"a": [1, {"b": None}]},
    2**53,
]


@pytest.mark.parametrize("command", ["give", "giveLater"])
def test_json_passes_unchanged(inner: Client, command: str) -> None:
    """Both ways, plain and async."""
    for value in VALUES:
        answer = inner.call(command, value)
        assert (answer.status, answer.body) == (200, value)


def test_nothing_is_null(inner: Client) -> None:
    """A handler need not return anything."""
    assert inner.call("nothing").body is None


def test_handler_is_loaded_once(inner: Client) -> None:
    """What it keeps in memory is there at the next call."""
    first = inner.call("count").body
    assert inner.call("count").body == first + 1


def test_context_says_who_calls_and_until_when(inner: Client) -> None:
    """By the names of the contract."""
    before = time.time() * 1000
    context = inner.call(
        "context", 1, task_id="t-1", user="key:7", request_id="r-7", timeout=60
    ).body
    assert context.pop("deadline") == pytest.approx(before + 60_000, abs=5_000)
    assert context == {
        "params": [1],
        "taskId": "t-1",
        "command": "context",
        "user": "key:7",
        "requestId": "r-7",
        "aborted": False,
    }


def test_caller_without_a_name_is_an_internet_user(inner: Client) -> None:
    """And the deadline is the default one."""
    before = time.time() * 1000
    context = inner.call("context").body
    assert context["user"] == "InternetUser"
    assert context["deadline"] == pytest.approx(before + 30_000, abs=5_000)


def test_log_lines_say_which_task_they_are_about(inner: Client) -> None:
    """They are JSON, on stderr."""
    inner.call("log", "a line", task_id=f"log-{inner.wire}", request_id="r-9")
    line = json.loads(inner.agent.logged(f'"log-{inner.wire}"'))
    assert (line["level"], line["message"], line["extra"]) == ("info", "a line", 1)
    assert (line["command"], line["requestId"]) == ("log", "r-9")


def test_error_without_code_is_handler_failed(inner: Client) -> None:
    """With its message; the stack is in the log."""
    answer = inner.call("raise")
    assert (answer.status, answer.code, answer.message) == (500, "HANDLER_FAILED", "it is broken")
    assert inner.agent.logged("TypeError: it is broken")


def test_error_speaks_for_itself(inner: Client) -> None:
    """Its status, code and details are the caller's."""
    answer = inner.call("refuse")
    assert answer.status == 429
    assert (answer.code, answer.message) == ("SLOW_DOWN", "Not so fast.")
    assert answer.body["details"] == {"seconds": 3}


def test_error_with_nonsense_is_handler_failed(inner: Client) -> None:
    """A status that is none, a code that is none, details that are no JSON."""
    answer = inner.call("strange")
    assert (answer.status, answer.code, answer.message) == (500, "HANDLER_FAILED", "odd")
    assert "details" not in answer.body


def test_result_that_is_no_json_is_named(inner: Client) -> None:
    """By command and type."""
    answer = inner.call("unserialisable")
    assert (answer.status, answer.code) == (500, "HANDLER_FAILED")
    assert answer.message.startswith("unserialisable returned a ")
    assert "cannot be written as JSON" in answer.message


def test_result_without_measure_is_refused(inner: Client) -> None:
    """With its size, the limit, and what to do."""
    assert inner.call("large", 999_998).status == 200
    answer = inner.call("large", 1_500_000)
    assert (answer.status, answer.code) == (500, "HANDLER_FAILED")
    assert "1500002 bytes" in answer.message
    assert "1000000" in answer.message


def test_module_handler_is_loaded(inner: Client) -> None:
    """An ES module on Node; fewer parameters than two on Python."""
    assert inner.call("modern", "hello.js").status == 200


def test_broken_handler_fails_alone(inner: Client) -> None:
    """With the error that it has; the others work."""
    answer = inner.call("broken")
    assert (answer.status, answer.code) == (500, "HANDLER_FAILED")
    if inner.engine.name == "python":
        assert answer.message == "no good"
    answer = inner.call("empty_handed")
    assert (answer.status, answer.code) == (500, "HANDLER_FAILED")
    assert "handlers/empty_handed." in answer.message
    assert inner.call("hello", "you").status == 200


ENDINGS = [
    ("node", "exit", "process.exit(3)"),
    ("node", "exitLater", "process.exit(3)"),
    ("python", "exit", "os._exit(3)"),
    ("python", "exitLater", "os._exit(3)"),
    ("python", "crash", "SIGSEGV"),
]


@pytest.mark.parametrize(("engine", "command", "how"), ENDINGS)
@pytest.mark.parametrize("wire", ["http", "file"])
def test_handler_that_exits_is_told_so_alone(
    running: Callable[[str, str], Agent], engine: str, command: str, how: str, wire: str
) -> None:
    """And the next call works."""
    client = running(engine, "everything").client(wire)
    answer = client.call(command)
    assert (answer.status, answer.code) == (500, "HANDLER_FAILED")
    assert answer.message.startswith(f"{command} ended the worker that runs the handlers: ")
    assert how in answer.message
    assert client.call("hello", "again").body == {"message": "Hello again"}


@pytest.mark.parametrize("command", ["exit", "exitLater"])
def test_those_beside_a_handler_that_exits_hear_why(
    inner: Client, mark: Path, command: str
) -> None:
    """They fail at once, with the name of the one that did it; scripts go on."""
    mark.touch()
    script = inner.begin("hold", str(mark))
    wait_for(mark.with_suffix(".begun"))
    bystander = inner.begin("begin", str(mark.with_name("bystander")))
    wait_for(mark.with_name("bystander.begun"))
    inner.call(command, task_id=f"culprit-{inner.wire}-{command}")
    answer = bystander.answer()
    assert (answer.status, answer.code) == (500, "HANDLER_FAILED")
    assert (
        f"begin was lost: the worker ended because another task ({command}, "
        f"culprit-{inner.wire}-{command}) called "
    ) in answer.message
    mark.unlink()
    assert script.answer().body == "released"


@pytest.mark.parametrize("command", ["leave", "leaveLater"])
def test_sys_exit_ends_the_task_alone(running: Callable[[str, str], Agent], command: str) -> None:
    """It is an exception like any other."""
    client = running("python", "everything").client("http")
    count = client.call("count").body
    assert client.call(command).message == "The handler called sys.exit(4)."
    assert client.call("count").body == count + 1


def test_error_in_a_timer_fails_its_task_alone(running: Callable[[str, str], Agent]) -> None:
    """Node would end the process for it."""
    client = running("node", "everything").client("http")
    count = client.call("count").body
    assert client.call("escape").message == "thrown in a timer"
    assert client.call("count").body == count + 1


@pytest.mark.parametrize(
    ("engine", "command"),
    [
        ("node", "spin"),
        ("python", "spin"),
        ("python", "stuck"),
        ("node", "read"),
        ("python", "read"),
    ],
)
def test_handler_that_blocks_ends_with_its_deadline(
    running: Callable[[str, str], Agent], mark: Path, engine: str, command: str
) -> None:
    """Health is answered meanwhile; what waits behind it runs in a new worker."""
    agent = running(engine, "everything")
    client = agent.client("http")
    os.mkfifo(mark)
    blocker = client.begin(command, str(mark), timeout=DEADLINE_SECONDS)
    wait_for(mark.with_suffix(".begun"))
    assert agent.get("/health").body == {"status": "ok", "inflight": 1}
    behind = client.begin("hello", "again")
    assert blocker.answer().code == "TASK_TIMEOUT"
    assert behind.answer().body == {"message": "Hello again"}
    # Lets go of what was blocked in a system call; its process may be gone by now.
    with contextlib.suppress(OSError):
        os.close(os.open(mark, os.O_WRONLY | os.O_NONBLOCK))


@pytest.mark.parametrize("wire", ["http", "file"])
@pytest.mark.parametrize(
    ("engine", "command"),
    [("node", "spin"), ("node", "read"), ("python", "spin"), ("python", "read")],
)
def test_handler_that_blocks_stops_no_time_out(
    make: Callable[..., Agent], mark: Path, engine: str, command: str, wire: str
) -> None:
    """Whether it spins or sits in a system call, the I/O loop is another thread or process."""
    agent = make(engine, "everything").start()
    client = agent.client(wire)
    os.mkfifo(mark)
    client.begin(command, str(mark), timeout=60)
    wait_for(mark.with_suffix(".begun"))
    assert client.call("begin", str(mark.with_name("other")), timeout=0.3).code == "TASK_TIMEOUT"
    assert agent.get("/health").body["status"] == "ok"
    assert agent.process is not None
    agent.process.kill()


def test_stuck_thread_takes_nothing_with_it(
    running: Callable[[str, str], Agent], mark: Path
) -> None:
    """What runs beside it in Python is finished before its process is ended."""
    client = running("python", "everything").client("http")
    process = client.call("process").body
    stuck = client.begin("stuck", str(mark), timeout=DEADLINE_SECONDS)
    wait_for(mark.with_suffix(".begun"))
    beside = client.begin("begin", str(mark.with_name("beside")), timeout=2 * DEADLINE_SECONDS)
    wait_for(mark.with_name("beside.begun"))
    assert stuck.answer().code == "TASK_TIMEOUT"
    assert beside.answer().code == "TASK_TIMEOUT"
    assert wait_for(mark.with_name("beside.told"))
    assert client.call("process").body != process
    assert wait_for_end(process)


def test_result_is_not_lost_with_the_worker(make: Callable[..., Agent]) -> None:
    """A handler that was done when another one exited has answered."""
    agent = make("node", "everything")
    for place in ("tasks", "tmp"):
        (agent.queue / place).mkdir()
    # Queued before it starts, so that they run in one turn.
    client = agent.client("file")
    done, exiting = client.begin("give", 1, task_id="a"), client.begin("exit", task_id="b")
    agent.start()
    assert done.answer().body == 1
    assert exiting.answer().message.startswith("exit ended the worker")
