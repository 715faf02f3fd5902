"""The audit trail in the file: whoever changes it is found out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

import attrs
import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from ploinky.store.audit import SqliteAuditTrail, chained
from ploinky.store.database import Database
from ploinky.testing.contracts.store import ENTRY
from ploinky.testing.deployment import DirectBlocking
from ploinky.values import AuditEntry, AuditVerdict


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


NAMES = [field.name for field in attrs.fields(AuditEntry)]
COLUMNS = tuple(sorted(NAMES, key=lambda name: name != "number"))
VALUES = {
    "at": st.floats(0, 2e9, allow_nan=False),
    "number": st.integers(-1, 10),
    "status": st.integers(0, 999),
    "hash": st.text("0123456789abcdef", min_size=64, max_size=64),
}
Rows = list[tuple[object, ...]]


@st.composite
def meddled(draw: st.DrawFn, rows: Rows) -> Rows:
    """Give the trail as somebody with the file in hands may leave it, who chains nothing anew."""
    left = list(rows)
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.sampled_from(["change", "remove", "swap", "cut", "copy", "close the gap"]))
        if not left:
            break
        at = draw(st.integers(0, len(left) - 1))
        if how == "change":
            column = draw(st.integers(0, len(COLUMNS) - 1))
            value = draw(
                VALUES.get(COLUMNS[column], st.text(st.characters(codec="utf-8"), max_size=9))
            )
            left[at] = (*left[at][:column], value, *left[at][column + 1 :])
        elif how == "remove":
            del left[at]
        elif how == "swap":
            other = draw(st.integers(0, len(left) - 1))
            left[at], left[other] = left[other], left[at]
            left = [(i + 1, *row[1:]) for i, row in enumerate(left)]
        elif how == "cut":
            del left[at:]
        elif how == "copy":
            left.append(left[at])
        else:
            del left[at]
            left = [(i + 1, *row[1:]) for i, row in enumerate(left)]
    return list({row[0]: row for row in left}.values())  # a number stands once in the table


@pytest.fixture
def verify(path, trail) -> Iterator[Callable[[str], str]]:
    """Says what is wrong with the trail, at once: in this thread."""
    database = Database(path, DirectBlocking())
    Deferred.fromCoroutine(database.open())

    def problem(head: str) -> str:
        verdicts: list[AuditVerdict] = []
        verdict = Deferred.fromCoroutine(SqliteAuditTrail(database).verify(head))
        verdict.addCallback(verdicts.append)
        return verdicts[0].problem

    yield problem
    Deferred.fromCoroutine(database.close())


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_meddling_passes_for_the_trail(path, verify, data):
    """Whatever was changed, removed, moved, doubled or cut off, by whoever kept the head; who kept
    none does not see that the end is missing, and sees all else."""
    names, marks = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
    with sqlite3.connect(path) as other:
        for statement in UNLOCK:
            other.execute(statement.replace("TRIGGER", "TRIGGER IF EXISTS"))
        other.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM audit")
        whole = other.execute(f"SELECT {names} FROM kept ORDER BY number").fetchall()
        left = sorted(data.draw(meddled(whole)))
        other.execute("DELETE FROM audit")
        other.executemany(f"INSERT INTO audit ({names}) VALUES ({marks})", left)
    other.close()
    assert bool(verify(whole[-1][COLUMNS.index("hash")])) is (left != whole)
    assert bool(verify("")) is (left != whole[: len(left)])
