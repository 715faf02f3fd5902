"""The API as one site: every route's rule, every error's form, in one place.

`make_site` is what the root calls.  It must not be imported before the root
has chosen its reactor: importing Klein installs one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from werkzeug.routing import PathConverter

from ploinky.api import problems
from ploinky.api.access import AccessRoutes
from ploinky.api.answers import Answer
from ploinky.api.auditing import Auditor, AuditRoutes
from ploinky.api.backup import BackupRoutes
from ploinky.api.deployments import DeploymentRoutes
from ploinky.api.domains import DomainRoutes
from ploinky.api.endpoints import Collaborators, Endpoint
from ploinky.api.events import EventRoutes, EventSources
from ploinky.api.hooks import HookRoutes
from ploinky.api.instances import InstanceRoutes
from ploinky.api.keys import KeyRoutes
from ploinky.api.logs import LogRoutes
from ploinky.api.metrics import MetricsRoutes
from ploinky.api.page import PageRoutes
from ploinky.api.reference import ReferenceRoutes
from ploinky.api.repositories import RepositoryRoutes
from ploinky.api.requests import (
    Call,
    Credential,
    ManagementRequest,
    Peer,
    check_origin,
    credential_of,
    request_id_of,
)
from ploinky.api.rollouts import RolloutRoutes
from ploinky.api.settings import SettingsRoutes
from ploinky.api.status import StatusRoutes
from ploinky.api.streams import Stream
from ploinky.api.tasks import TaskRoutes
from ploinky.errors import (
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    SettingsInvalid,
)
from ploinky.routing.headers import TrustedProxies
from ploinky.routing.problem import EVERY_ANSWERS_FIELDS
from ploinky.security.admission import ADMIN_ID
from ploinky.security.bootstrap import is_loopback
from ploinky.security.roles import check, is_open
from ploinky.values import NOBODY, Principal, Role

EVERYBODY = Principal(id=ADMIN_ID, role=Role.ADMIN)
"""Who calls where the setting ``auth`` is ``none``."""


def make_site(collaborators: Collaborators) -> Site:
    """Make the site that the root listens with, on the control socket.

    Only the gateway reaches that socket: ``X-Forwarded-For`` and its kin are believed, an idle
    connection is the gateway's to close, and there is no access log but the gateway's.

    Raises:
        SettingsInvalid: ``auth`` is ``none`` and `host` is not loopback, or ``trustedProxies`` has
            something that is no address.
    """
    settings = collaborators.settings
    open_to_all = settings.auth == "none" and not settings.everybody_is_admin
    if open_to_all and not is_loopback(settings.host):
        raise SettingsInvalid(
            [
                f"auth: none makes everybody an admin, so host must be loopback, not"
                f" {settings.host!r}; set host to 127.0.0.1, or auth to keys (or, where everybody"
                " who can reach it may do anything, everybodyIsAdmin to yes as well)"
            ]
        )
    EventSources(collaborators).listen()
    site = _QuietSite(  # type: ignore[no-untyped-call]
        _Front(Application(collaborators, routes(collaborators)).resource(), collaborators.new_id),
        requestFactory=ManagementRequest,
        timeout=None,
    )
    site.displayTracebacks = False
    return site


def routes(collaborators: Collaborators) -> list[Endpoint]:
    """Give every route of the API."""
    started_at = collaborators.clock.seconds()
    deployments = DeploymentRoutes(collaborators)
    found = [
        *PageRoutes().endpoints(),
        *AccessRoutes(collaborators).endpoints(),
        *KeyRoutes(collaborators).endpoints(),
        *AuditRoutes(collaborators).endpoints(),
        *StatusRoutes(collaborators, started_at).endpoints(),
        *LogRoutes(collaborators).endpoints(),
        *MetricsRoutes(collaborators, started_at).endpoints(),
        *deployments.endpoints(),
        *InstanceRoutes(collaborators).endpoints(),
        *EventRoutes(collaborators).endpoints(),
        *RolloutRoutes(collaborators, deployments).endpoints(),
        *HookRoutes(collaborators).endpoints(),
        *SettingsRoutes(collaborators).endpoints(),
        *BackupRoutes(collaborators).endpoints(),
        *DomainRoutes(collaborators).endpoints(),
        *RepositoryRoutes(collaborators).endpoints(),
        *TaskRoutes(collaborators).endpoints(),
        *ReferenceRoutes(lambda: found).endpoints(),
    ]
    return found


class Application:
    """Routes on Klein: finds the principal, holds the route's rule, maps what goes wrong."""

    _log = Logger()

    def __init__(self, collaborators: Collaborators, endpoints: Sequence[Endpoint]) -> None:
        self._its = collaborators
        self._proxies = TrustedProxies(collaborators.settings.trusted_proxies)
        self._auditor = Auditor(collaborators.clock, collaborators.audit, collaborators.strangers)
        self._klein = Klein()
        self._klein.url_map.converters["rest"] = _Rest
        for endpoint in endpoints:
            self._klein.route(
                endpoint.path,
                endpoint=endpoint.name,
                methods=[endpoint.method],
                strict_slashes=False,
            )(self._served(endpoint))

        @self._klein.handle_errors(Exception)
        def answer_error(request: Any, failure: Failure) -> bytes:
            error = problems.foreseen(failure, _place(request), self._log, request.request_id)
            if isinstance(error, MethodNotAllowed) and request.method == b"OPTIONS":
                allow = ("Allow", ", ".join(error.allow))
                return _write(request, Answer(b"", "text/plain", 204, (allow,)))
            return _write(request, problems.answer(error, request.request_id))

    def resource(self) -> IResource:
        """Give the resource to hand requests to."""
        resource: IResource = self._klein.resource()
        return resource

    def _served(self, endpoint: Endpoint) -> Callable[..., Coroutine[Any, Any, bytes]]:
        async def serve(request: ManagementRequest, **parts: str) -> bytes:
            call = await self._call(endpoint, request, parts)
            if endpoint.changes:
                # It is finished and written down even if the client leaves meanwhile.
                work = self._auditor.recorded(endpoint, call, self._admitted)
                answer = await self._its.operations.begin(None, work)
            else:
                answer = await self._admitted(endpoint, call)
            if isinstance(answer, Answer):
                return _write(request, answer)
            # A key that was taken back while the stream was made ready hears nothing of it.
            listener = await self._principal(call.credential, call.peer)
            check(endpoint.name, listener)
            await self._stream(request, answer, listener)
            return b""

        serve.__name__ = endpoint.name
        return serve

    async def _call(
        self, endpoint: Endpoint, request: ManagementRequest, parts: dict[str, str]
    ) -> Call:
        credential, peer = credential_of(request), Peer.of(request, self._proxies)
        principal = await self._principal(credential, peer)
        if principal.token_hash:
            now = self._its.clock.seconds()
            await self._its.keys.used(dict.fromkeys((principal.token_hash, principal.parent), now))
        return Call(endpoint.name, request, principal, credential, peer, parts)

    async def _admitted(self, endpoint: Endpoint, call: Call) -> Answer | Stream:
        check(endpoint.name, call.principal)
        if not endpoint.proves_itself:
            check_origin(call.request, None if is_open(endpoint.name) else call.credential)
        query = endpoint.parameters()
        if query is not None and not (endpoint.method == "DELETE" and endpoint.takes):
            call.queries(query)  # what is unknown is refused before anything is done
        return await endpoint.answer(call)

    async def _stream(
        self, request: ManagementRequest, stream: Stream, listener: Principal
    ) -> None:
        """Write an answer that goes on; one that breaks is cut off, so that the client notices."""
        _describe(request, stream.content_type, 200, stream.fields)
        try:
            await self._its.streams.serve(request, stream, listener)
        except CancelledError:
            raise  # the client has gone
        except Exception:  # the API's edge: too late for an error's answer
            self._log.failure("{place} broke off", place=_place(request))
            request.loseConnection()  # type: ignore[no-untyped-call]

    async def _principal(self, credential: Credential | None, peer: Peer) -> Principal:
        settings = self._its.settings
        if settings.auth == "none":
            if not (settings.everybody_is_admin or is_loopback(peer.host)):
                # A page elsewhere can let its own name resolve to this machine.
                raise Forbidden(f"with auth: none only localhost is answered, not {peer.host!r}")
            return EVERYBODY
        if credential is not None:
            for authenticator in self._its.authenticators:
                found = await authenticator.authenticate(credential.token)
                if found is not None:
                    return found
        return NOBODY


