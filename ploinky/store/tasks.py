"""Durable tasks in the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import attrs
from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.store.database import Database
from ploinky.store.tables import TASKS
from ploinky.store_interfaces import ITaskStore
from ploinky.task_values import (
    Task,
    TaskPage,
    TaskQuery,
    TaskState,
)
from ploinky.values import DeploymentKey

T = TypeVar("T")

KEY_SECONDS = 86_400.0
"""For how long a key makes repeats one call."""

_UNFINISHED = (TaskState.QUEUED.value, TaskState.RUNNING.value)
_CONTENTS = ("params", "outcome")
_WHOLE = [column for column in TASKS.c if column.name != "number"]
_LIGHT = [column for column in _WHOLE if column.name not in _CONTENTS]
_SWEPT_AT_ONCE = 1000

_Work = Callable[[Connection], Any]


@implementer(ITaskStore)
class SqliteTaskStore:
    """`ITaskStore` on SQLite.

    What is written while a transaction is on its way to the disk shares the next one: the disk
    is asked once for all of it.  Each write still sees those before it, and is told its outcome
    in order.

    Args:
        clock: Tells how old a key is; its seconds are Unix time.
        database: Open, and owned by the caller.
    """

    def __init__(self, clock: IReactorTime, database: Database) -> None:
        self._clock = clock
        self._database = database
        self._waiting: list[tuple[_Work, Deferred[Any]]] = []
        self._is_writing = False

    async def add(self, task: Task) -> Task:
        """See `ITaskStore`."""
        oldest = self._clock.seconds() - KEY_SECONDS

        def work(connection: Connection) -> Task:
            same = TASKS.c.id == task.id
            if task.once:
                kept_for_it = TASKS.c.once == task.once
                connection.execute(
                    update(TASKS).where(kept_for_it, TASKS.c.created_at <= oldest).values(once=None)
                )
                same = or_(same, kept_for_it)
            row = connection.execute(select(*_WHOLE).where(same)).mappings().first()
            if row is not None:
                return _from_row(row)
            connection.execute(insert(TASKS).values(_to_row(task)))
            return task

        return await self._write(work)

    async def change(self, before: Task, after: Task) -> bool:
        """See `ITaskStore`."""
        row = _to_row(after)
        for fixed in ("id", "params", "once", "created_at"):
            del row[fixed]
        query = (
            update(TASKS)
            .where(
                TASKS.c.id == before.id,
                TASKS.c.state == before.state.value,
                TASKS.c.deliveries == before.deliveries,
            )
            .values(row)
        )
        return await self._write(lambda connection: connection.execute(query).rowcount == 1)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        written: Deferred[T] = Deferred()
        self._waiting.append((work, written))
        if not self._is_writing:
            Deferred.fromCoroutine(self._write_all())
        return await written

    async def _write_all(self) -> None:
        """Write what waits, and what comes meanwhile; every failure is told to who waits."""
        self._is_writing = True
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                outcomes: list[Any] = await self._database.run(partial(_do_all, batch))
            except Exception:
                failure = Failure()
                outcomes = [failure] * len(batch)
            for (_, written), outcome in zip(batch, outcomes, strict=True):
                written.callback(outcome)
        self._is_writing = False

    async def task(self, task: str) -> Task | None:
        """See `ITaskStore`."""
        query = select(*_WHOLE).where(TASKS.c.id == task)

        def work(connection: Connection) -> Task | None:
            row = connection.execute(query).mappings().first()
            return None if row is None else _from_row(row)

        return await self._database.run(work)

    async def unfinished(self) -> list[Task]:
        """See `ITaskStore`."""
        query = select(*_LIGHT).where(TASKS.c.state.in_(_UNFINISHED)).order_by(TASKS.c.number)
        return await self._database.run(lambda connection: _listed(connection, query))

    async def tasks(self, query: TaskQuery) -> TaskPage:
        """See `ITaskStore`."""
        wanted = _conditions(query)
        count = select(func.count()).select_from(TASKS).where(*wanted)
        page = (
            select(*_LIGHT)
            .where(*wanted)
            .order_by(TASKS.c.number.desc())
            .limit(query.per_page)
            .offset((query.page - 1) * query.per_page)
        )

        def work(connection: Connection) -> TaskPage:
            total = connection.execute(count).scalar_one()
            return TaskPage(tuple(_listed(connection, page)), total)

        return await self._database.run(work)

    async def sweep(self, before: float, most: int, most_bytes: int) -> int:
        """See `ITaskStore`."""
        oldest_key = self._clock.seconds() - KEY_SECONDS
        over = TASKS.c.state.not_in(_UNFINISHED)
        free = or_(TASKS.c.once.is_(None), TASKS.c.created_at <= oldest_key)

        def work(connection: Connection) -> int:
            connection.execute(delete(TASKS).where(over, free, TASKS.c.finished_at < before))
            beyond = select(TASKS.c.number).where(over).order_by(TASKS.c.number.desc()).offset(most)
            connection.execute(delete(TASKS).where(free, TASKS.c.number.in_(beyond)))
            _shrink(connection, over, free, most_bytes)
            return connection.execute(select(func.count()).where(over)).scalar_one()

        return await self._database.run(work)


def _do_all(batch: list[tuple[_Work, Deferred[Any]]], connection: Connection) -> list[Any]:
    return [work(connection) for work, _ in batch]


def _shrink(
    connection: Connection, over: ColumnElement[bool], free: ColumnElement[bool], most_bytes: int
) -> None:
    """Let the oldest contents go until the rest fits."""
    excess = (connection.execute(select(func.sum(TASKS.c.size))).scalar() or 0) - most_bytes
    while excess > 0:
        oldest = connection.execute(
            select(TASKS.c.number, TASKS.c.size)
            .where(over, TASKS.c.size > 0)
            .order_by(TASKS.c.number)
            .limit(_SWEPT_AT_ONCE)
        ).all()
        if not oldest:
            return
        doomed = []
        for number, size in oldest:
            doomed.append(number)
            excess -= size
            if excess <= 0:
                break
        ours = TASKS.c.number.in_(doomed)
        connection.execute(delete(TASKS).where(ours, free))
        connection.execute(update(TASKS).where(ours).values(params=b"", outcome=b"", size=0))


def _conditions(query: TaskQuery) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if query.states:
        wanted.append(TASKS.c.state.in_(sorted(state.value for state in query.states)))
    if query.domain:
        wanted.append(TASKS.c.domain == query.domain)
    if query.path:
        wanted.append(TASKS.c.path == query.path)
    if query.scope:
        place = TASKS.c.domain + TASKS.c.path
        wanted.append(or_(TASKS.c.domain.in_(query.scope), place.in_(query.scope)))
    if query.dead:
        wanted += [TASKS.c.state == TaskState.FAILED.value, TASKS.c.status >= 500]
    return wanted


def _listed(connection: Connection, query: Any) -> list[Task]:
    return [_from_row(row) for row in connection.execute(query).mappings()]


def _to_row(task: Task) -> dict[str, Any]:
    row = attrs.asdict(task, recurse=False)
    del row["key"]
    return row | {
        "domain": task.key.domain,
        "path": task.key.path,
        "state": task.state.value,
        "once": task.once or None,
    }


def _from_row(row: Mapping[Any, Any]) -> Task:
    columns: dict[str, Any] = {**dict.fromkeys(_CONTENTS, b""), **row}
    key = DeploymentKey(columns.pop("domain"), columns.pop("path"))
    state, once = TaskState(columns.pop("state")), columns.pop("once") or ""
    return Task(key=key, state=state, once=once, **columns)
