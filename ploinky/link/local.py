"""Leader and worker in one process: the door of the link without the link."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import attrs
from zope.interface import implementer

from ploinky.leader_interfaces import IWorkerGroup
from ploinky.values import Principal, Route, RouteSnapshot


@implementer(IWorkerGroup)
class LocalWorkerGroup:
    """One worker, which is this process.

    Args:
        corridor: Provides `ICorridor`.
    """

    def __init__(self, corridor: Any) -> None:
        self._corridor = corridor
        self._newest = RouteSnapshot(0, ())

    async def publish(self, routes: Sequence[Route]) -> int:
        """See `IWorkerGroup.publish`."""
        return self._spread(routes=tuple(routes))

    async def publish_principals(self, principals: Sequence[Principal]) -> int:
        """See `IWorkerGroup.publish_principals`."""
        return self._spread(principals=tuple(principals))

    async def drain(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """See `IWorkerGroup.drain`."""
        left: int = await self._corridor.drained(instances, timeout_seconds)
        return left

    async def gather_counts(self) -> None:
        """See `IWorkerGroup.gather_counts`; what counts in this process reports here."""

    def status(self) -> list[dict[str, Any]]:
        """See `IWorkerGroup.status`."""
        return [
            {
                "slot": 0,
                "pid": os.getpid(),
                "state": "serving",
                "generation": self._newest.generation,
                "restarts": 0,
            }
        ]

    def _spread(self, **changes: Any) -> int:
        generation = self._newest.generation + 1
        self._newest = attrs.evolve(self._newest, generation=generation, **changes)
        self._corridor.adopt(self._newest)
        return generation
