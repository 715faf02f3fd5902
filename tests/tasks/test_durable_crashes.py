"""Leader and engine are killed between any two steps: no task is lost, none is run twice."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from ploinky.task_values import (
    Task,
    TaskState,
)
from tests.tasks.durable_world import (
    PATIENCE_SECONDS,
    Engine,
    Killed,
    Leader,
    World,
    a_submission,
    turns,
    until,
)

LEADER_STEPS = [
    "keep",
    "keep: committed",
    "queued to running",
    "queued to running: committed",
    "put the task",
    "remove from tmp",
    "the task is there",
    "running to succeeded",
    "running to succeeded: committed",
    "remove from tasks",
    "remove from results",
    "remove from errors",
    "unlock",
]
ENGINE_STEPS = ["lock", "run it", "answer", "remove the task", "unlock"]


@pytest_twisted.async_yield_fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A database and a queue."""
    world = World(tmp_path)
    await world.open()
    yield world
    await world.close()


async def submitted(world: World, leader: Leader) -> None:
    """Hand the leader a call, and wait until it has passed it on or died over it."""

    def forget(failure: object) -> None:
        failure.trap(Killed)

    Deferred.fromCoroutine(leader.tasks.submit(a_submission())).addErrback(forget)
    await until(lambda: not leader.steps.alive or any((world.queue / "tasks").iterdir()))


async def advanced(engine: Engine, steps: int) -> None:
    """Let the engine take so many steps."""

    def stepped() -> bool:
        while len(engine.done) < steps and engine.step():
            pass
        return len(engine.done) >= steps

    await until(stepped)


async def ended(world: World, engine: Engine) -> Task:
    """Let everything go on until the task is over, and nothing of it is left in the queue."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < limit:
        task = await world.state()
        if task is not None and task.over and not world.left() and not engine.is_busy:
            return task
        engine.step()
        await turns(1)
    raise AssertionError(f"it never ended: {await world.state()}, {world.left()}")


@pytest_twisted.ensureDeferred
async def test_these_are_all_the_steps(world: World) -> None:
    """What is killed between below is every step that there is."""
    leader, engine = Leader(world), world.engine()
    await leader.start()
    await submitted(world, leader)
    await ended(world, engine)
    await leader.stop()
    assert leader.steps.taken == LEADER_STEPS
    assert engine.done == ENGINE_STEPS


@pytest.mark.parametrize("fatal", range(len(LEADER_STEPS)), ids=LEADER_STEPS)
@pytest_twisted.ensureDeferred
async def test_a_leader_killed_before_any_of_its_steps(world: World, fatal: int) -> None:
    """What was on record is run, once; what was not was never accepted."""
    first, engine = Leader(world, fatal), world.engine()
    await first.start()
    await submitted(world, first)

    def killed() -> bool:
        if first.steps.alive:
            engine.step()
        return not first.steps.alive

    await until(killed)
    await first.stop()
    second = Leader(world)
    await second.start()
    if fatal == 0:
        assert await world.state() is None
    else:
        task = await ended(world, engine)
        assert (task.state, task.outcome) == (TaskState.SUCCEEDED, b'"t-1 is done"')
        assert (world.ran, task.attempts) == (["t-1"], 1)
    await second.stop()


@pytest.mark.parametrize("meanwhile", range(len(ENGINE_STEPS) + 1))
@pytest.mark.parametrize("before", range(len(ENGINE_STEPS)), ids=ENGINE_STEPS)
@pytest_twisted.ensureDeferred
async def test_a_leader_killed_before_any_step_of_the_engine(
    world: World, before: int, meanwhile: int
) -> None:
    """However far the engine comes until the next leader is there, the result is not lost."""
    first, engine = Leader(world), world.engine()
    await first.start()
    await submitted(world, first)
    await advanced(engine, before)
    first.steps.alive = False
    await first.stop()
    for _ in range(meanwhile):
        engine.step()
    second = Leader(world)
    await second.start()
    task = await ended(world, engine)
    await second.stop()
    assert (task.state, task.outcome) == (TaskState.SUCCEEDED, b'"t-1 is done"')
    assert (world.ran, task.attempts) == (["t-1"], 1)


@pytest.mark.parametrize("leader_too", [False, True], ids=["engine", "both"])
@pytest.mark.parametrize("before", range(len(ENGINE_STEPS)), ids=ENGINE_STEPS)
@pytest_twisted.ensureDeferred
async def test_an_engine_killed_before_any_of_its_steps(
    world: World, before: int, leader_too: bool
) -> None:
    """A task that it had begun is never begun again; one that it had answered has its answer."""
    leader, engine = Leader(world), world.engine()
    await leader.start()
    await submitted(world, leader)
    await advanced(engine, before)
    if leader_too:
        leader.steps.alive = False
        await leader.stop()
        leader = Leader(world)
        await leader.start()
    await turns()
    task = await ended(world, world.engine())
    await leader.stop()
    if ENGINE_STEPS[before] in ("run it", "answer"):
        assert task.state is TaskState.FAILED
        assert b'"INTERRUPTED"' in task.outcome
        assert world.ran == (["t-1"] if ENGINE_STEPS[before] == "answer" else [])
    else:
        assert (task.state, task.outcome) == (TaskState.SUCCEEDED, b'"t-1 is done"')
        assert world.ran == ["t-1"]


@pytest.mark.parametrize("before", range(len(ENGINE_STEPS)), ids=ENGINE_STEPS)
@pytest_twisted.ensureDeferred
async def test_a_retry_is_another_attempt(world: World, before: int) -> None:
    """Where the agent allows it, a task that was interrupted is begun again: under a new name."""
    world.routes = [world.route("one", retries=1)]
    leader, engine = Leader(world), world.engine()
    await leader.start()
    await submitted(world, leader)
    await advanced(engine, before)
    await turns()
    task = await ended(world, world.engine())
    await leader.stop()
    assert task.state is TaskState.SUCCEEDED
    interrupted = ENGINE_STEPS[before] in ("run it", "answer")
    assert task.attempts == (2 if interrupted else 1)
