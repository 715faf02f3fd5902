"""One SQLite file: opened, migrated, and reached through one thread.

Synchronous functions that take a connection enter; what they return leaves,
after their transaction was committed.  This module knows no table.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError

from ploinky.errors import StateUnusable
from ploinky.threads import Blocking

T = TypeVar("T")

BUSY_TIMEOUT_SECONDS = 5.0
"""How long a transaction waits while another program holds the file."""


class Database:
    """The server's state on disk.

    Args:
        path: Of the file; it is created, 0600, where it does not exist.
        blocking: A pool of exactly one thread, already started and owned by the caller:
            it is what makes transactions follow one another.

    `open` comes first; `close` before the pool is stopped.
    """

    def __init__(self, path: Path, blocking: Blocking) -> None:
        self._path = path
        self._blocking = blocking
        self._engine: Engine | None = None

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._path

    async def open(self) -> None:
        """Open the file and bring its tables up to this version.

        Raises:
            StateUnusable: It is no database, cannot be written, or comes from a newer version.
        """
        self._engine = await self._blocking.run(_open, self._path)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Call ``work`` in a transaction: committed where it returns, undone where it raises.

        Cancelling gives up the wait; the transaction still ends, one way or the other.

        Raises:
            StateUnusable: The file could not be read or written.
        """
        return await self._blocking.run(self._in_transaction, work)

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        if self._engine is None:
            raise StateUnusable(f"the database {self._path} is not open")
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except IntegrityError:
            raise  # the queries know which name was taken
        except DBAPIError as error:
            raise _unusable(self._path, error) from error

    async def close(self) -> None:
        """Close the file.  A second call does nothing."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await self._blocking.run(engine.dispose)


def _open(path: Path) -> Engine:
    try:
        # SQLite gives its -wal and -shm files the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StateUnusable(f"the database {path} cannot be opened: {error.strerror}") from error
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
        hide_parameters=True,  # they would show in the text of errors
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            _migrate(connection, path)
    except DBAPIError as error:
        engine.dispose()
        raise _unusable(path, error) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def _configure(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # a switch that was acknowledged survives a power cut
        "foreign_keys = ON",
        "secure_delete = ON",  # a revoked credential leaves no trace in free pages
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # The driver's own beginning comes late and never before DDL (SQLAlchemy, dialect SQLite,
    # "Transactions with SQLite and the sqlite3 driver").
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(connection: Connection, path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", "ploinky.store:migrations")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    found = set(MigrationContext.configure(connection).get_current_heads())
    if found - known:
        raise StateUnusable(
            f"the database {path} was written by a newer version of Ploinky Cloud (its tables are"
            f" at {', '.join(sorted(found))}); start that version, or use another data directory"
        )
    command.upgrade(config, "head")


def _unusable(path: Path, error: DBAPIError) -> StateUnusable:
    return StateUnusable(f"the database {path} cannot be used: {error.orig}")
