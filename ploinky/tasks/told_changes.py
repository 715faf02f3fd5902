"""A task store that says what it has put on record, to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from ploinky.store_interfaces import ITaskStore
from ploinky.task_values import Task, TaskPage, TaskQuery

Changed = Callable[[Task], None]


@implementer(ITaskStore)
class ToldChanges:
    """An `ITaskStore` before another one; each change is told once it is on record.

    So nothing is told that a crash could take back, and whoever changes a task need not think
    of telling it.
    """

    def __init__(self, store: ITaskStore) -> None:
        self._store = store
        self._listeners: list[Changed] = []

    def listen(self, changed: Changed) -> None:
        """See `ploinky.leader_interfaces.IDurableTasks.watch`."""
        self._listeners.append(changed)

    async def add(self, task: Task) -> Task:
        """See `ITaskStore`."""
        kept: Task = await self._store.add(task)
        if kept.id == task.id:  # else it is a repeat, and nothing has changed
            self._tell(kept)
        return kept

    async def change(self, before: Task, after: Task) -> bool:
        """See `ITaskStore`."""
        changed: bool = await self._store.change(before, after)
        if changed:
            self._tell(after)
        return changed

    async def task(self, task: str) -> Task | None:
        """See `ITaskStore`."""
        found: Task | None = await self._store.task(task)
        return found

    async def unfinished(self) -> list[Task]:
        """See `ITaskStore`."""
        found: list[Task] = await self._store.unfinished()
        return found

    async def tasks(self, query: TaskQuery) -> TaskPage:
        """See `ITaskStore`."""
        found: TaskPage = await self._store.tasks(query)
        return found

    async def sweep(self, before: float, most: int, most_bytes: int) -> int:
        """See `ITaskStore`."""
        left: int = await self._store.sweep(before, most, most_bytes)
        return left

    def _tell(self, task: Task) -> None:
        for changed in self._listeners:
            changed(task)
