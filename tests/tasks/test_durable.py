"""Durable tasks from their callers' side: who is next, who waits, what is refused, what moves."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from ploinky.errors import (
    Conflict,
    IdempotencyKeyReused,
    NoSuchRoute,
    NotFound,
    Overloaded,
)
from ploinky.leader_interfaces import IDurableTasks, IWorkerGroup
from ploinky.observations import InstanceDeath
from ploinky.task_values import (
    Task,
    TaskBounds,
    TaskState,
)
from ploinky.tasks.durable_queues import MOST_TIDIED
from ploinky.tasks.outcomes import part_that_failed
from ploinky.tasks.worker_group import WorkersAndTasks
from ploinky.testing.api import RecordedWorkers
from ploinky.values import DeploymentKey
from tests.tasks.durable_world import Engine, Leader, World, a_submission, turns, until

ALL_STEPS = 5


@pytest_twisted.async_yield_fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A database and a queue."""
    world = World(tmp_path)
    await world.open()
    yield world
    await world.close()


@pytest.fixture
def clock() -> Clock:
    """The leader's clock; the store and inotify have the real one."""
    clock = Clock()
    clock.advance(time.time())
    return clock


@pytest_twisted.async_yield_fixture
async def leader(world: World, clock: Clock) -> AsyncIterator[Leader]:
    """A leader with room for four tasks, of a hundred bytes together."""
    leader = Leader(world, clock=clock, bounds=TaskBounds(kept=4, bytes=100))
    await leader.start()
    yield leader
    await leader.stop()


def waiting(world: World, instance: str = "one") -> list[str]:
    """The tasks in an instance's queue that nobody has begun."""
    queue = world.queues / instance
    locked = {path.name for path in (queue / "locks").iterdir()}
    return sorted(path.name for path in (queue / "tasks").iterdir() if path.name not in locked)


async def run(engine: Engine) -> None:
    """Let an engine run all that is in its queue."""
    while engine.step():
        await turns(1)
    await turns()


async def run_to_the_end(leader: Leader, engine: Engine, *tasks: str) -> None:
    """Let an engine run what comes into its queue until these tasks are over for the leader."""
    over = [Deferred.fromCoroutine(leader.tasks.finished(task, 10**6)) for task in tasks]

    def stepped() -> bool:
        engine.step()
        return all(each.called for each in over) and not engine.is_busy

    await until(stepped)


def is_due(clock: Clock, seconds: float) -> bool:
    """Tell whether something will happen within so much time."""
    return any(call.getTime() <= clock.seconds() + seconds for call in clock.getDelayedCalls())


def test_it_is_what_it_says(leader: Leader) -> None:
    """All of `IDurableTasks`, and the manager's `IWorkerGroup` around it."""
    assert verifyObject(IDurableTasks, leader.tasks)
    assert verifyObject(IWorkerGroup, WorkersAndTasks(RecordedWorkers(), leader.tasks))


@pytest_twisted.ensureDeferred
async def test_it_is_on_disk_when_it_is_accepted(leader: Leader, world: World) -> None:
    """With all that was said of the call."""
    kept = await leader.tasks.submit(a_submission(user="dora", anonymous=False))
    found = await world.store.task("t-1")
    assert found is not None
    assert (found.params, found.user, found.anonymous) == (b'["t-1"]', "dora", False)
    assert (kept.id, str(kept.key)) == ("t-1", "localhost/demo")


@pytest_twisted.ensureDeferred
async def test_tasks_are_begun_in_order_and_as_many_as_have_room(
    leader: Leader, world: World
) -> None:
    """First come, first served; the route's `concurrency` is never passed."""
    leader.tasks.adopt([world.route("one", concurrency=2)])
    engine = world.engine()
    for number in range(4):
        await leader.tasks.submit(a_submission(f"t-{number}"))
    await until(lambda: len(waiting(world)) == 2)
    assert waiting(world) == ["t-0", "t-1"]
    for _ in range(ALL_STEPS):
        engine.step()
    await until(lambda: waiting(world) == ["t-1", "t-2"])
    await run_to_the_end(leader, engine, "t-1", "t-2", "t-3")
    assert world.ran == ["t-0", "t-1", "t-2", "t-3"]


