"""Counts of calls in the database: totals, and a series of points in three resolutions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert
from zope.interface import implementer

from ploinky.measures import (
    FOREVER,
    RESOLUTIONS,
    CountBatch,
    Counts,
    KeptCounts,
    Label,
    Point,
    Sums,
    added,
)
from ploinky.store.database import Database
from ploinky.store.tables import METRIC_POINTS, METRIC_REPORTERS
from ploinky.store_interfaces import IMetricsStore

_P = METRIC_POINTS.c

_MOST_NAMED = 1000
"""Deployments that a query names; more are found faster, and within SQLite's limits, among all."""


@implementer(IMetricsStore)
class SqliteMetricsStore:
    """`IMetricsStore` on SQLite.

    Args:
        database: Open, and owned by the caller.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def kept(self) -> KeptCounts:
        """See `IMetricsStore`."""

        def work(connection: Connection) -> KeptCounts:
            rows = connection.execute(select(METRIC_REPORTERS)).mappings()
            return KeptCounts(
                _at(connection, FOREVER, 0), {row["reporter"]: row["number"] for row in rows}
            )

        return await self._database.run(work)

    async def add(self, batch: CountBatch) -> None:
        """See `IMetricsStore`."""

        named = {label.deployment for label in batch.counts}

        def work(connection: Connection) -> None:
            for resolution in (FOREVER, *RESOLUTIONS):
                time = int(batch.time // resolution * resolution) if resolution else 0
                before = _at(connection, resolution, time, named)
                known = {label: before[label] for label in batch.counts if label in before}
                _replace(connection, resolution, time, added(known, batch.counts))
            for reporter, number in batch.numbers.items():
                row = {"reporter": reporter, "number": number, "seen_at": batch.time}
                query = insert(METRIC_REPORTERS).values(row)
                connection.execute(
                    query.on_conflict_do_update(index_elements=["reporter"], set_=row)
                )

        await self._database.run(work)

    async def points(self, resolution: int, since: float) -> list[Point]:
        """See `IMetricsStore`."""
        query = (
            select(METRIC_POINTS)
            .where(_P.resolution == resolution, _P.time >= since)
            .order_by(_P.time)
        )

        def work(connection: Connection) -> list[Point]:
            rows = connection.execute(query).mappings()
            return [Point(row["time"], _label(row), _sums(row)) for row in rows]

        return await self._database.run(work)

    async def prune(self, oldest: Mapping[int, float], reporters_seen_since: float) -> None:
        """See `IMetricsStore`."""

        def work(connection: Connection) -> None:
            for resolution, time in oldest.items():
                connection.execute(
                    delete(METRIC_POINTS).where(_P.resolution == resolution, _P.time < time)
                )
            connection.execute(
                delete(METRIC_REPORTERS).where(METRIC_REPORTERS.c.seen_at < reporters_seen_since)
            )

        await self._database.run(work)

    async def forget_all_but(self, deployments: Iterable[str]) -> Counts:
        """See `IMetricsStore`."""
        alive = {*deployments, ""}

        def work(connection: Connection) -> Counts:
            totals = _at(connection, FOREVER, 0)
            gone = {label: sums for label, sums in totals.items() if label.deployment not in alive}
            if gone:
                connection.execute(
                    delete(METRIC_POINTS).where(
                        _P.resolution == FOREVER,
                        _P.deployment.in_({label.deployment for label in gone}),
                    )
                )
                left = [_without_deployment(label, sums) for label, sums in gone.items()]
                kept = {label: sums for label, sums in totals.items() if label not in gone}
                totals = added(kept, *left)
                unnamed = {k: v for k, v in totals.items() if not k.deployment}
                _replace(connection, FOREVER, 0, unnamed)
            return totals

        return await self._database.run(work)


def _without_deployment(label: Label, sums: Sums) -> Counts:
    return {Label("", "", label.status, label.failed_at): sums}


def _at(
    connection: Connection, resolution: int, time: int, deployments: Set[str] | None = None
) -> dict[Label, Sums]:
    """Give the points of a stretch: those of some deployments at least, and of all for None."""
    query = select(METRIC_POINTS).where(_P.resolution == resolution, _P.time == time)
    if deployments is not None and len(deployments) <= _MOST_NAMED:
        query = query.where(_P.deployment.in_(deployments))
    return {_label(row): _sums(row) for row in connection.execute(query).mappings()}


def _replace(connection: Connection, resolution: int, time: int, counts: Counts) -> None:
    if not counts:
        return
    query = insert(METRIC_POINTS)
    changes = {column.name: query.excluded[column.name] for column in _P if not column.primary_key}
    rows = [_row(resolution, time, label, sums) for label, sums in counts.items()]
    keys = [column.name for column in _P if column.primary_key]
    connection.execute(query.on_conflict_do_update(index_elements=keys, set_=changes), rows)


def _row(resolution: int, time: int, label: Label, sums: Sums) -> dict[str, Any]:
    # Named one by one: with thousands of labels, ``asdict`` is half of what a write takes.
    return {
        "resolution": resolution,
        "time": time,
        "deployment": label.deployment,
        "command": label.command,
        "status": label.status,
        "failed_at": label.failed_at,
        "count": sums.count,
        "microseconds": sums.microseconds,
        "bytes_in": sums.bytes_in,
        "bytes_out": sums.bytes_out,
        "queued_microseconds": sums.queued_microseconds,
        # JSON's names are texts; pairs keep numbers what they are.
        "buckets": sorted(sums.buckets.items()),
    }


def _label(row: Mapping[Any, Any]) -> Label:
    return Label(row["deployment"], row["command"], row["status"], row["failed_at"])


def _sums(row: Mapping[Any, Any]) -> Sums:
    return Sums(
        row["count"],
        row["microseconds"],
        row["bytes_in"],
        row["bytes_out"],
        row["queued_microseconds"],
        dict(row["buckets"]),
    )
