"""Durable tasks: calls that neither vanish nor run twice.

Submissions and route tables enter, outcomes leave.  A task is a row in the store; an instance gets
it as a file in its queue.  Each step is on record before the next one is taken:

    kept -> handed to an instance (on record, then its file) -> answered (on record, then no file)

so that whoever comes after a crash finds in row and files how far it had come, and `recover` goes
on there.  A row changes only from the state in which it was read (`ITaskStore.change`): of two
that want a task (an engine's answer and a cancel, say) one gets it.  That guard is what a machine
would be for, and unlike one in memory it holds across processes; hence no machine here.

This module knows no SQL, no HTTP, and nothing of how an engine is spoken to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.errors import (
    Conflict,
    IdempotencyKeyReused,
    NotFound,
    Overloaded,
    ResultGone,
    StateUnusable,
    TaskExpired,
)
from ploinky.interfaces import Cause, IOrchestrator
from ploinky.leader_interfaces import IDurableTasks
from ploinky.recurring import recurring
from ploinky.store_interfaces import ITaskStore
from ploinky.task_values import (
    Submission,
    Task,
    TaskBounds,
    TaskState,
)
from ploinky.tasks import outcomes
from ploinky.tasks.attempts import Attempts
from ploinky.tasks.durable_queues import DurableQueues
from ploinky.tasks.shelf import Shelf
from ploinky.tasks.told_changes import ToldChanges
from ploinky.values import Route

SWEEP_SECONDS = 60.0


@implementer(IDurableTasks)
class DurableTasks(Service):
    """See `IDurableTasks`, and the module.

    The root starts it, awaits `recover` before the first table, and passes every table to
    `adopt`.  Stopping leaves everything where it is, for the next start.

    Args:
        clock: Its seconds are Unix time.
        cause: Tells why an instance went away.
        orchestrator: This service's own; its leases are durable tasks' alone.
        queues: Started before this service and stopped after it.
        queues_directory: Where all instances' queues lie.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: ITaskStore,
        cause: Cause,
        orchestrator: IOrchestrator,
        queues: DurableQueues,
        queues_directory: str,
        bounds: TaskBounds,
    ) -> None:
        self._clock = clock
        self._store = ToldChanges(store)
        self._queues = queues
        self._queues_directory = queues_directory
        self._bounds = bounds
        self._shelf = Shelf()
        self._attempts = Attempts(clock, self._store, cause, orchestrator, queues, self._shelf)
        self._kept = 0
        self._sweeping = recurring(clock, "sweeping durable tasks", self._sweep)
        self._swept: Deferred[Any] | None = None

    # --- from start to stop of the server -----------------------------------

    def startService(self) -> None:
        """Begin to sweep; the first sweep is at once."""
        super().startService()  # type: ignore[no-untyped-call]
        self._swept = self._sweeping.start(SWEEP_SECONDS)

    async def recover(self) -> None:
        """Take up what an earlier leader left: call it before instances or queues are ended.

        Raises:
            StateUnusable: The store cannot be read.
        """
        known: dict[str, set[str]] = {}
        for task in await self._store.unfinished():
            held = self._shelf.add(task)
            if task.state is TaskState.QUEUED:
                self._shelf.line_up(held)
            else:
                known.setdefault(task.queue_directory, set()).add(outcomes.file_name(task))
                self._attempts.resume(held)
        if len(self._shelf):
            self.log.info("{count} durable tasks are taken up again", count=len(self._shelf))
        self._queues.tidy(
            self._queues_directory, {path: frozenset(names) for path, names in known.items()}
        )

    def stopService(self) -> Deferred[None]:
        """Let go of everything; fires when nothing is in hand any more."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._shelf.close()
        await self._attempts.stop()
        if self._sweeping.running:
            self._sweeping.stop()
        if self._swept is not None:
            await self._swept

    def adopt(self, routes: Iterable[Route]) -> None:
        """Hand out tasks by these routes from now on.

        What was handed to an instance that none of them leads to, and has not begun there, is
        handed out again; what waits for a deployment that is gone fails.
        """
        self._attempts.adopt(routes)

    def route(self, deployment: str) -> Route:
        """Give the route to a task agent's deployment.

        Raises:
            NoSuchRoute: It is gone, or is no task agent's.
            Overloaded: There is no table yet.
        """
        return self._attempts.route(deployment)

    async def drain(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """Wait until these instances, which no route leads to any more, have no task in hand.

        Returns:
            How many they had when time was up; those are interrupted.
        """
        return await self._attempts.drain(instances, timeout_seconds)

    # --- what callers ask for: see IDurableTasks ----------------------------

    async def submit(self, call: Submission) -> Task:
        """See `IDurableTasks.submit`."""
        route = self.route(call.deployment)
        self._check_room(call)
        task = _new_task(call, route, self._clock.seconds())
        kept = await self._store.add(task)
        if kept.fingerprint != task.fingerprint:
            raise IdempotencyKeyReused(
                "another call was made with this Idempotency-Key; use a new key for a new call"
            )
        if kept.state is TaskState.QUEUED and self._shelf.get(kept.id) is None:
            self._line_up(kept)
        return kept

    async def finished(self, task: str, timeout_seconds: float) -> Task:
        """See `IDurableTasks.finished`."""
        held = self._shelf.get(task)
        if held is None or timeout_seconds <= 0:
            return await self._existing(task)
        waiter: Deferred[Task] = Deferred()
        held.waiters.append(waiter)
        waiter.addTimeout(timeout_seconds, self._clock)
        try:
            return await waiter
        except TimeoutError:
            return held.task
        finally:
            held.waiters.remove(waiter)

    async def cancel(self, task: str) -> Task:
        """See `IDurableTasks.cancel`."""
        held = self._shelf.get(task)
        while held is not None and not held.task.over:
            before = held.task
            now = self._clock.seconds()
            after = attrs.evolve(before, state=TaskState.CANCELLED, finished_at=now)
            if await self._store.change(before, after):
                self.log.info("durable task {id} is cancelled", id=task)
                self._shelf.over(held, after)
                if held.errand is not None:
                    held.errand.clear()
                return after
        kept = await self._existing(task)
        if kept.state is not TaskState.CANCELLED:
            raise Conflict(f"the task {task} has {kept.state.value} already")
        return kept

    async def retry(self, task: str) -> Task:
        """See `IDurableTasks.retry`."""
        kept = await self._existing(task)
        self.route(kept.deployment)
        if kept.state not in (TaskState.FAILED, TaskState.CANCELLED):
            raise Conflict(f"the task {task} is {kept.state.value}; one that failed can be retried")
        if not kept.params:
            raise ResultGone(f"what the task {task} was called with is not kept any more")
        again = attrs.evolve(
            kept,
            state=TaskState.QUEUED,
            queued_at=self._clock.seconds(),
            finished_at=0.0,
            status=0,
            outcome=b"",
            size=len(kept.params),
        )
        if not await self._store.change(kept, again):
            raise Conflict(f"the task {task} was changed by somebody else just now")
        self._line_up(again)
        return again

    def watch(self, changed: Callable[[Task], None]) -> None:
        """See `IDurableTasks.watch`."""
        self._store.listen(changed)

    def _line_up(self, task: Task) -> None:
        self._shelf.line_up(self._shelf.add(task))
        self._attempts.serve(task.deployment)

    async def _existing(self, task: str) -> Task:
        kept = await self._store.task(task)
        if kept is None:
            raise NotFound(f"there is no task {task}, or it is not kept any more")
        return kept

    def _check_room(self, call: Submission) -> None:
        bounds, shelf = self._bounds, self._shelf
        full = len(shelf) >= bounds.kept or shelf.bytes + len(call.params) > bounds.bytes
        # What has a key is kept for a day whatever else is swept: it must not pile up for ever.
        if full or (call.key and self._kept > 10 * bounds.kept):
            raise Overloaded(
                "there is no room for more durable tasks just now", retry_after_seconds=10
            )

    # --- time ---------------------------------------------------------------

    async def _sweep(self) -> None:
        """Give up what has waited too long to begin, and forget what was kept long enough."""
        bounds = self._bounds
        before = self._clock.seconds() - bounds.kept_seconds
        expired = TaskExpired(f"the task did not begin within {bounds.kept_seconds / 3600:g} h")
        try:
            for deployment in self._shelf.lines():
                while (held := self._shelf.next(deployment)) and held.task.queued_at < before:
                    self._shelf.leave_line(held)
                    after = outcomes.failed(held.task, expired, self._clock.seconds())
                    await self._attempts.settle(held, after)
            self._kept = await self._store.sweep(before, bounds.kept, bounds.bytes)
        except StateUnusable as error:
            self.log.error("durable tasks cannot be swept: {error}", error=error)


def _new_task(call: Submission, route: Route, now: float) -> Task:
    return Task(
        id=call.task,
        deployment=call.deployment,
        key=route.key,
        command=call.command,
        params=call.params,
        user=call.user,
        anonymous=call.anonymous,
        request_id=call.request_id,
        created_at=now,
        queued_at=now,
        once=_once(call),
        fingerprint=_digest(call.command.encode(), call.params),
        size=len(call.params),
    )


def _once(call: Submission) -> str:
    """Give what a caller's key stands for: nobody else's, at no other deployment."""
    if not call.key:
        return ""
    caller = b"" if call.anonymous else b"=" + call.user.encode()
    return _digest(call.deployment.encode(), caller, call.key.encode())


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()
