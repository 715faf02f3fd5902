"""What stands behind the management API in tests: a manager and workers in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from ploinky.errors import NotFound, PloinkyError
from ploinky.interfaces import IDeploymentManager, IDeploymentStore, IWorkerGroup, Report
from ploinky.values import (
    Deployment,
    DeploymentKey,
    DeploymentState,
    DeploymentView,
    DeployRequest,
    Principal,
    Release,
    ReleaseState,
    Route,
)


@implementer(IDeploymentManager)
class MemoryDeploymentManager:
    """`IDeploymentManager` without agents: what is deployed serves at once.

    Attributes:
        store: Where deployments and releases are kept, as the real one keeps them.
        gate: Where it is set, changes wait for it.
        refusal: Where it is set, changes fail with it.
        silent: Whether a deploy reports nothing, as one that waits for its turn.
        requests: Every request to deploy, in order.
    """

    def __init__(self, store: IDeploymentStore) -> None:
        self.store = store
        self.gate: Deferred[None] | None = None
        self.refusal: PloinkyError | None = None
        self.silent = False
        self.requests: list[DeployRequest] = []
        self._views: dict[DeploymentKey, DeploymentView] = {}
        self._watchers: list[Callable[[DeploymentKey, str], None]] = []

    async def deploy(self, request: DeployRequest, report: Report) -> DeploymentView:
        """See `IDeploymentManager`."""
        self.requests.append(request)
        if not self.silent:
            report(f"deploying {request.agent}")
        before = self._views.get(request.key)
        kept = before.deployment if before else self._new(request)
        await self.store.save_deployment(kept)
        number = len(await self.store.releases(kept.id)) + 1
        release = Release(
            kept.id,
            number,
            ReleaseState.PREPARING,
            request,
            commit="c0ffee",
            image=request.image or "node:18-alpine",
            settings={"kind": "task", **request.settings},
            environment=request.environment,
        )
        await self.store.save_release(release)
        old_release = before.release if before else None
        self._views[request.key] = DeploymentView(
            kept, old_release, DeploymentState.DEPLOYING, step="source"
        )
        try:
            await self._passage()
        except PloinkyError as error:
            said = {"code": error.code, "message": error.message, "output": "last words"}
            await self.store.save_release(
                attrs.evolve(release, state=ReleaseState.FAILED, error=said)
            )
            state = DeploymentState.RUNNING if kept.active_release else DeploymentState.FAILED
            self._views[request.key] = DeploymentView(kept, old_release, state, error=said)
            raise
        kept = await self.store.activate(kept, number)
        self._views[request.key] = DeploymentView(
            kept, release, DeploymentState.RUNNING, healthy_instances=1
        )
        return self._views[request.key]

    async def remove(self, key: DeploymentKey) -> None:
        """See `IDeploymentManager`."""
        view = self._find(key)
        await self._passage()
        await self.store.delete_deployment(view.deployment.id)
        del self._views[key]
        for changed in self._watchers:
            changed(key, "")

    async def restart(self, key: DeploymentKey) -> DeploymentView:
        """See `IDeploymentManager`."""
        return await self._become(key, DeploymentState.RUNNING, 1)

    async def stop(self, key: DeploymentKey) -> DeploymentView:
        """See `IDeploymentManager`."""
        return await self._become(key, DeploymentState.STOPPED, 0)

    async def start(self, key: DeploymentKey) -> DeploymentView:
        """See `IDeploymentManager`."""
        return await self._become(key, DeploymentState.RUNNING, 1)

    def deployments(self) -> list[DeploymentView]:
        """See `IDeploymentManager`."""
        return [self._views[key] for key in sorted(self._views)]

    def watch(self, changed: Callable[[DeploymentKey, str], None]) -> None:
        """See `IDeploymentManager`."""
        self._watchers.append(changed)

    def becomes(self, key: DeploymentKey, state: DeploymentState) -> None:
        """Let a deployment stand differently, as if by itself."""
        self._views[key] = attrs.evolve(self._find(key), state=state)
        for changed in self._watchers:
            changed(key, "")

    def _new(self, request: DeployRequest) -> Deployment:
        return Deployment(f"{len(self.requests):012}", request.key, request.agent)

    async def _become(
        self, key: DeploymentKey, state: DeploymentState, instances: int
    ) -> DeploymentView:
        view = self._find(key)
        await self._passage()
        self._views[key] = attrs.evolve(view, state=state, healthy_instances=instances)
        return self._views[key]

    def _find(self, key: DeploymentKey) -> DeploymentView:
        if key not in self._views:
            raise NotFound(f"nothing is deployed at {key}")
        return self._views[key]

    async def _passage(self) -> None:
        if self.gate is not None:
            await self.gate
        if self.refusal is not None:
            raise self.refusal


@implementer(IWorkerGroup)
class RecordedWorkers:
    """`IWorkerGroup` that remembers what it was told.

    Attributes:
        routes: As published last.
        principals: As published last.
        states: What `status` says of each worker.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.routes: tuple[Route, ...] = ()
        self.principals: tuple[Principal, ...] = ()
        self.states = ["serving"]

    async def publish(self, routes: Sequence[Route]) -> int:
        """See `IWorkerGroup`."""
        self.routes = tuple(routes)
        return self._next()

    async def publish_principals(self, principals: Sequence[Principal]) -> int:
        """See `IWorkerGroup`."""
        self.principals = tuple(principals)
        return self._next()

    async def drain(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """See `IWorkerGroup`."""
        return 0

    def status(self) -> list[dict[str, Any]]:
        """See `IWorkerGroup`."""
        return [self._status(slot, state) for slot, state in enumerate(self.states)]

    def _status(self, slot: int, state: str) -> dict[str, Any]:
        status: Mapping[str, Any] = {"slot": slot, "pid": 1000 + slot, "state": state}
        return {**status, "generation": self.generation, "restarts": 0}

    def _next(self) -> int:
        self.generation += 1
        return self.generation
