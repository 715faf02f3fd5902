"""Every secret in the database sealed anew with another master key, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from ploinky.leader_interfaces import ISecretBox
from ploinky.store import records
from ploinky.store.database import Database
from ploinky.store.tables import HOOKS, RELEASES, REPOSITORIES, SEALED_WITH


async def sealed_with(database: Database) -> str:
    """Give the fingerprint of the master key in force; ``""`` where none is on record yet."""
    query = select(SEALED_WITH.c.fingerprint)
    return await database.run(lambda connection: connection.execute(query).scalar() or "")


async def note_key(database: Database, box: ISecretBox, fingerprint: str) -> None:
    """Put the first master key on record, once it has opened all that is sealed.

    Raises:
        StateUnusable: Something does not open with it; nothing has changed.
    """

    def work(connection: Connection) -> None:
        for _, row, column, purpose in _sealed(connection):
            box.unseal(row[column.key], purpose)
        _note(connection, fingerprint)

    await database.run(work)


async def reseal(database: Database, old: ISecretBox, new: ISecretBox, fingerprint: str) -> int:
    """Seal everything anew, all or nothing.

    Args:
        fingerprint: Of the new key, which is in force once this fires.

    Returns:
        How many secrets there were.

    Raises:
        StateUnusable: One does not open with the old key; nothing has changed.
    """

    def work(connection: Connection) -> int:
        count = 0
        for table, row, column, purpose in _sealed(connection):
            sealed = new.seal(old.unseal(row[column.key], purpose), purpose)
            key = [part == row[part.key] for part in table.primary_key]
            connection.execute(update(table).where(*key).values({column.key: sealed}))
            count += 1
        _note(connection, fingerprint)
        return count

    return await database.run(work)


def _sealed(connection: Connection) -> Iterator[tuple[Any, Any, Any, str]]:
    """Give the place and purpose of every secret."""
    for row in connection.execute(select(RELEASES)).mappings().all():
        where = records.release_purpose(row["deployment"], row["number"])
        yield RELEASES, row, RELEASES.c.environment_sealed, f"{where}/environment"
        yield RELEASES, row, RELEASES.c.request_environment_sealed, f"{where}/request-environment"
    for row in connection.execute(select(REPOSITORIES)).mappings().all():
        if row["credential_sealed"] is not None:
            purpose = records.repository_purpose(row["name"])
            yield REPOSITORIES, row, REPOSITORIES.c.credential_sealed, purpose
    for row in connection.execute(select(HOOKS)).mappings().all():
        yield HOOKS, row, HOOKS.c.secret_sealed, records.hook_purpose(row["deployment"])


def _note(connection: Connection, fingerprint: str) -> None:
    connection.execute(delete(SEALED_WITH))
    connection.execute(insert(SEALED_WITH).values(fingerprint=fingerprint))
