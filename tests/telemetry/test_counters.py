"""What workers report adds up."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock

from ploinky.routing.access import SERVED, AccessLog, subject
from ploinky.telemetry.counters import Count, Counters


def report(*entries: dict[str, Any]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def entry(deployment: str, status: int, count: int) -> dict[str, Any]:
    return {"deployment": deployment, "status": status, "count": count, "microseconds": 500_000}


def test_reports_of_all_workers_add_up() -> None:
    """Requests, 5xx and refusals are counted by deployment and together."""
    counters = Counters()
    counters.add(report(entry("a", 200, 5), entry("b", 502, 2)))
    counters.add(report(entry("a", 401, 1), entry("a", 403, 1), entry("a", 500, 1)))
    totals = counters.totals()
    assert totals.deployments["a"] == Count(requests=8, errors=1, unauthorized=2, seconds=2.0)
    assert totals.deployments["b"] == Count(requests=2, errors=2, unauthorized=0, seconds=0.5)
    assert totals.all == Count(requests=10, errors=3, unauthorized=2, seconds=2.5)


def test_management_is_not_counted_as_calls() -> None:
    """A dashboard that is left open does not make an idle server look busy."""
    counters = Counters()
    counters.add(report(entry("", 200, 100)))
    assert counters.totals().all == Count()


def test_a_removed_deployment_stays_in_the_sum() -> None:
    """The total never goes down."""
    counters = Counters()
    counters.add(report(entry("a", 200, 5)))
    counters.forget("a")
    counters.forget("never-was")
    assert counters.totals().all.requests == 5
    assert counters.totals().deployments == {}


def test_a_line_that_cannot_be_read_costs_itself_alone() -> None:
    """A worker of another build does not stop the leader from counting."""
    counters = Counters()
    counters.add(b"not json\n" + report({"deployment": "a"}, entry("a", 200, 1)))
    assert counters.totals().all.requests == 1


def test_what_the_gateway_drains_is_what_is_read_here() -> None:
    """Worker and leader mean the same by a report."""
    access = AccessLog(Clock(), lambda: 0.0, lambda lines: None)
    asked = subject(b"POST", "localhost/a", "a", "ci")
    for status in (200, 200, 503):
        access.record(asked, b"r", "hello", status, 1, 2, 0.25, SERVED)
    counters = Counters()
    counters.add(report(*access.drain()))
    assert counters.totals().deployments["a"] == Count(3, 1, 0, 0.75)
