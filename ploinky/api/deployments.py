"""`deployments`: deploy, remove, restart, stop, start, sync; list, history."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

import attrs
from attrs import Factory, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ploinky.api import documents
from ploinky.api.answers import Answer, as_json
from ploinky.api.documents import (
    CommandList,
    DeploymentAnswer,
    DeploymentDocument,
    DeploymentList,
    ReleaseDocument,
    ReleaseList,
)
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.forms import structured
from ploinky.api.places import CHANGE, DEPLOY, Places, Revisions, masked_death
from ploinky.api.repositories import check_without_credential
from ploinky.api.requests import Call
from ploinky.api.shapes import SECRET, Domain, KeyForm, PageQuery, Place, Success
from ploinky.deployment.fields import FIELDS
from ploinky.errors import (
    AgentBroken,
    AgentUnreachable,
    Conflict,
    NoHealthyInstance,
    NotFound,
)
from ploinky.security.roles import reaches
from ploinky.values import (
    Deployment,
    DeploymentKey,
    DeploymentState,
    DeploymentView,
    DeployRequest,
    Release,
    Role,
)

_ABOUT = {
    "sync": "Fetch its repository and deploy again what was asked for.",
    "restart": "Replace its instances by new ones; no call is lost.",
    "stop": "Stop its instances; it and its releases stay.",
    "start": "Start it again after stop.",
}

SETTLE_SECONDS = 1.0
"""How long those who do not wait for a deploy wait to be told that it is refused."""


@frozen
class DeployForm:
    """What is to be deployed; fields of a manifest may stand beside these.

    Attributes:
        env: The manifest's name for `environment`, which wins.
        agent: Its directory; repository/agent picks one.
        repository: URL, or the name of a registered one.
        branch: Branch, tag or commit.
        sub_path: Directory in the repository.
        image: Wins over the manifest's.
        target: Something that runs: http://host:port.
        environment: Variables; never given back.
        secrets: Variables that are masked in output and errors as well.
    """

    domain: Domain
    path: Place
    agent: str = ""
    repository: str = ""
    branch: str = ""
    sub_path: str = ""
    image: str = ""
    target: str = ""
    environment: Annotated[dict[str, str], SECRET] = Factory(dict)
    env: Annotated[dict[str, str], SECRET] = Factory(dict)
    secrets: Annotated[dict[str, str], SECRET] = Factory(dict)


@frozen
class WaitQuery:
    """Whether the answer comes when it serves, or (202) once the deploy is under way."""

    wait: bool = True


@frozen
class FindQuery(PageQuery):
    """Which deployments to list."""

    domain: Domain = ""
    path: Place = ""


@frozen(kw_only=True)
class KeyPageQuery(PageQuery):
    """Which deployment is meant, and which part of a list."""

    domain: Domain
    path: Place


class DeploymentRoutes:
    """Changes run as operations: they go on if the client leaves.

    Attributes:
        revisions: Holds changes to the version that their caller saw.
    """

    _log = Logger()

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators
        self._places = Places(collaborators)
        self.revisions = Revisions(self._places)

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        home = f"{API}/deployments"
        return [
            Endpoint(
                "deployments.list", "GET", home, self._list, queries=FindQuery, gives=DeploymentList
            ),
            Endpoint(
                "deployments.deploy",
                "POST",
                home,
                self._deploy,
                takes=DeployForm,
                others=tuple(FIELDS),
                queries=WaitQuery,
                gives=DeploymentAnswer,
                statuses=(200, 202),
                errors=DEPLOY,
                conditional=True,
            ),
            Endpoint(
                "deployments.remove",
                "DELETE",
                home,
                self._remove,
                takes=KeyForm,
                gives=Success,
                errors=CHANGE,
                conditional=True,
            ),
            Endpoint(
                "deployments.remove-named",
                "DELETE",
                f"{home}/<domain>/<rest:path>",
                self._remove,
                gives=Success,
                errors=CHANGE,
                conditional=True,
            ),
            Endpoint(
                "deployments.show",
                "GET",
                f"{home}/<domain>/<rest:path>",
                self._show,
                gives=DeploymentDocument,
                errors=(NotFound,),
            ),
            Endpoint(
                "deployments.releases",
                "GET",
                f"{home}/releases",
                self._releases,
                queries=KeyPageQuery,
                gives=ReleaseList,
                errors=(NotFound,),
            ),
            Endpoint(
                "deployments.commands",
                "GET",
                f"{home}/commands",
                self._commands,
                queries=KeyForm,
                gives=CommandList,
                errors=(NotFound, Conflict, NoHealthyInstance, AgentUnreachable, AgentBroken),
            ),
            *(self._changing(verb) for verb in ("sync", "restart", "stop", "start")),
        ]

    def _changing(self, verb: str) -> Endpoint:
        manager = self._its.deployments
        works = {"restart": manager.restart, "stop": manager.stop, "start": manager.start}
        return Endpoint(
            f"deployments.{verb}",
            "POST",
            f"{API}/deployments/{verb}",
            self._change(_ABOUT[verb], works.get(verb, self._sync)),
            takes=KeyForm,
            gives=DeploymentAnswer,
            errors=DEPLOY if verb == "sync" else CHANGE,
            conditional=True,
        )

    # --- what changes ---------------------------------------------------------

    async def _deploy(self, call: Call) -> Answer:
        """Create a deployment, or replace what it serves; answered when it serves."""
        return await self.deploy(call, _read(call), wait=call.queries(WaitQuery).wait)

    async def deploy(self, call: Call, request: DeployRequest, *, wait: bool) -> Answer:
        """Deploy, and answer when it serves or, where nobody waits, once it is under way."""
        with self.revisions.held(call, request.key):
            begun: Deferred[None] = Deferred()
            outcome = self._its.operations.begin(
                call.operation(request.key),
                self._its.deployments.deploy(request, self._report(call, begun)),
            )
            if wait:
                view = await outcome
            elif (settled := await self._settled(outcome, begun)) is not None:
                view = settled
            else:
                return as_json(DeploymentAnswer(deployment=self._as_it_stands(request)), 202)
            return as_json(DeploymentAnswer(deployment=documents.deployment(view)))

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
        """Remove a deployment; calls in hand are finished first."""
        named = KeyForm(**call.parts) if call.parts else call.form(KeyForm)
        key = call.key(named.domain, named.path)
        with self.revisions.held(call, key):
            await self._its.operations.begin(call.operation(key), self._its.deployments.remove(key))
        return as_json(Success())

    def _change(
        self, about: str, work: Callable[[DeploymentKey], Coroutine[Any, Any, DeploymentView]]
    ) -> Callable[[Call], Awaitable[Answer]]:
        async def change(call: Call) -> Answer:
            named = call.form(KeyForm)
            key = call.key(named.domain, named.path)
            with self.revisions.held(call, key):
                view = await self._its.operations.begin(call.operation(key), work(key))
            return as_json(DeploymentAnswer(deployment=documents.deployment(view)))

        change.__doc__ = about
        return change

    async def _sync(self, key: DeploymentKey) -> DeploymentView:
        """Deploy again what was asked for last and served, or else what was asked for first."""
        wanted = await self._places.served(key)
        return await self._its.deployments.deploy(wanted.request, lambda line: None)

    # --- what only looks ------------------------------------------------------

    async def _list(self, call: Call) -> Answer:
        """List deployments: all, those of a domain, or the one at a path."""
        query = call.queries(FindQuery)
        views = [v for v in self._its.deployments.deployments() if _fits(v, call, query)]
        shown = [documents.deployment(view) for view in query.of(views)]
        return as_json(DeploymentList(deployments=shown, **query.at(len(views))))

    async def _show(self, call: Call) -> Answer:
        """Give one deployment, with its version as ETag."""
        view = self._places.find(call.key(call.parts["domain"], call.parts["path"]))
        etag = ("ETag", f'"{documents.revision(view.deployment)}"')
        return as_json(documents.deployment(view), fields=(etag,))

    async def _releases(self, call: Call) -> Answer:
        """List the releases of a deployment, newest first, and how instances of them died."""
        query = call.queries(KeyPageQuery)
        view = self._places.find(call.key(query.domain, query.path))
        releases = await self._its.deployment_store.releases(view.deployment.id)
        shown = [await self._release(release) for release in query.of(releases)]
        return as_json(ReleaseList(releases=shown, **query.at(len(releases))))

    async def _release(self, release: Release) -> ReleaseDocument:
        deaths = await self._its.history.deaths(release.deployment, release.number)
        words = [documents.last_words(masked_death(one, release)) for one in deaths]
        return documents.release(release, words)

    async def _commands(self, call: Call) -> Answer:
        """List what its agent can be asked to do."""
        named = call.queries(KeyForm)
        view = self._places.find(call.key(named.domain, named.path))
        commands = await self._its.commands(view.deployment.id)
        return as_json({"commands": [dict(command) for command in commands]})

    # --- the rest ---------------------------------------------------------------

    def _report(self, call: Call, begun: Deferred[None]) -> Callable[[str], None]:
        def report(line: str) -> None:
            self._log.debug("{request_id}: {line}", request_id=call.request.request_id, line=line)
            if not begun.called:
                begun.callback(None)

        return report

    def _as_it_stands(self, request: DeployRequest) -> DeploymentDocument:
        try:
            return documents.deployment(self._places.find(request.key))
        except NotFound:  # it has begun, and is not in the list yet
            new = Deployment("", request.key, request.agent)
            return documents.deployment(DeploymentView(new, None, DeploymentState.DEPLOYING))


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
    check_without_credential(form.repository)
    return DeployRequest(
        key=key,
        agent=form.agent,
        repository=form.repository,
        branch=form.branch,
        sub_path=form.sub_path,
        image=form.image,
        target=form.target,
        environment={**form.env, **form.environment, **form.secrets},
        settings=settings,
        secrets=tuple(form.secrets),
        any_file_url=call.principal.role is Role.ADMIN,
    )


def _fits(view: DeploymentView, call: Call, query: FindQuery) -> bool:
    key = view.deployment.key
    return (
        reaches(call.principal, key)
        and (not query.domain or key.domain == query.domain.lower())
        and (not query.path or key.path == "/" + query.path.strip("/"))
    )
