"""Deployments and releases in the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import IntegrityError
from zope.interface import implementer

from ploinky.errors import Conflict, NotFound
from ploinky.leader_interfaces import ISecretBox
from ploinky.store import records
from ploinky.store.database import Database
from ploinky.store.tables import DEPLOYMENTS, RELEASES
from ploinky.store_interfaces import IDeploymentStore
from ploinky.values import Deployment, Release, ReleaseState


@implementer(IDeploymentStore)
class SqliteDeploymentStore:
    """`IDeploymentStore` on SQLite.

    Args:
        database: Open, and owned by the caller.
        box: Seals the environments of releases.
    """

    def __init__(self, database: Database, box: ISecretBox) -> None:
        self._database = database
        self._box = box

    async def deployments(self) -> list[Deployment]:
        """See `IDeploymentStore`."""

        def work(connection: Connection) -> list[Deployment]:
            query = select(DEPLOYMENTS).order_by(DEPLOYMENTS.c.domain, DEPLOYMENTS.c.path)
            return [
                records.deployment_from_row(row) for row in connection.execute(query).mappings()
            ]

        return await self._database.run(work)

    async def save_deployment(self, deployment: Deployment) -> None:
        """See `IDeploymentStore`."""
        await self._database.run(_saving(deployment))

    async def delete_deployment(self, deployment_id: str) -> None:
        """See `IDeploymentStore`."""
        query = delete(DEPLOYMENTS).where(DEPLOYMENTS.c.id == deployment_id)
        await self._database.run(lambda connection: connection.execute(query) and None)

    async def releases(self, deployment_id: str) -> list[Release]:
        """See `IDeploymentStore`."""
        return (await self.releases_of([deployment_id]))[deployment_id]

    async def releases_of(self, deployment_ids: Sequence[str]) -> dict[str, list[Release]]:
        """See `IDeploymentStore`."""

        def work(connection: Connection) -> dict[str, list[Release]]:
            query = (
                select(RELEASES)
                .where(RELEASES.c.deployment.in_(deployment_ids))
                .order_by(RELEASES.c.number.desc())
            )
            found: dict[str, list[Release]] = {one: [] for one in deployment_ids}
            for row in connection.execute(query).mappings():
                found[row["deployment"]].append(records.release_from_row(row, self._box))
            return found

        return await self._database.run(work)

    async def save_release(self, release: Release) -> None:
        """See `IDeploymentStore`.

        Raises:
            NotFound: Its deployment is not, or no longer, kept.
        """

        def work(connection: Connection) -> None:
            row = records.release_to_row(release, self._box)
            query = insert(RELEASES).values(row)
            changes = {name: query.excluded[name] for name in row}
            connection.execute(
                query.on_conflict_do_update(index_elements=["deployment", "number"], set_=changes)
            )

        try:
            await self._database.run(work)
        except IntegrityError as error:
            raise NotFound(f"there is no deployment {release.deployment}") from error

    async def activate(self, deployment: Deployment, number: int) -> Deployment:
        """See `IDeploymentStore`.

        Returns:
            `deployment` with this release active, as it is now kept.

        Raises:
            NotFound: The deployment or the release is not, or no longer, kept.
        """
        switched = attrs.evolve(deployment, active_release=number)

        def work(connection: Connection) -> None:
            ours = RELEASES.c.deployment == deployment.id
            connection.execute(
                update(RELEASES)
                .where(ours, RELEASES.c.state == ReleaseState.ACTIVE.value)
                .values(state=ReleaseState.RETIRED.value)
            )
            activated = connection.execute(
                update(RELEASES)
                .where(ours, RELEASES.c.number == number)
                .values(state=ReleaseState.ACTIVE.value)
            )
            if activated.rowcount != 1:
                raise NotFound(f"there is no release {number} of {deployment.key}")
            _saving(switched)(connection)

        await self._database.run(work)
        return switched


def _saving(deployment: Deployment) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        row = records.deployment_to_row(deployment)
        query = insert(DEPLOYMENTS).values(row)
        changes = {name: query.excluded[name] for name in row}
        try:
            connection.execute(query.on_conflict_do_update(index_elements=["id"], set_=changes))
        except IntegrityError as error:
            raise Conflict(f"another deployment is at {deployment.key}") from error

    return work
