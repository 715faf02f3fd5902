"""`metrics`, and `/metrics` as Prometheus reads it."""

from __future__ import annotations

import pytest
import pytest_twisted
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format

HERE = {"key": None, "peer": "127.0.0.1"}


@pytest_twisted.ensureDeferred
async def test_metrics_add_up_by_agent_and_command(server):
    """Counts, rates, durations in milliseconds, and the part that failed."""
    one = await server.deploy("/one", agent="demo")
    two = await server.deploy("/two", agent="demo")
    await server.deploy("/idle", agent="idle")
    server.count(1, one["id"], 200, 97, buckets=[[75, 97]])
    server.count(2, one["id"], 500, 1, command="throws", buckets=[[175, 1]])
    server.count(3, two["id"], 200, 2, queuedMicroseconds=30_000, buckets=[[75, 2]])
    server.count(4, "an-id-of-old", 401, 4)
    server.collaborators.loads.take(1, f'{{"{one["id"]}": [3, 2]}}\n'.encode())
    metrics = (await server.ask("GET", "metrics?range=1h", key="viewer")).json
    assert (metrics["totalRequests"], metrics["unauthorizedRequests"]) == (104, 4)
    assert (metrics["errorRate"], metrics["uptime"]) == ("0.96%", 0)
    assert set(metrics["agents"]) == {"demo", "idle", "(removed)"}
    demo = metrics["agents"]["demo"]
    assert (demo["count"], demo["errors"], demo["errorRate"]) == (100, 1, "1.00%")
    assert (demo["avgDuration"], demo["avgQueued"]) == (10.0, 0.3)
    assert demo["p50"] == demo["p95"] == pytest.approx(10, rel=0.05)
    assert demo["minDuration"] == pytest.approx(10, rel=0.05)
    assert demo["p99"] == pytest.approx(10, rel=0.05)
    assert demo["maxDuration"] == pytest.approx(100_000, rel=0.05)
    assert (demo["failedAt"], demo["inFlight"], demo["waiting"]) == ({"agent": 1}, 3, 2)
    assert {name: each["count"] for name, each in demo["commands"].items()} == {
        "hello": 99,
        "throws": 1,
    }
    assert metrics["agents"]["idle"]["p99"] is None
    counts = {where: each["count"] for where, each in metrics["deployments"].items()}
    assert counts == {"localhost/one": 98, "localhost/two": 2, "localhost/idle": 0}
    (point,) = metrics["series"]
    assert (point["time"], point["count"]) == ("2023-11-14T22:13:20.000Z", 104)
    assert metrics["resolution"] == 10


@pytest.mark.parametrize("microseconds", [9_700, 10_000, 10_300])
@pytest_twisted.ensureDeferred
async def test_the_average_lies_between_least_and_most(server, microseconds):
    """It is exact, they are of a histogram's buckets: a reader must not have to know."""
    one = await server.deploy("/one", agent="demo")
    server.count(1, one["id"], 200, 1, microseconds=microseconds)
    demo = (await server.ask("GET", "metrics")).json["agents"]["demo"]
    assert demo["minDuration"] <= demo["avgDuration"] <= demo["maxDuration"]


@pytest_twisted.ensureDeferred
async def test_what_workers_have_not_reported_yet_is_asked_for(server):
    """A call shows in every figure as soon as it is answered, and in all of them alike."""
    one = await server.deploy("/one", agent="demo")

    def answered(number: int) -> None:
        server.workers.unreported.append(lambda: server.count(number, one["id"], 200, 1))

    for number, range_ in enumerate(("1h", "24h", "7d"), 1):
        answered(number)
        metrics = (await server.ask("GET", f"metrics?range={range_}")).json
        in_table = sum(agent["count"] for agent in metrics["agents"].values())
        in_series = sum(point["count"] for point in metrics["series"])
        assert metrics["totalRequests"] == in_table == in_series == number
        await server.collaborators.metrics.write()
    answered(4)
    assert (await server.ask("GET", "overview")).json["totalRequests"] == 4
    answered(5)
    assert 'status="200"} 5.0' in (await scrape(server)).body.decode()


@pytest_twisted.ensureDeferred
async def test_one_agents_metrics_can_be_asked_for(server):
    """By its name, or by where it is."""
    one = await server.deploy("/one", agent="demo")
    other = await server.deploy("/two", agent="other")
    server.count(1, one["id"], 200, 5)
    server.count(2, other["id"], 200, 7)
    for wanted in ("other", "localhost/two"):
        metrics = (await server.ask("GET", f"metrics?agent={wanted}")).json
        assert metrics["totalRequests"] == 7
        assert set(metrics["agents"]) == {"other"}
        assert [point["count"] for point in metrics["series"]] == [7]
    assert (await server.ask("GET", "metrics?agent=nobody")).code == "NOT_FOUND"


