"""Deadlines, callers that leave, and engines that are told to stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agentcore.conftest import WIRES
from tests.agentcore.running import (
    DEADLINE_SECONDS,
    ENGINES,
    FAULTS,
    PATIENCE_SECONDS,
    Agent,
    Client,
    FileCall,
    Watched,
    faults,
    late,
    wait_for,
    wait_for_end,
)


def settled(client: Client) -> None:
    """Wait until the queue holds nothing any more."""
    places = [client.agent.queue / name for name in ("tasks", "locks")]
    Watched(*places).until(lambda: not any(os.listdir(place) for place in places))
    assert not os.listdir(client.agent.queue / "results")
    assert not os.listdir(client.agent.queue / "errors")


def until_in_flight(agent: Agent, count: int) -> None:
    """Wait until so many tasks run or wait."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while agent.get("/health").body["inflight"] != count:
        assert time.monotonic() < limit, "it did not happen in time"


def test_script_over_its_deadline_is_answered_and_told(client: Client, mark: Path) -> None:
    """TASK_TIMEOUT for the caller, SIGTERM for the script."""
    answer = client.call("patient", str(mark), timeout=DEADLINE_SECONDS)
    assert (answer.status, answer.code) == (504, "TASK_TIMEOUT")
    assert "patient was not done by its deadline" in answer.message
    wait_for(mark.with_suffix(".told"))
    assert client.call("hello", "again").status == 200


def test_deadline_that_has_passed_runs_nothing(client: Client, mark: Path) -> None:
    """The task is refused at once."""
    assert client.call("patient", str(mark), timeout=-60).code == "TASK_TIMEOUT"
    assert not mark.with_suffix(".begun").exists()


def test_script_is_told_when_the_caller_leaves(client: Client, mark: Path) -> None:
    """And nothing is left of the task."""
    call = client.begin("patient", str(mark))
    wait_for(mark.with_suffix(".begun"))
    call.cancel()
    wait_for(mark.with_suffix(".told"))
    settled(client)


@pytest.mark.parametrize("engine", ["node", "python"])
def test_task_that_is_taken_back_is_aborted_at_once(
    make: Callable[..., Agent], engine: str, mark: Path
) -> None:
    """The engine is told of it: here it never looks at the directory by itself."""
    nowhere = {"FAULT_TASK": "none", "FAULT_AFTER": "0", "FAULT_LOG": os.devnull}
    agent = make(engine, "everything", **nowhere, **faults(engine, mark.parent)).start()
    call = agent.client("file").begin("begin", str(mark))
    wait_for(mark.with_suffix(".begun"))
    call.cancel()
    wait_for(mark.with_suffix(".told"))
    settled(agent.client("file"))


@pytest.mark.parametrize("command", ["stubborn", "leaving"])
def test_script_that_does_not_listen_is_killed(
    running: Callable[[str, str], Agent], mark: Path, command: str
) -> None:
    """With all that it started, also where that alone does not."""
    under_way = []
    for name in WIRES:
        engine, wire = name.split("-")
        client = running(engine, "everything").client(wire)
        under_way.append((client, client.begin(command, str(mark.with_name(name)))))
    children = [int(wait_for(mark.with_name(f"{name}.begun")).read_text()) for name in WIRES]
    for _, call in under_way:
        call.cancel()
    assert all(wait_for_end(child) for child in children)
    for client, _ in under_way:
        settled(client)


@pytest.mark.parametrize("reason", ["timeout", "caller"])
def test_handler_hears_that_it_must_end(inner: Client, mark: Path, reason: str) -> None:
    """Its abort signal fires, and a coroutine of Python's is cancelled."""
    commands = ["begin", "beginLater"] if inner.engine.name == "python" else ["begin"]
    for command in commands:
        path = mark.with_name(command)
        seconds = DEADLINE_SECONDS if reason == "timeout" else 60
        call = inner.begin(command, str(path), timeout=seconds)
        if reason == "timeout":
            assert call.answer().code == "TASK_TIMEOUT"
        else:
            wait_for(path.with_suffix(".begun"))
            call.cancel()
        told = wait_for(path.with_suffix(".told"))
        if inner.engine.name == "node":
            name = "TimeoutError" if reason == "timeout" else "AbortError"
            Watched(told.parent).until(lambda told=told, name=name: told.read_text() == name)
        settled(inner)


