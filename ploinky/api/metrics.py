"""``metrics`` for people and dashboards, ``/metrics`` for Prometheus: how calls went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

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
            Endpoint("metrics", "GET", f"{API}/metrics", self._metrics),
            Endpoint("prometheus", "GET", "/metrics", self._prometheus),
        ]

    async def _metrics(self, call: Call) -> Answer:
        name = call.query("range") or DEFAULT_RANGE
        if name not in RANGES:
            raise ValidationFailed({"range": f"expected one of {', '.join(RANGES)}"})
        wanted = call.query("agent")
        views = {
            view.deployment.id: view
            for view in self._its.deployments.deployments()
            if reaches(call.principal, view.deployment.key) and _is_meant(view, wanted)
        }
        if wanted and not views:
            raise NotFound(f"nothing that is deployed is called {wanted!r}")
        window = await self._its.metrics.window(name)
        if wanted or is_confined(call.principal):
            window = _only(window, views)
        return as_json(self._document(name, window, views))

    def _document(
        self, name: str, window: Window, views: Mapping[str, DeploymentView]
    ) -> dict[str, Any]:
        counts = window.counts()
        total = count_of(counts)
        loads = self._its.loads.by_deployment()
        agents: dict[str, dict[str, Counts]] = {}
        for deployment, part in by_deployment(counts).items():
            agents.setdefault(_agent(views.get(deployment)), {})[deployment] = part
        for deployment, view in views.items():
            agents.setdefault(_agent(view), {}).setdefault(deployment, {})
        return {
            "range": name,
            "since": documents.moment(window.since),
            "until": documents.moment(self._its.clock.seconds()),
            "resolution": window.resolution,
            "totalRequests": total.requests,
            "errorRate": rate(total.errors, total.requests),
            "unauthorizedRequests": total.unauthorized,
            "uptime": round((self._its.clock.seconds() - self._started_at) * 1000),
            "agents": {agent: _of_agent(parts, loads) for agent, parts in sorted(agents.items())},
            "series": [
                {"time": documents.moment(time), **figures(part)}
                for time, part in window.series.items()
            ],
        }

    async def _prometheus(self, call: Call) -> Answer:
        if call.principal.role is not Role.ADMIN and not call.peer.is_here:
            refused = Unauthenticated if call.principal == NOBODY else Forbidden
            raise refused(
                "metrics are for admins, and for whoever asks on this very machine (at"
                " http://localhost, without a proxy between): send an admin's key as"
                " Authorization: Bearer <key>"
            )
        accept = call.request.text_field("Accept")
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


def _of_agent(parts: Mapping[str, Counts], loads: Mapping[str, Load]) -> dict[str, Any]:
    counts = {label: sums for part in parts.values() for label, sums in part.items()}
    commands: dict[str, dict[Any, Sums]] = {}
    for label, sums in counts.items():
        commands.setdefault(label.command, {})[label] = sums
    load = [loads.get(deployment, Load()) for deployment in parts]
    return {
        **figures(counts),
        "inFlight": sum(each.in_flight for each in load),
        "waiting": sum(each.waiting for each in load),
        "commands": {name: figures(part) for name, part in sorted(commands.items()) if name},
    }


def figures(counts: Counts) -> dict[str, Any]:
    """What calls add up to; durations in milliseconds, None where there was no call."""
    total, sums = count_of(counts), summed(counts.values())
    shortest, longest = extremes(sums.buckets) or (None, None)
    failed: dict[str, int] = {}
    for label, part in counts.items():
        if label.failed_at:
            failed[label.failed_at] = failed.get(label.failed_at, 0) + part.count
    average = sums.microseconds / 1_000_000 / sums.count if sums.count else None
    queued = sums.queued_microseconds / 1_000_000 / sums.count if sums.count else None
    return {
        "count": total.requests,
        "errors": total.errors,
        "errorRate": rate(total.errors, total.requests),
        "unauthorized": total.unauthorized,
        "avgDuration": _ms(average),
        "minDuration": _ms(shortest),
        "maxDuration": _ms(longest),
        "p50": _ms(quantile(sums.buckets, 0.5)),
        "p95": _ms(quantile(sums.buckets, 0.95)),
        "p99": _ms(quantile(sums.buckets, 0.99)),
        "avgQueued": _ms(queued),
        "failedAt": failed,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds * 1000:.4g}")
