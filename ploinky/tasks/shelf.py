"""The durable tasks that are not over, in the leader's memory: who is next, and who waits for what.

Tasks enter as they are put on record; they leave when they are over.  No I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import attrs
from attrs import define, field
from twisted.internet.defer import Deferred

from ploinky.task_values import Task
from ploinky.tasks.durable_queues import Errand

KEPT_IN_MEMORY_BYTES = 16 * 1024
"""Larger params are read again when they are needed."""


@define(eq=False)
class Held:
    """A task that is not over, or was just now.

    Attributes:
        task: As it is on record.
        size: What it counts for.
        errand: While it is in an instance's queue.
        failures: Tries in a row that did not come to an attempt.
        waiters: Those who wait for its end.
    """

    task: Task
    size: int
    errand: Errand | None = None
    failures: int = 0
    waiters: list[Deferred[Task]] = field(factory=list)


class Shelf:
    """All of them, and a line of those that wait before each deployment.

    Attributes:
        bytes: That their params take up.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._held: dict[str, Held] = {}
        self._lines: dict[str, deque[Held]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def get(self, task: str) -> Held | None:
        """Give the one with this id."""
        return self._held.get(task)

    def add(self, task: Task) -> Held:
        """Take one in, in no line yet."""
        if len(task.params) > KEPT_IN_MEMORY_BYTES:
            task = attrs.evolve(task, params=b"")
        held = self._held[task.id] = Held(task, task.size)
        self.bytes += held.size
        return held

    def over(self, held: Held, task: Task) -> None:
        """Let one go that is over, and tell who waits for that."""
        held.task = task
        if self._held.pop(task.id, None) is not None:
            self.bytes -= held.size
            for waiter in held.waiters[:]:
                waiter.callback(task)

    def close(self) -> None:
        """Tell all who wait how it stands, as nobody will tell them here how it ends."""
        for held in self:
            for waiter in held.waiters[:]:
                waiter.callback(held.task)

    # --- lines --------------------------------------------------------------

    def line_up(self, held: Held, *, first: bool = False) -> None:
        """Let one wait before its deployment: last in the line, or first."""
        line = self._lines.setdefault(held.task.deployment, deque())
        if first:
            line.appendleft(held)
        else:
            line.append(held)

    def next(self, deployment: str) -> Held | None:
        """Give who is first in a line, and stays there."""
        line = self._lines.get(deployment)
        while line:
            if not line[0].task.over:
                return line[0]
            line.popleft()  # it was cancelled where it stood
        self._lines.pop(deployment, None)
        return None

    def leave_line(self, held: Held) -> None:
        """Let who is first in a line leave it."""
        self._lines[held.task.deployment].popleft()

    def lines(self) -> list[str]:
        """Give the deployments that have one."""
        return list(self._lines)

    def dissolve(self, deployment: str) -> list[Held]:
        """Give all that stood in a line that is there no more."""
        return list(self._lines.pop(deployment, ()))
