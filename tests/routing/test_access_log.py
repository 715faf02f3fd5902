"""One line a request, and counts that add up."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.internet.task import Clock

from ploinky.latencies import middle
from ploinky.routing import access
from ploinky.routing.access import AccessLog, subject

RECORD: dict[str, Any] = {
    "subject": subject(b"POST", "localhost/demo", "d1", "InternetUser"),
    "id": b"w1-1",
    "command": "hello",
    "status": 200,
    "bytes_in": 100,
    "bytes_out": 200,
    "began": 0.0,
    "ended": 0.0123,
    "mood": access.SERVED,
}


class Log:
    """An access log and what reached its sink."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.batches: list[str] = []
        self.log = AccessLog(self.clock, lambda: 1_800_000_000.5, self.batches.append)

    def entries(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in "".join(self.batches).splitlines()]


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_line_says_who_asked_what_and_how_it_ended(log: Log) -> None:
    """As JSON, under the request's id."""
    log.log.record(**RECORD)
    log.clock.advance(0.02)
    assert log.entries() == [
        {
            "time": 1_800_000_000.5,
            "id": "w1-1",
            "method": "POST",
            "route": "localhost/demo",
            "command": "hello",
            "principal": "InternetUser",
            "status": 200,
            "bytesIn": 100,
            "bytesOut": 200,
            "seconds": 0.0123,
            "mood": "served",
        }
    ]


def test_no_name_breaks_out_of_its_line(log: Log) -> None:
    """A key may be called anything; a path that leads nowhere has no route."""
    name = 'a"b\\c\n{"x":1}\u2028'
    log.log.record(**RECORD | {"subject": subject(b"GET", None, "", name), "command": name})
    log.log.flush()
    (entry,) = log.entries()
    assert (entry["principal"], entry["command"], entry["route"]) == (name, name, None)


def test_lines_go_in_small_batches(log: Log) -> None:
    """Five milliseconds' worth at once, and no timer while there is nothing to say."""
    assert log.clock.getDelayedCalls() == []
    for _ in range(3):
        log.log.record(**RECORD)
    assert len(log.clock.getDelayedCalls()) == 1
    log.clock.advance(0.004)
    assert log.batches == []
    log.clock.advance(0.002)
    assert [batch.count("\n") for batch in log.batches] == [3]
    assert log.clock.getDelayedCalls() == []
    log.log.record(**RECORD)
    log.clock.advance(0.02)
    assert [batch.count("\n") for batch in log.batches] == [3, 1]


def test_the_last_lines_are_not_lost(log: Log) -> None:
    """Whoever stops flushes; the timer that is left finds nothing."""
    log.log.record(**RECORD)
    log.log.flush()
    log.log.flush()
    log.clock.advance(1)
    assert [batch.count("\n") for batch in log.batches] == [1]


def test_counts_are_increments_by_deployment_command_and_status(log: Log) -> None:
    """Drained once, they begin anew."""
    for seconds in (0.0001, 0.0123, 1000.0):
        log.log.record(**RECORD | {"ended": seconds})
    log.log.record(**RECORD | {"status": 500})
    first, second = log.log.drain()
    buckets = dict(first.pop("buckets"))
    assert first == {
        "deployment": "d1",
        "command": "hello",
        "status": 200,
        "failedAt": "",
        "count": 3,
        "microseconds": 1_000_012_400,
        "bytesIn": 300,
        "bytesOut": 600,
        "queuedMicroseconds": 0,
    }
    assert (second["status"], second["count"]) == (500, 1)
    assert sorted(buckets.values()) == [1, 1, 1]
    assert [middle(index) for index in sorted(buckets)] == [
        pytest.approx(seconds, rel=0.05) for seconds in (0.0001, 0.0123, 1000.0)
    ]
    assert log.log.drain() == []


def test_what_failed_and_what_waited_is_told_where_there_is_something_to_tell(log: Log) -> None:
    """In the line, and in counts of its own."""
    log.log.record(**RECORD | {"status": 503, "failed_at": "queue", "queued_seconds": 0.25})
    log.log.record(**RECORD | {"queued_seconds": 0.5})
    log.log.flush()
    refused, waited = log.entries()
    assert (refused["failedAt"], refused["queued"]) == ("queue", 0.25)
    assert (waited.get("failedAt"), waited["queued"]) == (None, 0.5)
    counted = {entry["failedAt"]: entry["queuedMicroseconds"] for entry in log.log.drain()}
    assert counted == {"queue": 250_000, "": 500_000}


def test_made_up_commands_do_not_fill_the_memory(log: Log) -> None:
    """Beyond a thousand names they are counted together, and none is lost."""
    for number in range(5000):
        log.log.record(**RECORD | {"command": f"c{number}"})
    drained = log.log.drain()
    assert len(drained) <= 1025
    assert sum(entry["count"] for entry in drained) == 5000
