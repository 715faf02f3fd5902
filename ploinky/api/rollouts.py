"""Changing what is deployed by a part of it: `update`, ``rollback``, ``scale``; and all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any

import attrs
from attrs import Factory, frozen
from twisted.internet.defer import gatherResults

from ploinky.api import documents
from ploinky.api.answers import Answer, as_json
from ploinky.api.deployments import DeploymentRoutes, WaitQuery
from ploinky.api.documents import DeploymentAnswer, DeploymentDocument
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.forms import structured
from ploinky.api.places import CHANGE, DEPLOY, Places
from ploinky.api.repositories import check_without_credential
from ploinky.api.requests import Call
from ploinky.api.shapes import SECRET, Domain, Place, Success, whole
from ploinky.deployment.fields import FIELDS
from ploinky.errors import NotFound, PloinkyError
from ploinky.security.roles import reaches
from ploinky.values import DeploymentKey, DeploymentState, DeploymentView, DeployRequest, Role

GRACE_SECONDS = 10.0


@frozen
class UpdateForm:
    """What is to be different; the rest stays as it was asked for last.

    Attributes:
        environment: Added to what there is; null takes a variable away.
        secrets: Added, and masked in output.
    """

    domain: Domain
    path: Place
    agent: str | None = None
    repository: str | None = None
    branch: str | None = None
    sub_path: str | None = None
    image: str | None = None
    target: str | None = None
    environment: Annotated[dict[str, str | None], SECRET] = Factory(dict)
    secrets: Annotated[dict[str, str], SECRET] = Factory(dict)


@frozen
class RollbackForm:
    """Which release to serve again; without: the one before.

    Attributes:
        release: Its number; 0: the one before.
    """

    domain: Domain
    path: Place
    release: Annotated[int, whole(0, 2**31)] = 0


@frozen
class ScaleForm:
    """How many instances to run.

    Attributes:
        replicas: How many.
    """

    domain: Domain
    path: Place
    replicas: Annotated[int, whole(1, 1000)]


@frozen(kw_only=True)
class AgentAnswer(Success):
    """The deployments of the agent, as they stand now."""

    deployments: list[DeploymentDocument]


@frozen(kw_only=True)
class AllStopped(Success):
    """What was stopped and removed.

    Attributes:
        removed: Ids of instances.
        problems: By deployment, what could not be stopped.
    """

    runtime: str
    removed: list[str]
    problems: dict[str, str] = Factory(dict)


class RolloutRoutes:
    """Changes run as operations: they go on if the client leaves."""

    def __init__(self, collaborators: Collaborators, deployments: DeploymentRoutes) -> None:
        self._its = collaborators
        self._deployments = deployments
        self._places = Places(collaborators)
        self._revisions = deployments.revisions

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        home = f"{API}/deployments"
        return [
            Endpoint(
                "deployments.update",
                "POST",
                f"{home}/update",
                self._update,
                takes=UpdateForm,
                others=tuple(FIELDS),
                queries=WaitQuery,
                gives=DeploymentAnswer,
                statuses=(200, 202),
                errors=DEPLOY,
                conditional=True,
            ),
            Endpoint(
                "deployments.rollback",
                "POST",
                f"{home}/rollback",
                self._rollback,
                takes=RollbackForm,
                gives=DeploymentAnswer,
                errors=CHANGE,
                conditional=True,
            ),
            Endpoint(
                "deployments.scale",
                "POST",
                f"{home}/scale",
                self._scale,
                takes=ScaleForm,
                gives=DeploymentAnswer,
                errors=CHANGE,
                conditional=True,
            ),
            *(self._of_agent(verb) for verb in ("start", "stop", "restart")),
            Endpoint(
                "all.stop",
                "POST",
                f"{API}/stopAndDeleteAll",
                self._stop_all,
                gives=AllStopped,
                errors=CHANGE,
            ),
        ]

    async def _update(self, call: Call) -> Answer:
        """Deploy again with a part of it changed; answered when it serves."""
        document = call.document()
        settings: dict[str, Any] = {}
        if isinstance(document, Mapping):
            ours = {field.name for field in attrs.fields(UpdateForm)}
            settings = {k: v for k, v in document.items() if k in FIELDS and k not in ours}
            document = {k: v for k, v in document.items() if k not in settings}
        form = structured(UpdateForm, document, others=FIELDS)
        key = call.key(form.domain, form.path)
        check_without_credential(form.repository or "")
        before = (await self._places.served(key)).request
        request = attrs.evolve(
            _updated(before, form),
            settings={**before.settings, **settings},
            any_file_url=call.principal.role is Role.ADMIN,
        )
        return await self._deployments.deploy(call, request, wait=call.queries(WaitQuery).wait)

    async def _rollback(self, call: Call) -> Answer:
        """Serve an earlier release again, with the code and image it had; no call is lost."""
        form = call.form(RollbackForm)
        key = call.key(form.domain, form.path)
        return await self._changed(call, key, self._its.deployments.rollback(key, form.release))

    async def _scale(self, call: Call) -> Answer:
        """Run that many instances from now on; no call is lost."""
        form = call.form(ScaleForm)
        key = call.key(form.domain, form.path)
        return await self._changed(call, key, self._its.deployments.scale(key, form.replicas))

    async def _changed(
        self, call: Call, key: DeploymentKey, work: Coroutine[Any, Any, DeploymentView]
    ) -> Answer:
        with self._revisions.held(call, key):
            view = await self._its.operations.begin(call.operation(key), work)
        return as_json(DeploymentAnswer(deployment=documents.deployment(view)))

    def _of_agent(self, verb: str) -> Endpoint:
        manager = self._its.deployments
        works = {"restart": manager.restart, "stop": manager.stop, "start": manager.start}
        return Endpoint(
            f"agents.{verb}",
            "POST",
            f"{API}/agents/<name>/{verb}",
            self._each(verb, works[verb]),
            gives=AgentAnswer,
            errors=CHANGE,
        )

    def _each(
        self, verb: str, work: Callable[[DeploymentKey], Coroutine[Any, Any, DeploymentView]]
    ) -> Callable[[Call], Coroutine[Any, Any, Answer]]:
        async def change(call: Call) -> Answer:
            name = call.parts["name"]
            keys = [
                view.deployment.key
                for view in self._its.deployments.deployments()
                if view.deployment.agent == name and reaches(call.principal, view.deployment.key)
            ]
            if not keys:
                raise NotFound(f"no agent {name!r} is deployed; see p-cli cloud deployments")
            begin = self._its.operations.begin
            done = [begin(call.operation(key), work(key)) for key in keys]
            views = await gatherResults(done, consumeErrors=True)
            return as_json(AgentAnswer(deployments=[documents.deployment(v) for v in views]))

        change.__doc__ = f"Let every deployment of an agent {verb}."
        return change

    async def _stop_all(self, call: Call) -> Answer:
        """Stop all that is deployed and remove every instance; deployments stay, stopped."""
        stopping = call.operation("everything")
        return as_json(await self._its.operations.begin(stopping, self._all_stopped()))

    async def _all_stopped(self) -> AllStopped:
        runtime, cluster = self._its.runtime, self._its.cluster
        before = [status.instance for status in await runtime.instances(cluster)]
        problems: dict[str, str] = {}
        for view in self._its.deployments.deployments():
            if view.state in (DeploymentState.STOPPED, DeploymentState.FAILED):
                continue
            try:
                await self._its.deployments.stop(view.deployment.key)
            except PloinkyError as error:
                problems[str(view.deployment.key)] = error.message
        for status in await runtime.instances(cluster):
            await runtime.remove(status.instance, GRACE_SECONDS)
        left = {status.instance for status in await runtime.instances(cluster)}
        removed = [instance for instance in before if instance not in left]
        return AllStopped(
            success=not problems, runtime=runtime.name, removed=removed, problems=problems
        )


def _updated(before: DeployRequest, form: UpdateForm) -> DeployRequest:
    plain = ("agent", "repository", "branch", "sub_path", "image", "target")
    given = {name: getattr(form, name) for name in plain if getattr(form, name) is not None}
    merged = {**before.environment, **form.environment, **form.secrets}
    environment = {name: value for name, value in merged.items() if value is not None}
    # A secret whose value is given as an ordinary variable from now on is one no more.
    kept = [name for name in before.secrets if name in environment and name not in form.environment]
    secrets = tuple(dict.fromkeys([*kept, *form.secrets]))
    return attrs.evolve(before, **given, environment=environment, secrets=secrets)
