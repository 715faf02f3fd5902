"""`health` and ``overview``: how the server is."""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError

from ploinky.api import documents
from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.metrics import rate
from ploinky.api.operations import Finished
from ploinky.api.places import Places
from ploinky.api.requests import Call
from ploinky.errors import PloinkyError
from ploinky.security.roles import READERS, reaches
from ploinky.values import DeploymentState, DeploymentView

DATABASE_TIMEOUT_SECONDS = 5.0

_TROUBLED = (DeploymentState.UNHEALTHY, DeploymentState.FAILED)


@frozen
class Where:
    """A deployment, how it stands, and how an instance of it died last."""

    domain: str
    path: str
    status: DeploymentState
    last_failure: documents.DeathDocument | None


@frozen
class Health:
    """How the server is; who may not read more is told the status alone."""

    status: Literal["ok", "degraded", "down"]
    server: str | None = None
    database: str | None = None
    workers: list[dict[str, Any]] | None = None
    agents: dict[str, int] | None = None
    deployments: list[Where] | None = None


@frozen(kw_only=True)
class Activity:
    """One change that ended."""

    time: str | None
    action: str
    subject: str
    user: str
    success: bool
    error: str | None
    request_id: str


@frozen(kw_only=True)
class Overview:
    """Counts since the server's first start; ``uptime`` in milliseconds."""

    total_requests: int
    active_agents: int
    total_deployments: int
    error_rate: str
    unauthorized_requests: int
    uptime: int
    recent_activity: list[Activity]


class StatusRoutes:
    """Looks, changes nothing.

    Args:
        started_at: Unix time at which this server came up.
    """

    def __init__(self, collaborators: Collaborators, started_at: float) -> None:
        self._its = collaborators
        self._places = Places(collaborators)
        self._started_at = started_at

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint(
                "health", "GET", f"{API}/health", self._health, gives=Health, statuses=(200, 503)
            ),
            Endpoint("overview", "GET", f"{API}/overview", self._overview, gives=Overview),
        ]

    async def _health(self, call: Call) -> Answer:
        """Tell how the server is: ``down`` (503) or, where a part cannot work, ``degraded``."""
        status: Literal["ok", "degraded", "down"]
        database = await self._database()
        workers = self._its.workers.status()
        serving = [worker for worker in workers if worker["state"] == "serving"]
        views = self._its.deployments.deployments()
        if database != "ok" or not serving:
            status = "down"
        elif len(serving) < len(workers) or any(view.state in _TROUBLED for view in views):
            status = "degraded"
        else:
            status = "ok"
        code = 503 if status == "down" else 200
        if call.principal.role not in READERS:
            return as_json({"status": status}, status=code)
        document = Health(
            status,
            server="ok",
            database=database,
            workers=workers,
            agents={"healthyInstances": sum(view.healthy_instances for view in views)},
            deployments=[
                await self._where(view)
                for view in views
                if reaches(call.principal, view.deployment.key)
            ],
        )
        return as_json(document, status=code)

    async def _where(self, view: DeploymentView) -> Where:
        key, failed = view.deployment.key, self._its.history.last_death(view.deployment.id)
        shown = documents.death(await self._places.death(view, failed)) if failed else None
        return Where(key.domain, key.path, view.state, shown)

    async def _database(self) -> str:
        asked = Deferred.fromCoroutine(self._its.repositories.domains())
        try:
            await asked.addTimeout(DATABASE_TIMEOUT_SECONDS, self._its.clock)
        except TimeoutError:
            return f"no answer within {DATABASE_TIMEOUT_SECONDS:.0f} s"
        except PloinkyError as error:
            return error.message
        return "ok"

    async def _overview(self, call: Call) -> Answer:
        """Give counts, and what was done last."""
        await self._its.workers.gather_counts()
        totals = self._its.metrics.totals().all
        views = self._its.deployments.deployments()
        return as_json(
            Overview(
                total_requests=totals.requests,
                active_agents=sum(view.healthy_instances > 0 for view in views),
                total_deployments=len(views),
                error_rate=rate(totals.errors, totals.requests),
                unauthorized_requests=totals.unauthorized,
                uptime=round((self._its.clock.seconds() - self._started_at) * 1000),
                recent_activity=[_activity(one) for one in self._its.operations.recent()],
            )
        )


def _activity(finished: Finished) -> Activity:
    operation = finished.operation
    return Activity(
        time=documents.moment(finished.ended_at),
        action=operation.action,
        subject=operation.subject,
        user=operation.user,
        success=not finished.error,
        error=finished.error or None,
        request_id=operation.request_id,
    )
