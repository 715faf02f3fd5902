"""Copies of the database while it is written to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from sqlalchemy import insert
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from ploinky.errors import StateUnusable
from ploinky.store.snapshots import SqliteSnapshots, check_intact
from ploinky.store.tables import DOMAINS
from ploinky.threads import Blocking


@pytest.fixture
def copying() -> Iterator[Blocking]:
    """Threads that are not the database's."""
    blocking = Blocking(reactor, 2, "copying")
    blocking.start()
    yield blocking
    blocking.stop()


@pytest_twisted.ensureDeferred
async def test_a_copy_has_what_one_moment_had(path, database_at, copying, tmp_path):
    """Transactions that go on meanwhile are in it whole or not at all, and none has to fail."""
    database = database_at(path)
    await database.open()
    copies = [tmp_path / f"copy-{number}" for number in range(3)]

    async def write() -> None:
        for number in range(60):
            pair = [{"name": f"{side}{number}", "enabled": True} for side in ("a", "b")]
            await database.run(
                lambda connection, rows=pair: connection.execute(insert(DOMAINS), rows)
            )

    async def copy() -> None:
        for place in copies:
            await SqliteSnapshots(database, copying).snapshot(str(place))

    await gatherResults([Deferred.fromCoroutine(write()), Deferred.fromCoroutine(copy())])
    for place in copies:
        check_intact(place)
        with sqlite3.connect(place) as opened:
            names = {name for (name,) in opened.execute("SELECT name FROM domains")}
        assert {n[1:] for n in names if n[0] == "a"} == {n[1:] for n in names if n[0] == "b"}


def test_a_damaged_database_is_found(tmp_path: Path) -> None:
    """Before anybody starts a server on it."""
    place = tmp_path / "damaged"
    with sqlite3.connect(place) as made:
        made.execute("CREATE TABLE t (x)")
        made.executemany("INSERT INTO t VALUES (?)", [(b"x" * 4000,) for _ in range(20)])
    data = bytearray(place.read_bytes())
    data[8192:12288] = b"\xff" * 4096
    place.write_bytes(data)
    with pytest.raises(StateUnusable, match="damaged"):
        check_intact(place)
