"""A gateway on a loopback port, with neighbours that a test plays by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.task import Clock

from ploinky.routing.access import AccessLog
from ploinky.routing.descriptors import Descriptors
from ploinky.routing.gateway import Gateway
from ploinky.routing.headers import TrustedProxies
from ploinky.routing.http import Limits
from ploinky.routing.listening import GatewayFactory
from ploinky.routing.logins import Logins
from ploinky.routing.rates import SharedRates
from ploinky.routing.spool import Spool
from ploinky.routing.table import RouteTable
from ploinky.routing.upstream import Upstream
from ploinky.routing.wheel import Wheel
from ploinky.security.throttle import LoginThrottle
from ploinky.sockets import SocketPaths
from ploinky.testing.deployment import DirectBlocking
from ploinky.testing.routing import (
    Answered,
    FakeOrchestrator,
    FakeTransport,
    FakeUpstream,
    RawClient,
    RawServer,
    settled,
)
from ploinky.values import (
    Address,
    DeploymentKey,
    Kind,
    Principal,
    Route,
    RouteSnapshot,
    Target,
    Wire,
)

NOON = 1_800_000_000.0


def route(place: str, kind: Kind = Kind.TASK, **changes: Any) -> Route:
    """Give a route with one target; `place` is `domain/path`."""
    domain, slash, path = place.partition("/")
    given: dict[str, Any] = {
        "key": DeploymentKey(domain, slash + path),
        "kind": kind,
        "deployment": "" if kind is Kind.CONTROL else f"id-of-{path or 'root'}",
        "release": 1,
        "targets": (Target("one", Address(path="/run/one/agent.sock")),),
    }
    return Route(**(given | changes))


ROUTES = (
    route("localhost/demo"),
    route("localhost/shop", Kind.SERVICE),
    route("*/management", Kind.CONTROL, max_body_bytes=1000),
)


class Corridor:
    """A gateway and its neighbours; time stands still unless `clock` is advanced."""

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        trusted: tuple[str, ...],
        upstream: Any = None,
        descriptors: Descriptors | None = None,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.wall = NOON
        self.router = RouteTable(lambda: self.wall)
        self.orchestrator = FakeOrchestrator()
        self.tasks = FakeTransport()
        self.upstream = upstream or FakeUpstream()
        self.run_directory = directory
        self.spool = Spool(DirectBlocking(), str(directory), "w1")  # type: ignore[arg-type]
        self.spool.open()
        self.rates = SharedRates(directory, lambda: round(self.clock.seconds() * 1e9))
        throttle = LoginThrottle(self.rates)
        self.logins = Logins(lambda: self.wall, self.router, TrustedProxies(trusted), throttle)
        self.lines: list[str] = []
        self.access_log = AccessLog(self.clock, lambda: self.wall, self.lines.append)
        gateway = Gateway(
            self.clock,
            lambda: self.wall,
            Wheel(self.clock),
            self.router,
            self.orchestrator,
            {Wire.HTTP: self.tasks},
            self.upstream,
            self.access_log,
            self.spool,
            self.rates,
            self.logins,
            "w1",
            TrustedProxies(trusted),
            limits,
            new_task=lambda: "t-made",
        )
        self.factory = GatewayFactory(gateway, descriptors)
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.clients: list[RawClient] = []
        self.publish(*ROUTES)

    def publish(self, *routes: Route, principals: tuple[Principal, ...] = ()) -> None:
        """Replace the table."""
        self.router.adopt(RouteSnapshot(self.router.generation + 1, routes, principals))

    async def connect(self) -> RawClient:
        """Open a connection to the gateway."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        client: RawClient = await connectProtocol(endpoint, RawClient(reactor))
        self.clients.append(client)
        return client

    async def ask(self, request: bytes) -> Answered:
        """Send one request on a connection of its own and give its answer."""
        client = await self.connect()
        client.send(request)
        return await client.answer(request.startswith(b"HEAD "))

    def records(self) -> list[dict[str, Any]]:
        """Give what the access log has so far."""
        self.access_log.flush()
        return [msgspec.json.decode(line) for line in "".join(self.lines).splitlines()]

    async def close(self) -> None:
        """Leave nothing open."""
        await self.port.stopListening()
        self.spool.close()
        self.rates.close()
        for connection in list(self.factory.connections):
            connection.abort()
        for client in self.clients:
            client.transport.abortConnection()
            if client.reason is None:
                await client.lost


