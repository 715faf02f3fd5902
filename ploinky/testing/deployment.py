"""The real deployment manager among neighbours in memory: no Git, no engine, no worker.

For tests of whatever stands above it.  Checkouts are made in a real directory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import ParamSpec, TypeVar

from twisted.internet.task import Clock

from ploinky.deployment.compose import Neighbours, make_deployment_manager
from ploinky.deployment.manager import DeploymentManager
from ploinky.settings import Settings
from ploinky.testing.api import RecordedWorkers
from ploinky.testing.git import FakeSource
from ploinky.testing.runtime import MemoryHost, MemoryInstances, MemoryRuntime
from ploinky.testing.store import MemoryDeploymentStore, MemoryRepositoryStore
from ploinky.threads import Blocking
from ploinky.values import DeploymentKey, Kind, Route

P = ParamSpec("P")
T = TypeVar("T")

CONTROL = Route(DeploymentKey("*", "/management"), Kind.CONTROL)


class DirectBlocking(Blocking):
    """Blocking work, done at once in the caller's own thread."""

    def __init__(self) -> None:
        """Nothing to start and nothing to stop."""

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Blocking.run`."""
        return work(*args, **kwargs)


class MemoryPlatform:
    """A deployment manager and all it conducts.

    Args:
        directory: Where checkouts are made.

    Attributes:
        clock: Moved by the test.
        manager: Its ``recover`` is still to be called.
    """

    def __init__(self, directory: Path, built_in_routes: Sequence[Route] = (CONTROL,)) -> None:
        self.clock = Clock()
        self.store = MemoryDeploymentStore()
        self.repositories = MemoryRepositoryStore()
        self.source = FakeSource()
        self.host = MemoryHost()
        self.instances = MemoryInstances()
        self.workers = RecordedWorkers()
        ids = count(1)
        self.manager: DeploymentManager = make_deployment_manager(
            self.clock,
            lambda: f"{next(ids):012d}",
            "memory",
            Settings(directory),
            Neighbours(
                DirectBlocking(),
                self.store,
                self.repositories,
                self.source,
                MemoryRuntime(self.clock, self.host),
                self.instances,
                self.workers,
            ),
            built_in_routes,
        )
