"""What workers report adds up, and survives whoever breaks."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ploinky.errors import StateUnusable
from ploinky.measures import Label
from ploinky.routing.access import FAILED, SERVED, AccessLog, subject
from ploinky.telemetry.counters import MOST_COMMANDS, Count
from ploinky.telemetry.load import STALE_SECONDS, Load, Loads
from ploinky.telemetry.metrics import PRUNE_SECONDS, WRITE_SECONDS, Metrics
from ploinky.testing.store import MemoryDeploymentStore, MemoryMetricsStore
from ploinky.values import Deployment, DeploymentKey

NOON = 1_700_049_600.0


def report(*entries: dict[str, Any]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def entry(deployment: str, status: int, count: int, command: str = "hello") -> dict[str, Any]:
    return {
        "deployment": deployment,
        "command": command,
        "status": status,
        "failedAt": "agent" if status >= 500 else "",
        "count": count,
        "microseconds": 500_000,
        "bytesIn": 10,
        "bytesOut": 20,
        "queuedMicroseconds": 0,
        "buckets": [[100, count]],
    }


class Leaders:
    """One database, and the leaders that come and go before it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOON)
        self.store = MemoryMetricsStore()
        self.deployments = MemoryDeploymentStore()
        self.kept: dict[str, int] = {}

    async def new(self) -> Metrics:
        """Start another leader."""
        metrics = Metrics(self.clock, self.store, self.kept.update, self.deployments, 30)
        await metrics.load()
        metrics.startService()
        return metrics


@pytest.fixture
def leaders() -> Leaders:
    return Leaders()


@pytest.fixture
def metrics(leaders: Leaders) -> Metrics:
    started: Metrics = pytest_twisted.blockon(Deferred.fromCoroutine(leaders.new()))
    return started


def test_reports_of_all_workers_add_up(metrics: Metrics) -> None:
    """Requests, 5xx and refusals are counted by deployment and together."""
    metrics.take("w-1", 1, report(entry("a", 200, 5), entry("b", 502, 2)))
    metrics.take("w-2", 1, report(entry("a", 401, 1), entry("a", 403, 1), entry("a", 500, 1)))
    totals = metrics.totals()
    assert totals.deployments["a"] == Count(requests=8, errors=1, unauthorized=2, seconds=2.0)
    assert totals.deployments["b"] == Count(requests=2, errors=2, unauthorized=0, seconds=0.5)
    assert totals.all == Count(requests=10, errors=3, unauthorized=2, seconds=2.5)


def test_a_report_that_comes_again_counts_once(metrics: Metrics) -> None:
    """A worker that lost its leader cannot know what that one still read."""
    for _ in range(2):
        metrics.take("w-1", 1, report(entry("a", 200, 5)))
    metrics.take("w-1", 2, report(entry("a", 200, 1)))
    assert metrics.totals().all.requests == 6


@pytest_twisted.ensureDeferred
async def test_totals_survive_a_leader_that_is_killed(leaders: Leaders, metrics: Metrics) -> None:
    """What was on disk is not counted again; what was not is, as workers report it anew."""
    metrics.take("w-1", 1, report(entry("a", 200, 5)))
    leaders.clock.advance(WRITE_SECONDS)
    assert leaders.kept == {"w-1": 1}
    metrics.take("w-1", 2, report(entry("a", 200, 100)))
    successor = await leaders.new()
    assert successor.totals().all.requests == 5
    for number, count in ((1, 5), (2, 100)):
        successor.take("w-1", number, report(entry("a", 200, count)))
    assert successor.totals().all.requests == 105


@pytest_twisted.ensureDeferred
async def test_totals_survive_a_leader_that_stops(leaders: Leaders, metrics: Metrics) -> None:
    """It writes what it has."""
    metrics.take("w-1", 1, report(entry("a", 200, 5)))
    await metrics.stopService()
    assert (await leaders.new()).totals().all.requests == 5


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_written_waits(leaders: Leaders, metrics: Metrics) -> None:
    """A full disk costs no count: workers are not told to forget them, and it is written later."""
    metrics.take("w-1", 1, report(entry("a", 200, 5)))
    for refusal in (StateUnusable("the disk is full"), ValueError("nobody foresaw it")):
        leaders.store.refusal = refusal
        leaders.clock.advance(WRITE_SECONDS)
        assert leaders.kept == {}
        assert metrics.totals().all.requests == 5
    metrics.take("w-1", 2, report(entry("a", 200, 1)))
    leaders.store.refusal = None
    leaders.clock.advance(WRITE_SECONDS)
    assert leaders.kept == {"w-1": 2}
    assert metrics.totals().all.requests == 6
    assert (await leaders.new()).totals().all.requests == 6


