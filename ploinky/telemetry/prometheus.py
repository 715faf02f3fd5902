"""What Prometheus scrapes: all that is counted and measured, in its text format or OpenMetrics.

Values enter, bytes leave.  Escaping, both formats and the choice between them are the official
client library's; what a name means is here.  Source: prometheus.io, *Exposition formats*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ploinky.latencies import BOUNDS_SECONDS
from ploinky.measures import Counts, Sums
from ploinky.telemetry.history import Starts
from ploinky.telemetry.load import Load
from ploinky.telemetry.processes import usage_of
from ploinky.telemetry.usages import Figures

_SHOWN = [i for i in range(len(BOUNDS_SECONDS)) if i % 25 in (0, 8, 17)]
"""Three bounds a decade, close to 1, 2 and 5: all of them would be ten times as much to keep."""

_PLACE = ("domain", "path", "agent")


@frozen
class Place:
    """What a deployment is called."""

    domain: str
    path: str
    agent: str


@frozen
class Snapshot:
    """All that is told in one scrape.

    Attributes:
        places: What deployments are called, by id; counts of others are those of removed ones.
        healthy: Healthy instances by deployment id.
        workers: As `IWorkerGroup.status` gives them.
    """

    version: str
    places: Mapping[str, Place]
    counts: Counts
    loads: Mapping[str, Load] = field(factory=dict)
    healthy: Mapping[str, int] = field(factory=dict)
    workers: Sequence[Mapping[str, Any]] = ()
    instances: Sequence[Figures] = ()
    starts: Mapping[str, Starts] = field(factory=dict)


def exposition(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Give body and content type of an answer to a scrape.

    Args:
        accept: The ``Accept`` field; OpenMetrics where it asks for that, else the text format.
    """
    encode, content_type = choose_encoder(accept)
    return encode(_Everything(snapshot)), content_type


