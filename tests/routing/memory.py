"""A gateway, its clients and its agents in memory: no socket, no time, any order of events.

What is written waits until `Network.run` delivers it, cut and ordered as its source of choices
says, so that a run is repeated exactly by its seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.routing.access import AccessLog
from ploinky.routing.gateway import Gateway
from ploinky.routing.headers import TrustedProxies
from ploinky.routing.http import Limits
from ploinky.routing.listening import GatewayFactory
from ploinky.routing.logins import Logins
from ploinky.routing.rates import SharedRates
from ploinky.routing.spool import Spool
from ploinky.routing.streams import IPlainTransport
from ploinky.routing.table import RouteTable
from ploinky.routing.upstream import Upstream
from ploinky.routing.wheel import Wheel
from ploinky.security.throttle import LoginThrottle
from ploinky.sockets import SocketPaths
from ploinky.testing.deployment import DirectBlocking
from ploinky.testing.routing import FakeOrchestrator
from ploinky.values import Address, DeploymentKey, Kind, Route, RouteSnapshot, Target

_KERNEL_BYTES = 64 * 1024


class Pipe:
    """The socket of one end: it takes what the other's has room for."""

    def __init__(self, end: End) -> None:
        self._end = end

    def send(self, data: bytes) -> int:
        room = max(_KERNEL_BYTES - len(self._end.peer.inbox), 0)
        if not room and data:
            raise BlockingIOError
        if not self._end.peer.open:
            raise BrokenPipeError
        self._end.write(data[:room])
        return len(data[:room])


@implementer(IPlainTransport)
class End:
    """One end of a connection: what its protocol has for a transport.

    Attributes:
        socket: As of a plain connection.
        inbox: What the other end wrote and this one has not read.
        open: It was neither closed nor lost.
    """

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.peer: End
        self.inbox = bytearray()
        self.socket = Pipe(self)
        self.open = True
        self._lost: BaseException | None = None
        self._closing = self._shut = self._told = self._paused = False
        self._producer: Any = None

    def getPeer(self) -> Any:
        return self

    def write(self, data: bytes) -> None:
        if self.open and not self._shut and self.peer.open:
            self.peer.inbox += data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer
        producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False

    def loseWriteConnection(self) -> None:
        self._shut = True

    def loseConnection(self) -> None:
        self._closing = True

    def abortConnection(self) -> None:
        if self.open:
            self._lost = ConnectionLost()
            if self.peer.open:
                self.peer._lost = ConnectionLost()

    def actions(self) -> list[Callable[[random.Random], None]]:
        """What can happen here next."""
        if not self.open:
            return []
        if self._lost is not None:
            return [self._lose]
        found: list[Callable[[random.Random], None]] = []
        if self._producer is not None and len(self.peer.inbox) < _KERNEL_BYTES:
            found.append(lambda _: self._producer.resumeProducing())
        elif self._closing and self._producer is None:
            found.append(self._close)
        if not self._paused and not self._closing:
            if self.inbox:
                found.append(self._deliver)
            elif (self.peer._shut or not self.peer.open) and not self._told:
                found.append(self._end)
        return found

    def _deliver(self, chance: random.Random) -> None:
        size = len(self.inbox)
        if chance.random() < 0.5:
            size = chance.randint(1, size)
        data = bytes(self.inbox[:size])
        del self.inbox[:size]
        self.protocol.dataReceived(data)

    def _end(self, _: random.Random) -> None:
        self._told = True
        if IHalfCloseableProtocol.providedBy(self.protocol) and self.peer.open:
            self.protocol.readConnectionLost()
        else:
            self._lost = ConnectionDone()

    def _close(self, _: random.Random) -> None:
        self._lost = ConnectionDone()

    def _lose(self, _: random.Random) -> None:
        self.open = False
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(self._lost))


class Client(Protocol):
    """A client that keeps what it receives.

    Attributes:
        heard: Called whenever something has come; what it gives is sent.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.ended = False
        self.heard: Callable[[], bytes] = bytes

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.transport.write(self.heard())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True


class Network(Clock):
    """A reactor for `Upstream`, and the gateway in front of it.

    Args:
        agent: Gives the protocol at the agent's end of each connection.

    Attributes:
        ends: Of every connection ever made.
    """

    def __init__(self, directory: Path, agent: Callable[[], Protocol]) -> None:
        super().__init__()
        self._agent = agent
        self._paths = SocketPaths(str(directory))
        self.ends: list[End] = []
        self.lines: list[str] = []
        limits = Limits()
        wheel = Wheel(self)
        router = RouteTable(lambda: 1.8e9)
        self.orchestrator = FakeOrchestrator()
        self.access_log = AccessLog(self, lambda: 1.8e9, self.lines.append)
        self.spool = Spool(DirectBlocking(), str(directory), "w1")  # type: ignore[arg-type]
        self.rates = SharedRates(directory, lambda: round(self.seconds() * 1e9))
        throttle = LoginThrottle(self.rates)
        self.logins = Logins(lambda: 1.8e9, router, TrustedProxies(()), throttle)
        self.upstream = Upstream(self, wheel, self._paths, limits)
        gateway = Gateway(
            self,
            lambda: 1.8e9,
            wheel,
            router,
            self.orchestrator,
            {},
            self.upstream,
            self.access_log,
            self.spool,
            self.rates,
            self.logins,
            "w1",
            TrustedProxies(()),
            limits,
            new_task=lambda: "t-made",
        )
        self.factory = GatewayFactory(gateway)
        target = Target("one", Address(path="/run/one/agent.sock"))
        key = DeploymentKey("localhost", "/shop")
        route = Route(key, Kind.SERVICE, deployment="shop", release=1, targets=(target,))
        router.adopt(RouteSnapshot(1, (route,)))

    def connectUNIX(
        self, path: str, factory: Any, timeout: float = 30, checkPID: bool = False
    ) -> None:
        """Connect to an agent; Twisted's endpoint calls this."""
        factory.doStart()
        self._join(factory.buildProtocol(None), self._agent())

    def connect(self) -> tuple[Client, End]:
        """Connect a client; give it and its end."""
        client = Client()
        connection = self.factory.buildProtocol(None)
        assert connection is not None
        return client, self._join(client, connection)

    def _join(self, one: Any, other: Any) -> End:
        ends = End(one), End(other)
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        self.ends += ends
        other.makeConnection(ends[1])
        one.makeConnection(ends[0])
        return ends[0]

    def run(self, chance: random.Random, most_steps: int, watch: Callable[[], None]) -> int:
        """Let things happen until nothing can; give how many did.

        Args:
            watch: Called after each.

        Raises:
            AssertionError: It does not come to an end.
        """
        for step in range(most_steps):
            self.ends = [end for end in self.ends if end.open]
            actions = [action for end in self.ends for action in end.actions()]
            if not actions:
                return step
            chance.choice(actions)(chance)
            watch()
        raise AssertionError(f"it still goes on after {most_steps} steps")

    def close(self) -> None:
        """Leave nothing open."""
        for connection in list(self.factory.connections):
            connection.abort()
        self.upstream.close()
        self.run(random.Random(0), 10_000, lambda: None)
        self.access_log.flush()
        self.rates.close()
        self._paths.close()
