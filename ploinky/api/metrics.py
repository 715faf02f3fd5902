"""``metrics`` for people and dashboards, ``/metrics`` for Prometheus: how calls went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from attrs import frozen

from ploinky.api import documents
from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.requests import Call
from ploinky.errors import Forbidden, NotFound, Unauthenticated, ValidationFailed
from ploinky.latencies import extremes, quantile
from ploinky.measures import Counts, Sums, summed
from ploinky.security.roles import is_confined, reaches
from ploinky.telemetry.counters import by_deployment, count_of
from ploinky.telemetry.load import Load
from ploinky.telemetry.metrics import RANGES, Window
from ploinky.telemetry.prometheus import Place, Snapshot, exposition
from ploinky.values import NOBODY, DeploymentView, Role

DEFAULT_RANGE = "24h"
REMOVED = "(removed)"
"""Stands for agents whose deployments are gone."""


@frozen
class MetricsQuery:
    """Which calls.

    Attributes:
        range: 1h, 24h or 7d, up to now.
        agent: Its name, or domain/path; all where there is none.
    """

    range: str = DEFAULT_RANGE
    agent: str = ""


@frozen(kw_only=True)
class CallFigures:
    """What calls add up to; durations in milliseconds, null where there was no call.

    Attributes:
        errors: Answered with 5xx.
        unauthorized: Answered with 401 or 403.
        avg_queued: How long they waited for a free place.
        failed_at: How many failed, by the part that did.
    """

    count: int
    errors: int
    error_rate: str
    unauthorized: int
    avg_duration: float | None
    min_duration: float | None
    max_duration: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    avg_queued: float | None
    failed_at: dict[str, int]


@frozen(kw_only=True)
class AgentFigures(CallFigures):
    """What calls of an agent add up to, together and by command, and what it has in hand."""

    in_flight: int
    waiting: int
    commands: dict[str, CallFigures]


@frozen(kw_only=True)
class PointFigures(CallFigures):
    """What calls add up to in a stretch of time that begins then."""

    time: str | None


@frozen(kw_only=True)
class MetricsDocument:
    """How calls went.

    Attributes:
        resolution: Seconds of each stretch in `series`.
        uptime: Of the server, in milliseconds.
        agents: By name; what was removed is added up.
        deployments: By ``domain/path``: those that are there.
    """

    range: str
    since: str | None
    until: str | None
    resolution: int
    total_requests: int
    error_rate: str
    unauthorized_requests: int
    uptime: int
    agents: dict[str, AgentFigures]
    deployments: dict[str, CallFigures]
    series: list[PointFigures]


class MetricsRoutes:
    """Looks, changes nothing.

    Args:
        started_at: Unix time at which this server came up.
    """

    def __init__(self, collaborators: Collaborators, started_at: float) -> None:
        self._its = collaborators
        self._started_at = started_at

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint(
                "metrics",
                "GET",
                f"{API}/metrics",
                self._metrics,
                queries=MetricsQuery,
                gives=MetricsDocument,
                errors=(NotFound,),
            ),
            Endpoint(
                "prometheus",
                "GET",
                "/metrics",
                self._prometheus,
                gives=("text/plain", "application/openmetrics-text"),
                errors=(Unauthenticated,),
            ),
        ]

    async def _metrics(self, call: Call) -> Answer:
        """Tell how calls went in the last hour, day or week."""
        query = call.queries(MetricsQuery)
        name, wanted = query.range, query.agent
        if name not in RANGES:
            raise ValidationFailed({"range": f"expected one of {', '.join(RANGES)}"})
        views = {
            view.deployment.id: view
            for view in self._its.deployments.deployments()
            if reaches(call.principal, view.deployment.key) and _is_meant(view, wanted)
        }
        if wanted and not views:
            raise NotFound(f"nothing that is deployed is called {wanted!r}")
        await self._its.workers.gather_counts()
        window = await self._its.metrics.window(name)
        if wanted or is_confined(call.principal):
            window = _only(window, views)
        return as_json(self._document(name, window, views))

    def _document(
        self, name: str, window: Window, views: Mapping[str, DeploymentView]
    ) -> MetricsDocument:
        counts = window.counts()
        total = count_of(counts)
        loads = self._its.loads.by_deployment()
        agents: dict[str, dict[str, Counts]] = {}
        parts = by_deployment(counts)
        for deployment, part in parts.items():
            agents.setdefault(_agent(views.get(deployment)), {})[deployment] = part
        for deployment, view in views.items():
            agents.setdefault(_agent(view), {}).setdefault(deployment, {})
        now = self._its.clock.seconds()
        return MetricsDocument(
            range=name,
            since=documents.moment(window.since),
            until=documents.moment(now),
            resolution=window.resolution,
            total_requests=total.requests,
            error_rate=rate(total.errors, total.requests),
            unauthorized_requests=total.unauthorized,
            uptime=round((now - self._started_at) * 1000),
            agents={agent: _of_agent(its, loads) for agent, its in sorted(agents.items())},
            deployments={
                str(view.deployment.key): figures(parts.get(deployment, {}))
                for deployment, view in views.items()
            },
            series=[
                PointFigures(time=documents.moment(time), **_added_up(part))
                for time, part in window.series.items()
            ],
        )

    async def _prometheus(self, call: Call) -> Answer:
        """Give what Prometheus scrapes."""
        if call.principal.role is not Role.ADMIN and not call.peer.is_here:
            refused = Unauthenticated if call.principal == NOBODY else Forbidden
            raise refused(
                "metrics are for admins, and for whoever asks on this very machine (at"
                " http://localhost, without a proxy between): send an admin's key as"
                " Authorization: Bearer <key>"
            )
        accept = call.request.text_field("Accept")
        await self._its.workers.gather_counts()
        body, content_type = await self._its.files.run(exposition, self._snapshot(), accept)
        return Answer(body, content_type)

    def _snapshot(self) -> Snapshot:
        views = self._its.deployments.deployments()
        places = {
            view.deployment.id: Place(
                view.deployment.key.domain, view.deployment.key.path, view.deployment.agent
            )
            for view in views
        }
        return Snapshot(
            version=version("ploinky"),
            places=places,
            counts=self._its.metrics.counts(),
            loads=self._its.loads.by_deployment(),
            healthy={view.deployment.id: view.healthy_instances for view in views},
            workers=self._its.workers.status(),
            instances=self._its.usages.figures(),
            starts=self._its.history.starts(),
        )


def rate(part: int, whole: int) -> str:
    """Give a share as people read it: ``0.50%``."""
    return f"{100 * part / whole if whole else 0.0:.2f}%"


def _is_meant(view: DeploymentView, wanted: str) -> bool:
    return not wanted or wanted in (_agent(view), str(view.deployment.key))


def _agent(view: DeploymentView | None) -> str:
    if view is None:
        return REMOVED
    return view.deployment.agent or str(view.deployment.key)


def _only(window: Window, deployments: Iterable[str]) -> Window:
    """Leave out what is not meant, or not for this principal's eyes."""
    kept = set(deployments)
    series = {
        time: {label: sums for label, sums in counts.items() if label.deployment in kept}
        for time, counts in window.series.items()
    }
    return Window(window.since, window.resolution, {t: c for t, c in series.items() if c})


