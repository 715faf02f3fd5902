"""The file wire where something went wrong before, and what an engine says at start."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agentcore.running import FAULTS, Agent, FileCall, Watched, wait_for

PLACES = ("tasks", "results", "errors", "locks", "tmp")


@pytest.fixture
def agent(make: Callable[..., Agent], engine: str) -> Agent:
    """An agent that was not started yet, with a queue made by the server."""
    agent = make(engine, "everything")
    for place in PLACES:
        (agent.queue / place).mkdir(mode=0o700)
    return agent


def queue_task(agent: Agent, name: str, *, seconds_left: float) -> FileCall:
    deadline = int((time.time() + seconds_left) * 1000)
    task = {"id": name, "command": "say", "params": ["x"], "deadline": deadline}
    return FileCall(agent.queue, name, json.dumps(task).encode())


def holds(place: Path, *names: str) -> None:
    """Wait until a directory has these files and no others."""
    Watched(place).until(lambda: sorted(os.listdir(place)) == sorted(names))


def test_ready_says_who_serves_how(agent: Agent) -> None:
    """Written once tasks are taken."""
    ready = agent.start().ready
    assert ready["engine"] == agent.engine.name
    assert ready["version"]
    both = ["http", "frames", "file"]
    assert ready["transports"] == (both if agent.engine.is_in_process else ["file"])
    assert ready["pid"] == agent.pid


def test_missing_directories_are_made(make: Callable[..., Agent], engine: str) -> None:
    """An empty queue will do."""
    agent = make(engine, "everything").start()
    assert {path.name for path in agent.queue.iterdir() if path.is_dir()} == set(PLACES)


def test_files_are_taken_whatever_the_ordinary_wire(
    make: Callable[..., Agent], engine: str
) -> None:
    """Durable tasks come as files to agents whose ordinary calls come over HTTP."""
    agent = make(engine, "everything", PLOINKY_TRANSPORT="http").start()
    expected = ["http", "frames", "file"] if agent.engine.is_in_process else ["file"]
    assert agent.ready["transports"] == expected
    assert queue_task(agent, "durable", seconds_left=60).answer().body == "x"


def test_a_lock_is_made_after_its_engine_said_hello(agent: Agent, mark: Path) -> None:
    """By its socket, or `ready` where it has none: so a dead engine's locks can be told apart."""
    mark.touch()
    held = {"command": "hold", "params": [str(mark)]}
    call = FileCall(agent.queue, "early", json.dumps(held).encode())
    agent.start()
    lock = agent.queue / "locks" / "early"
    Watched(lock.parent).until(lock.exists)
    hello = agent.queue / ("agent.sock" if agent.engine.is_in_process else "ready")
    assert hello.lstat().st_ctime_ns <= lock.stat().st_mtime_ns
    mark.unlink()
    call.answer()


@pytest.mark.parametrize("engine", ["node", "python"])
def test_frames_can_be_switched_off(make: Callable[..., Agent], engine: str) -> None:
    """To see with other tools what server and agent say."""
    agent = make(engine, "everything", PLOINKY_FRAMES="off").start()
    assert agent.ready["transports"] == ["http", "file"]


def test_tasks_queued_before_it_starts_are_run(agent: Agent) -> None:
    """And nothing but the results is left."""
    calls = [queue_task(agent, f"early{number}", seconds_left=60) for number in range(3)]
    agent.start()
    assert [call.answer().body for call in calls] == ["x"] * 3
    for place in PLACES:
        holds(agent.queue / place)


def test_what_is_no_task_is_left_alone(agent: Agent) -> None:
    """Names that no task has."""
    names = (".hidden", "a b", "x~")
    for name in names:
        (agent.queue / "tasks" / name).write_text('{"command": "say"}')
    agent.start()
    assert queue_task(agent, "good", seconds_left=60).answer().body == "x"
    holds(agent.queue / "tasks", *names)


def test_a_pipe_in_place_of_a_task_holds_nothing_up(agent: Agent) -> None:
    """Opening it waits for its other end, which nobody has."""
    os.mkfifo(agent.queue / "tasks" / "a-pipe")
    agent.start()
    assert queue_task(agent, "good", seconds_left=60).answer().body == "x"


def test_task_of_another_name_is_refused(agent: Agent) -> None:
    """A file holds the task that it is named after."""
    agent.start()
    call = FileCall(agent.queue, "one", b'{"id": "two", "command": "say"}')
    assert call.answer().code == "BAD_JSON"


LOCKS = pytest.mark.parametrize("lock", [Path.mkdir, Path.touch], ids=["directory", "file"])


@LOCKS
def test_task_that_another_holds_is_not_run(agent: Agent, lock: Callable[[Path], None]) -> None:
    """As long as its deadline has not passed."""
    lock(agent.queue / "locks" / "held")
    queue_task(agent, "held", seconds_left=60)
    agent.start()
    assert queue_task(agent, "free", seconds_left=60).answer().body == "x"
    holds(agent.queue / "tasks", "held")
    holds(agent.queue / "locks", "held")


@LOCKS
def test_lock_of_the_dead_is_broken_after_the_deadline(
    agent: Agent, lock: Callable[[Path], None]
) -> None:
    """The task is not run again: it timed out."""
    lock(agent.queue / "locks" / "stale")
    call = queue_task(agent, "stale", seconds_left=-3)
    agent.start()
    answer = call.answer()
    assert (answer.status, answer.code) == (504, "TASK_TIMEOUT")
    holds(agent.queue / "locks")
    holds(agent.queue / "tasks")


@LOCKS
def test_task_that_was_answered_is_not_run_again(
    agent: Agent, lock: Callable[[Path], None]
) -> None:
    """Its executor died between the result and the clearing up."""
    lock(agent.queue / "locks" / "done")
    (agent.queue / "results" / "done").write_text('{"id": "done", "data": "first"}')
    call = queue_task(agent, "done", seconds_left=60)
    agent.start()
    holds(agent.queue / "locks")
    assert call.answer().body == "first"
    assert os.listdir(agent.queue / "tasks") == []


def test_engine_that_is_killed_leaves_the_lock(agent: Agent, mark: Path) -> None:
    """Another one does not run the task while it holds."""
    agent.start()
    task = {"command": "hold", "params": [str(mark)]}
    mark.touch()
    FileCall(agent.queue, "lost", json.dumps(task).encode())
    Watched(mark.parent).until(mark.with_suffix(".begun").exists)
    assert agent.process is not None
    agent.process.kill()
    agent.process.wait()
    if agent.engine.is_in_process:
        mark.with_suffix(".begun").unlink()
        (agent.queue / "ready").unlink()
        agent.start()
        assert queue_task(agent, "next", seconds_left=60).answer().body == "x"
        assert not mark.with_suffix(".begun").exists()
    holds(agent.queue / "locks", "lost")
    mark.unlink()


@pytest.mark.parametrize("engine", ["node", "python"])
def test_locks_are_directories_where_a_file_has_one_name(
    make: Callable[..., Agent], engine: str, mark: Path
) -> None:
    """Everything goes on as elsewhere."""
    agent = make(
        engine,
        "everything",
        NODE_OPTIONS=f"--require={FAULTS / 'no_links.js'}",
        PYTHONPATH=str(FAULTS / "no_links"),
    ).start()
    call = agent.client("file").begin("begin", str(mark), task_id="held")
    wait_for(mark.with_suffix(".begun"))
    assert (agent.queue / "locks" / "held").is_dir()
    call.cancel()
    assert queue_task(agent, "next", seconds_left=60).answer().body == "x"
    holds(agent.queue / "locks")
