"""Keep-alive connections to agents, pooled by address: HTTP/1.1 from the client's side.

A request's head and body enter; the answer's head, body and end go to an
`IAnswer`.  This module knows framing and connections, and neither routes nor
tasks.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.errors import AgentBroken, AgentUnreachable, CallFailed
from ploinky.interfaces import IAnswer, IExchange, IUpstream
from ploinky.routing.bodies import BadFraming, Body, LengthBody, UntilCloseBody
from ploinky.routing.http import AnswerHead, Limits, body_of, end_of_head, read_answer
from ploinky.routing.streams import FULL_BYTES, Outlet
from ploinky.routing.wheel import NEVER, Wheel
from ploinky.sockets import SocketPaths
from ploinky.values import Address

_CHUNKED = b"\r\nTransfer-Encoding: chunked\r\n"
_SAFE_TO_REPEAT = (b"GET ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"TRACE ")
_IDLE_PER_ADDRESS = 256


@implementer(IUpstream)
class Upstream:
    """Connections to agents over Unix sockets and TCP.

    Where the answer of a request that streams its body also provides ``IPushProducer``, it is
    paused while the agent takes the body more slowly than it comes.

    Args:
        reactor: Connects, and tells the time.
        wheel: Ends idle connections.
        paths: Names for Unix sockets that lie too deep.
        connect_seconds: For a connection to be made.
        idle_seconds: For which an unused connection is kept.
    """

    def __init__(
        self,
        reactor: Any,
        wheel: Wheel,
        paths: SocketPaths,
        limits: Limits | None = None,
        connect_seconds: float = 5.0,
        idle_seconds: float = 55.0,
    ) -> None:
        self._reactor = reactor
        self._paths = paths
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._pools: dict[Address, _Pool] = {}
        self._closed = False
        self.wheel = wheel
        self.limits = limits or Limits()

    def exchange(
        self, address: Address, head: bytes, body: bytes | None, answer: IAnswer
    ) -> IExchange:
        """Send one request; see `IUpstream.exchange`.

        Args:
            head: Where `body` is None and the head says chunked, what `IExchange.write`
                brings is put into chunks here.
        """
        exchange = _Exchange(self, address, head, body, answer)
        pool = self._pools.get(address)
        if pool is not None and pool.idle:
            pool.idle.pop().begin(exchange)
        else:
            self.connect(exchange)
        return exchange

    def close(self) -> None:
        """Close idle connections; those in use end with their exchange."""
        self._closed = True
        for pool in list(self._pools.values()):
            for connection in list(pool.idle):
                connection.drop()

    def connect(self, exchange: _Exchange) -> None:
        """Make a connection for an exchange and begin it there."""
        try:
            endpoint = self._paths.endpoint(self._reactor, exchange.address, self._connect_seconds)
        except ValueError as error:
            exchange.fail(AgentUnreachable(f"the agent's socket cannot be named: {error}"))
            return
        connecting = endpoint.connect(_Connections(self, exchange.address))
        exchange.connecting = connecting
        connecting.addCallbacks(exchange.connected, exchange.not_connected)

    def join(self, connection: _AgentConnection) -> _Pool:
        """Give a new connection its pool."""
        pool = self._pools.setdefault(connection.address, _Pool())
        pool.open += 1
        return pool

    def keep(self, connection: _AgentConnection) -> None:
        """Take back a connection that can carry another request."""
        idle = connection.pool.idle
        if self._closed or len(idle) >= _IDLE_PER_ADDRESS:
            connection.drop()
            return
        idle.append(connection)
        connection.due = due = self._reactor.seconds() + self._idle_seconds
        if due < connection.noted:
            self.wheel.set(connection, due)

    def forget(self, connection: _AgentConnection) -> None:
        """Stop using a connection, which is or will be lost."""
        self.wheel.forget(connection)
        if connection in connection.pool.idle:
            connection.pool.idle.remove(connection)

    def leave(self, connection: _AgentConnection) -> None:
        """Forget a connection that was lost, and its pool if it was the last."""
        self.forget(connection)
        connection.pool.open -= 1
        if not connection.pool.open:
            del self._pools[connection.address]


class _Pool:
    """The connections to one address.

    Attributes:
        idle: Those that can take a request, the latest last.
        open: How many there are, idle or not.
        last_raw_head: The last answer's head on any of them: agents repeat theirs.
        last_head: What it says.
        last_length: Of the body after it, where that is framed by its length alone; else 0.
    """

    __slots__ = ("idle", "last_head", "last_length", "last_raw_head", "open")

    def __init__(self) -> None:
        self.idle: list[_AgentConnection] = []
        self.open = 0
        self.last_raw_head = b"\0"
        self.last_head: AnswerHead | None = None
        self.last_length = 0

    def remember(self, raw_head: bytes, head: AnswerHead) -> None:
        """Keep a head, so that answers that begin alike share what is made of it."""
        self.last_raw_head = raw_head
        self.last_head = head
        self.last_length = head.length or 0 if isinstance(body_of(head, False), LengthBody) else 0


@implementer(IExchange)
class _Exchange:
    """One request and its answer, on one connection or, once stale, on a second."""

    connection: _AgentConnection | None = None
    connecting: Deferred[Any] | None = None
    over = False
    paused = False
    _body_held = False
    _early: bytearray | None = None

    def __init__(
        self, upstream: Upstream, address: Address, head: bytes, body: bytes | None, answer: Any
    ) -> None:
        self.upstream = upstream
        self.address = address
        self.head = head
        self.body = body
        self.answer = answer
        self.whole = body is not None
        self._chunked = body is None and _CHUNKED in head

    def write(self, chunk: bytes) -> None:
        """Send body bytes; see `IExchange.write`."""
        if chunk:
            self._put(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)

    def finish(self) -> None:
        """End the body; see `IExchange.finish`."""
        self.whole = True
        if self._chunked:
            self._put(b"0\r\n\r\n")

    def cancel(self) -> None:
        """Close the connection; see `IExchange.cancel`."""
        if self.over:
            return
        self.over = True
        if self.connection is not None:
            self.connection.drop()
        elif self.connecting is not None:
            self.connecting.cancel()

    def pause(self) -> None:
        """Read no further; see `IExchange.pause`."""
        if not self.paused and not self.over:
            self.paused = True
            if self.connection is not None:
                self.connection.hold()

    def resume(self) -> None:
        """Go on after `pause`."""
        if self.paused and not self.over:
            self.paused = False
            if self.connection is not None:
                self.connection.go_on()

    def connected(self, connection: _AgentConnection) -> None:
        """Begin on the connection that was made for it."""
        self.connecting = None
        if self.over:
            connection.drop()
            return
        connection.begin(self)

    def not_connected(self, failure: Failure) -> None:
        """Say that there is no connection, unless that was the wish."""
        self.connecting = None
        if failure.check(CancelledError) is not None and self.over:
            return
        self.fail(AgentUnreachable(f"no connection to the agent: {failure.getErrorMessage()}"))

    def fail(self, error: CallFailed) -> None:
        """End without a whole answer."""
        if not self.over:
            self.over = True
            self.answer.failed(error)

    def early_body(self) -> bytes:
        """Give up what was written before there was a connection."""
        early, self._early = self._early, None
        return bytes(early or b"")

    def body_moved(self, queued: int) -> None:
        """Let the body go on once the connection has taken what there was."""
        if self._body_held and not queued and not self.over:
            self._body_held = False
            self.answer.resumeProducing()

    def _put(self, framed: bytes) -> None:
        if self.over:
            return
        if self.connection is None:
            self._early = self._early or bytearray()
            self._early += framed
            queued = len(self._early)
        else:
            queued = self.connection.send(framed)
        if queued > FULL_BYTES and not self._body_held and IPushProducer.providedBy(self.answer):
            self._body_held = True
            self.answer.pauseProducing()


class _Connections(Factory):
    """Builds connections of one address."""

    noisy = False

    def __init__(self, upstream: Upstream, address: Address) -> None:
        self._upstream = upstream
        self._address = address

    def buildProtocol(self, addr: Any) -> _AgentConnection:
        return _AgentConnection(self._upstream, self._address)


class _AgentConnection(Protocol):
    """One connection to an agent: idle, or with one exchange."""

    transport: Any
    pool: _Pool
    _outlet: Outlet

    def __init__(self, upstream: Upstream, address: Address) -> None:
        self.address = address
        self.due = NEVER
        self.noted = NEVER
        self._upstream = upstream
        self._exchange: _Exchange | None = None
        self._begun = 0
        self._held = b""
        self._seen = 0
        self._answered = False
        self._head: AnswerHead | None = None
        self._body: Body | None = None

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport) and not self.address.path:
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._outlet = Outlet(self.transport, self._moved)
        self.transport.protocol = self  # without the endpoint's wrapper: one call less a read
        self.pool = self._upstream.join(self)

    def begin(self, exchange: _Exchange) -> None:
        """Send an exchange's request and read its answer."""
        self.due = NEVER
        self._exchange = exchange
        self._begun += 1
        self._answered = False
        exchange.connection = self
        if exchange.paused:
            self.hold()
        if exchange.body is not None:
            self._outlet.send(exchange.head + exchange.body)
        else:
            self._outlet.send(exchange.head + exchange.early_body())
            exchange.body_moved(self._outlet.queued)

    def send(self, data: bytes) -> int:
        """Send more of the request; give how much of it is still queued."""
        self._outlet.send(data)
        return self._outlet.queued

    def hold(self) -> None:
        """Stop reading."""
        self.transport.pauseProducing()

    def go_on(self) -> None:
        """Read again."""
        self.transport.resumeProducing()

    def drop(self) -> None:
        """Close at once; whatever exchange it has hears no more of it."""
        self._exchange = None
        self._upstream.forget(self)
        self.transport.abortConnection()

    def expired(self) -> None:
        """It was idle for long; the wheel calls this."""
        self.drop()

    def dataReceived(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.drop()  # nobody asked: whatever it is, it answers no request
            return
        self._answered = True
        try:
            self._read(exchange, self._held + data if self._held else data)
        except AgentBroken as error:
            self.drop()
            exchange.fail(error)
        except BadFraming as error:
            self.drop()
            exchange.fail(AgentBroken(f"the agent's answer is broken: {error}"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._upstream.leave(self)
        exchange, self._exchange = self._exchange, None
        if exchange is None or exchange.over:
            return
        exchange.connection = None
        if isinstance(self._body, UntilCloseBody) and reason.check(ConnectionDone) is not None:
            exchange.over = True
            exchange.answer.ended()
        elif self._answered:
            exchange.fail(AgentBroken("the agent closed the connection amid its answer"))
        elif self._was_stale(exchange, reason):
            self._upstream.connect(exchange)
        else:
            exchange.fail(AgentUnreachable("the agent closed the connection without an answer"))

    def _was_stale(self, exchange: _Exchange, reason: Failure) -> bool:
        """Tell whether the request may be sent once more.

        An agent that closed before it read leaves an error behind; one that read the
        request and then closed may have acted on it.  Unix sockets tell the two apart,
        TCP does not.  A repeated request has a new connection, and so is not repeated again.
        """
        if self._begun < 2 or exchange.body is None:
            return False
        unread = self._outlet.broken or reason.check(ConnectionDone) is None
        return unread or not self.address.path or exchange.head.startswith(_SAFE_TO_REPEAT)

    def _read(self, exchange: _Exchange, data: bytes) -> None:
        pool = self.pool
        if (
            self._head is None
            and data.startswith(pool.last_raw_head)
            and len(data) == len(pool.last_raw_head) + pool.last_length
            and pool.last_length
            and not exchange.head.startswith(b"HEAD ")
        ):
            # The short way: the head is that of the answer before, and all the body is here.
            self._held = b""
            self._head = head = pool.last_head
            assert head is not None
            exchange.answer.started(head.status, head.fields, head.length)
            if not exchange.over:
                exchange.answer.data(data[len(pool.last_raw_head) :])
                self._end(exchange, b"")
        else:
            self._read_on(exchange, data)

    def _read_on(self, exchange: _Exchange, data: bytes) -> None:
        self._held = b""
        if self._head is None:
            rest = self._read_head(data)
            head = self._head
            if rest is None or head is None:
                return
            data = rest
            self._body = body_of(head, exchange.head.startswith(b"HEAD "))
            exchange.answer.started(head.status, head.fields, head.length)
        if self._body is None:
            self._end(exchange, data)
            return
        chunk, after = self._body.feed(data)
        if chunk and not exchange.over:
            exchange.answer.data(chunk)
        if after is not None:
            self._end(exchange, after)

    def _read_head(self, data: bytes) -> bytes | None:
        """Take the final head off; give what follows it, or None where it is not whole."""
        while True:
            pool = self.pool
            if data.startswith(pool.last_raw_head):
                self._head = pool.last_head
                return data[len(pool.last_raw_head) :]
            end = end_of_head(data, self._seen)
            if (end if end >= 0 else len(data)) > self._upstream.limits.head_bytes:
                raise AgentBroken("the head of the agent's answer is too large")
            if end < 0:
                self._held = data
                self._seen = len(data)
                return None
            self._seen = 0
            head = read_answer(data[:end], self._upstream.limits)
            if head.status >= 200:
                pool.remember(data[:end], head)
                self._head = head
                return data[end:]
            data = data[end:]

    def _end(self, exchange: _Exchange, after: bytes) -> None:
        """The answer is whole: keep the connection if it can go on, and say so."""
        if exchange.over:
            return
        head, self._head, self._body = self._head, None, None
        assert head is not None
        exchange.over = True
        self._exchange = None
        if exchange.paused:
            self.go_on()
        if head.keep_alive and exchange.whole and not after and not self._outlet.queued:
            self._upstream.keep(self)
        else:
            self.drop()
        exchange.answer.ended()

    def _moved(self) -> None:
        if self._exchange is not None:
            self._exchange.body_moved(self._outlet.queued)
