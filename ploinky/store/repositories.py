"""Registered repositories and domains in the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Update, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from zope.interface import implementer

from ploinky.errors import Conflict, NotFound
from ploinky.leader_interfaces import ISecretBox
from ploinky.source_values import Repository
from ploinky.store import records
from ploinky.store.database import Database
from ploinky.store.tables import DOMAINS, REPOSITORIES
from ploinky.store_interfaces import IRepositoryStore


@implementer(IRepositoryStore)
class SqliteRepositoryStore:
    """`IRepositoryStore` on SQLite.

    Args:
        database: Open, and owned by the caller.
        box: Seals the credentials of repositories.
    """

    def __init__(self, database: Database, box: ISecretBox) -> None:
        self._database = database
        self._box = box

    async def repositories(self) -> list[Repository]:
        """See `IRepositoryStore`."""

        def work(connection: Connection) -> list[Repository]:
            rows = connection.execute(select(REPOSITORIES).order_by(REPOSITORIES.c.name)).mappings()
            return [records.repository_from_row(row, self._box) for row in rows]

        return await self._database.run(work)

    async def add_repository(self, repository: Repository) -> None:
        """See `IRepositoryStore`."""
        query = insert(REPOSITORIES).values(records.repository_to_row(repository, self._box))
        await self._insert(query, f"there is a repository {repository.name!r} already")

    async def remove_repository(self, name: str) -> None:
        """See `IRepositoryStore`."""
        query = delete(REPOSITORIES).where(REPOSITORIES.c.name == name)
        await self._hit(query, f"there is no repository {name!r}")

    async def domains(self) -> list[Mapping[str, Any]]:
        """See `IRepositoryStore`."""

        def work(connection: Connection) -> list[Mapping[str, Any]]:
            rows = connection.execute(select(DOMAINS).order_by(DOMAINS.c.name)).mappings()
            return [dict(row) for row in rows]

        return await self._database.run(work)

    async def add_domain(self, name: str) -> None:
        """See `IRepositoryStore`."""
        query = insert(DOMAINS).values(name=name, enabled=True)
        await self._insert(query, f"there is a domain {name!r} already")

    async def change_domain(self, name: str, enabled: bool) -> None:
        """See `IRepositoryStore`."""
        query = update(DOMAINS).where(DOMAINS.c.name == name).values(enabled=enabled)
        await self._hit(query, f"there is no domain {name!r}")

    async def remove_domain(self, name: str) -> None:
        """See `IRepositoryStore`."""
        query = delete(DOMAINS).where(DOMAINS.c.name == name)
        await self._hit(query, f"there is no domain {name!r}")

    async def _insert(self, query: Insert, taken: str) -> None:
        try:
            await self._database.run(lambda connection: connection.execute(query) and None)
        except IntegrityError as error:
            raise Conflict(taken) from error

    async def _hit(self, query: Delete | Update, absent: str) -> None:
        if await self._database.run(lambda connection: connection.execute(query).rowcount) != 1:
            raise NotFound(absent)
