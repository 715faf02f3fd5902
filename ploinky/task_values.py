"""The nouns of durable tasks and schedules: frozen values, as in `ploinky.values`."""

from __future__ import annotations

import enum
from typing import Any

from attrs import field, frozen

from ploinky.values import DeploymentKey

SCHEDULE_ID = "Schedule"
"""Who calls what a schedule has called; no key has this name."""


class TaskState(str, enum.Enum):
    """Where a durable task stands."""

    QUEUED = "queued"
    RUNNING = "running"
    """Handed to an instance, which has begun it or will."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@frozen
class Schedule:
    """A command called by the clock.

    Attributes:
        cron: Five fields, as cron(8) of Debian takes them.
        params: JSON values.
        timezone: IANA name.
    """

    cron: str
    command: str
    params: tuple[Any, ...] = ()
    timezone: str = "UTC"


@frozen
class Planned:
    """A schedule in force.

    Attributes:
        deployment: The deployment's id.
        since: Unix seconds; what was due before is none of its business.
    """

    deployment: str
    since: float
    schedule: Schedule


DURABLE_PREFIX = "t-"
"""How ids of durable tasks begin; no other task's does."""


@frozen
class Submission:
    """A call that is to be made durable, as it was admitted.

    Attributes:
        task: Unguessable id, `DURABLE_PREFIX` first.  The same id twice is the same call.
        deployment: The deployment's id.
        params: As in `TaskCall`.
        anonymous: Whether nobody in particular calls: then whoever knows the id may read.
        key: What makes repeats one call, of the caller's own choice; ``""``: nothing does.
    """

    task: str
    deployment: str
    command: str
    params: bytes = field(repr=False)
    user: str
    anonymous: bool
    request_id: str
    key: str = field(default="", repr=False)


@frozen
class Task:
    """One durable task.

    Attributes:
        key: Where the deployment was reached when it was called.
        params: As in `TaskCall`; ``b""`` where it was listed, not looked up.
        once: Digest of whose key it was called with; ``""`` without one.
        fingerprint: Digest of what was called, for repeats of `once`.
        attempts: How often an instance began it.
        deliveries: How often it was put into an instance's queue; each time under a new name.
        instance, queue_directory: Of the last attempt; ``""`` before the first.
        deadline: At which the last attempt is aborted.
        queued_at: Since when it waits, or waited last.
        started_at, finished_at: 0 while it has not been.
        status: HTTP status of what came of it; 0 while nothing did.
        outcome: Result or error as JSON text, as a caller gets it; ``b""`` as for params, or
            where it is not kept any more.
        size: Bytes of params and outcome together.
    """

    id: str
    deployment: str
    key: DeploymentKey
    command: str
    params: bytes = field(repr=False)
    user: str
    anonymous: bool
    request_id: str
    created_at: float
    queued_at: float
    once: str = field(default="", repr=False)
    fingerprint: str = ""
    state: TaskState = TaskState.QUEUED
    attempts: int = 0
    deliveries: int = 0
    instance: str = ""
    queue_directory: str = ""
    deadline: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    status: int = 0
    outcome: bytes = field(default=b"", repr=False)
    size: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state not in (TaskState.QUEUED, TaskState.RUNNING)


@frozen
class TaskQuery:
    """Which tasks are wanted, newest first.

    Attributes:
        states: Empty: any.
        domain, path: Of the deployment; ``""``: any.
        scope: As a `Principal`'s; empty: everywhere.
        dead: Only those that failed for no fault of their caller's: with a status of 500 or more.
        page: From 1.
    """

    states: frozenset[TaskState] = frozenset()
    domain: str = ""
    path: str = ""
    scope: tuple[str, ...] = ()
    dead: bool = False
    page: int = 1
    per_page: int = 50


@frozen
class TaskPage:
    """What a `TaskQuery` found.

    Attributes:
        tasks: Without params and outcome.
        total: On all pages.
    """

    tasks: tuple[Task, ...]
    total: int


@frozen
class TaskBounds:
    """What durable tasks may take up.

    Attributes:
        kept_seconds: For how long an outcome is kept, and for how long a task may wait to begin.
        kept: Tasks that are over, and as many that are not.
        bytes: Params and outcomes together.
    """

    kept_seconds: float = 86_400.0
    kept: int = 10_000
    bytes: int = 256 * 1024 * 1024