@pytest_twisted.ensureDeferred
async def test_who_waits_is_told_at_once_or_when_time_is_up(
    leader: Leader, world: World, clock: Clock
) -> None:
    """The task comes back as it stands then."""
    await leader.tasks.submit(a_submission())
    await until(lambda: waiting(world))
    impatient = Deferred.fromCoroutine(leader.tasks.finished("t-1", 1))
    patient = Deferred.fromCoroutine(leader.tasks.finished("t-1", 60))
    clock.advance(1)
    assert (await impatient).state is TaskState.RUNNING
    await run(world.engine())
    done = await patient
    assert (done.state, done.outcome) == (TaskState.SUCCEEDED, b'"t-1 is done"')
    assert await leader.tasks.finished("t-1", 60) == await world.store.task("t-1")
    with pytest.raises(NotFound, match="t-none"):
        await leader.tasks.finished("t-none", 60)


@pytest_twisted.ensureDeferred
async def test_who_waits_while_the_server_stops_is_told_how_it_stands(
    leader: Leader, world: World
) -> None:
    """Not that it was refused: it goes on, or the next leader goes on with it."""
    await leader.tasks.submit(a_submission())
    waiting = Deferred.fromCoroutine(leader.tasks.finished("t-1", 60))
    await leader.tasks.stopService()
    assert (await waiting).state is TaskState.QUEUED


@pytest_twisted.ensureDeferred
async def test_a_repeat_is_the_same_task(leader: Leader, world: World) -> None:
    """Under a key it is run once, also after it is over; something else under it is refused."""
    first = await leader.tasks.submit(a_submission("t-1", key="k"))
    again = a_submission("t-2", key="k", params=b'["t-1"]')
    assert (await leader.tasks.submit(again)).id == first.id
    await run_to_the_end(leader, world.engine(), "t-1")
    assert (await leader.tasks.submit(again)).outcome == b'"t-1 is done"'
    with pytest.raises(IdempotencyKeyReused):
        await leader.tasks.submit(a_submission("t-3", key="k", params=b'["other"]'))
    assert world.ran == ["t-1"]


@pytest_twisted.ensureDeferred
async def test_a_key_is_its_callers_own(leader: Leader) -> None:
    """Another caller, and nobody in particular, may use the same text."""
    ids = set()
    for number, user in enumerate(("dora", "carl", "InternetUser")):
        call = a_submission(f"t-{number}", key="k", user=user, anonymous=user == "InternetUser")
        ids.add((await leader.tasks.submit(call)).id)
    assert len(ids) == 3


@pytest_twisted.ensureDeferred
async def test_the_same_submission_twice_is_one(leader: Leader, world: World) -> None:
    """A worker that sends it again, because a connection broke, starts nothing new."""
    for _ in range(2):
        await leader.tasks.submit(a_submission())
    await run_to_the_end(leader, world.engine(), "t-1")
    await run(world.engine())
    assert world.ran == ["t-1"]


@pytest_twisted.ensureDeferred
async def test_there_is_room_for_so_many(leader: Leader, world: World) -> None:
    """By number and by size; whoever comes too many is told to come again."""
    with pytest.raises(Overloaded, match="no room"):
        await leader.tasks.submit(a_submission(params=b'["%b"]' % (b"x" * 100)))
    for number in range(4):
        await leader.tasks.submit(a_submission(f"t-{number}"))
    with pytest.raises(Overloaded, match="no room") as refused:
        await leader.tasks.submit(a_submission("t-5"))
    assert refused.value.retry_after_seconds
    await run_to_the_end(leader, world.engine(), "t-0")
    assert (await leader.tasks.submit(a_submission("t-5"))).id == "t-5"


@pytest_twisted.ensureDeferred
async def test_cancelling_one_that_waits(leader: Leader, world: World) -> None:
    """It is never begun; cancelling it again says the same."""
    leader.tasks.adopt([world.route("one", concurrency=1)])
    await leader.tasks.submit(a_submission("t-1"))
    await leader.tasks.submit(a_submission("t-2"))
    assert (await leader.tasks.cancel("t-2")).state is TaskState.CANCELLED
    assert (await leader.tasks.cancel("t-2")).state is TaskState.CANCELLED
    await run_to_the_end(leader, world.engine(), "t-1")
    await run(world.engine())
    assert world.ran == ["t-1"]
    with pytest.raises(Conflict, match="succeeded already"):
        await leader.tasks.cancel("t-1")
    with pytest.raises(NotFound):
        await leader.tasks.cancel("t-none")


