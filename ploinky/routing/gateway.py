"""The gateway: from a request to an agent's answer.

Calls enter from connections; they leave to agents' transports and to the
upstream, each with a lease.  `Gateway.answer` is the whole story.  This module
knows nothing of bytes on a wire, of deployments, or of how tasks travel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from math import ceil

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ploinky.addresses import client_of
from ploinky.errors import (
    CallFailed,
    Forbidden,
    NoSuchRoute,
    TooManyRequests,
    Unauthenticated,
)
from ploinky.interfaces import IAgentTransport, IExchange, ILease, IOrchestrator, IRouter, IUpstream
from ploinky.limit_interfaces import IRates
from ploinky.routing.access import AccessLog
from ploinky.routing.call import Call
from ploinky.routing.durable import (
    SLACK_SECONDS,
    LeadersAnswer,
    Wish,
    submission_head,
    unknown_fate,
)
from ploinky.routing.endings import Endings, explained
from ploinky.routing.headers import (
    SESSION_COOKIE,
    Dates,
    Peer,
    TrustedProxies,
)
from ploinky.routing.http import Limits, RequestHead
from ploinky.routing.logins import Logins
from ploinky.routing.origins import may_use_session
from ploinky.routing.plan import Plan, in_scope, plan_again, plan_of
from ploinky.routing.spool import Spool
from ploinky.routing.static import FileServer
from ploinky.routing.uploads import UPLOAD, Reception, UploadForm
from ploinky.routing.wheel import Wheel
from ploinky.values import (
    NOBODY,
    CallAuth,
    Kind,
    Principal,
    RateLimit,
    Role,
    Route,
    Target,
    TaskCall,
    Wire,
)

_READERS = frozenset({Role.ADMIN, Role.DEPLOYER, Role.VIEWER})
_CARRIERS = frozenset({b"authorization", b"x-api-key", b"cookie"})


class Gateway:
    """Answers requests.

    Args:
        clock: Measures time; the wheel's own.
        wall_clock: Unix seconds.
        wheel: Ends what takes too long.
        transports: How tasks reach an agent, by wire.
        spool: Keeps files that are uploaded.
        rates: Counts calls of routes with a limit.
        logins: Answers who guesses.
        id_prefix: Of this process's request ids; ``[a-z0-9]+``, different in each process
            and each time it starts.
        new_task: Gives unguessable ids for durable tasks.
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
        spool: Spool,
        rates: IRates,
        logins: Logins,
        id_prefix: str,
        trusted: TrustedProxies,
        limits: Limits | None = None,
        *,
        new_task: Callable[[], str],
    ) -> None:
        self.clock = clock
        self.seconds = clock.seconds
        self.wheel = wheel
        self.trusted = trusted
        self.access_log = access_log
        self.dates = Dates(wall_clock)
        self.limits = limits or Limits()
        self.wall_seconds = wall_clock
        self.router = router
        self.orchestrator = orchestrator
        self.transports = transports
        self.upstream = upstream
        self._files = FileServer(clock)
        self._endings = Endings(clock, router, upstream)
        self._spool = spool
        self._rates = rates
        self._logins = logins
        self._new_task = new_task
        self.id_text = f"{id_prefix}-"
        self.id_prefix = self.id_text.encode()
        self.numbers = count(1)
        self._going_on: set[Call] = set()

    # --- answer a request

    def answer(self, call: Call) -> None:
        """Answer one request: match, admit, claim, hand over.  What fails becomes the answer."""
        try:
            plan = call.plan
            if plan is None:
                plan = call.plan = self._plan(call)
            else:
                self._admit_still(plan.route, plan.principal)  # its body may have taken its time
            if plan.upload is not None:
                self._receive(call, plan.upload)  # on to `_received` when its files are in
            elif plan.travels_whole and call.body is None:
                call.collect()  # on to `collected` when it is in
            else:
                call.await_agent()
                self._go_on(call, plan, plan.forwarded)
        except CallFailed as error:
            call.failed(error)

    def repeat(self, call: Call, plan: Plan) -> None:
        """Answer a whole request by the plan that there is; its time runs already."""
        try:
            self._go_on(call, plan, call.forwarded)
        except CallFailed as error:
            call.failed(error)

    def _go_on(self, call: Call, plan: Plan, forwarded: bytes) -> None:
        """Claim a place for a call, which is whole if it has to be."""
        if plan.attempt is not None and self._logins.answered(call, plan.attempt):
            return
        if plan.form is not None:
            assert call.body is not None
            call.command, call.params, wish = plan.form.read(call.body)
            if wish is not None:
                self._submit(call, plan, wish)
                return
        self._claim(call, plan, forwarded)

    def _receive(self, call: Call, form: UploadForm) -> None:
        """Take an upload's files in as they come."""
        task = self.next_id().decode()
        batch = self._spool.batch(task, call.head.length or 0)
        reception = call.reception = Reception(
            form, task, batch, call, lambda: self._received(call)
        )
        call.command = UPLOAD
        call.handed_over(reception)
        if call.body is not None:
            reception.write(call.body)
            if not call.done:
                reception.finish()

    def _received(self, call: Call) -> None:
        """Go on with an upload whose files are whole now, by the routes that hold now.

        It may have taken an hour: the instances that it began with may be long gone.
        """
        plan = call.plan
        assert plan is not None
        try:
            route = self.router.match(call.head.host, call.head.path)
            if route.kind is not Kind.TASK:
                raise NoSuchRoute(f"{route.key} takes no uploads any more")
            self._admit_still(route, plan.principal)
            call.plan = plan = plan_again(plan, call.head.method, route)
            call.route = route
            call.await_agent()
            self._claim(call, plan, plan.forwarded)
        except CallFailed as error:
            call.failed(error)

    def collected(self, call: Call) -> None:
        """Go on with a call whose body is whole now."""
        self.answer(call)

    def goes_on(self, call: Call, route: Route) -> None:
        """Keep in mind an answer that may last for as long as it likes, and is not for anybody."""
        if route.auth is not CallAuth.NONE:
            self._going_on.add(call)

    def over(self, call: Call) -> None:
        """Forget an answer that has ended."""
        self._going_on.discard(call)

    def expel(self) -> None:
        """Cut off what goes on for those who may call no more: their key is gone or has expired.

        Call it after each new table, and now and then, as keys expire without one.
        """
        for call in [one for one in self._going_on if not self.router.knows(one.principal)]:
            call.revoked()

    def plan_ahead(self, head: RequestHead, peer: Peer) -> Plan | None:
        """Plan a request that no call was made of yet; None where `answer` has to say why not."""
        try:
            route = self.router.match(head.host, head.path)
            if route.rate_limit is not None:
                return None
            principal, spent = self._identify(head, peer, route)
            return plan_of(head, peer, route, principal, spent)
        except CallFailed:
            return None

    def _plan(self, call: Call) -> Plan:
        """Match and admit: all that follows from the head alone."""
        head = call.head
        route = call.route = self.router.match(head.host, head.path)
        principal, spent = self._identify(head, call.peer, route)
        call.principal = principal
        if route.rate_limit is not None:
            self._count(call, route, route.rate_limit)
        return plan_of(head, call.peer, route, principal, spent)

    def _identify(self, head: RequestHead, peer: Peer, route: Route) -> tuple[Principal, bytes]:
        """Say who calls, and in which field a credential came that was for us alone.

        Raises:
            Forbidden: A page of another site makes a browser call, and nobody may call unknown.
        """
        if not _CARRIERS.isdisjoint(head.noted):
            for token, field in _credentials(head):
                principal = self.router.principal(token)
                if principal is not NOBODY:
                    if field or may_use_session(head, route, peer.trusted):
                        return principal, field
                    if route.auth is not CallAuth.NONE:
                        raise Forbidden(
                            "a call with the session in the cookie must come from this server's"
                            " own pages; elsewhere send it as Authorization: Bearer <session>"
                        )
        return NOBODY, b""

    def _admit_still(self, route: Route, principal: Principal) -> None:
        """Let in who was let in when the head came, unless their key is gone since."""
        if route.auth is not CallAuth.NONE and not self.router.knows(principal):
            raise Unauthenticated(f"{route.key}: the key or session of this call is gone")

    def _count(self, call: Call, route: Route, limit: RateLimit) -> None:
        """Hold a client to its route's limit; such routes' heads are never remembered."""
        if call.principal is NOBODY:
            client = client_of(self.trusted.sender(call.peer, call.head))
        else:
            client = f"{call.principal.id}@"  # no address has an @ in it
        wait = self._rates.wait_seconds(limit, route.deployment, client)
        if wait:
            raise TooManyRequests(
                f"{route.key} takes {limit.requests} requests in {limit.seconds:g} s from each "
                "client; more have come",
                retry_after_seconds=ceil(wait),
            )

    def _claim(self, call: Call, plan: Plan, forwarded: bytes) -> None:
        lease = self.orchestrator.claim(plan.route)
        if lease is not None:
            self._hand_over(call, plan, forwarded, lease)
        else:
            self._wait(call, plan, forwarded)

    def _wait(self, call: Call, plan: Plan, forwarded: bytes) -> None:
        waiting = Deferred.fromCoroutine(self._claim_later(call, plan, forwarded, plan.route, ()))
        waiting.addErrback(self._no_lease, call)
        call.wait_for(waiting)

    async def _claim_later(
        self, call: Call, plan: Plan, forwarded: bytes, route: Route, tried: Sequence[Target]
    ) -> None:
        """Wait for a place; the call cancels this when it ends first."""
        began = self.clock.seconds()
        left_seconds = max(0.0, call.due - began)
        try:
            try:
                lease = await self.orchestrator.claim_later(route, left_seconds, tried)
            finally:
                call.queued_seconds += self.clock.seconds() - began
        except CallFailed as error:
            call.failed(error)
        else:
            self._hand_over(call, plan, forwarded, lease)

    def claim_another(self, call: Call, route: Route, tried: Sequence[Target]) -> Deferred[None]:
        """Find another instance for a call of which those that were tried got nothing.

        Returns:
            What brings the lease, for the call to cancel when it ends first.
        """
        plan = call.plan
        assert plan is not None
        waiting = Deferred.fromCoroutine(self._claim_another(call, plan, route, tried))
        return waiting.addErrback(self._no_lease, call)

    async def _claim_another(
        self, call: Call, plan: Plan, route: Route, tried: Sequence[Target]
    ) -> None:
        await deferLater(self.clock, 0)  # whoever says that one failed is in the midst of that
        await self._claim_later(call, plan, call.forwarded or plan.forwarded, route, tried)

    def _no_lease(self, failure: Failure, call: Call) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("no lease for request {id}", failure, id=call.id.decode())
            call.failed(CallFailed("the request could not be handed on"))

    def _hand_over(self, call: Call, plan: Plan, forwarded: bytes, lease: ILease) -> None:
        call.claimed(lease)
        exchange: IExchange
        if plan.asked is not None:
            exchange = self._files.send(lease, plan.asked, call)
        elif plan.upgrade:
            exchange = self._ask_for_upgrade(call, plan, lease)
        elif plan.form is None:
            head = b"%b%b\r\n\r\n" % (forwarded, call.id)
            exchange = self.upstream.exchange(lease.target.address, head, call.body, call)
        else:
            # The caller's own ids may repeat, and tasks' must not.
            name = self.next_id() if call.head.request_id else call.id
            task = self._task(call, plan, name.decode())
            transport = self.transports[lease.target.wire]
            if call.reception is not None:
                exchange = call.reception.send(transport, lease, task)
            else:
                exchange = transport.send(lease, task, call)
        call.handed_over(exchange)

    def _task(self, call: Call, plan: Plan, name: str) -> TaskCall:
        return TaskCall(
            task=name,
            command=call.command,
            params=call.params,
            user=plan.principal.id,
            deadline_ms=int((self.wall_seconds() + plan.route.timeout_seconds) * 1000),
            request_id=call.id.decode(),
            to_events=plan.form is not None and plan.form.to_events,
        )

    def _submit(self, call: Call, plan: Plan, wish: Wish) -> None:
        """Hand a call to the leader, which makes it durable and answers it."""
        leader = self.router.match(b"", b"/_ploinky").targets[0]
        patience = wish.patience(plan.route)
        task = self._task(call, plan, self._new_task())
        head = submission_head(task, plan.route, plan.principal, wish, patience)
        unknown = unknown_fate(task.task)
        call.await_leader(patience + SLACK_SECONDS, unknown)
        answer = LeadersAnswer(call, unknown)
        call.handed_over(self.upstream.exchange(leader.address, head, call.params, answer))

    def _ask_for_upgrade(self, call: Call, plan: Plan, lease: ILease) -> IExchange:
        """Hand over a request that asks for another protocol; whatever comes, it is the last."""
        call.ends_http()
        said = b"\r\nConnection: Upgrade\r\nUpgrade: " + plan.upgrade
        head = b"%b%b%b\r\n\r\n" % (plan.forwarded, call.id, said)
        key = next((v for name, _, v in call.head.fields if name == b"sec-websocket-key"), b"")
        asked = plan.upgrade
        return self.upstream.upgrade(lease.target.address, head, asked, key.strip(b" \t"), call)

    def explain(self, call: Call, error: CallFailed, instance: str) -> Deferred[CallFailed]:
        """Find out why an instance went away amid a call; the call cancels this when it ends first.

        Returns:
            A Deferred that fires soon, with an error that says what is known.
        """
        asking = self._endings.ask(instance, self.clock.seconds() - call.began)
        assert call.route is not None
        may_read = _may_read_output(call.principal, call.route)
        return asking.addCallback(
            lambda ending: explained(error, ending, with_output=may_read) if ending else error
        )

    def next_id(self) -> bytes:
        """Give an id that no other request of any worker has had."""
        return b"%b%d" % (self.id_prefix, next(self.numbers))


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


def _may_read_output(principal: Principal, route: Route) -> bool:
    """Tell whether a caller may read what an agent prints, as ``deployments/logs`` would let them."""
    return principal.role in _READERS and in_scope(principal, route)