def test_more_than_concurrency_wait(make: Callable[..., Agent], engine: str, mark: Path) -> None:
    """They run when one of those before them is done."""
    agent = make(engine, "everything", PLOINKY_CONCURRENCY="2").start()
    for wire in ("http", "frames", "file"):
        if wire not in agent.ready["transports"]:
            continue
        client = agent.client(wire)
        locks = [mark.with_name(f"{wire}{number}") for number in range(4)]
        calls = []
        for lock in locks:
            lock.touch()
            calls.append(client.begin("hold", str(lock)))
            if lock in locks[:2]:
                wait_for(lock.with_suffix(".begun"))
        if wire != "file":
            until_in_flight(agent, 4)
            assert agent.get("/health").body["status"] == "busy"
        assert not locks[2].with_suffix(".begun").exists()
        # One that waits may be taken back; once the agent knows, it never runs.
        calls.pop(2).cancel()
        if wire != "file":
            until_in_flight(agent, 3)
        for lock in locks[:2]:
            lock.unlink()
        wait_for(locks[3].with_suffix(".begun"))
        locks[3].unlink()
        assert [call.answer().body for call in calls] == ["released"] * 3
        assert not locks[2].with_suffix(".begun").exists()
        settled(client)


def test_task_that_waits_past_its_deadline_never_runs(
    make: Callable[..., Agent], engine: str, mark: Path
) -> None:
    """Nor does it start because the one before it timed out with it."""
    agent = make(engine, "everything", PLOINKY_CONCURRENCY="1").start()
    client = agent.client("http" if agent.engine.is_in_process else "file")
    first = client.begin("patient", str(mark), timeout=DEADLINE_SECONDS)
    wait_for(mark.with_suffix(".begun"))
    second = client.begin("patient", str(mark.with_name("second")), timeout=0.1)
    assert [call.answer().code for call in (first, second)] == ["TASK_TIMEOUT"] * 2
    wait_for(mark.with_suffix(".told"))
    assert not mark.with_name("second.begun").exists()


def test_told_to_stop_it_finishes_what_it_has(
    make: Callable[..., Agent], engine: str, mark: Path
) -> None:
    """It takes nothing more, says so, and ends with exit status 0."""
    agent = make(engine, "everything").start()
    wires = [wire for wire in ("http", "frames", "file") if wire in agent.ready["transports"]]
    calls = []
    for wire in wires:
        lock = mark.with_name(wire)
        lock.touch()
        calls.append(agent.client(wire).begin("hold", str(lock)))
        wait_for(lock.with_suffix(".begun"))
    agent.tell_to_stop()
    Watched(agent.queue).until(lambda: not (agent.queue / "ready").exists())
    late = agent.client("file").begin("say", "late")
    for wire in wires:
        mark.with_name(wire).unlink()
    assert [call.answer().body for call in calls] == ["released"] * len(wires)
    assert agent.wait() == 0
    assert isinstance(late, FileCall)
    assert os.listdir(agent.queue / "tasks") == [late.id]
    assert not (agent.queue / "agent.sock").exists()


def test_deadline_on_a_busy_machine_is_still_one(make: Callable[..., Agent], mark: Path) -> None:
    """Also where who runs the task does not come to say so."""
    agent = make("dash", "everything", **late(mark.parent, 3.0, "mv", "*/errors/*")).start()
    answer = agent.client("file").call("patient", str(mark), timeout=DEADLINE_SECONDS)
    assert (answer.status, answer.code) == (504, "TASK_TIMEOUT")


def test_told_to_stop_on_a_busy_machine_it_still_says_why(
    make: Callable[..., Agent], mark: Path
) -> None:
    """The word of the one who runs a task takes its time."""
    agent = make("dash", "everything", **late(mark.parent, 1.5, "mv", "*/errors/*")).start()
    call = agent.client("file").begin("stubborn", str(mark))
    wait_for(mark.with_suffix(".begun"))
    agent.tell_to_stop()
    assert call.answer().code == "DRAINING"
    assert agent.wait() == 0


@pytest.mark.parametrize("engine", ["node", "python"])
def test_told_to_stop_as_soon_as_it_is_ready_it_stops_in_order(
    make: Callable[..., Agent], engine: str
) -> None:
    """Whoever waits for its word may be that fast."""
    agent = make(
        engine,
        "everything",
        NODE_OPTIONS=f"--require={FAULTS / 'stop.js'}",
        PYTHONPATH=str(FAULTS / "stop"),
    ).spawn()
    assert agent.wait() == 0, agent.log
    assert not (agent.queue / "ready").exists()
    assert not (agent.queue / "agent.sock").exists()


def test_told_to_stop_it_does_not_wait_for_ever(make: Callable[..., Agent], mark: Path) -> None:
    """What is not done after some seconds is answered DRAINING and ended."""
    agents = [make(engine, "everything").start() for engine in ENGINES]
    paths = [mark.with_name(str(number)) for number in range(len(agents))]
    calls = [
        agent.client("file").begin("stubborn", str(path))
        for agent, path in zip(agents, paths, strict=True)
    ]
    children = [int(wait_for(path.with_suffix(".begun")).read_text()) for path in paths]
    for agent in agents:
        agent.tell_to_stop()
    for agent, call, child in zip(agents, calls, children, strict=True):
        answer = call.answer()
        assert (answer.status, answer.code) == (503, "DRAINING")
        assert agent.wait() == 0
        assert wait_for_end(child)