@pytest_twisted.ensureDeferred
async def test_cancelling_one_that_runs_takes_its_file_away(leader: Leader, world: World) -> None:
    """The engine sees that and aborts it; an answer that still comes changes nothing."""
    engine = world.engine()
    await leader.tasks.submit(a_submission())
    await until(engine.step)
    assert (await leader.tasks.cancel("t-1")).state is TaskState.CANCELLED
    assert world.left() == []
    await run(engine)
    kept = await world.state()
    assert kept is not None
    assert kept.state is TaskState.CANCELLED


@pytest_twisted.ensureDeferred
async def test_what_has_not_begun_moves_to_the_new_instances(leader: Leader, world: World) -> None:
    """What has begun stays where it is and is waited for."""
    world.make_queue("two")
    old = world.engine()
    await leader.tasks.submit(a_submission("t-1"))
    await until(old.step)
    await leader.tasks.submit(a_submission("t-2"))
    await until(lambda: waiting(world))
    leader.tasks.adopt([world.route("two")])
    drained = Deferred.fromCoroutine(leader.tasks.drain(frozenset({"one"}), 30))
    await until(lambda: waiting(world, "two"))
    assert waiting(world) == []
    assert not drained.called
    await run(old)
    assert await drained == 0
    assert world.ran == ["t-1"]
    await run(world.engine("two"))
    assert world.ran == ["t-1", "t-2"]


@pytest_twisted.ensureDeferred
async def test_what_is_not_done_in_time_is_interrupted(
    leader: Leader, world: World, clock: Clock
) -> None:
    """A drain ends; what still ran is told apart from what failed by itself."""
    engine = world.engine()
    await leader.tasks.submit(a_submission())
    await until(engine.step)
    leader.tasks.adopt([attrs.evolve(world.routes[0], targets=())])
    drained = Deferred.fromCoroutine(leader.tasks.drain(frozenset({"one"}), 30))
    clock.advance(30)
    assert await drained == 1
    kept = await world.state()
    assert kept is not None
    assert (kept.state, b"INTERRUPTED" in kept.outcome) == (TaskState.FAILED, True)
    assert world.left() == []


@pytest_twisted.ensureDeferred
async def test_an_engine_that_never_looks_does_not_keep_a_task(
    leader: Leader, world: World, clock: Clock
) -> None:
    """When its time there is up, a task that was not begun is handed out again."""
    world.make_queue("two")
    await leader.tasks.submit(a_submission())
    await until(lambda: waiting(world))
    leader.tasks.adopt([world.route("one"), attrs.evolve(world.route("two"), deployment="other")])
    clock.advance(30 + 10)
    await until(lambda: waiting(world) == ["t-1-2"])
    await run_to_the_end(leader, world.engine(), "t-1")
    kept = await world.state()
    assert kept is not None
    assert (kept.state, kept.attempts) == (TaskState.SUCCEEDED, 1)


@pytest_twisted.ensureDeferred
async def test_a_queue_that_is_deleted_gives_back_what_was_not_begun(
    leader: Leader, world: World
) -> None:
    """And interrupts what was: nobody can know how far that came."""
    world.make_queue("two")
    engine = world.engine()
    await leader.tasks.submit(a_submission("t-1"))
    await until(engine.step)
    await leader.tasks.submit(a_submission("t-2"))
    await until(lambda: waiting(world))
    leader.tasks.adopt([attrs.evolve(world.routes[0], targets=world.route("two").targets)])
    shutil.rmtree(world.queue)
    await until(lambda: waiting(world, "two"))
    assert b"INTERRUPTED" in (await leader.tasks.finished("t-1", 60)).outcome


@pytest.mark.parametrize(("retries", "runs"), [(0, 1), (1, 2)])
@pytest_twisted.ensureDeferred
async def test_an_interrupted_task_says_how_its_instance_died(
    leader: Leader, world: World, clock: Clock, retries: int, runs: int
) -> None:
    """With the part that failed; where it may run again, it does."""
    death = InstanceDeath(
        "one", "d", 1, 0.0, "It was ended for its memory limit", "memory", 137, True
    )
    world.deaths["one"] = death
    leader.tasks.adopt([world.route("one", retries=retries)])
    told: list[TaskState] = []
    leader.tasks.watch(lambda task: told.append(task.state))
    await leader.tasks.submit(a_submission())
    for _ in range(runs):
        await until(world.engine().step)  # it has begun, and dies
        await turns(10)
        world.engine()
        await until(lambda: told[-1] is not TaskState.RUNNING)
        clock.advance(1)
    kept = await world.state()
    assert kept is not None
    assert (kept.state, kept.attempts, part_that_failed(kept)) == (TaskState.FAILED, runs, "memory")
    error = json.loads(kept.outcome)
    assert error["details"] == {"exitCode": 137, "outOfMemory": True, "failedAt": "memory"}
    assert (
        "it was ended for its memory limit (exit code 137); whether that took effect"
        in error["message"]
    )


