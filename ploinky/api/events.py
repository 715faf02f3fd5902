"""``events``: what happens, as Server-Sent Events; what the dashboard listens to.

Source: HTML Living Standard, *Server-sent events*.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ploinky.api import documents
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.forms import plain
from ploinky.api.metrics import figures
from ploinky.api.places import Places
from ploinky.api.requests import Call
from ploinky.api.streams import Outlet, Stream
from ploinky.api.task_events import TaskEvents
from ploinky.errors import NotFound
from ploinky.instance_values import InstanceSpec
from ploinky.measures import Counts
from ploinky.observations import InstanceDeath
from ploinky.security.roles import is_confined, reaches
from ploinky.telemetry.counters import by_deployment
from ploinky.telemetry.hub import Event, Sees
from ploinky.values import DeploymentKey

HEARTBEAT_SECONDS = 15.0
"""Between comments, so that nobody between takes the connection for dead."""

RETRY_MS = 2000


@frozen
class EventsQuery:
    """Where to go on.

    Attributes:
        last_event_id: Of the last event that was seen, as ``Last-Event-ID`` says it, too.
    """

    last_event_id: str = ""


class EventRoutes:
    """Tells what the hub has heard."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint(
                "events",
                "GET",
                f"{API}/events",
                self._events,
                queries=EventsQuery,
                gives="text/event-stream",
            )
        ]

    async def _events(self, call: Call) -> Stream:
        """Tell what happens: to deployments, instances, calls and durable tasks."""

        def sees(key: DeploymentKey | None) -> bool:
            if key is None:
                return not is_confined(call.principal)
            return reaches(call.principal, key)

        after = call.request.text_field("Last-Event-ID") or call.queries(EventsQuery).last_event_id
        return Stream("text/event-stream", partial(self._tell, after, sees))

    async def _tell(self, after: str, sees: Sees, outlet: Outlet) -> None:
        listener = self._its.hub.listen(after, sees, outlet.abort)
        try:
            await outlet.write(b"retry: %d\n\n" % RETRY_MS)
            while True:
                events = await listener.next(self._its.clock, HEARTBEAT_SECONDS)
                await outlet.write(_shown(events))
        finally:
            listener.close()


class EventSources:
    """Tells the hub what happens, once it listens."""

    _log = Logger()

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators
        self._places = Places(collaborators)
        self._task_events = TaskEvents(collaborators.clock, self._publish)

    def listen(self) -> None:
        """Listen from now on."""
        self._its.deployments.watch(self._changed)
        self._its.history.listen(self._started, self._died)
        self._its.metrics.listen(self._counted)
        self._its.tasks.watch(self._task_events.changed)

    def _changed(self, key: DeploymentKey, line: str) -> None:
        """A deployment changed, or its deploy said something."""
        document: dict[str, Any]
        try:
            document = plain(documents.deployment(self._places.find(key)))
        except NotFound:
            document = {"domain": key.domain, "path": key.path, "status": "removed"}
        self._publish("deployment", {**document, "line": line}, key)

    def _started(self, spec: InstanceSpec, seconds: float) -> None:
        document = {
            "instance": spec.instance,
            "release": spec.release,
            "up": True,
            "seconds": round(seconds, 3),
        }
        self._publish("instance", _placed(document, spec.key), spec.key)

    def _died(self, death: InstanceDeath) -> None:
        telling = Deferred.fromCoroutine(self._tell_death(death))
        telling.addErrback(lambda failure: self._log.failure("a death is not told", failure))

    async def _tell_death(self, death: InstanceDeath) -> None:
        view = self._its.deployments.deployment_of(death.deployment)
        if view is not None:
            key = view.deployment.key
            document = plain(documents.death(await self._places.death(view, death)))
            self._publish("instance", _placed({**document, "up": False}, key), key)

    def _counted(self, counts: Counts) -> None:
        """A tick: what was counted since the last one, for each deployment and together."""
        for deployment, part in by_deployment(counts).items():
            view = self._its.deployments.deployment_of(deployment)
            if view is not None:
                key = view.deployment.key
                self._publish("metrics", _placed(plain(figures(part)), key), key)
        self._publish("metrics", plain(figures(counts)), None)

    def _publish(self, kind: str, document: Mapping[str, Any], key: DeploymentKey | None) -> None:
        self._its.hub.publish(kind, json.dumps(document), key)


def _placed(document: Mapping[str, Any], key: DeploymentKey) -> dict[str, Any]:
    return {"domain": key.domain, "path": key.path, **document}


def _shown(events: Iterable[Event]) -> bytes:
    """Give events as they travel; a comment where there are none."""
    text = "".join(f"id: {e.id}\nevent: {e.kind}\ndata: {e.data}\n\n" for e in events)
    return text.encode() or b": still here\n\n"
