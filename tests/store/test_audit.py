"""The audit trail in the file: whoever changes it is found out."""

from __future__ import annotations

import sqlite3

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from ploinky.store.audit import SqliteAuditTrail, chained
from ploinky.testing.contracts.store import ENTRY


@pytest.fixture
def trail(path, database_at) -> SqliteAuditTrail:
    """Three entries."""
    database = database_at(path)

    async def fill() -> SqliteAuditTrail:
        await database.open()
        trail = SqliteAuditTrail(database)
        for number in range(3):
            await trail.append(attrs.evolve(ENTRY, subject=f"d{number}"))
        return trail

    filled: SqliteAuditTrail = pytest_twisted.blockon(Deferred.fromCoroutine(fill()))
    return filled


def tamper(path, *statements: str) -> None:
    """Change the file as its owner could, with another program."""
    with sqlite3.connect(path) as other:
        for statement in statements:
            other.execute(statement)
    other.close()


@pytest.mark.parametrize("verb", ["UPDATE audit SET user = 'x'", "DELETE FROM audit"])
def test_the_database_itself_refuses_changes(path, trail, verb):
    """Nobody changes it by accident."""
    with pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
        tamper(path, verb)


UNLOCK = ("DROP TRIGGER audit_no_update", "DROP TRIGGER audit_no_delete")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE audit SET user = 'x' WHERE number = 2", "entry 2 is not what was written"),
        ("UPDATE audit SET at = at + 0.001 WHERE number = 1", "entry 1 is not what was written"),
        ("DELETE FROM audit WHERE number = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE number = 1", "entry 1 is missing"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_change_by_force_is_found(path, trail, change, problem):
    """And where it was."""
    tamper(path, *UNLOCK, change)
    assert (await trail.verify("")).problem == problem


@pytest_twisted.ensureDeferred
async def test_cutting_it_off_is_found_by_whoever_kept_the_head(path, trail):
    """What is left holds together; the head that was kept is not in it."""
    head = (await trail.verify("")).head
    assert (await trail.verify(head)).problem == ""
    tamper(path, *UNLOCK, "DELETE FROM audit WHERE number = 3")
    assert (await trail.verify("")).problem == ""
    assert head in (await trail.verify(head)).problem


@pytest_twisted.ensureDeferred
async def test_an_entry_that_was_forged_whole_is_found_by_the_next(path, trail):
    """Its own hash fits, but the one after it was chained to another."""
    _, (third, second, first) = await trail.entries(0, 3)
    forged = attrs.evolve(second, user="Mallory", hash="")
    forged_hash = chained(forged, first.hash)
    change = f"UPDATE audit SET user = 'Mallory', hash = '{forged_hash}' WHERE number = 2"
    tamper(path, *UNLOCK, change)
    assert (await trail.verify("")).problem == f"entry {third.number} is not what was written"