class _Everything(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._its = snapshot

    def collect(self) -> Iterator[Metric]:
        """Give every family, in the order in which they are shown."""
        yield InfoMetricFamily("ploinky_build", "This server.", {"version": self._its.version})
        yield from self._calls()
        yield from self._deployments()
        yield from self._instances()
        yield from self._workers()
        yield from ProcessCollector(registry=None).collect()  # the leader's own

    def _calls(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "ploinky_requests",
            "Calls that ended, by command, status and the part that failed.",
            labels=(*_PLACE, "command", "status", "failed_at"),
        )
        duration = HistogramMetricFamily(
            "ploinky_request_duration_seconds",
            "From the end of a call's head to the end of its answer.",
            labels=(*_PLACE, "command"),
        )
        queued = _counter("ploinky_request_queue_seconds", "Waited for an instance with a place.")
        received = _counter("ploinky_request_bytes", "Of heads and bodies, from clients.")
        sent = _counter("ploinky_response_bytes", "Of heads and bodies, to clients.")
        # Summed up by what is shown: all that were removed meanwhile have the same names.
        outcomes: dict[tuple[str, ...], int] = {}
        commands: dict[tuple[str, ...], Sums] = {}
        whole: dict[tuple[str, ...], Sums] = {}
        for label, sums in self._its.counts.items():
            place = self._place(label.deployment)
            command = (*place, label.command)
            outcome = (*command, str(label.status), label.failed_at)
            outcomes[outcome] = outcomes.get(outcome, 0) + sums.count
            commands[command] = commands.get(command, Sums()).plus(sums)
            whole[place] = whole.get(place, Sums()).plus(sums)
        for labels, count in outcomes.items():
            requests.add_metric(labels, count)
        for labels, sums in commands.items():
            duration.add_metric(labels, _cumulative(sums), sums.microseconds / 1_000_000)
        for labels, sums in whole.items():
            queued.add_metric(labels, sums.queued_microseconds / 1_000_000)
            received.add_metric(labels, sums.bytes_in)
            sent.add_metric(labels, sums.bytes_out)
        yield from (requests, duration, queued, received, sent)

    def _deployments(self) -> Iterator[Metric]:
        in_flight = _gauge("ploinky_requests_in_flight", "Calls at instances now.")
        waiting = _gauge("ploinky_requests_waiting", "Calls that wait for a place now.")
        healthy = _gauge("ploinky_deployment_healthy_instances", "Instances that take calls.")
        starts = _counter("ploinky_instance_starts", "Instances that became ready.")
        starting = _counter("ploinky_instance_start_seconds", "Until they were ready.")
        for deployment in self._its.places:
            place = self._place(deployment)
            load = self._its.loads.get(deployment, Load())
            started = self._its.starts.get(deployment, Starts())
            in_flight.add_metric(place, load.in_flight)
            waiting.add_metric(place, load.waiting)
            healthy.add_metric(place, self._its.healthy.get(deployment, 0))
            starts.add_metric(place, started.count)
            starting.add_metric(place, started.seconds)
        yield from (in_flight, waiting, healthy, starts, starting)

    def _instances(self) -> Iterator[Metric]:
        more = ("release", "instance")
        cpu = _counter("ploinky_instance_cpu_seconds", "Of processor time.", more)
        memory = _gauge("ploinky_instance_memory_bytes", "In use, without caches.", more)
        limit = _gauge("ploinky_instance_memory_limit_bytes", "That it may use.", more)
        restarts = _counter("ploinky_instance_restarts", "Starts after the first.", more)
        for one in self._its.instances:
            status, usage = one.status, one.usage
            labels = (*self._place(status.deployment), str(status.release), status.instance)
            restarts.add_metric(labels, status.restarts)
            if usage is not None:
                cpu.add_metric(labels, usage.cpu_seconds)
                memory.add_metric(labels, usage.memory_bytes)
                if usage.memory_limit_bytes is not None:
                    limit.add_metric(labels, usage.memory_limit_bytes)
        yield from (cpu, memory, limit, restarts)

    def _workers(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("ploinky_worker_up", "1 while it serves.", labels=["slot"])
        restarts = CounterMetricFamily(
            "ploinky_worker_restarts", "Starts after the first.", labels=["slot"]
        )
        cpu = CounterMetricFamily(
            "ploinky_worker_cpu_seconds", "Of processor time.", labels=["slot"]
        )
        memory = GaugeMetricFamily(
            "ploinky_worker_resident_memory_bytes", "Resident memory.", labels=["slot"]
        )
        for worker in self._its.workers:
            slot = [str(worker["slot"])]
            up.add_metric(slot, worker["state"] == "serving")
            restarts.add_metric(slot, worker["restarts"])
            used = usage_of(worker["pid"])
            if used is not None:
                cpu.add_metric(slot, used.cpu_seconds)
                memory.add_metric(slot, used.memory_bytes)
        yield from (up, restarts, cpu, memory)

    def _place(self, deployment: str) -> tuple[str, str, str]:
        place = self._its.places.get(deployment)
        return (place.domain, place.path, place.agent) if place else ("", "", "")


def _counter(name: str, about: str, more: Iterable[str] = ()) -> CounterMetricFamily:
    return CounterMetricFamily(name, about, labels=(*_PLACE, *more))


def _gauge(name: str, about: str, more: Iterable[str] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, labels=(*_PLACE, *more))


def _bound(index: int) -> str:
    return str(floatToGoString(BOUNDS_SECONDS[index]))  # type: ignore[no-untyped-call]


def _cumulative(sums: Sums) -> list[tuple[str, float]]:
    """Give how many took at most so long, for some bounds and for ever."""
    pairs: list[tuple[str, float]] = []
    for index in _SHOWN:
        up_to = sum(count for at, count in sums.buckets.items() if at <= index)
        pairs.append((_bound(index), up_to))
    pairs.append(("+Inf", sums.count))
    return pairs
