"""The gateway: from a request to an agent's answer.

Calls enter from connections; they leave to agents' transports and to the
upstream, each with a lease.  `Gateway.answer` is the whole story.  This module
knows nothing of bytes on a wire, of deployments, or of how tasks travel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ploinky.errors import (
    BodyTooLarge,
    CallFailed,
    Forbidden,
    NoHealthyInstance,
    Unauthenticated,
)
from ploinky.interfaces import IAgentTransport, ILease, IOrchestrator, IRouter, IUpstream
from ploinky.routing.access import AccessLog
from ploinky.routing.call import Call, Plan, is_limited
from ploinky.routing.forms import task_form
from ploinky.routing.headers import (
    SESSION_COOKIE,
    Dates,
    TrustedProxies,
    forwarded_head,
)
from ploinky.routing.http import Limits, RequestHead
from ploinky.routing.wheel import Wheel
from ploinky.values import NOBODY, CallAuth, Kind, Principal, Role, Route, TaskCall, Wire

_CARRIERS = frozenset({b"authorization", b"x-api-key", b"cookie"})


class Gateway:
    """Answers requests.

    Args:
        clock: Measures time; the wheel's own.
        wall_clock: Unix seconds.
        wheel: Ends what takes too long.
        transports: How tasks reach an agent, by wire.
        id_prefix: Of this process's request ids; ``[a-z0-9]+``, different in each process
            and each time it starts.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
        wheel: Wheel,
        router: IRouter,
        orchestrator: IOrchestrator,
        transports: Mapping[Wire, IAgentTransport],
        upstream: IUpstream,
        access_log: AccessLog,
        id_prefix: str,
        trusted: TrustedProxies,
        limits: Limits | None = None,
    ) -> None:
        self.clock = clock
        self.wheel = wheel
        self.trusted = trusted
        self.access_log = access_log
        self.dates = Dates(wall_clock)
        self.limits = limits or Limits()
        self._wall_clock = wall_clock
        self.router = router
        self._orchestrator = orchestrator
        self._transports = transports
        self._upstream = upstream
        self._id_prefix = id_prefix.encode()
        self._begun = 0

    # --- answer a request

    def answer(self, call: Call) -> None:
        """Answer one request: match, admit, claim, hand over.  What fails becomes the answer."""
        try:
            plan = call.plan
            if plan is None:
                plan = call.plan = self._plan(call)
            if plan.form is not None:
                if call.body is None:
                    call.collect()  # a task travels whole: on to `collected` when it is in
                    return
                call.command, call.params = plan.form.read(call.body)
            call.await_agent()
            lease = self._orchestrator.claim(plan.route)
            if lease is not None:
                self._hand_over(call, plan, lease)
            else:
                self._wait(call, plan)
        except CallFailed as error:
            call.failed(error)

    def collected(self, call: Call) -> None:
        """Go on with a call whose body is whole now."""
        self.answer(call)

    def _plan(self, call: Call) -> Plan:
        """Match and admit: all that follows from the head alone."""
        head = call.head
        route = call.route = self.router.match(head.host, head.path)
        principal, spent = self._identify(head)
        call.principal = principal
        _admit(route, principal)
        if (head.length or 0) > route.max_body_bytes and is_limited(route):
            raise BodyTooLarge(f"the body is over {route.max_body_bytes} bytes")
        if route.kind is Kind.TASK:
            return Plan(route, principal, form=task_form(head, route))
        if route.kind is Kind.STATIC:
            raise NoHealthyInstance("static deployments are not served by this version")
        forwarded = forwarded_head(head, route, principal, call.peer, spent)
        return Plan(route, principal, forwarded=forwarded)

    def _identify(self, head: RequestHead) -> tuple[Principal, bytes]:
        """Say who calls, and in which field a credential came that was for us alone."""
        if not _CARRIERS.isdisjoint(head.noted):
            for token, field in _credentials(head):
                principal = self.router.principal(token)
                if principal is not NOBODY:
                    return principal, field
        return NOBODY, b""

    def _wait(self, call: Call, plan: Plan) -> None:
        waiting = Deferred.fromCoroutine(self._claim_later(call, plan))
        waiting.addErrback(self._no_lease, call)
        call.wait_for(waiting)

    async def _claim_later(self, call: Call, plan: Plan) -> None:
        """Wait for a place; the call cancels this when it ends first."""
        began = self.clock.seconds()
        try:
            try:
                lease = await self._orchestrator.claim_later(plan.route, plan.route.timeout_seconds)
            finally:
                call.queued_seconds = self.clock.seconds() - began
        except CallFailed as error:
            call.failed(error)
        else:
            self._hand_over(call, plan, lease)

    def _no_lease(self, failure: Failure, call: Call) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("no lease for request {id}", failure, id=call.id.decode())
            call.failed(CallFailed("the request could not be handed on"))

    def _hand_over(self, call: Call, plan: Plan, lease: ILease) -> None:
        call.claimed(lease)
        if plan.form is None:
            head = b"%b%b\r\n\r\n" % (plan.forwarded, call.id)
            exchange = self._upstream.exchange(lease.target.address, head, call.body, call)
        else:
            task = TaskCall(
                task=self.next_id().decode(),
                command=call.command,
                params=call.params,
                user=plan.principal.id,
                deadline_ms=int((self._wall_clock() + plan.route.timeout_seconds) * 1000),
                request_id=call.id.decode(),
            )
            exchange = self._transports[lease.target.wire].send(lease, task, call)
        call.handed_over(exchange)

    def next_id(self) -> bytes:
        """Give an id that no other request of any worker has had."""
        self._begun += 1
        return b"%b-%d" % (self._id_prefix, self._begun)


def _credentials(head: RequestHead) -> Iterator[tuple[str, bytes]]:
    """Give each token that a request brings, with the field that was meant for us alone."""
    noted = head.noted
    scheme, _, token = noted.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token:
        yield token.strip().decode("latin-1"), b"authorization"
    if noted.get(b"x-api-key"):
        yield noted[b"x-api-key"].decode("latin-1"), b"x-api-key"
    if SESSION_COOKIE in noted.get(b"cookie", b""):
        for cookie in noted[b"cookie"].split(b";"):
            name, _, value = cookie.partition(b"=")
            if name.strip() == SESSION_COOKIE:
                yield value.strip(b' \t"').decode("latin-1"), b""


def _admit(route: Route, principal: Principal) -> None:
    """Let in who may call; closed to whoever is not known to be let in."""
    if route.auth is CallAuth.NONE:
        return
    by_session = route.auth is CallAuth.SESSION
    if principal.role is None or principal.session is not by_session:
        how = "log in first" if by_session else "send an API key as Authorization: Bearer <key>"
        raise Unauthenticated(f"{route.key} takes no anonymous calls: {how}")
    if principal.role is Role.VIEWER or not _in_scope(principal, route):
        raise Forbidden(f"{principal.id} may not call {route.key}")


def _in_scope(principal: Principal, route: Route) -> bool:
    scope = principal.scope
    return not scope or route.key.domain in scope or str(route.key) in scope
