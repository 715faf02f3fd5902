"""One request from its valid head to the end of its answer.

The gateway moves it forward, its connection brings its body, an agent's
transport answers it.  Here an answer gets its framing, a slow client slows its
agent, and whatever ends a request ends it once: lease back, record made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from ploinky.errors import (
    CLIENT,
    TIMEOUT,
    AgentBroken,
    AgentCutShort,
    AgentLeft,
    AgentUnreachable,
    BodyTooLarge,
    CallFailed,
    Overloaded,
    RequestTimeout,
    TaskTimeout,
)
from ploinky.interfaces import IExchange, ILease, IMovable, IUpgradeAnswer
from ploinky.routing import access
from ploinky.routing.access import Subject, subject
from ploinky.routing.detour import Detour
from ploinky.routing.endings import without_leader
from ploinky.routing.headers import REQUEST_ID, answer_head, failed_at, persistence, refusal
from ploinky.routing.http import RequestHead
from ploinky.routing.plan import Plan
from ploinky.routing.streams import FULL_BYTES
from ploinky.routing.uploads import Reception
from ploinky.values import NOBODY, Kind, Route

if TYPE_CHECKING:
    from ploinky.routing.connection import Connection
    from ploinky.routing.gateway import Gateway
    from ploinky.routing.headers import Peer


@implementer(IUpgradeAnswer, IMovable, IPushProducer)
class Call:
    """A request in hand.

    As an `IUpgradeAnswer` it takes what the agent says, as an ``IPushProducer`` it stands for the
    request's body on its way to the agent.

    Attributes:
        began: When its head was whole, in the clock's seconds.
        id: The client's id for it, or one of this server's own.
        plan: None until the gateway has made it.
        route: None until it was matched; of a refused call too.
        principal: Who calls, once that is known.
        forwarded: Stands for its plan's where it was made for another request; else ``b""``.
        body: The whole body; None where it comes piece by piece.
        command: Of a task, once its body was read; ``""`` before and otherwise.
        params: Of a task, once its body was read: JSON text of an array.
        reception: Of an upload: what takes its files, and sends its task.
        queued_seconds: For which it waited for a lease.
        was_told_to_go_on: Its client waited to be told that its body is wanted, and was.
        done: Nothing more will happen to it.
    """

    # Most calls never touch most of these: a default costs nothing where an assignment would.
    plan: Plan | None = None
    route: Route | None = None
    principal = NOBODY
    forwarded = b""
    command = ""
    params = b""
    reception: Reception | None = None
    status = 0
    bytes_in = 0
    bytes_out = 0
    queued_seconds = 0.0
    was_told_to_go_on = False
    closes = False
    done = False
    _detour: Detour | None = None
    _lease: ILease | None = None
    _exchange: IExchange | None = None
    _waiting: Deferred[None] | None = None
    _collected: bytearray | None = None
    _body_bytes = 0
    _opened = False
    _held = b""
    _left: int | None = None
    _chunked = False
    _bodyless = False
    _paused = False
    _switched = False
    _late: CallFailed | None = None
    _failed_at = ""
    _unexplained: CallFailed | None = None

    def __init__(
        self,
        gateway: Gateway,
        connection: Connection,
        head: RequestHead,
        body: bytes | None,
    ) -> None:
        self._gateway = gateway
        self._connection = connection
        self.began = gateway.clock.seconds()
        self.id = head.request_id or gateway.next_id()
        self.head = head
        self.body = body

    @property
    def candidates(self) -> int:
        """See `IMovable`."""
        return max(1, len(self.route.targets)) if self.route is not None else 1

    @property
    def due(self) -> float:
        """When its agent's time is up, in the clock's seconds, while that runs."""
        return self._connection.due

    @property
    def peer(self) -> Peer:
        """Who sent it."""
        return self._connection.peer

    # --- the way to the agent: the gateway and the connection call these

    def ends_http(self) -> None:
        """Make its answer the connection's last: what the client sends next may be no HTTP."""
        self._connection.read_no_further()

    def follow(self, plan: Plan, forwarded: bytes) -> None:
        """Take the plan that there is, be it of a request before it.

        Args:
            forwarded: Stands for `Plan.forwarded`.
        """
        self.plan = plan
        self.route = plan.route
        self.principal = plan.principal
        self.forwarded = forwarded

    def collect(self) -> None:
        """Read the whole body first; `Gateway.collected` is called when it is in."""
        self._collected = bytearray()
        self._connection.want_body()

    def wait_for(self, lease: Deferred[None]) -> None:
        """Keep what brings a lease, so that it is cancelled when the call ends first."""
        self._waiting = lease

    def claimed(self, lease: ILease) -> None:
        """Take a lease, to be given back when the call is over."""
        self._waiting = None
        self._lease = lease

    def handed_over(self, exchange: IExchange) -> None:
        """Take the exchange with the agent, which may have ended already."""
        if self.done:
            return
        self._exchange = exchange
        if self._paused:
            exchange.pause()
        if self.body is None and self._waiting is None:
            self._connection.want_body()

    def await_agent(self) -> None:
        """Limit the wait for the agent to what its route allows."""
        route = self.route
        assert route is not None
        may_stream = self._opened and (self.plan is None or self.plan.may_stream)
        self._connection.await_agent(None if may_stream else route.timeout_seconds)

    def await_leader(self, seconds: float, late: CallFailed) -> None:
        """Limit the wait for the leader, which keeps a durable task, to so long.

        Args:
            late: What to say then.
        """
        self._late = late
        self._connection.await_agent(seconds)

    def body_data(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        assert self.plan is not None
        most = self.plan.most_body_bytes
        self._body_bytes += len(chunk)
        if most is not None and self._body_bytes > most:
            self.failed(BodyTooLarge(f"the body is over {most} bytes"))
        elif self._collected is not None:
            self._collected += chunk
        elif self._exchange is not None:
            self._exchange.write(chunk)

    def body_ended(self) -> None:
        """The body is whole."""
        if self._collected is not None:
            self.body, self._collected = bytes(self._collected), None
            self._gateway.collected(self)
        elif self._exchange is not None:
            self._exchange.finish()

    def pauseProducing(self) -> None:
        """The agent takes the body more slowly than it comes."""
        self._connection.hold_body(True)

    def resumeProducing(self) -> None:
        """The agent has taken what there was."""
        self._connection.hold_body(False)

    def stopProducing(self) -> None:
        """No more of the body is wanted; the answer's end says so too."""

    # --- the way back: the transport calls these

    def started(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> None:
        """See `IAnswer.started`."""
        if self.done:
            return
        plan = self.plan
        assert plan is not None
        self.status = status
        if status >= 500:
            self._failed_at = failed_at(plan.route.kind, status, fields)
        date = self._now_as_date()
        self._open(answer_head(plan.route.kind, status, fields, date), length)
        if plan.may_stream:
            self._gateway.goes_on(self, plan.route)
            self._connection.streams()

    def data(self, chunk: bytes) -> None:
        """See `IAnswer.data`."""
        if self.done or self._bodyless or not chunk:
            return
        if self._left is not None:
            self._left -= len(chunk)
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        elif self._held:
            chunk, self._held = self._held + chunk, b""
        self.bytes_out += len(chunk)
        if self._connection.send(chunk) > FULL_BYTES and not self._paused:
            self._paused = True
            if self._exchange is not None:
                self._exchange.pause()

    def ended(self) -> None:
        """See `IAnswer.ended`."""
        if self.done:
            return
        if self._left:
            self.failed(AgentBroken("the agent's answer is not as long as it said"))
            return
        if self._chunked:
            self.bytes_out += 5
            self._connection.send(b"0\r\n\r\n")
        self._exchange = None
        if self.status < 500:
            self._over(access.SERVED)
        else:
            self._over(access.FAILED, self._failed_at)

    def complete(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """See `IAnswer.complete`."""
        self.started(status, fields, len(body))
        self.data(body)
        self.ended()

    def switched(self, fields: Sequence[tuple[bytes, bytes]], protocol: bytes) -> None:
        """See `IUpgradeAnswer.switched`."""
        if self.done:
            return
        assert self.route is not None
        self.status = 101
        self.closes = self._opened = self._switched = True
        self._gateway.goes_on(self, self.route)
        head = answer_head(self.route.kind, 101, fields, self._now_as_date())
        said = b"\r\nConnection: Upgrade\r\nUpgrade: " + protocol
        head = b"%b%b%b%b\r\n\r\n" % (head, REQUEST_ID, self.id, said)
        self.bytes_out += len(head)
        self._connection.send(head)
        self._connection.open_tunnel(self)

    def half_closed(self) -> None:
        """See `IUpgradeAnswer.half_closed`."""
        if not self.done:
            self._connection.end_sending()

    def failed(self, error: CallFailed) -> None:
        """See `IAnswer.failed`; also for every refusal of the gateway's own."""
        if self.done:
            return
        self._let_go()
        if error.got_nothing and self._try_another(error):
            return
        if isinstance(error, (AgentLeft, AgentCutShort)) and self._ask_why(error):
            return
        self._fail(error)

    def _try_another(self, error: CallFailed) -> bool:
        """Go to another instance, if there is one; an upload stays where its files are."""
        lease, route = self._lease, self.route
        if lease is None or route is None or self.reception is not None:
            return False
        gateway = self._gateway
        if self._detour is None:
            self._detour = Detour(gateway.seconds, gateway.router, route)
        route = self._detour.past(lease.target, self.queued_seconds)
        if route is None:
            return False
        self._lease = None
        if self.body is None:
            self._connection.keep_body()
        self._waiting = gateway.claim_another(self, route, self._detour.tried)
        lease.release(isinstance(error, AgentUnreachable))
        return True

    def _ask_why(self, error: AgentLeft | AgentCutShort) -> bool:
        """Ask why the agent left, if it was an instance's; its place is free at once."""
        lease = self._lease
        if lease is None or not lease.target.instance:
            return False
        lease.release(isinstance(error, AgentUnreachable))
        self._unexplained = error
        explaining = self._gateway.explain(self, error, lease.target.instance)
        self._waiting = explaining.addCallbacks(
            self._fail, lambda failure: failure.trap(CancelledError) and None
        )
        return True

    def _fail(self, error: CallFailed) -> None:
        """End with an error, which is the answer unless that has begun."""
        self._waiting = None
        unreachable = isinstance(error, AgentUnreachable)
        if self._opened:
            self._cut_off(access.mood_of(error), error.failed_at, unreachable)
            return
        if self.route is not None and self.route.kind is Kind.CONTROL:
            error = without_leader(error)
        self.status = error.status
        head, body = refusal(error, self.id, self._now_as_date())
        self._open(head, len(body))
        self.data(body)
        self._over(access.mood_of(error), error.failed_at, unreachable)

    def drained(self) -> None:
        """The client has taken all that was queued for it."""
        if self._paused:
            self._paused = False
            if self._exchange is not None:
                self._exchange.resume()

    # --- ends that neither side says

    def gone(self) -> None:
        """The client left: abort inside the agent, answer nobody."""
        if self.done:
            return
        self._let_go()
        if not self._switched:
            self.status = 499
        self._record(access.GONE, "" if self._switched else CLIENT, False)

    def timed_out(self) -> None:
        """The time that the route gives is up."""
        route = self.route
        if route is None:
            return
        if self._unexplained is not None:
            self._let_go()
            self._fail(self._unexplained)  # it has waited for long enough already
            return
        if self._late is not None:
            self.failed(self._late)
            return
        if self._waiting is not None:
            # The queue's own clock says so first, unless this process is late with everything.
            why = f"every instance of {route.key} is busy, and none became free in time"
            self.failed(Overloaded(why, retry_after_seconds=1))
            return
        what = "task" if route.kind is Kind.TASK else "request"
        why = f"the {what} took longer than {route.timeout_seconds:g} s and was aborted"
        self.failed(TaskTimeout(why))

    def probe(self) -> None:
        """Send what a client that waits passes over, and one that has gone refuses to take.

        That is an interim answer, or a leading zero of the next chunk's size.
        """
        said = b""
        if not self._opened and self.head.http_11:
            said = b"HTTP/1.1 100 Continue\r\n\r\n"
        elif self._chunked:
            said = b"0"
        if said:
            self.bytes_out += len(said)
            self._connection.send(said)

    def idled(self) -> None:
        """Nothing has moved on an upgraded connection for long."""
        self._let_go()
        self._cut_off(access.TIMED_OUT, TIMEOUT, False)

    def revoked(self) -> None:
        """Who calls may do so no more, and the answer goes on."""
        self._let_go()
        self._cut_off(access.REFUSED, CLIENT, False)

    def body_stalled(self) -> None:
        """The client stopped sending its body."""
        self.failed(RequestTimeout("the request's body did not come"))

    # --- within

    def _open(self, head: bytes, length: int | None) -> None:
        """Begin the answer: say how its body is framed and whether the connection goes on."""
        request = self.head
        self._opened = True
        self._bodyless = request.method == b"HEAD" or self.status in (204, 304)
        self.closes = not request.keep_alive or self._connection.must_end
        framing = b""
        if self.status in (204, 304):
            pass
        elif length is not None:
            framing = b"\r\nContent-Length: %d" % length
            if not self._bodyless:
                self._left = length
        elif not self._bodyless:
            if request.http_11:
                self._chunked = True
                framing = b"\r\nTransfer-Encoding: chunked"
            else:
                self.closes = True
        framing += persistence(request.http_11, self.closes)
        head = b"%b%b%b%b\r\n\r\n" % (head, REQUEST_ID, self.id, framing)
        if self._left:
            self._held = head  # goes out in one piece with the body's first bytes
        else:
            self.bytes_out += len(head)
            self._connection.send(head)

    def _cut_off(self, mood: str, failed_at: str, unreachable: bool) -> None:
        """End an answer that has begun and cannot be finished, so that the client notices."""
        self._record(mood, failed_at, unreachable)
        self._connection.cut_off()

    def _now_as_date(self) -> bytes:
        return self._gateway.dates.at(self._gateway.clock.seconds())

    def _let_go(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.done = True  # what the cancelled wait still says is not an answer
            waiting.cancel()
            self.done = False

    def _over(self, mood: str, failed_at: str = "", unreachable: bool = False) -> None:
        self._connection.answered(self, self._record(mood, failed_at, unreachable))

    def _record(self, mood: str, failed_at: str, unreachable: bool) -> float:
        """End it: lease back, record made; give the clock's seconds."""
        self.done = True
        lease = self._lease
        if lease is not None:
            lease.release(unreachable)
        gateway = self._gateway
        gateway.over(self)
        now = gateway.clock.seconds()
        plan = self.plan
        gateway.access_log.record(
            plan.subject if plan is not None else self._subject(),
            self.id,
            self.command,
            self.status,
            self.bytes_in,
            self.bytes_out,
            self.began,
            now,
            mood,
            failed_at,
            self.queued_seconds,
        )
        return now

    def _subject(self) -> Subject:
        """Say who asked for what, of a request that was refused before there was a plan."""
        route = self.route
        shown, deployment = (str(route.key), route.deployment) if route is not None else (None, "")
        return subject(self.head.method, shown, deployment, self.principal.id)
