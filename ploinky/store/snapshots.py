"""The database copied while it is in use, and a copy made fit for another place."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sqlalchemy import Connection, case, update
from zope.interface import implementer

from ploinky.errors import StateUnusable
from ploinky.store.database import BUSY_TIMEOUT_SECONDS, Database
from ploinky.store.resealing import sealed_with
from ploinky.store.tables import DEPLOYMENTS, TASKS
from ploinky.store_interfaces import ISnapshots
from ploinky.threads import Blocking


@implementer(ISnapshots)
class SqliteSnapshots:
    """`ISnapshots` on SQLite.

    Args:
        database: Open, and owned by the caller.
        blocking: Other threads than the database's own, which go on meanwhile.
    """

    def __init__(self, database: Database, blocking: Blocking) -> None:
        self._database = database
        self._blocking = blocking

    async def snapshot(self, destination: str) -> None:
        """See `ISnapshots`."""
        await self._blocking.run(_copy, self._database.path, Path(destination))

    async def sealed_with(self) -> str:
        """See `ISnapshots`."""
        return await sealed_with(self._database)


def _copy(source: Path, destination: Path) -> None:
    """Copy in one read transaction, which in WAL mode holds up no writer.

    Source: sqlite.org/lang_vacuum.html, "VACUUM with an INTO clause": it takes an empty file.
    """
    try:
        os.close(os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(f"{source.as_uri()}?mode=ro", BUSY_TIMEOUT_SECONDS, uri=True)
        try:
            connection.execute("VACUUM INTO ?", (str(destination),))
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        raise StateUnusable(f"the database {source} cannot be copied: {error}") from error


def check_intact(path: Path) -> None:
    """See that a file is a database without damage.  Blocks.

    Raises:
        StateUnusable: It is not.
    """
    try:
        connection = sqlite3.connect(path)
        try:
            (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StateUnusable(f"the database in the backup cannot be read: {error}") from error
    if said != "ok":
        raise StateUnusable(f"the database in the backup is damaged: {said}")


async def move_queues(database: Database, queues: Path) -> None:
    """Let no task lead to a queue of the server that the database was copied from.

    What was in hand there is looked for here, is not found, and counts as interrupted.
    """
    moved = str(queues) + "/"

    def work(connection: Connection) -> None:
        place = case((TASKS.c.instance == "", ""), else_=moved + TASKS.c.instance)
        connection.execute(update(TASKS).values(queue_directory=place))

    await database.run(work)


async def stop_all(database: Database, running: str, stopped: str) -> None:
    """Let no deployment be wanted that was.

    Args:
        running: What `Deployment.wanted` says of those.
        stopped: What it says from now on.
    """
    wanted = DEPLOYMENTS.c.wanted
    change = update(DEPLOYMENTS).where(wanted == running).values(wanted=stopped)
    await database.run(lambda connection: connection.execute(change))