@pytest_twisted.ensureDeferred
async def test_a_range_is_one_of_three(server):
    """The refusal names them; without one it is a day."""
    answer = await server.ask("GET", "metrics?range=2h")
    assert (answer.status, answer.json["details"]) == (
        400,
        {"range": "expected one of 1h, 24h, 7d"},
    )
    assert (await server.ask("GET", "metrics")).json["range"] == "24h"


@pytest_twisted.ensureDeferred
async def test_who_is_confined_sees_their_own(server):
    """Neither others' deployments nor sums that have them in."""
    mine = await server.deploy("/carl")
    others = await server.deploy("/other", agent="other")
    server.count(1, mine["id"], 200, 5)
    server.count(2, others["id"], 200, 7)
    metrics = (await server.ask("GET", "metrics", key="confined")).json
    assert (metrics["totalRequests"], set(metrics["agents"])) == (5, {"demo"})
    assert [point["count"] for point in metrics["series"]] == [5]


async def scrape(server, accept="", **who):
    fields = {"Accept": accept} if accept else {}
    return await server.ask("GET", "/metrics", fields=fields, **who)


@pytest.mark.parametrize(
    ("accept", "parse", "content_type"),
    [
        ("", text_format, "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=1.0.0", open_metrics, "application/openmetrics"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_prometheus_reads_what_was_counted(server, accept, parse, content_type):
    """Its own parsers do, in both formats: counters, histograms, gauges."""
    one = await server.deploy("/one", agent='say "hello"\n\\')
    server.count(1, one["id"], 200, 97)
    server.count(2, one["id"], 500, 3, buckets=[[175, 3]])
    server.collaborators.loads.take(1, f'{{"{one["id"]}": [3, 2]}}\n'.encode())
    answer = await scrape(server, accept)
    assert answer.field("Content-Type").startswith(content_type)
    families = {family.name: family for family in parse(answer.body.decode())}
    place = {"domain": "localhost", "path": "/one", "agent": 'say "hello"\n\\'}
    calls = [
        (sample.labels["status"], sample.labels["failed_at"], sample.value)
        for sample in families["ploinky_requests"].samples
        if sample.name == "ploinky_requests_total" and place.items() <= sample.labels.items()
    ]
    assert calls == [("200", "", 97), ("500", "agent", 3)]
    duration = families["ploinky_request_duration_seconds"]
    assert duration.type == "histogram"
    assert duration.documentation
    buckets = {s.labels["le"]: s.value for s in duration.samples if s.name.endswith("_bucket")}
    assert (buckets["0.004786"], buckets["0.01"], buckets["+Inf"]) == (0, 97, 100)
    assert list(buckets.values()) == sorted(buckets.values())
    sums = {s.name.rpartition("_")[2]: s.value for s in duration.samples if "le" not in s.labels}
    assert sums == {"count": 100, "sum": 1.0}
    (in_flight,) = families["ploinky_requests_in_flight"].samples
    assert (in_flight.labels, in_flight.value) == (place, 3)
    assert families["ploinky_worker_up"].samples[0].value == 1
    assert "process_resident_memory_bytes" in families
    assert any(
        sample.name == "ploinky_build_info" and sample.labels["version"]
        for family in families.values()
        for sample in family.samples
    )


@pytest_twisted.ensureDeferred
async def test_only_admins_and_this_machine_may_scrape(server):
    """Without a key only on this machine itself: never through a proxy by accident."""
    assert (await scrape(server, **HERE)).status == 200
    assert (await scrape(server, key="admin")).status == 200
    assert (await scrape(server, key="viewer")).status == 403
    assert (await scrape(server, key=None)).status == 401
    assert (await scrape(server, key=None, peer="127.0.0.1", host="example.com")).status == 401
    behind = {"X-Ploinky-Proxied": "1"}
    assert (await server.ask("GET", "/metrics", fields=behind, **HERE)).status == 401


@pytest_twisted.ensureDeferred
async def test_no_sample_is_told_twice(server):
    """Deployments that were removed have no names any more: they are summed up."""
    for number, gone in enumerate(("old-1", "old-2"), 1):
        server.count(number, gone, 200, 5)
    text = (await scrape(server)).body.decode()
    samples = [line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"]
    assert len(samples) == len(set(samples))
    assert 'command="hello",domain="",failed_at="",path="",status="200"} 10.0' in text
