"""One client's connection: requests out of bytes, one at a time and in order.

Bytes enter; heads, bodies and their order go to the gateway as calls, and the
calls' answers go out.  A request that is all there may take a short way, see
`ploinky.routing.repeats`.  How long each thing may take is in `ploinky.routing.stages`.
This module knows neither routes nor agents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet import tcp
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.errors import BadRequest, CallFailed, HeadTooLarge, RequestTimeout
from ploinky.routing.beginnings import refuse_no_request
from ploinky.routing.bodies import BadFraming, Body, ChunkedBody, LengthBody, UntilCloseBody
from ploinky.routing.call import Call
from ploinky.routing.halfclose import Departure, hung_up
from ploinky.routing.headers import Peer
from ploinky.routing.http import RequestHead, end_of_head, read_request, unreadable_head
from ploinky.routing.memo import Memo, may_be_remembered
from ploinky.routing.repeats import RepeatingProtocol
from ploinky.routing.stages import ANSWER, IDLE, Stage
from ploinky.routing.streams import Outlet, read_no_more
from ploinky.routing.tunnel import Tunnel

if TYPE_CHECKING:
    from ploinky.routing.listening import GatewayFactory

_UNANSWERED_BYTES = 128 * 1024
"""Read ahead of the request in hand; above the largest head, so that one always fits."""


@implementer(IHalfCloseableProtocol)
class Connection(RepeatingProtocol):
    """See the module.  Built by `GatewayFactory`, which knows all that live.

    Attributes:
        peer: Who is at the other end.
        outlet: Where answers go.
    """

    # What most connections never come to needs no place in each:
    _client_ended = False  # its writing half is closed
    _departure: Departure | None = None
    _watched = -1  # for `HangUps`, while it is paused
    _read_no_further = False
    _tunnel: Tunnel | None = None
    _lingers = False

    def __init__(self, factory: GatewayFactory, peer: Peer) -> None:
        super().__init__(factory)
        self.peer = peer
        self._buffer = bytearray()
        self._seen = 0
        self._body: Body | None = None
        self._body_wanted = False
        self._body_held = False
        self._reading = True
        self._feeding = False
        self._ending = False

    # --- what Twisted and the wheel call

    def connectionMade(self) -> None:
        self._factory.connections[self] = None
        self.outlet = Outlet(self.transport, self.dataReceived, self._moved)
        self._allow(IDLE, self._limits.first_byte_seconds)

    def read(self, data: bytes) -> None:
        """See `RepeatingProtocol.read`."""
        if not self._ending:
            self._buffer += data
            self._feed()

    def readConnectionLost(self) -> None:
        """The client sends nothing more: it waits for its answers, or it has gone.

        See `Departure` for how the two are told apart.
        """
        self._unfold()
        call = self._call
        self._client_ended = True
        self.is_ordinary = False
        if self._tunnel is not None and self._tunnel.agent_has_ended and not self._ending:
            self._tunnel.client_ended()  # the second half: a hang-up is the orderly end
        elif self._ending or hung_up(self.transport):
            self._leave()
        elif self._tunnel is not None:
            self._tunnel.client_ended()
            if not self._ending:
                self._await_any(self._tunnel)
        elif self._body is not None:
            self._leave()  # it ended amid its body
        elif call is None:
            if not (self._buffer and self.outlet.queued):
                self.end()  # in order: the kernel may still hold an answer that it waits for
        else:
            call.closes = call.closes or not self._buffer
            self._await_departure()

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        read_no_more(self.transport)
        self._unfold()
        self._ending = True
        if self._departure is not None:
            self._departure.stop()
        self._factory.hang_ups.forget(self._watched)
        self._wheel.forget(self)
        call = self._call
        if call is not None:
            self._leave_call()
            call.gone()
        self._factory.lost(self)

    def expired(self) -> None:
        """Time is up; the wheel calls this."""
        if self.on_short_way:
            self._unfold()
            if self.due > self._seconds():
                return  # it was the time for a client that idles
        call = self._call
        if self.stage is Stage.HEAD:
            self._refuse(RequestTimeout("the request's head did not come"))
        elif self.stage is Stage.BODY and call is not None:
            call.body_stalled()
        elif self.stage is ANSWER and call is not None:
            call.timed_out()
        elif self.stage is IDLE:
            self._ending = True
            self._forget()
            self.transport.loseConnection()
        elif self.stage is Stage.TUNNEL and self._tunnel is not None and call is not None:
            if self._tunnel.is_idle():
                call.idled()
            else:
                self._await_any(self._tunnel)
        elif self.stage is Stage.SENDING:
            self._client_stalled()
        else:
            self.transport.abortConnection()

    # --- what a call calls

    @property
    def must_end(self) -> bool:
        """Whether an answer that begins now is the last: no one will read on after it."""
        return (
            self._body is not None
            or self._factory.draining
            or self._read_no_further
            or (self._client_ended and not self._buffer)
        )

    def send(self, data: bytes) -> int:
        """Send a piece of the answer; give how much is queued."""
        queued = self.outlet.send(data)
        if queued and (self.stage is Stage.STREAMING or self.stage is Stage.TUNNEL):
            self.await_client()
        return queued

    def want_body(self) -> None:
        """Let the body come, and say so where the client waits for that."""
        call = self._call
        if call is None or self._body is None:
            return
        self._body_wanted = True
        if call.head.expects_continue and not self._buffer and not call.was_told_to_go_on:
            call.was_told_to_go_on = True
            self.outlet.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._body_held:
            self._take_body()

    def hold_body(self, held: bool) -> None:
        """Stop reading, or go on: the agent is slower than the client."""
        self._body_held = held
        if self.stage is Stage.BODY and held and self._call is not None:
            self._call.await_agent()  # it is not the client that is slow
        elif self._body is not None and self._body_wanted and not held and self._tunnel is None:
            self._take_body()
        self._regulate()

    def keep_body(self) -> None:
        """Keep what comes of the body here, until it is wanted once more."""
        self._body_wanted = self._body_held = False
        self._regulate()

    def answered(self, call: Call, now: float) -> None:
        """The call's answer has been sent; go on with the next request, or end."""
        self._call = None
        self._body_held = False
        self._factory.busy -= 1
        if not self._reading:
            self._regulate()
        if call.closes:
            self.end()
        elif self.outlet.queued:
            self.await_client()
        else:
            self._rest(now)
            if self._buffer:
                self._feed()

    def cut_off(self) -> None:
        """Close at once: the answer has begun and cannot be finished."""
        self._leave_call()
        self._ending = True
        self.transport.abortConnection()

    def read_no_further(self) -> None:
        """Make the answer to come the last, whatever the client has sent behind its request."""
        self._read_no_further = True
        self.is_ordinary = False

    def open_tunnel(self, call: Call) -> None:
        """From now on the client's bytes are the agent's, as they are: see `Call.switched`."""
        self._tunnel = tunnel = Tunnel(call, self.transport, self.outlet, self._limits)
        self._body = UntilCloseBody()
        self._body_wanted = True
        if not self.outlet.queued:
            self._await_any(tunnel)
        self._feed()
        if self._client_ended and not call.done:
            tunnel.client_ended()

    def end_sending(self) -> None:
        """The agent's side of a tunnel has ended; the client may go on."""
        if self._tunnel is not None:
            self._tunnel.agent_ended()
            if not self.outlet.queued:
                self._await_any(self._tunnel)

    # --- draining, and too few descriptors: what the factory calls

    def give_way(self) -> bool:
        """Close, if no request is in hand; tell whether it does."""
        if self._call is not None or self.on_short_way or self.outlet.queued or self._ending:
            return False
        self._ending = True
        self._forget()
        self.transport.loseConnection()
        return True

    def retire(self) -> None:
        """End after the request in hand, or the next one if it comes soon."""
        self.is_ordinary = False
        if self.stage is IDLE:
            self._rest(self._seconds())

    def abort(self) -> None:
        """Close at once; a request in hand is aborted."""
        self.transport.abortConnection()

    # --- bytes to requests

    def _feed(self) -> None:
        """Read on as far as can be read now."""
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._buffer and not self._ending and self._step():
                pass
        finally:
            self._feeding = False
        self._regulate()

    def _step(self) -> bool:
        """Read one thing; False if nothing more can be read now."""
        if self._body is not None:
            return self._body_wanted and not self._body_held and self._read_body(self._body)
        if self._call is not None or self.outlet.queued:
            return False
        return self._read_head()

    def _take_body(self) -> None:
        """Let the body go to who wants it, for as long as it comes."""
        call = self._call
        self._allow(Stage.BODY, self._limits.body_seconds)
        self._feed()
        if self._client_ended and self._body is not None and self._call is call:
            self._leave()  # it ended amid its body

    def _read_head(self) -> bool:
        buffer = self._buffer
        if buffer[:2] == b"\r\n":  # RFC 9112, 2.2: old clients end a body with one too many
            del buffer[:2]
        end = end_of_head(buffer, self._seen)
        if end < 0:
            self._wait_for_head()
            return False
        self._seen = 0
        raw = bytes(buffer[:end])
        try:
            if end > self._limits.head_bytes:
                raise HeadTooLarge(f"the request head is over {self._limits.head_bytes} bytes")
            head = read_request(raw, self._limits)
        except CallFailed as error:
            self._refuse(error)
            return False
        del buffer[:end]
        self._begin(raw, head)
        return True

    def _wait_for_head(self) -> None:
        """Wait for the rest, unless what is there cannot become a head."""
        buffer = self._buffer
        try:
            refuse_no_request(buffer, self._seen, self._limits)
        except CallFailed as error:
            self._refuse(error)
            return
        if self._client_ended:
            self.end()
        elif buffer:
            self._seen = len(buffer)
            if self.stage is IDLE:
                self._allow(Stage.HEAD, self._limits.head_seconds)

    def _begin(self, raw: bytes, head: RequestHead) -> None:
        """Answer a request whose head is valid and whose body may have come with it."""
        buffer = self._buffer
        length = head.length
        body: bytes | None = None
        if length is None:
            self._body = ChunkedBody()
        elif len(buffer) < length:
            self._body = LengthBody(length)
        else:
            body = bytes(buffer[:length])
            del buffer[:length]
        self._forget()
        gateway = self._gateway
        size = len(raw) + len(body or b"")
        plan = gateway.plan_ahead(head, self.peer)
        if plan is not None and may_be_remembered(raw, head, plan):
            memo = Memo(raw, head, plan, gateway.router.generation)
            self._remember(memo)
            if body is not None and not buffer:
                self._go_on(memo, plan.forwarded, body, size)
                return
        call = self._enter_call(head, body, size)
        if plan is not None:
            call.follow(plan, plan.forwarded)
        gateway.answer(call)

    def _read_body(self, body: Body) -> bool:
        call = self._call
        assert call is not None
        data = bytes(self._buffer)
        self._buffer.clear()
        call.bytes_in += len(data)
        try:
            chunk, after = body.feed(data)
        except BadFraming as error:
            call.failed(BadRequest(f"the request's body is broken: {error}"))
            return False
        if after is None:
            if self._tunnel is None:
                self._await_more(len(data))
            call.body_data(chunk)
            return True
        call.bytes_in -= len(after)
        self._body = None
        self._buffer += after
        if chunk:
            call.body_data(chunk)
        if self._call is call:
            call.await_agent()
            call.body_ended()
        return True

    def _refuse(self, error: CallFailed) -> None:
        """Answer what is not a request, and end: what follows it cannot be told apart."""
        call = self._enter_call(unreadable_head(), None, len(self._buffer))
        call.failed(error)

    def _enter_call(self, head: RequestHead, body: bytes | None, size: int) -> Call:
        self._body_wanted = False
        self._factory.busy += 1
        call = self._call = self.new_call(head, body, size)
        return call

    def new_call(self, head: RequestHead, body: bytes | None, size: int) -> Call:
        """See `RepeatingProtocol.new_call`."""
        call = Call(self._gateway, self, head, body)
        call.bytes_in = size
        return call

    def _leave_call(self) -> None:
        self._call = None
        self._body_held = False
        self._factory.busy -= 1

    # --- time, flow, end

    def _await_any(self, tunnel: Tunnel) -> None:
        """Wait for anything to move in a tunnel."""
        self._allow(Stage.TUNNEL, tunnel.seconds())

    def _probe(self) -> None:
        if self._call is not None:
            self._call.probe()

    def _hung_up(self) -> None:
        """The client sends nothing more, or has gone, while it is not read.

        What it had sent before still waits, and the orderly end is read after that.
        """
        if hung_up(self.transport):
            self._leave()
        elif self._call is not None and self._tunnel is None:
            self._await_departure()

    def _await_departure(self) -> None:
        """Find out whether a client that sends nothing more waits for the answer in hand."""
        if self._departure is None:
            clock = self._gateway.clock
            self._departure = Departure(clock, self.transport, self._probe, self.abort)

    def _leave(self) -> None:
        """Close, as the client has: what is queued for it goes out if it can."""
        if self.outlet.queued and not hung_up(self.transport):
            return  # its end is under way, or its time runs
        self._ending = True
        self.transport.abortConnection()

    def _regulate(self) -> None:
        """Read from the client exactly while there is a use for what comes."""
        reading = not self._body_held and len(self._buffer) < _UNANSWERED_BYTES
        if self._ending or self._client_ended or reading == self._reading:
            return
        self._reading = reading
        hang_ups = self._factory.hang_ups
        if reading:
            hang_ups.forget(self._watched)
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()
            self._watched = hang_ups.watch(self.transport, self._hung_up)

    def _moved(self) -> None:
        """Some of what was queued has gone to the client."""
        if self.outlet.queued:
            return
        if self._lingers:
            self._linger()
        elif self._call is not None:
            if self._tunnel is not None:
                self._tunnel.drained()
                self._await_any(self._tunnel)
            elif self.stage is Stage.SENDING:
                self._stream_on()
            self._call.drained()
        elif not self._ending:
            self._rest(self._seconds())
            self._feed()

    def end(self) -> None:
        """See `RepeatingProtocol.end`; first a client that still sends may read its answer.

        Closing on unread bytes would reset the connection, and the answer with it.
        """
        self._ending = True
        self._forget()
        unread = self._body is not None or self._buffer
        self._buffer.clear()
        if self._departure is not None:
            self._departure.stop()
        if not unread or self._client_ended or not isinstance(self.transport, tcp.Connection):
            if not self.outlet.close():
                self.await_client()
        elif self.outlet.queued:
            self._lingers = True
            self.await_client()
        else:
            self._linger()

    def _linger(self) -> None:
        """Say that there is no more, and read what the client still sends, to no end."""
        self._allow(Stage.LINGERING, self._limits.lingering_seconds)
        if not self._reading:
            self.transport.resumeProducing()
        self.transport.loseWriteConnection()
