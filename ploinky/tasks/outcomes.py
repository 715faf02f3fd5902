"""What comes of an attempt at a durable task.  Pure: a task and an ending enter, a task leaves."""

from __future__ import annotations

import attrs
import msgspec

from ploinky.errors import (
    AGENT,
    PARTS,
    QUEUE,
    TIMEOUT,
    AgentBroken,
    CallFailed,
    Draining,
    Interrupted,
)
from ploinky.observations import InstanceDeath
from ploinky.task_values import (
    Task,
    TaskState,
)
from ploinky.tasks.durable_queues import Answered, Broken, Ending, Lost
from ploinky.tasks.messages import Outcome, error_outcome, result_outcome
from ploinky.tasks.queue_directory import RESULTS
from ploinky.values import TaskCall

LARGEST_BYTES = 16 * 1024 * 1024
"""Of a result that is kept; AgentCore lets no larger one through unless it is told to."""


class _Error(msgspec.Struct):
    code: str


class _Details(msgspec.Struct):
    failedAt: str


class _Attributed(msgspec.Struct):
    details: _Details


def file_name(task: Task) -> str:
    """Give the name under which a task lies in a queue: another one each time it is put there."""
    return task.id if task.deliveries < 2 else f"{task.id}-{task.deliveries}"


def call_of(task: Task) -> TaskCall:
    """Give what an engine gets of a task."""
    return TaskCall(
        task=file_name(task),
        command=task.command,
        params=task.params,
        user=task.user,
        deadline_ms=int(task.deadline * 1000),
        request_id=task.request_id,
    )


def judged(
    task: Task, ending: Ending, retries: int, now: float, death: InstanceDeath | None = None
) -> Task:
    """Say how a task that was handed to an instance stands after this ending.

    What was never begun waits again.  What was begun and did not succeed is run again only if
    the agent allows it (``retries``), and never where the error is the caller's own (4xx).

    Args:
        death: How the instance died with the task in hand, if it did and that is known.
    """
    if isinstance(ending, Lost) and not ending.begun:
        return attrs.evolve(task, state=TaskState.QUEUED, attempts=task.attempts - 1)
    outcome = _outcome(task, ending, death)
    if outcome.status >= 500 and task.attempts <= retries:
        return attrs.evolve(task, state=TaskState.QUEUED)
    return _ended(task, outcome, now)


def failed(task: Task, error: CallFailed, now: float) -> Task:
    """Say how a task stands that nobody will run."""
    return _ended(task, _refused(task, error), now)


def is_interrupted(ending: Ending) -> bool:
    """Tell whether the instance ended, or was ended, with the task in hand."""
    return isinstance(ending, Lost) and ending.begun


def part_that_failed(task: Task) -> str:
    """Tell which part failed of a task that did; ``""`` where none did."""
    if task.status < 500:
        return ""
    try:
        part = msgspec.json.decode(task.outcome, type=_Attributed).details.failedAt
    except (msgspec.MsgspecError, RecursionError):
        part = ""  # the agent's own error
    # 503 and 504 are AgentCore's own words: no place, no time.
    return part if part in PARTS else {503: QUEUE, 504: TIMEOUT}.get(task.status, AGENT)


def _outcome(task: Task, ending: Ending, death: InstanceDeath | None) -> Outcome:
    if isinstance(ending, Lost):
        return _refused(task, _interrupted(death))
    if isinstance(ending, Broken):
        return _refused(task, ending.error)
    try:
        return _answer(task, ending)
    except AgentBroken as error:
        return _refused(task, error)


def _answer(task: Task, answered: Answered) -> Outcome:
    if len(answered.content) > LARGEST_BYTES + 1024:
        raise AgentBroken(f"the result is over {LARGEST_BYTES} bytes")
    if answered.place == RESULTS:
        return result_outcome(answered.content, call_of(task))
    outcome = error_outcome(answered.content, call_of(task))
    code = msgspec.json.decode(outcome.body, type=_Error).code
    # An engine that stops takes nothing from files any more: what it refuses it had begun.
    return _refused(task, _interrupted()) if code == Draining.code else outcome


def _interrupted(death: InstanceDeath | None = None) -> Interrupted:
    unknown = "whether that took effect is not known"
    if death is None:
        return Interrupted(f"the instance ended while it ran the task; {unknown}")
    error = Interrupted(
        f"the instance died while it ran the task: {death.outline}; {unknown}",
        details={"exitCode": death.exit_code, "outOfMemory": death.out_of_memory},
    )
    error.failed_at = death.failed_at
    return error


def _refused(task: Task, error: CallFailed) -> Outcome:
    document = {
        "error": True,
        "code": error.code,
        "message": error.message,
        "details": {**(error.details or {}), "failedAt": error.failed_at},
        "requestId": task.request_id,
    }
    return Outcome(error.status, (), msgspec.json.encode(document))


def _ended(task: Task, outcome: Outcome, now: float) -> Task:
    succeeded = outcome.status == 200
    return attrs.evolve(
        task,
        state=TaskState.SUCCEEDED if succeeded else TaskState.FAILED,
        finished_at=now,
        status=outcome.status,
        outcome=outcome.body,
        size=task.size + len(outcome.body),
    )
