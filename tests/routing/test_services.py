"""What a service and its client can count on, over real sockets on both sides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.testing.routing import settled, turns

GET = b"GET /shop/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
EXPECTING = (
    b"POST /shop/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n"
    b"Expect: 100-continue\r\n\r\n"
)


def until(is_so: Callable[[], Any]) -> Awaitable[None]:
    return settled(reactor, is_so)


@pytest.mark.parametrize("framing", [b"", b"Transfer-Encoding: chunked\r\n"])
@pytest_twisted.ensureDeferred
async def test_each_thing_a_service_says_goes_on_at_once(wires: Any, framing: bytes) -> None:
    """An event reaches its client before the next one is sent, however small."""
    client = await wires.connect()
    client.send(GET)
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    agent.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%b\r\n" % framing)
    assert b"text/event-stream" in await client.take(b"\r\n\r\n")
    for number in range(20):
        event = b"data: %d\n\n" % number
        agent.send(b"%x\r\n%b\r\n" % (len(event), event) if framing else event)
        await client.take(event)
    agent.send(b"0\r\n\r\n" if framing else b"")
    agent.transport.loseConnection()
    assert (await client.take(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_what_a_slow_reader_lets_its_agent_write_is_bounded(wires: Any) -> None:
    """1 MiB in the gateway at most, beside what the kernel's sockets hold; none of it is lost."""
    client = await wires.connect_unix()
    client.send(GET)
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    client.transport.pauseProducing()
    size = 8_000_000
    agent.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    sending = _Counting(agent.transport, size)
    agent.transport.registerProducer(sending, False)
    before = -1
    while sending.written != before:
        before = sending.written
        await turns(reactor, 20)
    kernel = 4 * 256 * 1024  # two Unix sockets' buffers, and the agent's own last piece
    assert sending.written <= 1024 * 1024 + kernel
    client.transport.resumeProducing()
    assert len((await client.answer()).body) == size


class _Counting:
    """Writes a piece whenever the one before has gone to the kernel."""

    def __init__(self, transport: Any, size: int) -> None:
        self._transport = transport
        self._size = size
        self.written = 0

    def resumeProducing(self) -> None:
        piece = min(64 * 1024, self._size - self.written)
        if not piece:
            self._transport.unregisterProducer()
            return
        self.written += piece
        self._transport.write(b"x" * piece)

    def stopProducing(self) -> None: ...


@pytest_twisted.ensureDeferred
async def test_an_agent_that_refuses_early_is_heard(wires: Any) -> None:
    """Also by a client that waited for leave to send, has it, and begins; then all is over."""
    client = await wires.connect()
    client.send(EXPECTING)
    agent = await wires.agent()
    head = await agent.take(b"\r\n\r\n")
    assert b"expect" not in head.lower()
    agent.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
    said = await client.take(b"\r\n\r\n")
    if said.startswith(b"HTTP/1.1 100"):
        client.send(b"x" * 100_000)
        said = await client.take(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413")
    assert b"Connection: close" in said
    assert await client.take(b"big") == b"big"
    await until(lambda: client.reason)
    await until(lambda: agent.reason)
    assert wires.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_bodies_of_any_size_pass_both_ways(wires: Any) -> None:
    """Tens of megabytes, which nobody holds."""
    client = await wires.connect()
    size = 20_000_000
    head = EXPECTING.replace(b"5000000", b"%d" % size).replace(b"Expect: 100-continue\r\n", b"")
    client.send(head + b"u" * size)
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    taken = 0
    while taken < size:
        await agent.until(lambda received: received)
        taken += len(agent.received)
        agent.received = b""
        (connection,) = wires.factory.connections
        assert len(connection._buffer) <= 1024 * 1024
    agent.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (await client.answer()).body == b"ok"
