"""Schedules: commands called by the clock, as durable tasks.

The schedules in force enter, submissions leave.  When a schedule is due is cronsim's word, which
is that of Debian's cron in time zones with daylight saving too.

Each run is submitted under a key made of its schedule and the minute it was due, so that it is
one task however often this is tried, by this leader or the next.  Runs that were missed (the
server was down) are made up for by one: the latest, if it is not a day old.  A run that has not
begun when the next is due stands for that too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ploinky.errors import NotFound, PloinkyError
from ploinky.leader_interfaces import IDurableTasks
from ploinky.task_values import (
    SCHEDULE_ID,
    Planned,
    Schedule,
    Submission,
    TaskState,
)

CATCH_UP_SECONDS = 86_400.0
"""No longer than the store knows a key."""

_MINUTE = 60.0
_LATE_SECONDS = 0.05
"""A timer may fire a little early by the clock on the wall."""


class Schedules(Service):
    """Looks once a minute what is due.  Started after the deployments are known.

    Args:
        clock: Its seconds are Unix time.
        planned: Gives the schedules in force.
        new_task: Gives unguessable ids for durable tasks.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        tasks: IDurableTasks,
        planned: Callable[[], Iterable[Planned]],
        new_task: Callable[[], str],
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._planned = planned
        self._new_task = new_task
        self._done: dict[str, tuple[float, str]] = {}
        self._ticking: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin with what is due now, or was missed."""
        super().startService()  # type: ignore[no-untyped-call]
        self._ticking = Deferred.fromCoroutine(self._tick())
        self._ticking.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self._ticking.addErrback(lambda failure: self.log.failure("schedules stand still", failure))

    def stopService(self) -> Deferred[None]:
        """Call nothing any more."""
        super().stopService()  # type: ignore[no-untyped-call]
        ticking, self._ticking = self._ticking, None
        assert ticking is not None
        ticking.cancel()
        return ticking

    async def _tick(self) -> None:
        while True:
            await self._run_what_is_due()
            left = _MINUTE - self._clock.seconds() % _MINUTE
            await deferLater(self._clock, left + _LATE_SECONDS)

    async def _run_what_is_due(self) -> None:
        done, now = self._done, self._clock.seconds()
        self._done = {}
        for planned in list(self._planned()):
            name = _name(planned)
            last, task = done.get(name, (max(planned.since, now - CATCH_UP_SECONDS), ""))
            self._done[name] = (last, task)
            command, deployment = planned.schedule.command, planned.deployment
            try:
                due = last_due(planned.schedule, now)
                if due > last:
                    self._done[name] = (due, await self._run(planned, name, due, task))
            except PloinkyError as error:  # tried again in a minute
                self.log.warn(
                    "{command} of {deployment} was due and cannot be run: {error}",
                    command=command,
                    deployment=deployment,
                    error=error.message,
                )
            except CancelledError:
                raise
            except Exception:  # so is this; and what else is due must not wait for it
                self.log.failure(
                    "running {command} of {deployment} broke",
                    command=command,
                    deployment=deployment,
                )

    async def _run(self, planned: Planned, name: str, due: float, previous: str) -> str:
        """Call a command for the time it was due; give the task that stands for it."""
        if previous and await self._waits(previous):
            return previous
        schedule = planned.schedule
        task: Any = await self._tasks.submit(
            Submission(
                task=self._new_task(),
                deployment=planned.deployment,
                command=schedule.command,
                params=msgspec.json.encode(schedule.params),
                user=SCHEDULE_ID,
                anonymous=False,
                request_id=f"schedule-{due:.0f}",
                key=f"{name} {due:.0f}",
            )
        )
        self.log.info(
            "{command} of {deployment} is due: task {id}",
            command=schedule.command,
            deployment=planned.deployment,
            id=task.id,
        )
        return str(task.id)

    async def _waits(self, task: str) -> bool:
        try:
            found = await self._tasks.finished(task, 0)
        except NotFound:
            return False
        return bool(found.state is TaskState.QUEUED)


def last_due(schedule: Schedule, now: float) -> float:
    """Tell when a schedule was due last, now included, in Unix seconds; 0 if it never was."""
    zone = timezone.utc if schedule.timezone == "UTC" else ZoneInfo(schedule.timezone)
    # Going back gives what is before, so it begins a second ahead.
    start = datetime.fromtimestamp(int(now) + 1, timezone.utc).astimezone(zone)
    due = next(CronSim(schedule.cron, start, reverse=True), None)
    return due.timestamp() if due is not None else 0.0


def _name(planned: Planned) -> str:
    schedule = planned.schedule
    whole = msgspec.json.encode((planned.deployment, schedule))
    return hashlib.sha256(whole).hexdigest()
