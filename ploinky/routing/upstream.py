"""Keep-alive connections to agents, pooled by address: HTTP/1.1 from the client's side.

A request's head and body enter; the answer's head, body and end go to an
`IAnswer`.  This module knows framing and connections, and neither routes nor
tasks.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.errors import AgentBroken, AgentCutShort, AgentLeft
from ploinky.interfaces import IAnswer, IExchange, IUpgradeAnswer, IUpstream
from ploinky.routing.beginnings import refuse_no_answer
from ploinky.routing.bodies import BadFraming, Body, LengthBody, UntilCloseBody
from ploinky.routing.descriptors import Descriptors
from ploinky.routing.exchange import Exchange
from ploinky.routing.http import (
    MOST_INTERIM,
    AnswerHead,
    Limits,
    body_of,
    end_of_head,
    read_answer,
)
from ploinky.routing.patience import (
    CONNECT_SECONDS,
    Acquaintances,
    PatientEndpoint,
    queue_is_full,
    share_of,
    unnameable,
)
from ploinky.routing.streams import Outlet, read_no_more
from ploinky.routing.upgrades import UpgradeExchange
from ploinky.routing.wheel import NEVER, Wheel
from ploinky.sockets import SocketPaths
from ploinky.values import Address, Kind

if TYPE_CHECKING:
    from ploinky.routing.relay import Relay

_SAFE_TO_REPEAT = (b"GET ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"TRACE ")
_READ_AT_ONCE_BYTES = 4096
"""Of a request whose end no agent leaves unread when it reads its beginning."""
_NO_HEAD = AnswerHead(0, (), None, False, False)


@implementer(IUpstream)
class Upstream:
    """Connections to agents over Unix sockets and TCP.

    Where the answer of a request that streams its body also provides ``IPushProducer``, it is
    paused while the agent takes the body more slowly than it comes.

    Args:
        reactor: Connects, and tells the time.
        wheel: Ends idle connections.
        paths: Names for Unix sockets that lie too deep.
        connect_seconds: For a connection to be made; see `IMovable`.
        idle_seconds: For which an unused connection is kept.
        descriptors: Counts these connections among the worker's.
    """

    def __init__(
        self,
        reactor: Any,
        wheel: Wheel,
        paths: SocketPaths,
        limits: Limits | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        idle_seconds: float = 55.0,
        descriptors: Descriptors | None = None,
    ) -> None:
        self._reactor = reactor
        self._seconds = reactor.seconds
        self._paths = paths
        self._connect_seconds = connect_seconds
        self._pools: dict[Address, Pool] = {}
        self._acquaintances = Acquaintances(reactor.seconds)
        self._closed = False
        self.wheel = wheel
        self.idle_seconds = idle_seconds
        self.limits = limits or Limits()
        self.descriptors = descriptors or Descriptors()

    def exchange(
        self, address: Address, head: bytes, body: bytes | None, answer: IAnswer
    ) -> IExchange:
        """Send one request; see `IUpstream.exchange`.

        Args:
            head: Where ``body`` is None and the head says chunked, what `IExchange.write`
                brings is put into chunks here.
        """
        exchange = Exchange(address, head, body, answer)
        pool = self._pools.get(address)
        if pool is not None and pool.idle:
            pool.idle.pop().begin(exchange)
        else:
            self.connect(exchange)
        return exchange

    def pool(self, address: Address) -> Pool | None:
        """Give the connections to one address; see `IUpstream.pool`."""
        return self._pools.get(address)

    def upgrade(
        self, address: Address, head: bytes, asked: bytes, key: bytes, answer: IUpgradeAnswer
    ) -> IExchange:
        """Send a request for another protocol; see `IUpstream.upgrade`."""
        exchange = UpgradeExchange(
            head, asked, key, self.limits, answer, self.descriptors.give_back
        )
        try:
            endpoint = self._endpoint(address, answer)
        except ValueError as error:
            answer.failed(unnameable(error))
        else:
            self.descriptors.take()
            exchange.connect(endpoint)
        return exchange

    def close(self) -> None:
        """Close idle connections; those in use end with their exchange."""
        self._closed = True
        for pool in list(self._pools.values()):
            for connection in list(pool.idle):
                connection.drop()

    def connect(self, exchange: Exchange) -> None:
        """Make a connection for an exchange and begin it there."""
        try:
            endpoint = self._endpoint(exchange.address, exchange.answer)
        except ValueError as error:
            exchange.fail(unnameable(error))
            return
        exchange.hold_body()
        self.descriptors.take()
        connecting = endpoint.connect(_Connections(self, exchange.address))
        exchange.connecting = connecting
        connecting.addErrback(self._give_back)
        connecting.addCallbacks(exchange.connected, exchange.not_connected)

    def _give_back(self, failure: Failure) -> Failure:
        self.descriptors.give_back()
        return failure

    def join(self, connection: AgentConnection) -> Pool:
        """Give a new connection its pool."""
        pool = self._pools.setdefault(connection.address, Pool())
        pool.open += 1
        self.put_off(connection)
        return pool

    def put_off(self, connection: AgentConnection) -> None:
        """Have a connection looked at once it may have been idle for long."""
        self.wheel.set(connection, self._seconds() + self.idle_seconds)

    def keep(self, connection: AgentConnection) -> None:
        """Take back a connection that can carry another request."""
        if self._closed:
            connection.drop()
            return
        connection.was_kept = True
        connection.rest(self._seconds())

    def forget(self, connection: AgentConnection) -> None:
        """Stop using a connection, which is or will be lost."""
        self.wheel.forget(connection)
        if connection in connection.pool.idle:
            connection.pool.idle.remove(connection)

    def leave(self, connection: AgentConnection) -> None:
        """Forget a connection that was lost, and its pool if it was the last."""
        self.forget(connection)
        self.descriptors.give_back()
        connection.pool.open -= 1
        if not connection.pool.open:
            del self._pools[connection.address]

    def _endpoint(self, address: Address, answer: IAnswer) -> IStreamClientEndpoint:
        seconds = share_of(self._connect_seconds, answer)
        once = self._paths.endpoint(self._reactor, address, seconds)
        if address.path:
            return PatientEndpoint(self._reactor, once, seconds, queue_is_full)
        acquaintances = self._acquaintances

        def is_busy(error: ConnectError) -> bool:
            return acquaintances.is_busy(address, address in self._pools, error)

        def took() -> None:
            acquaintances.took(address)

        return PatientEndpoint(self._reactor, once, seconds, is_busy, took)


class LastAnswer:
    """The head of an agent's last answer, and what is made of it: agents repeat theirs.

    Attributes:
        raw: The head.
        head_size: Of it, in bytes.
        head: What it says.
        size: Of the head with its body, where an answer that is as long, and begins so, is whole
            and leaves nothing to be said, noted or closed; else 0.
        front: What a client gets in the head's place, up to the number in the request's id.
        kind: Of the route that ``front`` was made for.
        until: Until when, in the clock's seconds: it has a date in it.
    """

    __slots__ = ("front", "head", "head_size", "kind", "raw", "size", "until")

    def __init__(self, raw: bytes, head: AnswerHead) -> None:
        usual = (
            head.keep_alive
            and head.length
            and head.status < 500
            and isinstance(body_of(head, False), LengthBody)
        )
        self.raw = raw
        self.head = head
        self.head_size = len(raw)
        self.size = len(raw) + (head.length or 0) if usual else 0
        self.front = b""
        self.kind: Kind | None = None
        self.until = -inf


NO_ANSWER = LastAnswer(b"", _NO_HEAD)


class Pool:
    """The connections to one address.

    Attributes:
        idle: Those that can take a request, the latest last.
        open: How many there are, idle or not.
        last: The last answer on any of them.
    """

    __slots__ = ("idle", "last", "open")

    def __init__(self) -> None:
        self.idle: list[AgentConnection] = []
        self.open = 0
        self.last = NO_ANSWER


NO_POOL = Pool()
"""Stands for the connections to an address to which there are none."""


class _Connections(Factory):
    """Builds connections of one address."""

    noisy = False

    def __init__(self, upstream: Upstream, address: Address) -> None:
        self._upstream = upstream
        self._address = address

    def buildProtocol(self, addr: Any) -> AgentConnection:
        return AgentConnection(self._upstream, self._address)


class AgentConnection(Protocol):
    """One connection to an agent: idle, or with one exchange or relay.

    Attributes:
        relay: What has a request in hand here, on its short way.
        was_kept: It has carried a request before.
        outlet: Where requests go.
    """

    transport: Any
    pool: Pool
    outlet: Outlet

    def __init__(self, upstream: Upstream, address: Address) -> None:
        self.address = address
        self.due = NEVER
        self.noted = NEVER
        self._upstream = upstream
        self._exchange: Exchange | None = None
        self.relay: Relay | None = None
        self.was_kept = False
        self._is_simple = False
        """Whether an answer in one piece may go on in one step: nothing unusual has happened."""
        self._interim = 0
        self._held = b""
        self._seen = 0
        self._answered = False
        self._head: AnswerHead | None = None
        self._body: Body | None = None

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport) and not self.address.path:
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self.outlet = Outlet(self.transport, self.dataReceived, self._moved)
        self.pool = self._upstream.join(self)

    def begin(self, exchange: Exchange) -> None:
        """Send an exchange's request and read its answer."""
        self.carry(exchange)
        body = exchange.body
        if body is not None:
            queued = self.outlet.send(exchange.request + body)
            self._is_simple = exchange.is_simple and not queued
        else:
            early = exchange.early_body()
            queued = self.outlet.send(exchange.request + early)
            if self.outlet.broken and not early:
                exchange.hold_body()  # it was stale: see `connectionLost`
            else:
                exchange.got_nothing = False
                exchange.body_moved(queued)
        if exchange.paused:
            self.hold()

    def carry(self, exchange: Exchange) -> None:
        """Take an exchange whose request is sent, or about to be."""
        self._exchange = exchange
        self._answered = False
        self._is_simple = False
        exchange.agent = self

    def rest(self, now: float) -> None:
        """Be free for another request."""
        self.relay = None
        self.due = now + self._upstream.idle_seconds  # later than what it was noted for
        self.pool.idle.append(self)

    def send(self, data: bytes) -> int:
        """Send more of the request; give how much of it is still queued."""
        return self.outlet.send(data)

    def hold(self) -> None:
        """Stop reading."""
        self._is_simple = False
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
        """It was idle for long, unless it is in use; the wheel calls this."""
        if self.relay is None and self._exchange is None:
            self.drop()
        else:
            self._upstream.put_off(self)

    def dataReceived(self, data: bytes) -> None:
        relay = self.relay
        if relay is not None:
            if relay.complete(data):
                return
            relay.unfold()
        exchange = self._exchange
        if exchange is None:
            self.drop()  # nobody asked: whatever it is, it answers no request
            return
        last = self.pool.last
        if self._is_simple and len(data) == last.size and data.startswith(last.raw):
            # The head is that of the answer before, and all the body is here.
            exchange.over = True
            self._exchange = None
            self._upstream.keep(self)
            head = last.head
            exchange.answer.complete(head.status, head.fields, data[last.head_size :])
            return
        self._is_simple = False
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
        read_no_more(self.transport)
        if self.relay is not None:
            self.relay.unfold()
        self._upstream.leave(self)
        exchange, self._exchange = self._exchange, None
        if exchange is None or exchange.over:
            return
        exchange.agent = None
        if isinstance(self._body, UntilCloseBody) and reason.check(ConnectionDone) is not None:
            exchange.over = True
            exchange.answer.ended()
        elif self._answered:
            exchange.fail(AgentCutShort("the agent closed the connection amid its answer"))
        elif self._was_stale(exchange, reason):
            exchange.is_repeated = exchange.body is not None
            self._upstream.connect(exchange)
        else:
            why = "the agent closed the connection without an answer"
            exchange.fail(AgentLeft(why, got_nothing=exchange.got_nothing))

    def _was_stale(self, exchange: Exchange, reason: Failure) -> bool:
        """Tell whether the request may be sent once more to the same instance.

        An agent that closed before it read leaves an error behind; one that read the request
        and then closed may have acted on it, and so may one that read some of a long one.
        A repeated request has a new connection, and so is not repeated again.
        """
        body = exchange.body
        if body is None:
            return self.was_kept and exchange.got_nothing
        is_short = len(exchange.request) + len(body) <= _READ_AT_ONCE_BYTES
        unread = self.outlet.broken or (is_short and reason.check(ConnectionDone) is None)
        # Over TCP the error may come from something on the way, as well.
        exchange.got_nothing = self.outlet.broken or (unread and bool(self.address.path))
        return self.was_kept and (unread or exchange.request.startswith(_SAFE_TO_REPEAT))

    def _read(self, exchange: Exchange, data: bytes) -> None:
        self._held = b""
        if self._head is None:
            rest = self._read_head(data)
            head = self._head
            if rest is None or head is None:
                return
            data = rest
            self._body = body_of(head, exchange.request.startswith(b"HEAD "))
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
            if self._interim > MOST_INTERIM:
                raise AgentBroken(f"the agent sent over {MOST_INTERIM} interim answers")
            last = self.pool.last
            if last.raw and data.startswith(last.raw):
                self._head = last.head
                self._seen = self._interim = 0
                return data[len(last.raw) :]
            end = end_of_head(data, self._seen)
            if end < 0:
                refuse_no_answer(data, self._seen, self._upstream.limits)
                self._held = data
                self._seen = len(data)
                return None
            self._seen = 0
            head = read_answer(data[:end], self._upstream.limits)
            if head.status >= 200:
                self.pool.last = LastAnswer(data[:end], head)
                self._head = head
                self._interim = 0
                return data[end:]
            self._interim += 1
            data = data[end:]

    def _end(self, exchange: Exchange, after: bytes) -> None:
        """The answer is whole: keep the connection if it can go on, and say so."""
        if exchange.over:
            return
        head, self._head, self._body = self._head, None, None
        assert head is not None
        exchange.over = True
        self._exchange = None
        if exchange.paused:
            self.go_on()
        if head.keep_alive and exchange.whole and not after and not self.outlet.queued:
            self._upstream.keep(self)
        else:
            self.drop()
        exchange.answer.ended()

    def _moved(self) -> None:
        if self._exchange is not None:
            self._exchange.body_moved(self.outlet.queued)
