"""An instance that has too much to do is not a dead one."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from select import select
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.testing.routing import settled, turns
from ploinky.values import Address, Kind, Target
from tests.routing.conftest import briefly

ASK = b"GET /busy/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def until(is_so: Callable[[], Any]) -> Awaitable[None]:
    return settled(reactor, is_so)


@pytest.fixture
def full(short_directory: Path) -> Iterator[socket.socket]:
    """A Unix socket that listens, and whose queue of connections is full."""
    path = str(short_directory / "full.sock")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(0)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(path)
    yield listening
    waiting.close()
    listening.close()


@pytest.fixture
def busy(wires: Any, full: socket.socket, make_route: Any) -> Any:
    """A gateway with a route to it."""
    target = Target("three", Address(path=full.getsockname()))
    wires.publish(make_route("localhost/busy", Kind.SERVICE, targets=(target,)))
    return wires


UPGRADE = ASK.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n")


@pytest.mark.parametrize("request_bytes", [ASK, UPGRADE], ids=["plain", "upgrade"])
@pytest_twisted.ensureDeferred
async def test_a_full_queue_is_waited_for(
    busy: Any, full: socket.socket, request_bytes: bytes
) -> None:
    """The request gets in as soon as there is room."""
    client = await busy.connect()
    client.send(request_bytes)
    await turns(reactor, 30)
    assert client.received == b""
    full.accept()[0].close()
    agent = await asked(full)
    assert agent.recv(9999).startswith(b"GET /x HTTP/1.1\r\n")
    agent.sendall(OK)
    assert (await client.answer()).body == b"ok"
    agent.close()


@briefly
@pytest.mark.parametrize("request_bytes", [ASK, UPGRADE], ids=["plain", "upgrade"])
@pytest_twisted.ensureDeferred
async def test_one_that_stays_full_is_overloaded(busy: Any, request_bytes: bytes) -> None:
    """503 with `Retry-After`, and the instance is not avoided for it."""
    client = await busy.connect()
    client.send(request_bytes)
    answer = await client.answer()
    assert (answer.status, answer.field(b"retry-after")) == (503, b"1")
    assert b"OVERLOADED" in answer.body
    assert busy.orchestrator.leases[0].released == 1
    assert not busy.orchestrator.leases[0].failed


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_meanwhile_ends_the_wait(busy: Any) -> None:
    """Nothing goes on in its name."""
    client = await busy.connect()
    client.send(ASK)
    await until(busy.factory.in_hand)
    client.transport.abortConnection()
    await until(lambda: not busy.factory.connections)
    assert busy.orchestrator.in_flight() == 0
    assert busy.upstream.descriptors.agents == 0


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A TCP socket whose queue has room for one connection."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=0)
    yield listening
    listening.close()


@pytest.fixture
def far(wires: Any, listening: socket.socket, make_route: Any) -> Any:
    """A gateway with a route to it."""
    host, port = listening.getsockname()
    target = Target("three", Address(host=host, port=port))
    wires.publish(make_route("localhost/busy", Kind.SERVICE, targets=(target,)))
    return wires


async def served_once(far: Any, listening: socket.socket) -> None:
    """One request, on a connection that is not kept."""
    client = await far.connect()
    client.send(ASK)
    agent = await asked(listening)
    agent.sendall(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert (await client.answer()).body == b"ok"
    agent.close()
    await until(lambda: not far.upstream.descriptors.agents)


async def in_hand(far: Any, listening: socket.socket) -> socket.socket:
    """A request that is not answered yet: its agent's end."""
    (await far.connect()).send(ASK)
    return await asked(listening)


@briefly
@pytest.mark.parametrize("request_bytes", [ASK, UPGRADE], ids=["plain", "upgrade"])
@pytest_twisted.ensureDeferred
async def test_an_acquaintance_that_lets_wait_over_tcp_is_overloaded(
    far: Any, listening: socket.socket, request_bytes: bytes
) -> None:
    """A moment ago it took connections: 503, and it is not avoided for it."""
    await served_once(far, listening)
    with socket.create_connection(listening.getsockname()):
        answer = await far.ask(request_bytes)
        assert (answer.status, answer.field(b"retry-after")) == (503, b"1")
        assert b"OVERLOADED" in answer.body
        assert not far.orchestrator.leases[-1].failed


@briefly
@pytest_twisted.ensureDeferred
async def test_a_stranger_that_lets_wait_over_tcp_is_unreachable(
    far: Any, listening: socket.socket
) -> None:
    """So does an address where there is no machine."""
    with socket.create_connection(listening.getsockname()):
        answer = await far.ask(ASK)
        assert answer.status == 502
        assert b"AGENT_UNREACHABLE" in answer.body
        assert far.orchestrator.leases[-1].failed


@pytest_twisted.ensureDeferred
async def test_one_that_refuses_and_holds_others_is_waited_for(
    far: Any, listening: socket.socket
) -> None:
    """Systems other than Linux refuse where the queue is full."""
    agent = await in_hand(far, listening)
    address = listening.getsockname()
    listening.close()
    client = await far.connect()
    client.send(ASK)
    await turns(reactor, 30)
    assert client.received == b""
    with socket.create_server(address) as again:
        other = await asked(again)
    other.sendall(OK)
    assert (await client.answer()).body == b"ok"
    other.close()
    agent.close()


@briefly
@pytest_twisted.ensureDeferred
async def test_one_that_goes_on_refusing_is_overloaded(far: Any, listening: socket.socket) -> None:
    """For as long as it holds others."""
    agent = await in_hand(far, listening)
    listening.close()
    assert (await far.ask(ASK)).status == 503
    agent.close()


@pytest_twisted.ensureDeferred
async def test_one_that_refuses_and_lets_go_of_others_is_gone(
    far: Any, listening: socket.socket
) -> None:
    """Whoever waited for it is told."""
    agent = await in_hand(far, listening)
    listening.close()
    client = await far.connect()
    client.send(ASK)
    await turns(reactor, 30)
    assert client.received == b""
    agent.close()
    answer = await client.answer()
    assert answer.status == 502
    assert b"AGENT_UNREACHABLE" in answer.body
    assert far.orchestrator.leases[-1].failed


@pytest_twisted.ensureDeferred
async def test_one_that_is_gone_is_not_waited_for(far: Any, listening: socket.socket) -> None:
    """Whatever it did a moment ago."""
    await served_once(far, listening)
    listening.close()
    answer = await far.ask(ASK)
    assert answer.status == 502
    assert b"AGENT_UNREACHABLE" in answer.body
    assert far.orchestrator.leases[-1].failed


async def asked(listening: socket.socket) -> socket.socket:
    """Give the agent's end of a connection, once a request has come there."""
    await until(lambda: _is_readable(listening))
    agent, _ = listening.accept()
    await until(lambda: _is_readable(agent))
    return agent


def _is_readable(one: socket.socket) -> bool:
    return bool(select([one], [], [], 0)[0])
