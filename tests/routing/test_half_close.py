"""A client that stops sending still reads its answer; one that has gone costs nothing more."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from ploinky.routing.halfclose import hung_up
from ploinky.routing.hangups import HangUps
from ploinky.testing.routing import RawClient, half_closing, settled, turns
from tests.routing.test_client_connections import Emptied

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST /shop/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody"


def until(is_so: Callable[[], Any]) -> Awaitable[None]:
    return settled(reactor, is_so)


@pytest.fixture(params=["tcp", "unix"])
def connect(request: Any, wires: Any) -> Callable[[], Awaitable[RawClient]]:
    """Connects a client that can close one half, over either kind of socket."""

    async def connected() -> RawClient:
        made = await (wires.connect() if request.param == "tcp" else wires.connect_unix())
        made.ended = half_closing(made)
        return made  # type: ignore[no-any-return]

    return connected


async def asked(wires: Any, number: int = 1) -> RawClient:
    agent: RawClient = await wires.agent(number)
    await agent.take(b"\r\n\r\n")
    return agent


async def stuffed(client: RawClient, connection: Any, piece: bytes, last: bytes) -> None:
    """Send pieces until the gateway reads no further, and a last one that it has not read."""
    while connection._reading:
        enough = connection._call.bytes_in + len(piece)
        client.send(piece)
        await until(lambda: not connection._reading or connection._call.bytes_in == enough)  # noqa: B023
    sending = Emptied()
    client.send(last)
    client.transport.registerProducer(sending, False)
    await until(lambda: sending.asked == 2)
    client.transport.unregisterProducer()


async def notices(wires: Any, connection: Any) -> None:
    """Let 100 ms pass for the gateway; what its kernel is told takes none of them."""

    def has_ended() -> bool:
        return connection not in wires.factory.connections

    await until(lambda: has_ended() or connection._departure)
    wires.clock.pump([0.01] * 4)
    await until(lambda: has_ended() or hung_up(connection.transport))  # it was sent something
    wires.clock.pump([0.01] * 6)
    await until(has_ended)


@pytest_twisted.ensureDeferred
async def test_it_still_gets_its_answer(wires: Any, connect: Any) -> None:
    """Whole, and then the connection ends."""
    client = await connect()
    client.send(POST)
    client.transport.loseWriteConnection()
    agent = await asked(wires)
    await until(lambda: all(c._client_ended for c in wires.factory.connections))
    agent.send(OK)
    answer = await client.answer()
    assert (answer.body, answer.field(b"connection")) == (b"ok", b"close")
    await until(lambda: client.ended)
    await until(lambda: not wires.factory.connections)
    assert wires.records()[0]["mood"] == "served"


@pytest_twisted.ensureDeferred
async def test_all_that_was_asked_is_answered(wires: Any, connect: Any) -> None:
    """Requests behind the one in hand as well, in order."""
    client = await connect()
    client.send(POST + POST + b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n" + POST)
    client.transport.loseWriteConnection()
    agent = await asked(wires)
    await until(lambda: all(c._client_ended for c in wires.factory.connections))
    for _ in range(3):
        await agent.take(b"body")
        agent.send(OK)
        assert (await client.answer()).status == 200
        if _ == 1:
            assert (await client.answer()).status == 404
    await until(lambda: not wires.factory.connections)
    assert len(wires.records()) == 4


@pytest.mark.parametrize(
    "unfinished", [b"GET /shop/x HT", POST[:-2], b"", POST + b"GET /shop", POST + POST[:-1]]
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_whole_is_not_waited_for(
    wires: Any, connect: Any, unfinished: bytes
) -> None:
    """Nobody will ever finish it; what came whole before it is answered."""
    client = await connect()
    client.send(unfinished)
    await until(lambda: wires.factory.connections)
    client.transport.loseWriteConnection()
    if unfinished.startswith(POST):
        agent = await asked(wires)
        await agent.take(b"body")
        await until(lambda: all(c._client_ended for c in wires.factory.connections))
        agent.send(OK)
        assert (await client.answer()).status == 200
    await until(lambda: not wires.factory.connections)
    assert wires.factory.in_hand() == 0
    assert wires.orchestrator.in_flight() == 0


@pytest.mark.parametrize("left", ["closes", "resets"])
@pytest_twisted.ensureDeferred
async def test_one_that_has_gone_is_noticed_within_100_ms(
    wires: Any, connect: Any, left: str
) -> None:
    """The agent's connection ends, which aborts the task in it."""
    client = await connect()
    client.send(POST)
    agent = await asked(wires)
    (connection,) = wires.factory.connections
    if left == "closes":
        client.transport.loseConnection()
    else:
        client.transport.abortConnection()
    await notices(wires, connection)
    await agent.lost
    record = wires.records()[0]
    assert (record["status"], record["mood"]) == (499, "gone")


