"""Durable tasks: calls that neither vanish nor run twice.

Submissions and route tables enter, outcomes leave.  A task is a row in the store; an instance gets
it as a file in its queue (`durable_queues`).  Each step is on record before the next one is taken:

    kept -> handed to an instance (on record, then its file) -> answered (on record, then no file)

so that whoever comes after a crash finds in row and files how far it had come, and `recover` goes
on there.  A row changes only from the state in which it was read (`ITaskStore.change`): of two
that want a task (an engine's answer and a cancel, say) one gets it.  That guard is what a machine
would be for, and unlike one in memory it holds across processes; hence no machine here.

This module knows no SQL, no HTTP, and nothing of how an engine is spoken to.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import attrs
from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.errors import (
    Conflict,
    Draining,
    IdempotencyKeyReused,
    NoHealthyInstance,
    NoSuchRoute,
    NotFound,
    Overloaded,
    ResultGone,
    StateUnusable,
    TaskExpired,
)
from ploinky.interfaces import IDurableTasks, ILease, IOrchestrator, ITaskStore
from ploinky.tasks import outcomes
from ploinky.tasks.durable_queues import DurableQueues, Errand, Lost
from ploinky.tasks.messages import task_file
from ploinky.values import (
    Address,
    Kind,
    Route,
    Submission,
    Target,
    Task,
    TaskBounds,
    TaskState,
    Wire,
)

LATE_SECONDS = 10.0
"""After a task's deadline: the engine's own answer to it comes first where there is an engine."""

SWEEP_SECONDS = 60.0
BACK_OFF_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Between attempts, and between tries to write to the store; the last one is repeated."""

_UNBOUNDED = 2**31
_KEPT_IN_MEMORY_BYTES = 16 * 1024
"""Larger params are read again when they are needed."""


@define(eq=False)
class _Held:
    """A task that is not over, in this process's hand.

    Attributes:
        task: As it is on record.
        errand: While it is in an instance's queue.
        failures: Tries in a row that did not come to an attempt.
        waiters: Those who wait for its end.
    """

    task: Task
    size: int = 0
    errand: Errand | None = None
    failures: int = 0
    waiters: list[Deferred[Task]] = field(factory=list)


