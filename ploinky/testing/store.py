"""The stores in memory: same promises, same tests, nothing on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ploinky.errors import Conflict, NotFound, StateUnusable, Unauthenticated
from ploinky.measures import (
    FOREVER,
    RESOLUTIONS,
    CountBatch,
    Counts,
    KeptCounts,
    Label,
    Point,
    Sums,
    added,
)
from ploinky.source_values import Repository
from ploinky.store_interfaces import (
    IAuditTrail,
    IDeploymentStore,
    IHookStore,
    IKeyStore,
    IMetricsStore,
    IRepositoryStore,
    ISnapshots,
    ITaskStore,
)
from ploinky.task_values import (
    Task,
    TaskPage,
    TaskQuery,
    TaskState,
)
from ploinky.values import AuditEntry, AuditVerdict, Deployment, Principal, Release, ReleaseState

KEY_SECONDS = 86_400.0


@implementer(IDeploymentStore)
class MemoryDeploymentStore:
    """`IDeploymentStore` in memory; it lives as long as this object."""

    def __init__(self) -> None:
        self._deployments: dict[str, Deployment] = {}
        self._releases: dict[str, dict[int, Release]] = {}

    async def deployments(self) -> list[Deployment]:
        """See `IDeploymentStore`."""
        return sorted(self._deployments.values(), key=lambda deployment: deployment.key)

    async def save_deployment(self, deployment: Deployment) -> None:
        """See `IDeploymentStore`."""
        for other in self._deployments.values():
            if other.key == deployment.key and other.id != deployment.id:
                raise Conflict(f"another deployment is at {deployment.key}")
        self._deployments[deployment.id] = deployment
        self._releases.setdefault(deployment.id, {})

    async def delete_deployment(self, deployment_id: str) -> None:
        """See `IDeploymentStore`."""
        self._deployments.pop(deployment_id, None)
        self._releases.pop(deployment_id, None)

    async def releases(self, deployment_id: str) -> list[Release]:
        """See `IDeploymentStore`."""
        kept = self._releases.get(deployment_id, {})
        return [kept[number] for number in sorted(kept, reverse=True)]

    async def releases_of(self, deployment_ids: Sequence[str]) -> dict[str, list[Release]]:
        """See `IDeploymentStore`."""
        return {one: await self.releases(one) for one in deployment_ids}

    async def save_release(self, release: Release) -> None:
        """See `IDeploymentStore`."""
        if release.deployment not in self._releases:
            raise NotFound(f"there is no deployment {release.deployment}")
        self._releases[release.deployment][release.number] = release

    async def activate(self, deployment: Deployment, number: int) -> Deployment:
        """See `IDeploymentStore`."""
        kept = self._releases.get(deployment.id, {})
        if number not in kept:
            raise NotFound(f"there is no release {number} of {deployment.key}")
        switched = attrs.evolve(deployment, active_release=number)
        await self.save_deployment(switched)
        for other in list(kept.values()):
            if other.state is ReleaseState.ACTIVE:
                kept[other.number] = attrs.evolve(other, state=ReleaseState.RETIRED)
        kept[number] = attrs.evolve(kept[number], state=ReleaseState.ACTIVE)
        return switched


@implementer(IRepositoryStore)
class MemoryRepositoryStore:
    """`IRepositoryStore` in memory; it lives as long as this object."""

    def __init__(self) -> None:
        self._repositories: dict[str, Repository] = {}
        self._domains = {"localhost": True}

    async def repositories(self) -> list[Repository]:
        """See `IRepositoryStore`."""
        return [self._repositories[name] for name in sorted(self._repositories)]

    async def add_repository(self, repository: Repository) -> None:
        """See `IRepositoryStore`."""
        if repository.name in self._repositories:
            raise Conflict(f"there is a repository {repository.name!r} already")
        self._repositories[repository.name] = repository

    async def remove_repository(self, name: str) -> None:
        """See `IRepositoryStore`."""
        if self._repositories.pop(name, None) is None:
            raise NotFound(f"there is no repository {name!r}")

    async def domains(self) -> list[Mapping[str, Any]]:
        """See `IRepositoryStore`."""
        return [{"name": name, "enabled": self._domains[name]} for name in sorted(self._domains)]

    async def add_domain(self, name: str) -> None:
        """See `IRepositoryStore`."""
        if name in self._domains:
            raise Conflict(f"there is a domain {name!r} already")
        self._domains[name] = True

    async def change_domain(self, name: str, enabled: bool) -> None:
        """See `IRepositoryStore`."""
        if name not in self._domains:
            raise NotFound(f"there is no domain {name!r}")
        self._domains[name] = enabled

    async def remove_domain(self, name: str) -> None:
        """See `IRepositoryStore`."""
        if self._domains.pop(name, None) is None:
            raise NotFound(f"there is no domain {name!r}")


@implementer(IKeyStore)
class MemoryKeyStore:
    """`IKeyStore` in memory; it lives as long as this object.

    Args:
        clock: Tells what has expired.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._principals: dict[str, Principal] = {}
        self._used: dict[str, float] = {}

    async def principals(self) -> list[Principal]:
        """See `IKeyStore`."""
        now = self._clock.seconds()
        return [
            principal
            for principal in self._principals.values()
            if principal.expires_at is None or principal.expires_at > now
        ]

    async def add_principal(self, principal: Principal) -> None:
        """See `IKeyStore`."""
        now = self._clock.seconds()
        self._principals = {
            token_hash: kept
            for token_hash, kept in self._principals.items()
            if kept.expires_at is None or kept.expires_at > now
        }
        if principal.parent and principal.parent not in self._principals:
            raise Unauthenticated("the key that this was to end with is gone")
        key_ids = {kept.id for kept in self._principals.values() if not kept.session}
        if principal.token_hash in self._principals or (
            not principal.session and principal.id in key_ids
        ):
            raise Conflict(f"there is a key {principal.id!r} already")
        self._principals[principal.token_hash] = principal

    async def remove_principal(self, token_hash: str) -> None:
        """See `IKeyStore`."""
        self._principals.pop(token_hash, None)
        for ends_with_it in [p for p in self._principals.values() if p.parent == token_hash]:
            await self.remove_principal(ends_with_it.token_hash)

    async def used(self, moments: Mapping[str, float]) -> None:
        """See `IKeyStore`."""
        self._used |= {kept: at for kept, at in moments.items() if kept in self._principals}

    async def last_used(self) -> Mapping[str, float]:
        """See `IKeyStore`."""
        return dict(self._used)

    async def add_first_key(self, principal: Principal) -> bool:
        """See `IKeyStore`."""
        if any(not kept.session for kept in self._principals.values()):
            return False
        self._principals[principal.token_hash] = principal
        return True


