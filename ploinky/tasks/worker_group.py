"""All workers and the leader's own durable tasks, which are routed and drained as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from zope.interface import implementer

from ploinky.leader_interfaces import IWorkerGroup
from ploinky.tasks.durable import DurableTasks
from ploinky.values import Principal, Route


@implementer(IWorkerGroup)
class WorkersAndTasks:
    """What the deployment manager conducts: an instance is drained of calls and tasks alike.

    Args:
        workers: The real ones.
        tasks: Hands out tasks by the table that the workers get.
    """

    def __init__(self, workers: IWorkerGroup, tasks: DurableTasks) -> None:
        self._workers = workers
        self._tasks = tasks

    async def publish(self, routes: Sequence[Route]) -> int:
        """See `IWorkerGroup`."""
        self._tasks.adopt(routes)
        generation: int = await self._workers.publish(routes)
        return generation

    async def publish_principals(self, principals: Sequence[Principal]) -> int:
        """See `IWorkerGroup`."""
        generation: int = await self._workers.publish_principals(principals)
        return generation

    async def drain(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """See `IWorkerGroup`."""
        draining = (
            self._workers.drain(instances, timeout_seconds),
            self._tasks.drain(instances, timeout_seconds),
        )
        return sum(await gatherResults([Deferred.fromCoroutine(each) for each in draining]))

    async def gather_counts(self) -> None:
        """See `IWorkerGroup`."""
        await self._workers.gather_counts()

    def status(self) -> list[dict[str, Any]]:
        """See `IWorkerGroup`."""
        found: list[dict[str, Any]] = self._workers.status()
        return found
