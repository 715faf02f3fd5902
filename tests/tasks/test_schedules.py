"""Commands called by the clock: when, how often, and what a restart makes up for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import count
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from ploinky.errors import Overloaded
from ploinky.task_values import (
    Planned,
    Schedule,
)
from ploinky.tasks.schedules import Schedules, last_due
from ploinky.testing.api import MemoryDurableTasks
from ploinky.testing.store import MemoryTaskStore

NOON = datetime.fromisoformat("2026-11-26T12:00:00+00:00").timestamp()
EVERY_MINUTE = Schedule("* * * * *", "tick", (1, {"a": "b"}))


class Server:
    """The clock, what is planned, and tasks that outlive a leader."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOON - 30)
        self.tasks = MemoryDurableTasks(self.clock, MemoryTaskStore(self.clock))
        self.planned: list[Planned] = []
        self._ids = (f"t-{number}" for number in count())
        self.leader: Schedules | None = None

    def start(self) -> None:
        self.leader = Schedules(
            self.clock, self.tasks, lambda: self.planned, lambda: next(self._ids)
        )
        self.leader.startService()

    def stop(self) -> None:
        if self.leader is not None:
            self.leader.stopService()
            self.leader = None

    def plan(self, schedule: Schedule, since: float = NOON - 30) -> None:
        self.planned.append(Planned("deployment-1", since, schedule))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, as it does: in small pieces."""
        for _ in range(int(seconds)):
            self.clock.advance(1)

    def kept(self) -> int:
        """How many runs there are, repeats of one being one."""
        return len({call.key for call in self.tasks.submitted})


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("cron", "zone", "now", "due"),
    [
        ("*/5 * * * *", "UTC", "2026-11-26T12:00:00+00:00", "2026-11-26T12:00:00+00:00"),
        ("*/5 * * * *", "UTC", "2026-11-26T11:59:59+00:00", "2026-11-26T11:55:00+00:00"),
        ("30 9 * * MON-FRI", "Europe/Paris", "2026-11-26T12:00:00+00:00", "2026-11-26T09:30:00+01:00"),
        # The hour that spring leaves out: at its end.  The hour that autumn has twice: once.
        ("30 2 * * *", "Europe/Paris", "2026-03-29T12:00:00+00:00", "2026-03-29T03:00:00+02:00"),
        ("30 2 * * *", "Europe/Paris", "2026-10-25T12:00:00+00:00", "2026-10-25T02:30:00+02:00"),
        ("*/30 * * * *", "Europe/Paris", "2026-10-25T01:31:00+00:00", "2026-10-25T02:30:00+01:00"),
    ],
)  # fmt: skip
def test_when_a_schedule_was_due(cron: str, zone: str, now: str, due: str) -> None:
    """In its own time zone, as Debian's cron has it where clocks are put forward or back."""
    schedule = Schedule(cron, "tick", timezone=zone)
    found = last_due(schedule, datetime.fromisoformat(now).timestamp())
    assert found == datetime.fromisoformat(due).timestamp()


def test_a_command_is_called_when_it_is_due(server: Server) -> None:
    """With its params, as `Schedule`, and not before."""
    server.plan(EVERY_MINUTE)
    server.start()
    server.pass_time(29)
    assert server.tasks.submitted == []
    server.pass_time(3)
    (call,) = server.tasks.submitted
    assert (call.command, call.params, call.user) == ("tick", b'[1,{"a":"b"}]', "Schedule")
    assert (call.deployment, call.anonymous) == ("deployment-1", False)


def test_every_time_is_one_run(server: Server) -> None:
    """As long as each has begun when the next is due."""
    server.plan(EVERY_MINUTE)
    server.start()
    for _ in range(5):
        server.pass_time(60)
        _let_begin(server)
    assert server.kept() == len(server.tasks.submitted) == 5


def test_a_run_that_has_not_begun_stands_for_the_next(server: Server) -> None:
    """An agent that is down for an hour is not called sixty times after it."""
    server.plan(EVERY_MINUTE)
    server.start()
    server.pass_time(3600)
    assert server.kept() == 1


def test_a_restart_does_not_run_it_again(server: Server) -> None:
    """Whatever the moment: a minute has one key."""
    server.plan(EVERY_MINUTE)
    server.start()
    server.pass_time(32)
    server.stop()
    server.start()
    server.pass_time(5)
    assert server.kept() == 1


def test_what_was_missed_is_run_once(server: Server) -> None:
    """Hours without a server: the latest run is made up for, the others are not."""
    server.plan(EVERY_MINUTE)
    server.clock.advance(3 * 3600)
    server.start()
    assert server.kept() == 1
    server.pass_time(5)
    assert server.kept() == 1


def test_what_was_due_before_a_release_is_not_made_up_for(server: Server) -> None:
    """Whoever deploys at noon what is to run at eleven has it run tomorrow."""
    server.plan(Schedule("0 11 * * *", "tick"))
    server.start()
    server.pass_time(60)
    assert server.tasks.submitted == []


def test_what_is_not_planned_any_more_is_not_called(server: Server) -> None:
    """A deployment that is stopped or removed."""
    server.plan(EVERY_MINUTE)
    server.start()
    server.pass_time(32)
    server.planned.clear()
    server.pass_time(120)
    assert server.kept() == 1


def test_what_is_refused_is_tried_again(server: Server) -> None:
    """A minute later, for the time it was due or a later one."""
    server.plan(Schedule("0 12 * * *", "tick"))
    server.tasks.refusal = Overloaded("no room")
    server.start()
    server.pass_time(32)
    assert server.tasks.submitted == []
    server.tasks.refusal = None
    server.pass_time(60)
    assert server.kept() == 1


def test_one_that_breaks_keeps_no_other_waiting(server: Server) -> None:
    """Nor itself: it is logged, and tried again a minute later."""
    server.plan(Schedule("no cron at all", "broken"))
    server.plan(Schedule("0 12 * * *", "tick"))
    with capturedLogs() as logged:
        server.start()
        server.pass_time(32)
        assert server.kept() == 1
        server.planned[0] = Planned("deployment-1", NOON - 30, EVERY_MINUTE)
        server.pass_time(60)
    assert {event["command"] for event in logged if "log_failure" in event} == {"broken"}
    assert server.kept() == 2


def _let_begin(server: Server) -> None:
    for call in server.tasks.submitted:
        done: Any = server.tasks.ends(call.task, 200, b"null")
        with pytest.raises(StopIteration):
            done.send(None)
