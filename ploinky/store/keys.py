"""API keys and sessions in the database, by the hash of their token."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ploinky.errors import Conflict, Unauthenticated
from ploinky.store import records
from ploinky.store.database import Database
from ploinky.store.tables import PRINCIPALS
from ploinky.store_interfaces import IKeyStore
from ploinky.values import Principal


@implementer(IKeyStore)
class SqliteKeyStore:
    """`IKeyStore` on SQLite.

    Args:
        clock: Tells what has expired; its seconds are Unix time.
        database: Open, and owned by the caller.
    """

    def __init__(self, clock: IReactorTime, database: Database) -> None:
        self._clock = clock
        self._database = database

    async def principals(self) -> list[Principal]:
        """See `IKeyStore`."""
        valid = or_(PRINCIPALS.c.expires_at.is_(None), PRINCIPALS.c.expires_at > self._now())
        query = select(PRINCIPALS).where(valid)

        def work(connection: Connection) -> list[Principal]:
            return [records.principal_from_row(row) for row in connection.execute(query).mappings()]

        return await self._database.run(work)

    async def add_principal(self, principal: Principal) -> None:
        """See `IKeyStore`.  What has expired meanwhile is deleted along with it."""
        now = self._now()

        def work(connection: Connection) -> None:
            connection.execute(delete(PRINCIPALS).where(PRINCIPALS.c.expires_at <= now))
            connection.execute(insert(PRINCIPALS).values(records.principal_to_row(principal)))

        try:
            await self._database.run(work)
        except IntegrityError as error:
            if "FOREIGN KEY" in str(error.orig):
                raise Unauthenticated("the key that this was to end with is gone") from error
            raise Conflict(f"there is a key {principal.id!r} already") from error

    async def remove_principal(self, token_hash: str) -> None:
        """See `IKeyStore`."""
        query = delete(PRINCIPALS).where(PRINCIPALS.c.token_hash == token_hash)
        await self._database.run(lambda connection: connection.execute(query) and None)

    async def used(self, moments: Mapping[str, float]) -> None:
        """See `IKeyStore`."""

        def work(connection: Connection) -> None:
            for token_hash, at in moments.items():
                row = update(PRINCIPALS).where(PRINCIPALS.c.token_hash == token_hash)
                connection.execute(row.values(last_used_at=at))

        await self._database.run(work)

    async def last_used(self) -> Mapping[str, float]:
        """See `IKeyStore`."""
        query = select(PRINCIPALS.c.token_hash, PRINCIPALS.c.last_used_at)
        query = query.where(PRINCIPALS.c.last_used_at.is_not(None))

        def work(connection: Connection) -> Mapping[str, float]:
            return {row.token_hash: row.last_used_at for row in connection.execute(query)}

        return await self._database.run(work)

    async def add_first_key(self, principal: Principal) -> bool:
        """See `IKeyStore`."""

        def work(connection: Connection) -> bool:
            keys = select(PRINCIPALS.c.id).where(PRINCIPALS.c.session.is_(False)).limit(1)
            if connection.execute(keys).first() is not None:
                return False
            connection.execute(insert(PRINCIPALS).values(records.principal_to_row(principal)))
            return True

        return await self._database.run(work)

    def _now(self) -> float:
        return self._clock.seconds()
