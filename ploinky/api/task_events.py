"""Changes of durable tasks as events, never more of them than listeners can take.

Tasks enter amid their way, and a note is all that is made there.  A moment later the notes become
events: each change one, or, of a deployment with too many changes at once, how many there were,
so that whoever shows them reads its list anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from ploinky.api.tasks import facts
from ploinky.task_values import Task
from ploinky.values import DeploymentKey

GATHER_SECONDS = 0.1
"""From a change to its event."""

MOST_OF_ONE = 16
"""Changes of one deployment that are told one by one, each time."""

MOST_AT_ONCE = 32
"""Events after which the deployments that are left wait for the next time."""

Publish = Callable[[str, Mapping[str, Any], DeploymentKey], None]


@define
class _Notes:
    """What has changed at one deployment.

    Attributes:
        tasks: As they stood, in order; none where they are too many.
    """

    count: int = 0
    tasks: list[Task] = field(factory=list)

    def take(self, task: Task) -> None:
        self.count += 1
        if self.count <= MOST_OF_ONE:
            # What it was called with and what came of it may be large, and is not told.
            self.tasks.append(attrs.evolve(task, params=b"", outcome=b""))
        else:
            self.tasks.clear()


class TaskEvents:
    """Tells of changes.

    Args:
        publish: Takes kind, document and deployment of an event.
    """

    def __init__(self, clock: IReactorTime, publish: Publish) -> None:
        self._clock = clock
        self._publish = publish
        self._notes: dict[DeploymentKey, _Notes] = {}

    def changed(self, task: Task) -> None:
        """Note a change; see `ploinky.leader_interfaces.IDurableTasks.watch`."""
        notes = self._notes.get(task.key)
        if notes is None:
            if not self._notes:
                self._clock.callLater(GATHER_SECONDS, self._tell)
            notes = self._notes[task.key] = _Notes()
        notes.take(task)

    def _tell(self) -> None:
        """Tell of what was noted, deployment by deployment, the one that waits longest first."""
        told = 0
        while self._notes and told < MOST_AT_ONCE:
            key = next(iter(self._notes))
            documents = _documents(key, self._notes.pop(key))
            for document in documents:
                self._publish("task", document, key)
            told += len(documents)
        if self._notes:
            self._clock.callLater(GATHER_SECONDS, self._tell)


def _documents(key: DeploymentKey, notes: _Notes) -> list[dict[str, Any]]:
    if notes.tasks:
        return [facts(task) for task in notes.tasks]
    return [{"domain": key.domain, "path": key.path, "changed": notes.count}]