@pytest.fixture
def limits() -> Limits:
    """The gateway's limits; a test's module may say others."""
    return Limits()


@pytest.fixture
def trusted() -> tuple[str, ...]:
    """The proxies that the gateway believes."""
    return ()


@pytest.fixture
def corridor(
    tmp_path_factory: pytest.TempPathFactory, limits: Limits, trusted: tuple[str, ...]
) -> Iterator[Corridor]:
    """A gateway that listens on a free port."""
    corridor = Corridor(tmp_path_factory.mktemp("run"), limits, trusted)
    yield corridor
    pytest_twisted.blockon(ensureDeferred(corridor.close()))


class Wires(Corridor):
    """A gateway with real connections to agents that a test plays in raw bytes.

    `localhost/shop` leads to one on a Unix socket, `localhost/tcp` to one over TCP.

    Attributes:
        agents: What they accept.
        idle_clock: Once advanced far, connections to agents have been idle for long.
        paths: Where the gateway's own Unix socket lies: `connect_unix` leads there.
    """

    def __init__(
        self, directory: Path, limits: Limits, descriptors: Descriptors, connect_seconds: float
    ) -> None:
        self._paths = SocketPaths(str(directory))
        self._directory = directory
        self.idle_clock = Clock()
        upstream = Upstream(
            reactor,
            Wheel(self.idle_clock),
            self._paths,
            limits,
            connect_seconds,
            descriptors=descriptors,
        )
        super().__init__(directory, limits, (), upstream, descriptors)
        self.agents = RawServer(reactor)
        self.unix_port = reactor.listenUNIX(str(directory / "agent.sock"), self.agents)
        self.tcp_port = reactor.listenTCP(0, self.agents, interface="127.0.0.1")
        self.local_port = reactor.listenUNIX(str(directory / "gateway.sock"), self.factory)
        unix = Address(path=str(directory / "agent.sock"))
        tcp = Address(host="127.0.0.1", port=self.tcp_port.getHost().port)
        self.publish(
            route("localhost/shop", Kind.SERVICE, targets=(Target("one", unix),)),
            route("localhost/tcp", Kind.SERVICE, targets=(Target("two", tcp),)),
            route("localhost/demo"),
            route("*/management", Kind.CONTROL, targets=(Target("", unix),)),
        )

    async def connect_unix(self) -> RawClient:
        """Open a connection to the gateway over its Unix socket."""
        endpoint = UNIXClientEndpoint(reactor, str(self._directory / "gateway.sock"))
        client: RawClient = await connectProtocol(endpoint, RawClient(reactor))
        self.clients.append(client)
        return client

    async def agent(self, number: int = 1) -> RawClient:
        """Give the agent's end of a connection, once it is there."""
        await settled(reactor, lambda: len(self.agents.accepted) >= number)
        return self.agents.accepted[number - 1]

    async def close(self) -> None:
        await super().close()
        self.upstream.close()
        for port in (self.unix_port, self.tcp_port, self.local_port):
            await maybeDeferred(port.stopListening)
        for agent in self.agents.accepted:
            agent.transport.abortConnection()
            if agent.reason is None:
                await agent.lost
        self._paths.close()


@pytest.fixture
def descriptors() -> Descriptors:
    """Any number of them; a test's module may say others."""
    return Descriptors()


@pytest.fixture
def connect_seconds() -> float:
    """For how long an agent that takes no connection is waited for: longer than any test takes."""
    return 60.0


briefly = pytest.mark.parametrize("connect_seconds", [0.5])
"""For tests that wait until this is over."""


@pytest.fixture
def wires(
    short_directory: Path, limits: Limits, descriptors: Descriptors, connect_seconds: float
) -> Iterator[Wires]:
    """A gateway and agents, all on real sockets."""
    wires = Wires(short_directory, limits, descriptors, connect_seconds)
    yield wires
    pytest_twisted.blockon(ensureDeferred(wires.close()))


@pytest.fixture
def make_route() -> Any:
    """The function `route`, for tests that need routes of their own."""
    return route