@pytest.mark.parametrize("left", ["closes", "resets"])
@pytest_twisted.ensureDeferred
async def test_so_is_one_that_is_not_read(wires: Any, connect: Any, left: str) -> None:
    """Its agent takes no more of the body, and may never do so again."""
    client = await connect()
    client.send(b"POST /shop/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
    agent = await asked(wires)
    agent.transport.pauseProducing()
    (connection,) = wires.factory.connections
    await stuffed(client, connection, bytes(65536), b"unread")
    if left == "closes":
        client.transport.loseConnection()
    else:
        client.transport.abortConnection()
    await notices(wires, connection)
    record = wires.records()[0]
    assert (record["status"], record["mood"]) == (499, "gone")
    agent.transport.resumeProducing()
    await agent.lost


@pytest_twisted.ensureDeferred
async def test_of_one_that_is_not_read_both_steps_are_told(wires: Any, connect: Any) -> None:
    """That it stops sending, and that it leaves after that; and nothing once it is read again."""
    client = await connect()
    await until(lambda: wires.factory.connections)
    (connection,) = wires.factory.connections
    connection.transport.pauseProducing()
    hang_ups = HangUps()
    told: list[int] = []
    watched = hang_ups.watch(connection.transport, lambda: told.append(len(told)))
    client.transport.loseWriteConnection()
    await until(lambda: told)
    await turns(reactor)
    assert told == [0]
    client.transport.abortConnection()
    await until(lambda: len(told) == 2)
    hang_ups.forget(watched)
    assert hang_ups.fileno() == -1
    connection.abort()


@pytest_twisted.ensureDeferred
async def test_one_that_is_not_read_may_have_sent_all_of_it(wires: Any, connect: Any) -> None:
    """It has ended its half and waits: once its agent goes on, so does it."""
    client = await connect()
    client.send(POST.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked")[:-4])
    agent = await asked(wires)
    agent.transport.pauseProducing()
    (connection,) = wires.factory.connections
    chunk = b"8000\r\n%b\r\n" % bytes(0x8000)
    await stuffed(client, connection, chunk, b"4\r\nlast\r\n0\r\n\r\n")
    client.transport.loseWriteConnection()
    await until(lambda: connection._departure)
    wires.clock.pump([0.1] * 50)
    agent.transport.resumeProducing()
    await agent.take(b"last\r\n0\r\n\r\n")
    agent.send(OK)
    assert await client.take(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await client.answer()).body == b"ok"
    await until(lambda: not wires.factory.connections)


@pytest_twisted.ensureDeferred
async def test_so_is_one_that_leaves_a_stream(wires: Any, connect: Any) -> None:
    """Also where the agent has nothing to say for hours."""
    client = await connect()
    client.send(POST)
    agent = await asked(wires)
    agent.send(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n")
    await client.take(b"data: 1\n\n")
    (connection,) = wires.factory.connections
    client.transport.loseConnection()
    await notices(wires, connection)
    await agent.lost


@pytest_twisted.ensureDeferred
async def test_one_that_waits_for_long_is_not_taken_for_gone(wires: Any, connect: Any) -> None:
    """It may see an interim answer, which every client passes over; the answer is whole."""
    client = await connect()
    client.send(POST)
    client.transport.loseWriteConnection()
    agent = await asked(wires)
    await until(lambda: all(c._client_ended for c in wires.factory.connections))
    wires.clock.pump([0.1] * 200)
    assert await client.take(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    agent.send(OK)
    assert (await client.answer()).body == b"ok"


@pytest_twisted.ensureDeferred
async def test_so_does_one_that_reads_a_stream(wires: Any, connect: Any) -> None:
    """What is sent to find that out is a part of the next chunk's size, and of the last one's."""
    client = await connect()
    client.send(POST)
    agent = await asked(wires)
    agent.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
    await client.until(lambda received: b"one" in received)
    client.transport.loseWriteConnection()
    await until(lambda: all(c._client_ended for c in wires.factory.connections))
    wires.clock.pump([0.1] * 50)
    agent.send(b"3\r\ntwo\r\n0\r\n\r\n")
    assert (await client.answer()).body == b"onetwo"
    await until(lambda: not wires.factory.connections)


@pytest_twisted.ensureDeferred
async def test_a_client_of_http_10_cannot_be_asked(wires: Any, connect: Any) -> None:
    """It knows no interim answers: it gets its answer, there or not."""
    client = await connect()
    client.send(b"GET /shop/x HTTP/1.0\r\nHost: localhost\r\n\r\n")
    client.transport.loseWriteConnection()
    agent = await asked(wires)
    await until(lambda: all(c._client_ended for c in wires.factory.connections))
    wires.clock.pump([0.1] * 100)
    assert client.received == b""
    agent.send(OK)
    assert (await client.answer()).body == b"ok"


@pytest_twisted.ensureDeferred
async def test_one_that_stops_sending_late_gets_all_of_its_answer(wires: Any) -> None:
    """It was answered, and had not taken what its kernel and ours hold, when it stopped."""
    body = bytes(1_000_000)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    await deferToThread(client.connect, ("127.0.0.1", wires.port.getHost().port))
    with client:
        client.sendall(b"GET /shop/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        agent = await asked(wires)
        agent.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: wires.records())
        client.shutdown(socket.SHUT_WR)
        await until(lambda: not wires.factory.connections)
        received = await deferToThread(_all_of, client)
    assert received.endswith(body)


def _all_of(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))