@pytest_twisted.ensureDeferred
async def test_what_is_cancelled_while_its_instance_is_asked_about_stays_so(
    leader: Leader, world: World
) -> None:
    """Of two that want a task one gets it."""
    world.inquest = Deferred()
    await leader.tasks.submit(a_submission())
    await until(world.engine().step)
    await turns(10)
    world.engine()
    await until(lambda: world.asked)
    assert (await leader.tasks.cancel("t-1")).state is TaskState.CANCELLED
    world.inquest.callback(None)
    await turns(10)
    kept = await world.state()
    assert kept is not None
    assert kept.state is TaskState.CANCELLED
    assert world.left() == []


@pytest.mark.parametrize(
    ("status", "outcome", "part"),
    [
        (200, b'"done"', ""),
        (404, b'{"details": {"failedAt": "client"}}', ""),
        (500, b'{"code": "HANDLER_FAILED"}', "agent"),
        (500, b'{"details": {"failedAt": "no such part"}}', "agent"),
        (500, b"", "agent"),
        (500, b'{"details": {"deep": %b}}' % (b"[" * 5000 + b"]" * 5000), "agent"),
        (503, b'{"details": []}', "queue"),
        (504, b'{"code": "TASK_TIMEOUT"}', "timeout"),
        (504, b'{"code": "TASK_EXPIRED", "details": {"failedAt": "queue"}}', "queue"),
    ],
)
def test_the_part_that_failed_is_told_of_a_task(status: int, outcome: bytes, part: str) -> None:
    """The server's own word where it has one; of an agent's own error, as of any call."""
    key = DeploymentKey("localhost", "/demo")
    task = Task("t-1", "d", key, "c", b"", "u", True, "r", 1.0, 1.0, status=status, outcome=outcome)
    assert part_that_failed(task) == part


@pytest_twisted.ensureDeferred
async def test_each_change_is_told_once_it_is_on_disk(leader: Leader, world: World) -> None:
    """In order; a repeat changes nothing, and a change that another was faster with is none."""
    told: list[tuple[str, str]] = []
    leader.tasks.watch(lambda task: told.append((task.id, task.state.value)))
    await leader.tasks.submit(a_submission(key="k"))
    assert told[0] == ("t-1", "queued")
    await run_to_the_end(leader, world.engine(), "t-1")
    await leader.tasks.submit(a_submission("t-2", key="k", params=b'["t-1"]'))
    assert told == [("t-1", "queued"), ("t-1", "running"), ("t-1", "succeeded")]
    leader.tasks.adopt([attrs.evolve(world.routes[0], targets=())])
    await leader.tasks.submit(a_submission("t-3"))
    await leader.tasks.cancel("t-3")
    await leader.tasks.retry("t-3")
    assert told[3:] == [("t-3", "queued"), ("t-3", "cancelled"), ("t-3", "queued")]


@pytest_twisted.ensureDeferred
async def test_a_queue_that_cannot_be_written_is_tried_again(
    leader: Leader, world: World, clock: Clock
) -> None:
    """An instance that is gone, and whose route is not yet, costs a task a second."""
    shutil.rmtree(world.queue)
    await leader.tasks.submit(a_submission())
    await until(lambda: is_due(clock, 1))
    world.make_queue("one")
    assert waiting(world) == []
    clock.advance(1)
    await until(lambda: waiting(world))
    await run(world.engine())
    assert world.ran == ["t-1"]


@pytest_twisted.ensureDeferred
async def test_tasks_wait_for_an_instance(leader: Leader, world: World) -> None:
    """A deployment that is stopped, or not well, has its tasks when it serves again."""
    leader.tasks.adopt([attrs.evolve(world.routes[0], targets=())])
    await leader.tasks.submit(a_submission())
    await turns(10)
    assert world.left() == []
    leader.tasks.adopt(world.routes)
    await until(lambda: waiting(world))


