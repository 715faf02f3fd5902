"""The doors to what is kept, as those in `ploinky.interfaces`: each method is one transaction.

Once it has fired, what was changed is on disk.  Every method may raise `StateUnusable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import Interface

if TYPE_CHECKING:
    from ploinky.measures import CountBatch, Counts, KeptCounts, Point
    from ploinky.source_values import Repository
    from ploinky.task_values import (
        Task,
        TaskPage,
        TaskQuery,
    )
    from ploinky.values import AuditEntry, AuditVerdict, Deployment, Principal, Release


class IDeploymentStore(Interface):
    """Deployments and their releases.  Each method is one transaction."""

    async def deployments() -> list[Deployment]:
        """All of them."""

    async def save_deployment(deployment: Deployment) -> None:
        """Insert, or replace the one with this id.

        Raises:
            Conflict: Another deployment has this key.
        """

    async def delete_deployment(deployment_id: str) -> None:
        """Delete it with its releases; one that is gone is no error."""

    async def releases(deployment_id: str) -> list[Release]:
        """Newest first."""

    async def releases_of(deployment_ids: Sequence[str]) -> dict[str, list[Release]]:
        """Those of several deployments, by deployment: of each, newest first; ``[]`` for none."""

    async def save_release(release: Release) -> None:
        """Insert, or replace the one with this deployment and number."""

    async def activate(deployment: Deployment, number: int) -> Deployment:
        """The switch, in one transaction: this release active, the one before retired."""


class ITaskStore(Interface):
    """Durable tasks.  Each method is one transaction, and transactions follow one another."""

    async def add(task: Task) -> Task:
        """Keep it, unless one with its id is kept, or one with its ``once`` that is not a day old.

        Returns:
            The one that is kept now.
        """

    async def change(before: Task, after: Task) -> bool:
        """Let it stand as ``after`` if state and deliveries are those of ``before``.

        Returns:
            Whether they were.  Where not, nothing was changed.
        """

    async def task(task: str) -> Task | None:
        """Give the task with this id, params and outcome included."""

    async def unfinished() -> list[Task]:
        """Give those that are queued or running, without params; oldest first."""

    async def tasks(query: TaskQuery) -> TaskPage:
        """Give a page of those that a query wants, newest first."""

    async def sweep(before: float, most: int, most_bytes: int) -> int:
        """Forget tasks that are over: before a time, and beyond a number or size the oldest.

        What was called with a key stays a day, so that a repeat is not run; its params and
        outcome may go.

        Returns:
            How many that are over are left.
        """


class IRepositoryStore(Interface):
    """Registered repositories and domains."""

    async def repositories() -> list[Repository]:
        """Ordered by name."""

    async def add_repository(repository: Repository) -> None:
        """Register it.

        Raises:
            Conflict: The name is taken.
        """

    async def remove_repository(name: str) -> None:
        """Forget it.

        Raises:
            NotFound: There is none of this name.
        """

    async def domains() -> list[Mapping[str, Any]]:
        """``{name, enabled}`` each, ordered; ``localhost`` exists from the start."""

    async def add_domain(name: str) -> None:
        """Add it.

        Raises:
            Conflict: It exists.
        """

    async def change_domain(name: str, enabled: bool) -> None:
        """Enable or disable it.

        Raises:
            NotFound: It does not exist.
        """

    async def remove_domain(name: str) -> None:
        """Remove it.

        Raises:
            NotFound: It does not exist.
        """


class IHookStore(Interface):
    """Secrets that webhooks of deployments are signed with."""

    async def hook_secret(deployment_id: str) -> str:
        """Give it; ``""`` where there is none."""

    async def save_hook_secret(deployment_id: str, secret: str) -> None:
        """Keep it in place of an earlier one; it goes with its deployment.

        Raises:
            NotFound: There is no such deployment.
        """


class IAuditTrail(Interface):
    """Who did what: written once, never changed."""

    async def append(*entries: AuditEntry) -> None:
        """Write them down, in this order; they are on disk when this fires, or none is."""

    async def entries(skip: int, most: int) -> tuple[int, list[AuditEntry]]:
        """Tell how many there are, and give some of them, the newest first."""

    async def verify(expected: str) -> AuditVerdict:
        """Check the whole chain, and that the hash ``expected`` is in it (``""``: any)."""


class IKeyStore(Interface):
    """API keys and login sessions, by the SHA-256 of their token."""

    async def principals() -> list[Principal]:
        """All that are valid now."""

    async def add_principal(principal: Principal) -> None:
        """Keep it.

        Raises:
            Conflict: A key with this id exists (sessions share ids freely).
            Unauthenticated: Its parent is gone.
        """

    async def remove_principal(token_hash: str) -> None:
        """Forget it and all that ends with it; one that is gone is no error."""

    async def used(moments: Mapping[str, float]) -> None:
        """Note when principals were used last, by token hash; the unknown are passed over."""

    async def last_used() -> Mapping[str, float]:
        """Give what `used` was told, by token hash."""

    async def add_first_key(principal: Principal) -> bool:
        """Keep it if there is no key at all yet, in one transaction; tell whether it was kept."""


class IMetricsStore(Interface):
    """Counts of calls: totals of all time, and points of each of `RESOLUTIONS`."""

    async def kept() -> KeptCounts:
        """Give the totals, and how far each reporter's reports are in them."""

    async def add(batch: CountBatch) -> None:
        """Add a batch to the totals and to the points of its time, and keep its numbers.

        One transaction: what is counted and that it was counted are kept together or not at all.
        """

    async def points(resolution: int, since: float) -> list[Point]:
        """Give the points that begin at ``since`` (Unix seconds) or later, in order of time."""

    async def prune(oldest: Mapping[int, float], reporters_seen_since: float) -> None:
        """Delete old points.

        Args:
            oldest: By resolution, the time of the oldest point to keep.
            reporters_seen_since: Reporters that are silent for longer are forgotten.
        """

    async def forget_all_but(deployments: Iterable[str]) -> Counts:
        """Add the totals of all other deployments up under the id ``""``.

        Returns:
            The totals as they are then.
        """


class ISnapshots(Interface):
    """The database as a whole."""

    async def snapshot(destination: str) -> None:
        """Write a copy of it, as it is at one moment, to a file that does not exist yet.

        Nobody who reads or writes meanwhile has to wait.
        """

    async def sealed_with() -> str:
        """Name the master key that opens its secrets, without giving it away."""
