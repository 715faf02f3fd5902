"""`deployments`: deploy, remove, restart, stop, start, sync; list, history."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import attrs
from attrs import Factory, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ploinky.api import documents
from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.forms import structured
from ploinky.api.instances import deployment_at, release_numbered
from ploinky.api.repositories import split_userinfo
from ploinky.api.requests import Call
from ploinky.deployment.fields import FIELDS
from ploinky.errors import NotFound, ValidationFailed
from ploinky.security.roles import reaches
from ploinky.values import DeploymentKey, DeploymentView, DeployRequest, Role

SETTLE_SECONDS = 1.0
"""How long those who do not wait for a deploy wait to be told that it is refused."""


@frozen
class KeyForm:
    """Which deployment is meant."""

    domain: str
    path: str


@frozen
class DeployForm:
    """What is to be deployed; fields of a manifest may stand beside these.

    Attributes:
        env: The manifest's name for `environment`, which wins.
    """

    domain: str
    path: str
    agent: str = ""
    repository: str = ""
    branch: str = ""
    sub_path: str = ""
    image: str = ""
    target: str = ""
    environment: dict[str, str] = Factory(dict)
    env: dict[str, str] = Factory(dict)


class DeploymentRoutes:
    """Changes run as operations: they go on if the client leaves."""

    _log = Logger()

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        manager = self._its.deployments
        home = f"{API}/deployments"
        return [
            Endpoint("deployments.list", "GET", home, self._list),
            Endpoint("deployments.deploy", "POST", home, self._deploy),
            Endpoint("deployments.remove", "DELETE", home, self._remove),
            Endpoint(
                "deployments.remove-named", "DELETE", f"{home}/<domain>/<rest:path>", self._remove
            ),
            Endpoint("deployments.releases", "GET", f"{home}/releases", self._releases),
            Endpoint("deployments.sync", "POST", f"{home}/sync", self._change(self._sync)),
            Endpoint(
                "deployments.restart", "POST", f"{home}/restart", self._change(manager.restart)
            ),
            Endpoint("deployments.stop", "POST", f"{home}/stop", self._change(manager.stop)),
            Endpoint("deployments.start", "POST", f"{home}/start", self._change(manager.start)),
        ]

    # --- what changes ---------------------------------------------------------

    async def _deploy(self, call: Call) -> Answer:
        request = _read(call)
        begun: Deferred[None] = Deferred()
        outcome = self._its.operations.begin(
            call.operation(request.key),
            self._its.deployments.deploy(request, self._report(call, begun)),
        )
        if call.query("wait").lower() not in ("false", "0", "no"):
            view = await outcome
        elif (settled := await self._settled(outcome, begun)) is not None:
            view = settled
        else:
            return as_json({"success": True, "deployment": self._as_it_stands(request)}, 202)
        return as_json({"success": True, "deployment": documents.deployment(view)})

    async def _settled(
        self, outcome: Deferred[DeploymentView], begun: Deferred[None]
    ) -> DeploymentView | None:
        """Wait until a deploy has ended, or is under way, or waits for its turn.

        Returns:
            What it came to; None where it goes on: from then on the log and the deployment's
            ``error`` say how it ends.
        """
        ended: list[DeploymentView | Failure] = []

        def go_on() -> None:
            if not begun.called:
                begun.callback(None)

        def note(result: DeploymentView | Failure) -> None:
            ended.append(result)
            go_on()

        outcome.addBoth(note)
        late = self._its.clock.callLater(SETTLE_SECONDS, go_on)
        try:
            await begun
        finally:
            if late.active():
                late.cancel()
        if not ended:
            return None
        if isinstance(ended[0], Failure):
            ended[0].raiseException()
        return ended[0]

    async def _remove(self, call: Call) -> Answer:
        named = KeyForm(**call.parts) if call.parts else call.form(KeyForm)
        key = call.key(named.domain, named.path)
        await self._its.operations.begin(call.operation(key), self._its.deployments.remove(key))
        return as_json({"success": True})

    def _change(
        self, work: Callable[[DeploymentKey], Coroutine[Any, Any, DeploymentView]]
    ) -> Callable[[Call], Awaitable[Answer]]:
        async def change(call: Call) -> Answer:
            named = call.form(KeyForm)
            key = call.key(named.domain, named.path)
            view = await self._its.operations.begin(call.operation(key), work(key))
            return as_json({"success": True, "deployment": documents.deployment(view)})

        return change

    async def _sync(self, key: DeploymentKey) -> DeploymentView:
        """Deploy again what was asked for last and served, or else what was asked for first."""
        view = self._find(key)
        releases = await self._its.deployment_store.releases(view.deployment.id)
        wanted = release_numbered(releases, view.deployment.active_release)
        if wanted is None:
            raise NotFound(f"{key} has no release yet that could be deployed again")
        return await self._its.deployments.deploy(wanted.request, lambda line: None)

    # --- what only looks ------------------------------------------------------

    async def _list(self, call: Call) -> Answer:
        views = [v for v in self._its.deployments.deployments() if _fits(v, call)]
        return as_json({"deployments": [documents.deployment(view) for view in views]})

    async def _releases(self, call: Call) -> Answer:
        view = self._find(call.key(call.query("domain"), call.query("path")))
        kept = view.deployment.id
        releases = await self._its.deployment_store.releases(kept)
        deaths = [await self._its.history.deaths(kept, each.number) for each in releases]
        shown = [documents.release(*each) for each in zip(releases, deaths, strict=True)]
        return as_json({"releases": shown})

    # --- the rest ---------------------------------------------------------------

    def _find(self, key: DeploymentKey) -> DeploymentView:
        return deployment_at(self._its.deployments, key)

    def _report(self, call: Call, begun: Deferred[None]) -> Callable[[str], None]:
        def report(line: str) -> None:
            self._log.debug("{request_id}: {line}", request_id=call.request.request_id, line=line)
            if not begun.called:
                begun.callback(None)

        return report

    def _as_it_stands(self, request: DeployRequest) -> dict[str, Any]:
        try:
            return documents.deployment(self._find(request.key))
        except NotFound:  # it has begun, and is not in the list yet
            domain, path = request.key.domain, request.key.path
            return {"domain": domain, "path": path, "agent": request.agent, "status": "deploying"}


def _read(call: Call) -> DeployRequest:
    """Validate what is asked for in form; what it means is the manager's."""
    document = call.document()
    settings: dict[str, Any] = {}
    if isinstance(document, dict):
        ours = {field.name for field in attrs.fields(DeployForm)}
        settings = {k: v for k, v in document.items() if k in FIELDS and k not in ours}
        document = {k: v for k, v in document.items() if k not in settings}
    form = structured(DeployForm, document, others=FIELDS)
    key = call.key(form.domain, form.path)
    if split_userinfo(form.repository)[1]:
        raise ValidationFailed(
            {
                "repository": "a URL must not hold a credential; register the repository with it:"
                " p-cli cloud repo add NAME URL --token-file FILE"
            }
        )
    return DeployRequest(
        key=key,
        agent=form.agent,
        repository=form.repository,
        branch=form.branch,
        sub_path=form.sub_path,
        image=form.image,
        target=form.target,
        environment={**form.env, **form.environment},
        settings=settings,
        any_file_url=call.principal.role is Role.ADMIN,
    )


def _fits(view: DeploymentView, call: Call) -> bool:
    key = view.deployment.key
    domain, path = call.query("domain"), call.query("path")
    return (
        reaches(call.principal, key)
        and (not domain or key.domain == domain.lower())
        and (not path or key.path == "/" + path.strip("/"))
    )