@pytest_twisted.ensureDeferred
async def test_a_deployment_that_is_removed_has_no_tasks(leader: Leader, world: World) -> None:
    """What waits for it fails; what comes for it is refused."""
    leader.tasks.adopt([attrs.evolve(world.routes[0], targets=())])
    await leader.tasks.submit(a_submission())
    done = Deferred.fromCoroutine(leader.tasks.finished("t-1", 60))
    leader.tasks.adopt([])
    failed = await done
    assert (failed.status, b"NO_SUCH_ROUTE" in failed.outcome) == (404, True)
    with pytest.raises(NoSuchRoute):
        await leader.tasks.submit(a_submission("t-2"))
    with pytest.raises(NoSuchRoute):
        await leader.tasks.retry("t-1")


@pytest_twisted.ensureDeferred
async def test_a_task_waits_for_a_day_at_most(leader: Leader, world: World, clock: Clock) -> None:
    """Then it fails, and says that it never began."""
    leader.tasks.adopt([attrs.evolve(world.routes[0], targets=())])
    await leader.tasks.submit(a_submission())
    done = Deferred.fromCoroutine(leader.tasks.finished("t-1", 10**6))
    await until(lambda: is_due(clock, 60))
    clock.advance(86_401)
    await until(lambda: done.called)
    expired = await done
    assert (expired.status, b"TASK_EXPIRED" in expired.outcome) == (504, True)


@pytest_twisted.ensureDeferred
async def test_what_failed_can_be_retried(leader: Leader, world: World) -> None:
    """What waits, runs or succeeded cannot."""
    leader.tasks.adopt([world.route("one")])
    await leader.tasks.submit(a_submission())
    with pytest.raises(Conflict, match="that failed can be retried"):
        await leader.tasks.retry("t-1")
    await leader.tasks.cancel("t-1")
    again = await leader.tasks.retry("t-1")
    assert (again.state, again.finished_at) == (TaskState.QUEUED, 0)
    await run_to_the_end(leader, world.engine(), "t-1")
    assert world.ran == ["t-1"]
    with pytest.raises(Conflict, match="succeeded"):
        await leader.tasks.retry("t-1")


@pytest_twisted.ensureDeferred
async def test_what_a_leader_was_done_with_is_cleared_away(world: World) -> None:
    """A file whose task is over, or was never heard of, is gone after the next start."""
    for place in ("tasks", "results", "errors"):
        (world.queue / place / "t-over").touch()
        (world.queue / place / "someone-elses").touch()
    (world.queue / "locks" / "t-over").mkdir()
    leader = Leader(world)
    await leader.start()
    await leader.stop()
    assert {Path(name).name for name in world.left()} == {"someone-elses"}


@pytest_twisted.ensureDeferred
async def test_what_an_agent_strews_about_holds_no_start_up(world: World) -> None:
    """It looks at so many names and no more; what is left harms nobody but the agent."""
    for number in range(MOST_TIDIED + 10):
        (world.queue / "results" / f"t-{number}").touch()
    leader = Leader(world)
    await leader.start()
    await leader.stop()
    assert len(list((world.queue / "results").iterdir())) == 10


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_none_fails_the_task(leader: Leader, world: World) -> None:
    """An agent that writes rubbish, or a link, harms its own task alone."""
    for name, spoil in (
        ("t-1", lambda path: path.write_text("not JSON")),
        ("t-2", lambda path: path.symlink_to("/etc/passwd")),
    ):
        await leader.tasks.submit(a_submission(name))
        await until(lambda name=name: name in waiting(world))
        spoil(world.queue / "tmp" / "x")
        (world.queue / "tmp" / "x").rename(world.queue / "results" / name)
        failed = await leader.tasks.finished(name, 60)
        assert (failed.status, b"AGENT_BROKEN" in failed.outcome) == (502, True)
        await until(lambda: not world.left())


@pytest_twisted.ensureDeferred
async def test_a_ready_file_nested_without_end_holds_no_task_up(
    leader: Leader, world: World
) -> None:
    """An agent that replaces what it said of itself harms no look at any queue."""
    engine = world.engine()
    (world.queue / "agent.sock").unlink()
    (world.queue / "ready").write_text("[" * 4000)
    await leader.tasks.submit(a_submission())
    await run_to_the_end(leader, engine, "t-1")
    assert world.ran == ["t-1"]
