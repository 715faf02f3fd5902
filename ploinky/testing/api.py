"""What stands behind the management API in tests: a manager and workers in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ploinky.deployment.history import earlier_release
from ploinky.errors import Conflict, NotFound, PloinkyError
from ploinky.interfaces import IDeploymentManager, Report
from ploinky.leader_interfaces import IDurableTasks, IWorkerGroup
from ploinky.store_interfaces import IDeploymentStore, ITaskStore
from ploinky.task_values import (
    Submission,
    Task,
    TaskState,
)
from ploinky.tasks.told_changes import ToldChanges
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
        domains_adopted: How often it was told to look at the domains.
    """

    def __init__(self, store: IDeploymentStore) -> None:
        self.store = store
        self.gate: Deferred[None] | None = None
        self.refusal: PloinkyError | None = None
        self.silent = False
        self.requests: list[DeployRequest] = []
        self.domains_adopted = 0
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
            image=f"memory:{request.image or 'node:18-alpine'}",
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

    async def rollback(self, key: DeploymentKey, number: int) -> DeploymentView:
        """See `IDeploymentManager`."""
        view = self._find(key)
        releases = await self.store.releases(view.deployment.id)
        release = earlier_release(releases, view.deployment, number)
        kept = await self.store.activate(view.deployment, release.number)
        await self._become(key, DeploymentState.RUNNING, 1)
        self._views[key] = attrs.evolve(self._views[key], deployment=kept, release=release)
        return self._views[key]

    async def scale(self, key: DeploymentKey, replicas: int) -> DeploymentView:
        """See `IDeploymentManager`."""
        return await self._become(key, DeploymentState.RUNNING, replicas)

    async def adopt_domains(self) -> None:
        """See `IDeploymentManager`."""
        self.domains_adopted += 1
        await self._passage()

    def deployments(self) -> list[DeploymentView]:
        """See `IDeploymentManager`."""
        return [self._views[key] for key in sorted(self._views)]

    def deployment(self, key: DeploymentKey) -> DeploymentView:
        """See `IDeploymentManager`."""
        return self._find(key)

    def deployment_of(self, deployment_id: str) -> DeploymentView | None:
        """See `IDeploymentManager`."""
        return next((v for v in self._views.values() if v.deployment.id == deployment_id), None)

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
            raise NotFound(f"nothing is deployed at {key}; see p-cli cloud deployments")
        return self._views[key]

    async def _passage(self) -> None:
        if self.gate is not None:
            await self.gate
        if self.refusal is not None:
            raise self.refusal


@implementer(IDurableTasks)
class MemoryDurableTasks:
    """`IDurableTasks` without agents: a task waits until a test says what came of it.

    Attributes:
        refusal: Where it is set, submissions fail with it.
        submitted: In order.
        waits: How long callers would wait, in order; nobody waits really.
    """

    def __init__(self, clock: IReactorTime, store: ITaskStore) -> None:
        self._clock = clock
        self._store = ToldChanges(store)
        self.refusal: PloinkyError | None = None
        self.submitted: list[Submission] = []
        self.waits: list[float] = []

    async def submit(self, call: Submission) -> Task:
        """See `IDurableTasks`."""
        if self.refusal is not None:
            raise self.refusal
        self.submitted.append(call)
        now = self._clock.seconds()
        task = Task(
            id=call.task,
            deployment=call.deployment,
            key=DeploymentKey("localhost", "/demo"),
            command=call.command,
            params=call.params,
            user=call.user,
            anonymous=call.anonymous,
            request_id=call.request_id,
            created_at=now,
            queued_at=now,
            once=call.key,
        )
        return await self._store.add(task)

    async def finished(self, task: str, timeout_seconds: float) -> Task:
        """See `IDurableTasks`."""
        self.waits.append(timeout_seconds)
        return await self._find(task)

    async def cancel(self, task: str) -> Task:
        """See `IDurableTasks`."""
        found = await self._find(task)
        if found.over and found.state is not TaskState.CANCELLED:
            raise Conflict(f"the task {task} has {found.state.value} already")
        return await self._become(found, state=TaskState.CANCELLED)

    async def retry(self, task: str) -> Task:
        """See `IDurableTasks`."""
        found = await self._find(task)
        if not found.over or found.state is TaskState.SUCCEEDED:
            raise Conflict(f"the task {task} is {found.state.value}")
        return await self._become(found, state=TaskState.QUEUED, outcome=b"", status=0)

    def watch(self, changed: Callable[[Task], None]) -> None:
        """See `IDurableTasks`."""
        self._store.listen(changed)

    async def ends(self, task: str, status: int, outcome: bytes) -> None:
        """Let this come of a task."""
        state = TaskState.SUCCEEDED if status == 200 else TaskState.FAILED
        found = await self._find(task)
        await self._become(found, state=state, status=status, outcome=outcome)

    async def _become(self, before: Task, **changes: Any) -> Task:
        after = attrs.evolve(before, finished_at=self._clock.seconds(), **changes)
        await self._store.change(before, after)
        return after

    async def _find(self, task: str) -> Task:
        found = await self._store.task(task)
        if found is None:
            raise NotFound(f"there is no task {task}")
        return found


@implementer(IWorkerGroup)
class RecordedWorkers:
    """`IWorkerGroup` that remembers what it was told.

    Attributes:
        routes: As published last.
        principals: As published last.
        states: What `status` says of each worker.
        unreported: What to call when counts are gathered.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.routes: tuple[Route, ...] = ()
        self.principals: tuple[Principal, ...] = ()
        self.states = ["serving"]
        self.unreported: list[Callable[[], None]] = []

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

    async def gather_counts(self) -> None:
        """See `IWorkerGroup`."""
        unreported, self.unreported = self.unreported, []
        for report in unreported:
            report()

    def status(self) -> list[dict[str, Any]]:
        """See `IWorkerGroup`."""
        return [self._status(slot, state) for slot, state in enumerate(self.states)]

    def _status(self, slot: int, state: str) -> dict[str, Any]:
        status: Mapping[str, Any] = {"slot": slot, "pid": 1000 + slot, "state": state}
        return {**status, "generation": self.generation, "restarts": 0}

    def _next(self) -> int:
        self.generation += 1
        return self.generation
