"""The pieces of the leader's part of this room, put together: one call for the root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ploinky.interfaces import Cause
from ploinky.settings import Settings
from ploinky.store_interfaces import ITaskStore
from ploinky.task_values import TaskBounds
from ploinky.tasks.durable import DurableTasks
from ploinky.tasks.durable_queues import DurableQueues
from ploinky.tasks.inotify import Inotify
from ploinky.tasks.orchestrator import Orchestrator


def make_durable_tasks(
    reactor: Any, settings: Settings, store: ITaskStore, cause: Cause, queues_directory: Path
) -> tuple[DurableQueues, DurableTasks]:
    """Put durable tasks together.

    Args:
        cause: Tells why an instance went away.
        queues_directory: Where all instances' queues lie.

    Returns:
        Two services, to be started in this order and stopped in the other.
    """
    queues = DurableQueues(reactor, Inotify(reactor))
    bounds = TaskBounds(
        kept_seconds=settings.task_retention_hours * 3600.0,
        kept=settings.tasks_kept,
        bytes=settings.task_bytes,
    )
    orchestrator = Orchestrator(reactor)
    tasks = DurableTasks(reactor, store, cause, orchestrator, queues, str(queues_directory), bounds)
    return queues, tasks