@pytest_twisted.ensureDeferred
async def test_a_window_has_what_is_on_disk_and_what_is_not(
    leaders: Leaders, metrics: Metrics
) -> None:
    """In stretches of ten seconds for an hour, of a minute for a day, of an hour for a week."""
    metrics.take("w-1", 1, report(entry("a", 200, 5)))
    leaders.clock.advance(WRITE_SECONDS)
    leaders.clock.advance(3 * 3600)
    metrics.take("w-1", 2, report(entry("a", 200, 3)))
    leaders.clock.advance(60)
    metrics.take("w-1", 3, report(entry("a", 200, 1)))
    for name, expected in (("1h", 4), ("24h", 9), ("7d", 9)):
        window = await metrics.window(name)
        assert sum(sums.count for sums in window.counts().values()) == expected, name
        assert all(time % window.resolution == 0 for time in window.series)
    hour = (await metrics.window("1h")).series
    assert [sums.count for part in hour.values() for sums in part.values()] == [3, 1]


@pytest_twisted.ensureDeferred
async def test_fine_points_are_deleted_and_totals_stay(leaders: Leaders, metrics: Metrics) -> None:
    """Ten-second points after two hours, hours after `metricsRetention` days."""
    metrics.take("w-1", 1, report(entry("a", 200, 5)))
    leaders.clock.advance(WRITE_SECONDS)
    for _ in range(3):
        leaders.clock.advance(PRUNE_SECONDS)
    assert await leaders.store.points(10, 0) == []
    assert len(await leaders.store.points(60, 0)) == 1
    leaders.clock.advance(31 * 86_400)
    await metrics.prune()
    assert await leaders.store.points(3600, 0) == []
    assert metrics.totals().all.requests == 5


@pytest_twisted.ensureDeferred
async def test_a_removed_deployment_stays_in_the_sum(leaders: Leaders, metrics: Metrics) -> None:
    """The total never goes down, in memory nor on disk."""
    await leaders.deployments.save_deployment(Deployment("b", DeploymentKey("x", "/b"), "b"))
    metrics.take("w-1", 1, report(entry("a", 200, 5), entry("b", 200, 2)))
    await metrics.write()
    metrics.take("w-1", 2, report(entry("b", 200, 1)))
    await metrics.prune()
    for totals in (metrics.totals(), (await leaders.new()).totals()):
        assert set(totals.deployments) == {"b"}
    assert metrics.totals().all.requests == 8


def test_management_is_not_counted_as_calls(metrics: Metrics) -> None:
    """A dashboard that is left open does not make an idle server look busy."""
    metrics.take("w-1", 1, report(entry("", 200, 100)))
    assert metrics.totals().all == Count()


def test_a_line_that_cannot_be_read_costs_itself_alone(metrics: Metrics) -> None:
    """A worker of another build does not stop the leader from counting."""
    metrics.take("w-1", 1, b"not json\n" + report({"deployment": "a"}, entry("a", 200, 1)))
    assert metrics.totals().all.requests == 1


def test_made_up_commands_do_not_fill_the_database(metrics: Metrics) -> None:
    """Beyond a hundred of one deployment they are counted together, and none is lost."""
    names = [f"c{number}" for number in range(2 * MOST_COMMANDS)]
    metrics.take("w-1", 1, report(*(entry("a", 200, 1, name) for name in names)))
    metrics.take("w-1", 2, report(entry("a", 200, 1, "c0"), entry("b", 200, 1, "mine")))
    counts = metrics.counts()
    assert len(counts) == MOST_COMMANDS + 2
    assert counts[Label("a", "*", 200)].count == MOST_COMMANDS
    assert counts[Label("a", "c0", 200)].count == 2
    assert counts[Label("b", "mine", 200)].count == 1


def test_what_the_gateway_drains_is_what_is_read_here(metrics: Metrics) -> None:
    """Worker and leader mean the same by a report."""
    access = AccessLog(Clock(), lambda: 0.0, lambda lines: None)
    asked = subject(b"POST", "localhost/a", "a", "ci")
    for status in (200, 200, 503):
        how = (SERVED, "") if status == 200 else (FAILED, "queue")
        access.record(asked, b"r", "hello", status, 1, 2, 0.0, 0.25, *how, 0.1)
    metrics.take("w-1", 1, report(*access.drain()))
    assert metrics.totals().deployments["a"] == Count(3, 1, 0, 0.75)
    assert metrics.counts()[Label("a", "hello", 503, "queue")].queued_microseconds == 100_000


def test_what_workers_have_in_hand_adds_up() -> None:
    """Each says so again and again; one that falls silent has nothing in hand."""
    clock = Clock()
    loads = Loads(clock)
    loads.take(1, b'{"a": [2, 1], "b": [1, 0]}\n')
    loads.take(2, b'{"a": [3, 0]}\n')
    loads.take(3, b"nonsense\n")
    assert loads.by_deployment() == {"a": Load(5, 1), "b": Load(1, 0)}
    clock.advance(STALE_SECONDS)
    loads.take(2, b'{"a": [1, 0]}\n')
    clock.advance(1)
    assert loads.by_deployment() == {"a": Load(1, 0)}
