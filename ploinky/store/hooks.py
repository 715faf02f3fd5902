"""Secrets of webhooks in the database."""

from __future__ import annotations

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import IntegrityError
from zope.interface import implementer

from ploinky.errors import NotFound
from ploinky.leader_interfaces import ISecretBox
from ploinky.store.database import Database
from ploinky.store.records import hook_purpose
from ploinky.store.tables import HOOKS
from ploinky.store_interfaces import IHookStore


@implementer(IHookStore)
class SqliteHookStore:
    """`IHookStore` on SQLite.

    Args:
        database: Open, and owned by the caller.
        box: Seals the secrets.
    """

    def __init__(self, database: Database, box: ISecretBox) -> None:
        self._database = database
        self._box = box

    async def hook_secret(self, deployment_id: str) -> str:
        """See `IHookStore`."""
        query = select(HOOKS.c.secret_sealed).where(HOOKS.c.deployment == deployment_id)

        def work(connection: Connection) -> str:
            sealed = connection.execute(query).scalar()
            if sealed is None:
                return ""
            return self._box.unseal(sealed, hook_purpose(deployment_id)).decode()

        return await self._database.run(work)

    async def save_hook_secret(self, deployment_id: str, secret: str) -> None:
        """See `IHookStore`."""
        sealed = self._box.seal(secret.encode(), hook_purpose(deployment_id))
        query = insert(HOOKS).values(deployment=deployment_id, secret_sealed=sealed)
        query = query.on_conflict_do_update(
            index_elements=[HOOKS.c.deployment], set_={"secret_sealed": sealed}
        )
        try:
            await self._database.run(lambda connection: connection.execute(query) and None)
        except IntegrityError as error:
            raise NotFound(f"there is no deployment {deployment_id}") from error
