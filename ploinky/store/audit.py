"""The audit trail in the database: each entry carries a hash over itself and the one before.

Whoever changes or removes an entry in the file breaks the chain from there on; whoever can also
write all of it anew, or cuts it off at its end, is found by a hash that was kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json

import attrs
from sqlalchemy import Connection, func, insert, select
from zope.interface import implementer

from ploinky.store.database import Database
from ploinky.store.tables import AUDIT
from ploinky.store_interfaces import IAuditTrail
from ploinky.values import AuditEntry, AuditVerdict

_AT_ONCE = 1000
_BEFORE_ALL = -(2**63)
"""Below any number that a row can have: nobody hides one before the first."""


@implementer(IAuditTrail)
class SqliteAuditTrail:
    """`IAuditTrail` on SQLite.

    Args:
        database: Open, and owned by the caller.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, *entries: AuditEntry) -> None:
        """See `IAuditTrail`."""

        def work(connection: Connection) -> None:
            last = connection.execute(
                select(AUDIT.c.number, AUDIT.c.hash).order_by(AUDIT.c.number.desc()).limit(1)
            ).first()
            number, before = (last.number, last.hash) if last else (0, "")
            rows = []
            for place, entry in enumerate(entries, number + 1):
                numbered = attrs.evolve(entry, number=place, hash="")
                before = chained(numbered, before)
                rows.append({**attrs.asdict(numbered), "hash": before})
            if rows:
                connection.execute(insert(AUDIT), rows)

        await self._database.run(work)

    async def entries(self, skip: int, most: int) -> tuple[int, list[AuditEntry]]:
        """See `IAuditTrail`."""

        def work(connection: Connection) -> tuple[int, list[AuditEntry]]:
            total = connection.execute(select(func.count()).select_from(AUDIT)).scalar_one()
            query = select(AUDIT).order_by(AUDIT.c.number.desc()).offset(skip).limit(most)
            return total, [AuditEntry(**row) for row in connection.execute(query).mappings()]

        return await self._database.run(work)

    async def verify(self, expected: str) -> AuditVerdict:
        """See `IAuditTrail`."""
        verdict, seen, after = AuditVerdict(0, ""), not expected, _BEFORE_ALL
        while part := await self._after(after):
            after = part[-1].number
            for entry in part:
                problem = _problem(entry, verdict)
                if problem:
                    return attrs.evolve(verdict, problem=problem)
                verdict = AuditVerdict(entry.number, entry.hash)
                seen = seen or entry.hash == expected
        if seen:
            return verdict
        missing = f"no entry has the hash {expected}: the trail was cut off or rewritten"
        return attrs.evolve(verdict, problem=missing)

    async def _after(self, number: int) -> list[AuditEntry]:
        query = select(AUDIT).where(AUDIT.c.number > number).order_by(AUDIT.c.number)

        def work(connection: Connection) -> list[AuditEntry]:
            rows = connection.execute(query.limit(_AT_ONCE)).mappings()
            return [AuditEntry(**row) for row in rows]

        return await self._database.run(work)


def _problem(entry: AuditEntry, so_far: AuditVerdict) -> str:
    if entry.number != so_far.entries + 1:
        return f"entry {so_far.entries + 1} is missing"
    if entry.hash != chained(attrs.evolve(entry, hash=""), so_far.head):
        return f"entry {entry.number} is not what was written"
    return ""


def chained(entry: AuditEntry, before: str) -> str:
    """Give the hash of an entry (without one yet) that follows the hash ``before``."""
    said = json.dumps([before, attrs.asdict(entry)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(said.encode()).hexdigest()
