"""A worker has a socket for an agent, however many clients there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.routing.descriptors import Descriptors
from ploinky.testing.routing import RawClient, settled

ASK = b"GET /shop/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def descriptors() -> Descriptors:
    """Few of them."""
    return Descriptors(6)


def until(is_so: Callable[[], Any]) -> Awaitable[None]:
    return settled(reactor, is_so)


async def connected(wires: Any, count: int) -> list[RawClient]:
    made = []
    for number in range(count):
        made.append(await wires.connect())
        await until(lambda: len(wires.factory.connections) > number)  # noqa: B023
    return made


@pytest_twisted.ensureDeferred
async def test_idle_clients_make_room_for_new_ones(wires: Any) -> None:
    """Those that have been there for longest first; whoever has a request in hand stays."""
    busy, *idle = await connected(wires, 5)
    busy.send(ASK)
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    late = await wires.connect()
    await idle[0].lost
    later = await wires.connect()
    await idle[1].lost
    assert [client.reason for client in (busy, idle[2], late, later)] == [None] * 4
    agent.send(OK)
    assert (await busy.answer()).body == b"ok"


@pytest_twisted.ensureDeferred
async def test_they_make_room_for_an_agents_connection(wires: Any) -> None:
    """A request is never refused because others hold sockets that they do not use."""
    clients = await connected(wires, 6)
    clients[5].send(ASK)
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    await clients[0].lost
    agent.send(OK)
    assert (await clients[5].answer()).body == b"ok"


@pytest_twisted.ensureDeferred
async def test_where_all_are_busy_a_new_client_is_turned_away(
    wires: Any, descriptors: Descriptors
) -> None:
    """Closed at once; those in hand are answered, and there is room again afterwards."""
    clients = await connected(wires, 3)
    for number, client in enumerate(clients, 1):
        client.send(ASK)
        await (await wires.agent(number)).take(b"\r\n\r\n")
    refused = await wires.connect()
    await refused.lost
    assert (refused.received, descriptors.turned_away) == (b"", 1)
    for agent in wires.agents.accepted:
        agent.send(OK)
    for client in clients:
        assert (await client.answer()).body == b"ok"
    again = await wires.connect()
    again.send(ASK)
    await until(lambda: any(b"GET" in agent.received for agent in wires.agents.accepted))


@pytest_twisted.ensureDeferred
async def test_all_are_counted_back(wires: Any, descriptors: Descriptors) -> None:
    """Connections that failed, were dropped, upgraded or lost."""
    await wires.unix_port.stopListening()
    assert (await wires.ask(ASK)).status == 502
    assert (
        await wires.ask(ASK.replace(b"\r\n\r\n", b"\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n"))
    ).status == 502
    client = await wires.connect()
    client.send(ASK.replace(b"/shop", b"/tcp"))
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    assert descriptors.agents == 1
    client.transport.abortConnection()
    await agent.lost
    client = await wires.connect()
    client.send(
        ASK.replace(b"/shop", b"/tcp").replace(
            b"\r\n\r\n", b"\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n"
        )
    )
    agent = await wires.agent(2)
    await agent.take(b"\r\n\r\n")
    agent.transport.loseConnection()
    assert (await client.answer()).status == 502
    await until(lambda: descriptors.agents == 0)


def test_a_process_asks_for_all_that_it_may_have() -> None:
    """And leaves some for all else."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = Descriptors.of_this_process()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert soft == hard
    assert hard == resource.RLIM_INFINITY or descriptors._most < hard
