"""Attempts at durable tasks: handed to an instance, seen through, put on record.

Tasks enter from a `Shelf` and leave it when they are over; leases come from this room's own
orchestrator.  Each step is on record before the next one is taken, see `ploinky.tasks.durable`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ploinky.errors import NoHealthyInstance, NoSuchRoute, Overloaded, StateUnusable
from ploinky.interfaces import Cause, ILease, IOrchestrator
from ploinky.observations import InstanceDeath
from ploinky.store_interfaces import ITaskStore
from ploinky.task_values import (
    Task,
    TaskState,
)
from ploinky.tasks import outcomes
from ploinky.tasks.durable_queues import DurableQueues, Ending, Lost
from ploinky.tasks.messages import task_file
from ploinky.tasks.shelf import Held, Shelf
from ploinky.values import (
    Address,
    Kind,
    Route,
    Target,
    Wire,
)

LATE_SECONDS = 10.0
"""After a task's deadline: the engine's own answer to it comes first where there is an engine."""

BACK_OFF_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Between attempts, and between tries to write to the store; the last one is repeated."""

_UNBOUNDED = 2**31


class Attempts:
    """Runs what stands in the shelf's lines, by the newest route table.

    Args:
        cause: Tells why an instance went away.
        orchestrator: Its leases are durable tasks' alone.
        queues: Started by the owner, and stopped after `stop` has fired.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: ITaskStore,
        cause: Cause,
        orchestrator: IOrchestrator,
        queues: DurableQueues,
        shelf: Shelf,
    ) -> None:
        self._clock = clock
        self._store = store
        self._cause = cause
        self._orchestrator = orchestrator
        self._queues = queues
        self._shelf = shelf
        self._routes: dict[str, Route] | None = None
        self._draining: set[str] = set()
        self._work: set[Deferred[Any]] = set()
        self._stopped = False

    def stop(self) -> Deferred[None]:
        """Let go of everything where it is; fires when nothing is in hand any more."""
        self._stopped = True
        work = list(self._work)
        for each in work:
            each.cancel()
        return DeferredList(work).addCallback(lambda _: None)

    # --- routes -------------------------------------------------------------

    def route(self, deployment: str) -> Route:
        """Give the route to a deployment.

        Raises:
            NoSuchRoute: It is gone.
            Overloaded: There is no table yet.
        """
        if self._routes is None:
            raise Overloaded("the server is starting", retry_after_seconds=1)
        route = self._routes.get(deployment)
        if route is None:
            raise NoSuchRoute("no task agent is deployed there, or not any more")
        return route

    def adopt(self, routes: Iterable[Route]) -> None:
        """See `ploinky.tasks.durable.DurableTasks.adopt`."""
        self._routes = {route.deployment: route for route in routes if route.kind is Kind.TASK}
        for held in self._shelf:
            if held.errand is not None and not self._leads_to(held.task):
                held.errand.withdraw()
        for deployment in self._shelf.lines():
            self.serve(deployment)

    def _leads_to(self, task: Task) -> bool:
        """Tell whether the deployment's route leads to the instance that has the task."""
        route = self._routes.get(task.deployment) if self._routes else None
        return route is not None and any(one.instance == task.instance for one in route.targets)

    async def drain(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """See `ploinky.tasks.durable.DurableTasks.drain`."""
        self._draining |= instances
        try:
            left: int = await self._orchestrator.drained(instances, timeout_seconds)
            if left:
                for held in self._shelf:
                    if held.task.instance in instances and held.errand is not None:
                        held.errand.give_up()
                await self._orchestrator.drained(instances, LATE_SECONDS)
            return left
        finally:
            self._draining -= instances

    def serve(self, deployment: str) -> None:
        """Hand out tasks in the order in which they came, as long as there are free places."""
        if self._routes is None or self._stopped:
            return
        route = self._routes.get(deployment)
        if route is None:
            self._refuse(deployment)
            return
        while (held := self._shelf.next(deployment)) is not None:
            try:
                lease = self._orchestrator.claim(route)
            except NoHealthyInstance:
                return  # the next table may have one
            if lease is None:
                return  # the next task to end leaves its place
            self._shelf.leave_line(held)
            self._in_background(self._run(held, lease))

    def _refuse(self, deployment: str) -> None:
        gone = NoSuchRoute("the deployment was removed before the task began")
        for held in self._shelf.dissolve(deployment):
            after = outcomes.failed(held.task, gone, self._clock.seconds())
            self._in_background(self.settle(held, after))

    # --- one attempt --------------------------------------------------------

    async def _run(self, held: Held, lease: ILease) -> None:
        """Hand a task to an instance, and see it through."""
        try:
            if await self._hand_over(held, lease):
                await self._see_through(held)
        finally:
            self._give_back(held, lease)

    def resume(self, held: Held) -> None:
        """Go on with a task that an earlier leader had handed to an instance."""
        target = Target(held.task.instance, Address(), Wire.FILE, held.task.queue_directory)
        route = Route(
            held.task.key,
            Kind.TASK,
            held.task.deployment,
            targets=(target,),
            concurrency=_UNBOUNDED,
        )
        lease = self._orchestrator.claim(route)
        assert lease is not None
        self._in_background(self._resume(held, lease))

    async def _resume(self, held: Held, lease: ILease) -> None:
        task = held.task
        try:
            try:
                held.errand = self._queues.find(task.queue_directory, outcomes.file_name(task))
            except OSError:
                await self._settle_lost(held, begun=True)
                return
            if held.errand is None:
                await self._settle_lost(held, begun=False)
            else:
                await self._see_through(held)
        finally:
            self._give_back(held, lease)

    def _give_back(self, held: Held, lease: ILease) -> None:
        lease.release()
        self.serve(held.task.deployment)

    async def _hand_over(self, held: Held, lease: ILease) -> bool:
        """Put a task into an instance's queue, once that is on record; tell whether it is there."""
        before, target = held.task, lease.target
        params = before.params or await self._params(before)
        now = self._clock.seconds()
        task = attrs.evolve(
            before,
            state=TaskState.RUNNING,
            attempts=before.attempts + 1,
            deliveries=before.deliveries + 1,
            instance=target.instance,
            queue_directory=target.queue_directory,
            deadline=now + lease.route.timeout_seconds,
            started_at=now,
        )
        if not await self._changed(before, task):
            return False  # it was cancelled meanwhile
        held.task = task
        if target.instance in self._draining:
            await self._settle_lost(held, begun=False)
            return False
        call = msgspec.structs.replace(outcomes.call_of(task), params=params)
        try:
            held.errand = self._queues.deliver(target.queue_directory, call.task, task_file(call))
        except OSError as error:
            self.log.warn(
                "Cannot queue a task for {instance}: {error}",
                instance=target.instance,
                error=error,
                request_id=task.request_id,
            )
            lease.release(failed=True)
            held.failures += 1
            await self._settle_lost(held, begun=False)
            return False
        held.failures = 0
        return True

    async def _params(self, task: Task) -> bytes:
        kept = await self._store.task(task.id)
        assert kept is not None, f"{task.id} is not over, and only what is over is forgotten"
        params: bytes = kept.params
        return params

    async def _see_through(self, held: Held) -> None:
        """Wait for what comes of a task in a queue, and let its files go once it is on record."""
        errand = held.errand
        assert errand is not None
        patience = max(0.0, held.task.deadline - self._clock.seconds()) + LATE_SECONDS
        late = self._clock.callLater(patience, errand.give_up)
        try:
            ending = await errand.ended
        finally:
            if late.active():
                late.cancel()
        death = await self._death(held.task, ending)
        task = held.task
        if task.state is TaskState.RUNNING:
            route = (self._routes or {}).get(task.deployment)
            retries = route.retries if route is not None else 0
            after = outcomes.judged(task, ending, retries, self._clock.seconds(), death)
            await self.settle(held, after)
        held.errand = None
        errand.clear()

    async def _death(self, task: Task, ending: Ending) -> InstanceDeath | None:
        """Give how the instance died, if it did so with the task in hand and by itself."""
        over = task.over or task.instance in self._draining
        if over or not outcomes.is_interrupted(ending):
            return None
        return await self._cause(task.instance, task.started_at)

    async def _settle_lost(self, held: Held, *, begun: bool) -> None:
        after = outcomes.judged(held.task, Lost(begun), 0, self._clock.seconds())
        await self.settle(held, after)

    # --- what came of it ----------------------------------------------------

    async def settle(self, held: Held, after: Task) -> None:
        """Put on record what came of a task: it is over, or waits for its next attempt."""
        before = held.task
        if not await self._changed(before, after):
            return  # it was cancelled meanwhile
        if after.over:
            self._shelf.over(held, after)
            return
        held.task = after
        if after.attempts < before.attempts and not held.failures:
            self._shelf.line_up(held, first=True)  # it was never begun, and keeps its turn
            self.serve(after.deployment)
        else:
            self._in_background(self._later(held, max(after.attempts, held.failures)))

    async def _later(self, held: Held, failures: int) -> None:
        await deferLater(self._clock, _back_off(failures))
        self._shelf.line_up(held)
        self.serve(held.task.deployment)

    async def _changed(self, before: Task, after: Task) -> bool:
        """Put a change on record, however long the store cannot be written."""
        failures = 0
        while True:
            try:
                return bool(await self._store.change(before, after))
            except StateUnusable as error:
                failures += 1
                self.log.error("durable task {id}: {error}", id=before.id, error=error)
            await deferLater(self._clock, _back_off(failures))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        running = Deferred.fromCoroutine(work)
        self._work.add(running)
        running.addErrback(lambda failure: failure.trap(CancelledError) and None)
        running.addErrback(lambda failure: self.log.failure("a durable task broke", failure))
        running.addBoth(lambda _: self._work.discard(running))


def _back_off(failures: int) -> float:
    return BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS)) - 1]