@implementer(IDurableTasks)
class DurableTasks(Service):
    """See `IDurableTasks`, and the module.

    The root starts it, awaits `recover` before the first table, and passes every table to
    `adopt`.  Stopping leaves everything where it is, for the next start.

    Args:
        clock: Its seconds are Unix time.
        orchestrator: This service's own; its leases are durable tasks' alone.
        queues: Started before this service and stopped after it.
        queues_directory: Where all instances' queues lie.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: ITaskStore,
        orchestrator: IOrchestrator,
        queues: DurableQueues,
        queues_directory: str,
        bounds: TaskBounds,
    ) -> None:
        self._clock = clock
        self._store = store
        self._orchestrator = orchestrator
        self._queues = queues
        self._queues_directory = queues_directory
        self._bounds = bounds
        self._routes: dict[str, Route] | None = None
        self._held: dict[str, _Held] = {}
        self._lines: dict[str, deque[_Held]] = {}
        self._draining: set[str] = set()
        self._bytes = 0
        self._kept = 0
        self._work: set[Deferred[Any]] = set()
        self._sweeping = LoopingCall(lambda: Deferred.fromCoroutine(self._sweep()))
        self._sweeping.clock = clock

    # --- from start to stop of the server -----------------------------------

    async def recover(self) -> None:
        """Take up what an earlier leader left: call it before instances or queues are ended.

        Raises:
            StateUnusable: The store cannot be read.
        """
        known: dict[str, set[str]] = {}
        for task in await self._store.unfinished():
            held = self._hold(task)
            if task.state is TaskState.QUEUED:
                self._line(task.deployment).append(held)
                continue
            known.setdefault(task.queue_directory, set()).add(outcomes.file_name(task))
            self._in_background(self._resume(held, _lease_again(self._orchestrator, task)))
        self._queues.tidy(
            self._queues_directory, {path: frozenset(names) for path, names in known.items()}
        )
        if self._held:
            self.log.info("{count} durable tasks are taken up again", count=len(self._held))

    def startService(self) -> None:
        """Begin to sweep; the first sweep is at once."""
        super().startService()  # type: ignore[no-untyped-call]
        self._sweeping.start(SWEEP_SECONDS).addErrback(
            lambda failure: self.log.failure("durable tasks are not swept any more", failure)
        )

    def stopService(self) -> Deferred[None]:
        """Let go of everything; fires when nothing is in hand any more."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._sweeping.running:
            self._sweeping.stop()
        work = list(self._work)
        for each in work:
            each.cancel()
        for held in self._held.values():
            for waiter in held.waiters[:]:
                waiter.errback(
                    Draining("this server is shutting down; ask again", retry_after_seconds=5)
                )
        return DeferredList(work).addCallback(lambda _: None)

    # --- what callers ask for: see IDurableTasks ----------------------------

    async def submit(self, call: Submission) -> Task:
        """See `IDurableTasks.submit`."""
        route = self._route(call.deployment)
        self._check_room(call)
        now = self._clock.seconds()
        task = Task(
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
        kept = await self._store.add(task)
        if kept.fingerprint != task.fingerprint:
            raise IdempotencyKeyReused(
                "another call was made with this Idempotency-Key; use a new key for a new call"
            )
        if kept.id not in self._held and kept.state is TaskState.QUEUED:
            self._line(kept.deployment).append(self._hold(kept))
            self._serve(kept.deployment)
        return kept

    async def finished(self, task: str, timeout_seconds: float) -> Task:
        """See `IDurableTasks.finished`."""
        held = self._held.get(task)
        if held is not None and timeout_seconds > 0:
            waiter: Deferred[Task] = Deferred()
            held.waiters.append(waiter)
            waiter.addTimeout(timeout_seconds, self._clock)
            try:
                return await waiter
            except TimeoutError:
                return held.task
            finally:
                if waiter in held.waiters:
                    held.waiters.remove(waiter)
        return await self._existing(task)

    async def cancel(self, task: str) -> Task:
        """See `IDurableTasks.cancel`."""
        held = self._held.get(task)
        while held is not None and not held.task.over:
            before = held.task
            now = self._clock.seconds()
            after = attrs.evolve(before, state=TaskState.CANCELLED, finished_at=now)
            if await self._store.change(before, after):
                self.log.info("durable task {id} is cancelled", id=task)
                self._over(held, after)
                return after
        kept = await self._existing(task)
        if kept.state is not TaskState.CANCELLED:
            raise Conflict(f"the task {task} has {kept.state.value} already")
        return kept

    async def retry(self, task: str) -> Task:
        """See `IDurableTasks.retry`."""
        kept = await self._existing(task)
        self._route(kept.deployment)
        if kept.state not in (TaskState.FAILED, TaskState.CANCELLED):
            raise Conflict(f"the task {task} is {kept.state.value}; one that failed can be retried")
        if not kept.params:
            raise ResultGone(f"what the task {task} was called with is not kept any more")
        now = self._clock.seconds()
        again = attrs.evolve(
            kept,
            state=TaskState.QUEUED,
            queued_at=now,
            finished_at=0.0,
            status=0,
            outcome=b"",
            size=len(kept.params),
        )
        if not await self._store.change(kept, again):
            raise Conflict(f"the task {task} was changed by somebody else just now")
        self._line(again.deployment).append(self._hold(again))
        self._serve(again.deployment)
        return again

    async def _existing(self, task: str) -> Task:
        kept = await self._store.task(task)
        if kept is None:
            raise NotFound(f"there is no task {task}, or it is not kept any more")
        return kept

    def _check_room(self, call: Submission) -> None:
        bounds = self._bounds
        full = len(self._held) >= bounds.kept or self._bytes + len(call.params) > bounds.bytes
        # Keys are kept for a day whatever else is swept: they must not pile up for ever.
        if full or (call.key and self._kept > 10 * bounds.kept):
            raise Overloaded(
                "there is no room for more durable tasks just now", retry_after_seconds=10
            )

    # --- routes -------------------------------------------------------------

    def adopt(self, routes: Iterable[Route]) -> None:
        """Hand out tasks by these routes from now on.

        What was handed to an instance that none of them leads to, and has not begun there, is
        handed out again.
        """
        self._routes = {route.deployment: route for route in routes if route.kind is Kind.TASK}
        alive = {target.instance for route in self._routes.values() for target in route.targets}
        for held in list(self._held.values()):
            if held.errand is not None and held.task.instance not in alive:
                held.errand.withdraw()
        for deployment in list(self._lines):
            if deployment in self._routes:
                self._serve(deployment)
            else:
                self._refuse_all(self._lines.pop(deployment))

    async def drain(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """Wait until these instances, which no route leads to any more, have no task in hand.

        Returns:
            How many they had when time was up; those are interrupted.
        """
        self._draining |= instances
        try:
            left = await self._orchestrator.drained(instances, timeout_seconds)
            if left:
                for held in list(self._held.values()):
                    if held.task.instance in instances and held.errand is not None:
                        held.errand.give_up()
                await self._orchestrator.drained(instances, LATE_SECONDS)
            return left
        finally:
            self._draining -= instances

    def _route(self, deployment: str) -> Route:
        if self._routes is None:
            raise Overloaded("the server is starting", retry_after_seconds=1)
        route = self._routes.get(deployment)
        if route is None:
            raise NoSuchRoute("the deployment is not there any more")
        return route

    def _refuse_all(self, line: Sequence[_Held]) -> None:
        gone = NoSuchRoute("the deployment was removed before the task began")
        for held in line:
            self._in_background(self._settle(held, outcomes.failed(held.task, gone, self._now())))

    # --- who is next --------------------------------------------------------

    def _hold(self, task: Task) -> _Held:
        if len(task.params) > _KEPT_IN_MEMORY_BYTES:
            task = attrs.evolve(task, params=b"")
        held = self._held[task.id] = _Held(task, task.size)
        self._bytes += held.size
        return held

    def _line(self, deployment: str) -> deque[_Held]:
        return self._lines.setdefault(deployment, deque())

    def _serve(self, deployment: str) -> None:
        """Hand out tasks in the order in which they came, as long as there are free places."""
        line, route = self._lines.get(deployment), (self._routes or {}).get(deployment)
        if route is None or not self.running:
            return
        while line:
            try:
                lease = self._orchestrator.claim(route)
            except NoHealthyInstance:
                return  # the next table may have one
            if lease is None:
                return  # the next task to end leaves its place
            held = line.popleft()
            if held.task.over:
                lease.release()
            else:
                self._in_background(self._run(held, lease))

    # --- one attempt --------------------------------------------------------

    async def _run(self, held: _Held, lease: ILease) -> None:
        """Hand a task to an instance, and see it through."""
        try:
            if await self._handed_over(held, lease):
                await self._see_through(held)
        finally:
            self._give_back(held, lease)

    async def _resume(self, held: _Held, lease: ILease) -> None:
        """Go on where an earlier leader was when it ended."""
        task = held.task
        try:
            try:
                held.errand = self._queues.find(task.queue_directory, outcomes.file_name(task))
            except OSError:
                await self._settle(held, outcomes.judged(task, Lost(True), 0, self._now()))
                return
            if held.errand is None:
                await self._settle(held, outcomes.judged(task, Lost(False), 0, self._now()))
            else:
                await self._see_through(held)
        finally:
            self._give_back(held, lease)

    def _give_back(self, held: _Held, lease: ILease) -> None:
        lease.release()
        self._serve(held.task.deployment)

    async def _handed_over(self, held: _Held, lease: ILease) -> bool:
        """Put a task into an instance's queue, once that is on record; tell whether it is there."""
        before, route, target = held.task, lease.route, lease.target
        params = before.params or (await self._existing(before.id)).params
        now = self._now()
        task = attrs.evolve(
            before,
            state=TaskState.RUNNING,
            attempts=before.attempts + 1,
            deliveries=before.deliveries + 1,
            instance=target.instance,
            queue_directory=target.queue_directory,
            deadline=now + route.timeout_seconds,
            started_at=now,
        )
        if not await self._changed(before, task):
            return False  # it was cancelled meanwhile
        held.task = task
        if target.instance in self._draining:
            await self._settle(held, outcomes.judged(task, Lost(False), 0, now))
            return False
        call = attrs.evolve(outcomes.call_of(task), params=params)
        try:
            held.errand = self._queues.deliver(target.queue_directory, call.task, task_file(call))
            held.failures = 0
        except OSError as error:
            self.log.warn(
                "Cannot queue a task for {instance}: {error}",
                instance=target.instance,
                error=error,
                request_id=task.request_id,
            )
            lease.release(failed=True)
            held.failures += 1
            await self._settle(held, outcomes.judged(task, Lost(False), 0, now))
            return False
        return True

    async def _see_through(self, held: _Held) -> None:
        """Wait for what comes of a task in a queue, and let its files go once it is on record."""
        errand = held.errand
        assert errand is not None
        patience = max(0.0, held.task.deadline - self._now()) + LATE_SECONDS
        late = self._clock.callLater(patience, errand.give_up)
        try:
            ending = await errand.ended
        finally:
            if late.active():
                late.cancel()
        task = held.task
        if task.state is TaskState.RUNNING:
            route = (self._routes or {}).get(task.deployment)
            after = outcomes.judged(task, ending, route.retries if route else 0, self._now())
            await self._settle(held, after)
        held.errand = None
        errand.clear()

    async def _settle(self, held: _Held, after: Task) -> None:
        """Put on record what came of an attempt: it is over, or waits for the next one."""
        if not await self._changed(held.task, after):
            return  # it was cancelled meanwhile
        if after.over:
            self._over(held, after)
            return
        never_begun = after.attempts < held.task.attempts
        held.task = attrs.evolve(after, params=held.task.params)
        if never_begun and not held.failures:
            self._line(after.deployment).appendleft(held)
        else:
            self._in_background(self._later(held, max(after.attempts, held.failures)))

    async def _later(self, held: _Held, failures: int) -> None:
        await deferLater(self._clock, _back_off(failures))
        if not held.task.over:
            self._line(held.task.deployment).append(held)
            self._serve(held.task.deployment)

    def _over(self, held: _Held, task: Task) -> None:
        """Tell who waits that it is over; what still runs of it is aborted."""
        held.task = task
        if self._held.pop(task.id, None) is None:
            return
        self._bytes -= held.size
        if held.errand is not None and task.state is TaskState.CANCELLED:
            held.errand.clear()
        for waiter in held.waiters[:]:
            waiter.callback(task)

    async def _changed(self, before: Task, after: Task) -> bool:
        """Put a change on record, however long the store cannot be written."""
        failures = 0
        while True:
            try:
                return await self._store.change(before, after)
            except StateUnusable as error:
                failures += 1
                self.log.error("durable task {id}: {error}", id=before.id, error=error)
            await deferLater(self._clock, _back_off(failures))

    # --- time ---------------------------------------------------------------

    async def _sweep(self) -> None:
        """Give up what has waited too long to begin, and forget what was kept long enough."""
        before = self._now() - self._bounds.kept_seconds
        waited = f"did not begin within {self._bounds.kept_seconds / 3600:g} h"
        for line in list(self._lines.values()):
            while line and line[0].task.queued_at < before:
                held = line.popleft()
                expired = TaskExpired(f"the task {waited}")
                await self._settle(held, outcomes.failed(held.task, expired, self._now()))
        try:
            self._kept = await self._store.sweep(before, self._bounds.kept, self._bounds.bytes)
        except StateUnusable as error:
            self.log.error("durable tasks cannot be swept: {error}", error=error)

    def _now(self) -> float:
        return self._clock.seconds()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        running = Deferred.fromCoroutine(work)
        self._work.add(running)
        running.addErrback(lambda failure: failure.trap(CancelledError) and None)
        running.addErrback(lambda failure: self.log.failure("a durable task broke", failure))
        running.addBoth(lambda _: self._work.discard(running))


def _lease_again(orchestrator: IOrchestrator, task: Task) -> ILease:
    """Count a task at the instance that an earlier leader handed it to."""
    target = Target(task.instance, Address(), Wire.FILE, task.queue_directory)
    lease = orchestrator.claim(
        Route(task.key, Kind.TASK, task.deployment, targets=(target,), concurrency=_UNBOUNDED)
    )
    assert lease is not None
    return lease


def _back_off(failures: int) -> float:
    return BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS)) - 1]


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
