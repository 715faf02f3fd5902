"""`health`, ``overview``, ``config``: how the server is."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred, TimeoutError

from ploinky.api import documents
from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.metrics import rate
from ploinky.api.operations import Finished
from ploinky.api.requests import Call
from ploinky.errors import PloinkyError
from ploinky.security.roles import READERS, reaches
from ploinky.settings import fields
from ploinky.values import DeploymentState, DeploymentView

DATABASE_TIMEOUT_SECONDS = 5.0

_TROUBLED = (DeploymentState.UNHEALTHY, DeploymentState.FAILED)


class StatusRoutes:
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
            Endpoint("health", "GET", f"{API}/health", self._health),
            Endpoint("overview", "GET", f"{API}/overview", self._overview),
            Endpoint("config", "GET", f"{API}/config", self._config),
        ]

    async def _health(self, call: Call) -> Answer:
        """``down``: it cannot do its work (503).  ``degraded``: a part of it cannot."""
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
        document: dict[str, Any] = {"status": status}
        if call.principal.role in READERS:
            running = sum(view.healthy_instances for view in views)
            document |= {
                "server": "ok",
                "database": database,
                "workers": workers,
                "agents": {"healthyInstances": running},
                "deployments": [
                    self._of_deployment(view)
                    for view in views
                    if reaches(call.principal, view.deployment.key)
                ],
            }
        return as_json(document, status=503 if status == "down" else 200)

    def _of_deployment(self, view: DeploymentView) -> dict[str, Any]:
        key, failed = view.deployment.key, self._its.history.last_death(view.deployment.id)
        document = {"domain": key.domain, "path": key.path, "status": view.state.value}
        return {**document, "lastFailure": documents.death(failed) if failed else None}

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
        totals = self._its.metrics.totals().all
        views = self._its.deployments.deployments()
        return as_json(
            {
                "totalRequests": totals.requests,
                "activeAgents": sum(view.healthy_instances > 0 for view in views),
                "totalDeployments": len(views),
                "errorRate": rate(totals.errors, totals.requests),
                "unauthorizedRequests": totals.unauthorized,
                "uptime": round((self._its.clock.seconds() - self._started_at) * 1000),
                "recentActivity": [_activity(one) for one in self._its.operations.recent()],
            }
        )

    async def _config(self, call: Call) -> Answer:
        values = attrs.asdict(self._its.settings, recurse=False)
        settings = {name: values[attribute] for attribute, name, _ in fields()}
        directory = str(self._its.settings.directory)
        return as_json({"settings": settings, "directory": directory})


def _activity(finished: Finished) -> dict[str, Any]:
    operation = finished.operation
    return {
        "time": documents.moment(finished.ended_at),
        "action": operation.action,
        "subject": operation.subject,
        "user": operation.user,
        "success": not finished.error,
        "error": finished.error or None,
        "requestId": operation.request_id,
    }
