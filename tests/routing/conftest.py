"""A gateway on a loopback port, with neighbours that a test plays by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import Clock

from ploinky.routing.access import AccessLog
from ploinky.routing.gateway import Gateway
from ploinky.routing.headers import TrustedProxies
from ploinky.routing.http import Limits
from ploinky.routing.listening import GatewayFactory
from ploinky.routing.table import RouteTable
from ploinky.routing.wheel import Wheel
from ploinky.testing.routing import (
    Answered,
    FakeOrchestrator,
    FakeTransport,
    FakeUpstream,
    RawClient,
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

    def __init__(self, limits: Limits, trusted: tuple[str, ...]) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.wall = NOON
        self.router = RouteTable(lambda: self.wall)
        self.orchestrator = FakeOrchestrator()
        self.tasks = FakeTransport()
        self.upstream = FakeUpstream()
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
            "w1",
            TrustedProxies(trusted),
            limits,
            new_task=lambda: "t-made",
        )
        self.factory = GatewayFactory(gateway)
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
def corridor(limits: Limits, trusted: tuple[str, ...]) -> Iterator[Corridor]:
    """A gateway that listens on a free port."""
    corridor = Corridor(limits, trusted)
    yield corridor
    pytest_twisted.blockon(ensureDeferred(corridor.close()))


@pytest.fixture
def make_route() -> Any:
    """The function `route`, for tests that need routes of their own."""
    return route