@implementer(ITaskStore)
class MemoryTaskStore:
    """`ITaskStore` in memory; it lives as long as this object.

    Args:
        clock: Tells how old a key is.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._tasks: dict[str, Task] = {}

    async def add(self, task: Task) -> Task:
        """See `ITaskStore`."""
        for kept in self._tasks.values():
            if kept.id == task.id or (task.once and kept.once == task.once and self._holds(kept)):
                return kept
        self._tasks[task.id] = task
        return task

    async def change(self, before: Task, after: Task) -> bool:
        """See `ITaskStore`."""
        kept = self._tasks.get(before.id)
        if kept is None or (kept.state, kept.deliveries) != (before.state, before.deliveries):
            return False
        self._tasks[before.id] = attrs.evolve(after, params=kept.params, once=kept.once)
        return True

    async def task(self, task: str) -> Task | None:
        """See `ITaskStore`."""
        return self._tasks.get(task)

    async def unfinished(self) -> list[Task]:
        """See `ITaskStore`."""
        return [_listed(task) for task in self._tasks.values() if not task.over]

    async def tasks(self, query: TaskQuery) -> TaskPage:
        """See `ITaskStore`."""
        found = [_listed(task) for task in self._tasks.values() if _wanted(task, query)]
        found.reverse()
        first = (query.page - 1) * query.per_page
        return TaskPage(tuple(found[first : first + query.per_page]), len(found))

    async def sweep(self, before: float, most: int, most_bytes: int) -> int:
        """See `ITaskStore`."""
        for task in self._over():
            if task.finished_at < before and not self._holds(task):
                del self._tasks[task.id]
        for task in self._over()[: max(0, len(self._over()) - most)]:
            if not self._holds(task):
                del self._tasks[task.id]
        for task in self._over():
            if sum(each.size for each in self._tasks.values()) <= most_bytes:
                break
            if self._holds(task):
                self._tasks[task.id] = attrs.evolve(task, params=b"", outcome=b"", size=0)
            else:
                del self._tasks[task.id]
        return len(self._over())

    def _over(self) -> list[Task]:
        return [task for task in self._tasks.values() if task.over]

    def _holds(self, task: Task) -> bool:
        return bool(task.once) and task.created_at > self._clock.seconds() - KEY_SECONDS


def _listed(task: Task) -> Task:
    return attrs.evolve(task, params=b"", outcome=b"")


def _wanted(task: Task, query: TaskQuery) -> bool:
    return (
        (not query.states or task.state in query.states)
        and (not query.domain or task.key.domain == query.domain)
        and (not query.path or task.key.path == query.path)
        and (not query.scope or task.key.domain in query.scope or str(task.key) in query.scope)
        and (not query.dead or (task.state is TaskState.FAILED and task.status >= 500))
    )


@implementer(IHookStore)
class MemoryHookStore:
    """`IHookStore` in memory; it knows any deployment."""

    def __init__(self) -> None:
        self._secrets: dict[str, str] = {}

    async def hook_secret(self, deployment_id: str) -> str:
        """See `IHookStore`."""
        return self._secrets.get(deployment_id, "")

    async def save_hook_secret(self, deployment_id: str, secret: str) -> None:
        """See `IHookStore`."""
        self._secrets[deployment_id] = secret


@implementer(IAuditTrail)
class MemoryAuditTrail:
    """`IAuditTrail` in memory, without a chain.

    Attributes:
        written: Every entry, in order.
        refusal: Where it is set, nothing can be written.
    """

    def __init__(self) -> None:
        self.written: list[AuditEntry] = []
        self.refusal: Exception | None = None

    async def append(self, *entries: AuditEntry) -> None:
        """See `IAuditTrail`."""
        if self.refusal is not None:
            raise self.refusal
        for entry in entries:
            self.written.append(attrs.evolve(entry, number=len(self.written) + 1, hash="h"))

    async def entries(self, skip: int, most: int) -> tuple[int, list[AuditEntry]]:
        """See `IAuditTrail`."""
        return len(self.written), self.written[::-1][skip : skip + most]

    async def verify(self, expected: str) -> AuditVerdict:
        """See `IAuditTrail`."""
        return AuditVerdict(len(self.written), "h")


@implementer(IMetricsStore)
class MemoryMetricsStore:
    """`IMetricsStore` in memory.

    Attributes:
        refusal: Where it is set, every method fails with it.
    """

    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self._points: dict[tuple[int, int], dict[Label, Sums]] = {}
        self._reporters: dict[str, tuple[int, float]] = {}

    async def kept(self) -> KeptCounts:
        """See `IMetricsStore`."""
        self._answer()
        numbers = {reporter: number for reporter, (number, _) in self._reporters.items()}
        return KeptCounts(dict(self._points.get((FOREVER, 0), {})), numbers)

    async def add(self, batch: CountBatch) -> None:
        """See `IMetricsStore`."""
        self._answer()
        for resolution in (FOREVER, *RESOLUTIONS):
            time = int(batch.time // resolution * resolution) if resolution else 0
            before = self._points.get((resolution, time), {})
            self._points[resolution, time] = added(before, batch.counts)
        for reporter, number in batch.numbers.items():
            self._reporters[reporter] = (number, batch.time)

    async def points(self, resolution: int, since: float) -> list[Point]:
        """See `IMetricsStore`."""
        self._answer()
        return [
            Point(time, label, sums)
            for (kept, time), counts in sorted(self._points.items(), key=lambda each: each[0])
            if kept == resolution and time >= since
            for label, sums in counts.items()
        ]

    async def prune(self, oldest: Mapping[int, float], reporters_seen_since: float) -> None:
        """See `IMetricsStore`."""
        self._answer()
        for resolution, time in list(self._points):
            if resolution in oldest and time < oldest[resolution]:
                del self._points[resolution, time]
        for reporter, (_, seen_at) in list(self._reporters.items()):
            if seen_at < reporters_seen_since:
                del self._reporters[reporter]

    async def forget_all_but(self, deployments: Iterable[str]) -> Counts:
        """See `IMetricsStore`."""
        self._answer()
        alive = set(deployments)
        totals: dict[Label, Sums] = {}
        for label, sums in self._points.get((FOREVER, 0), {}).items():
            if label.deployment not in alive:
                label = Label("", "", label.status, label.failed_at)
            totals = added(totals, {label: sums})
        self._points[FOREVER, 0] = totals
        return dict(totals)

    def _answer(self) -> None:
        if self.refusal is not None:
            raise self.refusal


@implementer(ISnapshots)
class MemorySnapshots:
    """`ISnapshots` of a database that is not there.

    Attributes:
        content: What a copy holds.
        taken: How many there were.
    """

    def __init__(self, content: bytes = b"a database") -> None:
        self.content = content
        self.taken = 0

    async def snapshot(self, destination: str) -> None:
        """See `ISnapshots`."""
        try:
            descriptor = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise StateUnusable(f"{destination} is there already") from error
        with open(descriptor, "wb") as file:
            file.write(self.content)
        self.taken += 1

    async def sealed_with(self) -> str:
        """See `ISnapshots`."""
        return "fingerprint"
