"""A leader's durable tasks and an engine, either of which can be killed between any two steps.

Database, queue directory and inotify are real.  The engine is the protocol (docs/protocols.md,
section 5) in a few lines, one step at a time; the leader is the real one with its steps counted.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from zope.interface import implementer

from ploinky.observations import InstanceDeath
from ploinky.store.database import Database
from ploinky.store.tasks import SqliteTaskStore
from ploinky.store_interfaces import ITaskStore
from ploinky.task_values import (
    Submission,
    Task,
    TaskBounds,
    TaskQuery,
)
from ploinky.tasks.durable import DurableTasks
from ploinky.tasks.durable_queues import DurableQueues
from ploinky.tasks.inotify import Inotify
from ploinky.tasks.orchestrator import Orchestrator
from ploinky.tasks.queue_directory import QueueDirectory
from ploinky.threads import Blocking
from ploinky.values import (
    Address,
    DeploymentKey,
    Kind,
    Route,
    Target,
)

DEPLOYMENT = "deployment01"

PATIENCE_SECONDS = 20.0
"""Long enough for a loaded machine and its disk; a test that works never waits so long."""


class Killed(BaseException):
    """The process ends here."""


class Steps:
    """Counts a leader's steps, and kills it at one of them.

    Attributes:
        fatal: Before which step it is killed; None: never.
    """

    def __init__(self, fatal: int | None = None) -> None:
        self.taken: list[str] = []
        self.fatal = fatal
        self.alive = True

    def take(self, what: str) -> None:
        if not self.alive or len(self.taken) == self.fatal:
            self.alive = False
            raise Killed(what)
        self.taken.append(what)


class CountedQueue(QueueDirectory):
    """A queue directory whose changes are steps."""

    def __init__(self, steps: Steps, path: str) -> None:
        super().__init__(path)
        self._steps = steps

    def put(self, task: str, content: bytes) -> None:
        self._steps.take("put the task")
        super().put(task, content)
        self._steps.take("the task is there")

    def peek(self, place: str, task: str) -> bytes | None:
        if not self._steps.alive:
            raise Killed
        return super().peek(place, task)

    def discard(self, place: str, task: str) -> None:
        self._steps.take(f"remove from {place}")
        super().discard(place, task)

    def unlock(self, task: str) -> None:
        self._steps.take("unlock")
        super().unlock(task)


@implementer(ITaskStore)
class CountedStore:
    """A store whose transactions are steps: one before, one after."""

    def __init__(self, steps: Steps, store: ITaskStore) -> None:
        self._steps = steps
        self._store = store

    async def add(self, task: Task) -> Task:
        return await self._counted("keep", self._store.add, task)

    async def change(self, before: Task, after: Task) -> bool:
        what = f"{before.state.value} to {after.state.value}"
        return await self._counted(what, self._store.change, before, after)

    async def task(self, task: str) -> Task | None:
        return await self._store.task(task)

    async def unfinished(self) -> list[Task]:
        return await self._store.unfinished()

    async def tasks(self, query: TaskQuery) -> Any:
        return await self._store.tasks(query)

    async def sweep(self, before: float, most: int, most_bytes: int) -> int:
        return await self._store.sweep(before, most, most_bytes)

    async def _counted(self, what: str, work: Callable[..., Any], *args: Any) -> Any:
        self._steps.take(what)
        done = await work(*args)
        self._steps.take(f"{what}: committed")
        return done


class Leader:
    """One life of a leader."""

    def __init__(
        self,
        world: World,
        fatal: int | None = None,
        clock: Any = reactor,
        bounds: TaskBounds | None = None,
    ) -> None:
        self.steps = Steps(fatal)
        self.queues = DurableQueues(
            reactor, Inotify(reactor), lambda path: CountedQueue(self.steps, path)
        )
        self.orchestrator = Orchestrator(clock)
        self.tasks = DurableTasks(
            clock,
            CountedStore(self.steps, world.store),
            world.cause,
            self.orchestrator,
            self.queues,
            str(world.queues),
            bounds or TaskBounds(),
        )
        self._world = world

    async def start(self) -> None:
        self.queues.startService()
        self.tasks.startService()
        try:
            await self.tasks.recover()
            self.tasks.adopt(self._world.routes)
        except Killed:
            pass

    async def stop(self) -> None:
        """End it in order; what was killed has ended already."""
        self.steps.alive = False
        with contextlib.suppress(Killed):
            await self.tasks.stopService()
        self.queues.stopService()


class Engine:
    """One life of an engine: it takes one step whenever it is told to.

    Attributes:
        done: Steps it has taken.
    """

    def __init__(self, queue: Path, ran: list[str]) -> None:
        self._queue = queue
        self._ran = ran
        self._at: tuple[int, str, Any] | None = None
        self.done: list[str] = []
        socket = queue / "agent.sock"
        before = socket.stat().st_ctime_ns if socket.exists() else 0
        socket.unlink(missing_ok=True)
        socket.touch()
        # No engine comes up in the same tick of the kernel's clock as the one before it.
        while socket.stat().st_ctime_ns == before:
            socket.touch()

    @property
    def is_busy(self) -> bool:
        """Whether it has a task in hand."""
        return self._at is not None

    def step(self) -> bool:
        """Take a step; tell whether there was one to take."""
        if self._at is None:
            return self._claim()
        stage, name, task = self._at
        self._at = (stage + 1, name, task)
        if stage == 0:
            self._ran.append(task["params"][0])
            self._did("run it")
        elif stage == 1:
            answer = {"id": name, "data": f"{task['params'][0]} is done"}
            written = self._queue / "tmp" / f"{name}.out"
            written.write_text(json.dumps(answer))
            written.rename(self._queue / "results" / name)
            self._did("answer")
        elif stage == 2:
            (self._queue / "tasks" / name).unlink(missing_ok=True)
            self._did("remove the task")
        else:
            with contextlib.suppress(FileNotFoundError):
                (self._queue / "locks" / name).rmdir()
            self._did("unlock")
            self._at = None
        return True

    def _claim(self) -> bool:
        for path in sorted((self._queue / "tasks").iterdir()):
            lock = self._queue / "locks" / path.name
            try:
                lock.mkdir()
            except FileExistsError:
                if (self._queue / "results" / path.name).exists():
                    path.unlink(missing_ok=True)
                    lock.rmdir()
                continue
            self._at = (0, path.name, json.loads(path.read_text()))
            self._did("lock")
            return True
        return False

    def _did(self, what: str) -> None:
        self.done.append(what)


class World:
    """What survives: a database, a queue, and what was run."""

    def __init__(self, directory: Path) -> None:
        self.queues = directory / "i"
        self.queue = self.make_queue("one")
        self.ran: list[str] = []
        self.deaths: dict[str, InstanceDeath] = {}
        self.asked: list[str] = []
        self.inquest: Deferred[None] | None = None
        self.routes = [self.route("one")]
        self._blocking = Blocking(reactor, 1, "store")
        self._blocking.start()
        self._database = Database(directory / "ploinky.sqlite", self._blocking)
        self.store = SqliteTaskStore(reactor, self._database)

    async def cause(self, instance: str, since: float) -> InstanceDeath | None:
        """Tell how an instance died; where there is an inquest, after that."""
        self.asked.append(instance)
        if self.inquest is not None:
            await self.inquest
        return self.deaths.get(instance)

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()
        self._blocking.stop()

    def make_queue(self, instance: str) -> Path:
        for name in ("tasks", "results", "errors", "locks", "tmp"):
            (self.queues / instance / name).mkdir(parents=True)
        return self.queues / instance

    def route(self, instance: str, **changes: Any) -> Route:
        queue = str(self.queues / instance)
        target = Target(instance, Address(path=f"{queue}/agent.sock"), queue_directory=queue)
        key = DeploymentKey("localhost", "/demo")
        return Route(key, Kind.TASK, DEPLOYMENT, targets=(target,), **changes)

    def engine(self, instance: str = "one") -> Engine:
        return Engine(self.queues / instance, self.ran)

    async def state(self, task: str = "t-1") -> Task | None:
        return await self.store.task(task)

    def left(self) -> list[str]:
        """Every file and lock in the queues, but for what an engine says of itself and spares."""
        found = []
        for path in self.queues.rglob("*"):
            name = path.relative_to(self.queues)
            if len(name.parts) == 3 and name.parts[1] != "tmp":
                found.append(str(name))
        return sorted(found)


def a_submission(task: str = "t-1", **changes: Any) -> Submission:
    """Give the call `work(<task>)`."""
    given = {
        "task": task,
        "deployment": DEPLOYMENT,
        "command": "work",
        "params": json.dumps([task]).encode(),
        "user": "InternetUser",
        "anonymous": True,
        "request_id": "r-1",
    }
    return Submission(**(given | changes))


async def turns(count: int = 3) -> None:
    """Let the loop turn, and the database's thread work."""
    for _ in range(count):
        await deferLater(reactor, 0.002)


async def until(is_so: Callable[[], object]) -> None:
    """Let the loop turn until it is so."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < limit, "it never came to that"
        await turns(1)