def _of_agent(parts: Mapping[str, Counts], loads: Mapping[str, Load]) -> AgentFigures:
    counts = {label: sums for part in parts.values() for label, sums in part.items()}
    commands: dict[str, dict[Any, Sums]] = {}
    for label, sums in counts.items():
        commands.setdefault(label.command, {})[label] = sums
    load = [loads.get(deployment, Load()) for deployment in parts]
    return AgentFigures(
        **_added_up(counts),
        in_flight=sum(each.in_flight for each in load),
        waiting=sum(each.waiting for each in load),
        commands={name: figures(part) for name, part in sorted(commands.items()) if name},
    )


def figures(counts: Counts) -> CallFigures:
    """Add calls up."""
    return CallFigures(**_added_up(counts))


def _added_up(counts: Counts) -> dict[str, Any]:
    """Give the fields of a `CallFigures`."""
    total, sums = count_of(counts), summed(counts.values())
    average = sums.microseconds / 1_000_000 / sums.count if sums.count else None
    shortest, longest = extremes(sums.buckets) or (None, None)
    if average is not None and shortest is not None and longest is not None:
        # Of a bucket, one value is told: the sum, which is exact, may lie to either side of it.
        shortest, longest = min(shortest, average), max(longest, average)
    failed: dict[str, int] = {}
    for label, part in counts.items():
        if label.failed_at:
            failed[label.failed_at] = failed.get(label.failed_at, 0) + part.count
    queued = sums.queued_microseconds / 1_000_000 / sums.count if sums.count else None
    return {
        "count": total.requests,
        "errors": total.errors,
        "error_rate": rate(total.errors, total.requests),
        "unauthorized": total.unauthorized,
        "avg_duration": _ms(average),
        "min_duration": _ms(shortest),
        "max_duration": _ms(longest),
        "p50": _ms(quantile(sums.buckets, 0.5)),
        "p95": _ms(quantile(sums.buckets, 0.95)),
        "p99": _ms(quantile(sums.buckets, 0.99)),
        "avg_queued": _ms(queued),
        "failed_at": failed,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds * 1000:.4g}")