class _QuietSite(Site):
    noisy = False

    def log(self, request: http.Request) -> None:
        """The gateway has logged it."""


class _Front(Resource):
    """Before routing: the request's id, the fields of every answer, a path that can be read."""

    isLeaf = True

    def __init__(self, inner: IResource, new_id: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = inner
        self._new_id = new_id

    def render(self, request: ManagementRequest) -> Any:
        """See ``IResource``."""
        request.request_id = request_id_of(request) or self._new_id()
        request.responseHeaders.removeHeader("Server")
        request.responseHeaders.setRawHeaders("X-Request-Id", [request.request_id])
        for name, value in EVERY_ANSWERS_FIELDS:
            request.responseHeaders.setRawHeaders(name, [value])
        try:
            b"/".join(request.postpath or ()).decode("utf-8")
            request.method.decode("ascii")
            request.text_field("Host").encode("idna")
        except UnicodeError:
            error = BadRequest("method, path or host are not what HTTP allows")
            return _write(request, problems.answer(error, request.request_id))
        return self._inner.render(request)


class _Rest(PathConverter):
    """The rest of the path, also where it begins with a (decoded) slash, or is empty."""

    part_isolating = False
    regex = ".*?"


def _place(request: ManagementRequest) -> str:
    path = request.path.decode("ascii", "replace")
    return f"{request.method.decode('ascii', 'replace')} {path}"


def _write(request: ManagementRequest, answer: Answer) -> bytes:
    _describe(request, answer.content_type, answer.status, answer.fields)
    request.responseHeaders.setRawHeaders("Content-Length", [str(len(answer.body))])
    return answer.body


def _describe(
    request: ManagementRequest,
    content_type: str,
    status: int,
    fields: Sequence[tuple[str, str]],
) -> None:
    request.setResponseCode(status)
    request.responseHeaders.setRawHeaders("Content-Type", [content_type])
    for name, value in fields:
        request.responseHeaders.addRawHeader(name, value)
