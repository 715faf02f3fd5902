"""Upgrades: what asks for another protocol gets it from the agent, and nothing else slips through."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha1, sha256
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred

from ploinky.routing.http import Limits
from ploinky.testing.routing import RawClient, half_closing, settled, turns
from ploinky.values import Address, CallAuth, Kind, Principal, Role, Target

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n"


@pytest.fixture
def limits() -> Limits:
    """Short ones for tunnels."""
    return attrs.evolve(Limits(), tunnel_seconds=100.0, half_tunnel_seconds=10.0)


def until(is_so: Callable[[], Any]) -> Awaitable[None]:
    return settled(reactor, is_so)


def asking(*fields: str, path: str = "/shop/ws", upgrade: str = "echo/1") -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", f"Upgrade: {upgrade}", *fields]
    return "\r\n".join([*lines, "Connection: keep-alive, Upgrade"]).encode() + b"\r\n\r\n"


async def opened(
    wires: Any, path: str = "/shop/ws", small: bool = False
) -> tuple[RawClient, RawClient]:
    """Give client and agent of an upgraded connection, with small buffers on both sides or not."""
    client = await (wires.connect_unix() if small else wires.connect())
    client.send(asking(path=path))
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    agent.send(SWITCHED)
    await client.take(b"\r\n\r\n")
    return client, agent


# --- asking, and being answered


@pytest_twisted.ensureDeferred
async def test_an_agent_is_asked_and_its_101_passed_on(wires: Any) -> None:
    """With the fields that are for the other end, and none that are not."""
    client = await wires.connect()
    client.send(asking("Sec-WebSocket-Version: 13", "X-A: b"))
    agent = await wires.agent()
    head = await agent.take(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"GET /ws HTTP/1.1"
    assert [line for line in lines if line.lower().startswith((b"connection:", b"upgrade:"))] == [
        b"Connection: Upgrade",
        b"Upgrade: echo/1",
    ]
    assert b"Sec-WebSocket-Version: 13" in lines
    assert any(line.startswith(b"X-Forwarded-For: 127.0.0.1") for line in lines)
    agent.send(SWITCHED.replace(b"\r\n\r\n", b"\r\nX-Own: yes\r\nKeep-Alive: 5\r\n\r\nhello"))
    said = (await client.take(b"\r\n\r\n")).split(b"\r\n")
    assert said[0] == b"HTTP/1.1 101 Switching Protocols"
    assert {b"Connection: Upgrade", b"Upgrade: echo/1", b"X-Own: yes"} <= set(said)
    assert not any(line.lower().startswith(b"keep-alive") for line in said)
    assert not any(line.lower().startswith((b"content-", b"transfer-")) for line in said)
    assert await client.take(b"hello") == b"hello"


@pytest.mark.parametrize("path", ["/shop/ws", "/tcp/ws"])
@pytest_twisted.ensureDeferred
async def test_bytes_pass_both_ways_as_they_are(wires: Any, path: str) -> None:
    """Whatever they look like, in order, at once and unchanged."""
    client, agent = await opened(wires, path)
    noise = random.Random(3)
    for _ in range(5):
        up, down = noise.randbytes(300_000), noise.randbytes(200_000)
        client.send(up + b"GET /nowhere HTTP/1.1\r\n\r\n|end")
        agent.send(down + b"HTTP/1.1 200 OK\r\n\r\n|end")
        assert await agent.take(b"|end") == up + b"GET /nowhere HTTP/1.1\r\n\r\n|end"
        assert await client.take(b"|end") == down + b"HTTP/1.1 200 OK\r\n\r\n|end"


@pytest_twisted.ensureDeferred
async def test_what_a_client_sends_early_waits_for_the_101(wires: Any) -> None:
    """Until the agent has switched, it is not the tunnel's; then it comes first."""
    client = await wires.connect()
    client.send(asking() + b"GET /shop/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")
    agent = await wires.agent()
    head = await agent.take(b"\r\n\r\n")
    assert b"smuggled" not in head
    client.send(b"more")
    await turns(reactor)
    assert agent.received == b""
    agent.send(SWITCHED)
    early = b"GET /shop/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\nmore"
    assert await agent.take(b"more") == early
    assert len(wires.agents.accepted) == 1


@pytest.mark.parametrize("status", [b"200 OK", b"426 Upgrade Required", b"404 Not Found"])
@pytest_twisted.ensureDeferred
async def test_an_agent_may_stay_with_http(wires: Any, status: bytes) -> None:
    """Its answer is passed on, whole, and what the client sent behind its request is not read."""
    client = await wires.connect()
    client.send(asking() + b"GET /shop/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    agent.send(
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 %b\r\nContent-Length: 4\r\n\r\nno" % status
    )
    agent.send(b"pe")
    answer = await client.answer()
    assert (b"%d" % answer.status, answer.body) == (status[:3], b"nope")
    assert answer.field(b"connection") == b"close"
    await client.lost
    await agent.lost
    assert len(wires.agents.accepted) == 1
    assert wires.orchestrator.in_flight() == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nall of it",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nall of it\r\n0\r\n\r\n",
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_of_any_framing_instead(wires: Any, answer: bytes) -> None:
    """Also one that ends with its connection."""
    client = await wires.connect()
    client.send(asking())
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    agent.send(answer)
    agent.transport.loseConnection()
    assert (await client.answer()).body == b"all of it"
    await client.lost


@pytest_twisted.ensureDeferred
async def test_a_refusal_of_our_own_is_an_answer_too(wires: Any, make_route: Any) -> None:
    """Nothing is deployed there; the connection goes on, as any does."""
    client = await wires.connect()
    client.send(asking(path="/nowhere"))
    assert (await client.answer()).status == 404


# --- strictness

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
FALSE = {
    "another protocol": SWITCHED.replace(b"echo/1", b"other"),
    "no protocol": SWITCHED.replace(b"Upgrade: echo/1\r\n", b""),
    "no connection option": SWITCHED.replace(b"Connection: Upgrade\r\n", b""),
    "another option": SWITCHED.replace(b"Connection: Upgrade", b"Connection: close"),
    "a length": SWITCHED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"),
    "chunks": SWITCHED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "HTTP/1.0": SWITCHED.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "two protocols": SWITCHED.replace(b"\r\n\r\n", b"\r\nUpgrade: echo/1\r\n\r\n"),
    "a list": SWITCHED.replace(b"echo/1", b"echo/1, other"),
    "no HTTP at all": b"\x81\x05hello\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", FALSE.values(), ids=FALSE.keys())
@pytest_twisted.ensureDeferred
async def test_a_101_must_be_what_was_asked_for(wires: Any, answer: bytes) -> None:
    """Else the agent is broken, and no byte of a tunnel passes either way."""
    client = await wires.connect()
    client.send(asking() + b"early")
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    if answer:
        agent.send(answer + b"late")
    else:
        agent.transport.loseConnection()
    said = await client.answer()
    assert said.status == 502
    assert b"AGENT_" in said.body
    await client.lost
    await agent.lost
    assert agent.received == b""


@pytest.mark.parametrize("fits", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_websocket_answer_must_fit_its_key(wires: Any, fits: bool) -> None:
    """So that nobody takes for a WebSocket what an agent says without knowing."""
    client = await wires.connect()
    client.send(asking(f"Sec-WebSocket-Key: {KEY}", upgrade="websocket"))
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    proof = b64encode(sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
    agent.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % (proof if fits else b"AAAA" + proof[4:])
    )
    head = await client.take(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101" if fits else b"HTTP/1.1 502")


PLAIN = {
    "HTTP/2": asking(upgrade="h2c"),
    "TLS": asking(upgrade="TLS/1.2, HTTP/2.0"),
    "no option": asking().replace(b"keep-alive, Upgrade", b"keep-alive"),
    "no protocol": asking(upgrade="b@d"),
    "HTTP/1.0": asking().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "the server's own": asking(path="/management/x"),
}


@pytest.mark.parametrize("request_bytes", PLAIN.values(), ids=PLAIN.keys())
@pytest_twisted.ensureDeferred
async def test_a_wish_that_is_not_followed_is_no_error(wires: Any, request_bytes: bytes) -> None:
    """The request is one as any other (RFC 9110, 7.8), and the agent never hears of the wish."""
    client = await wires.connect()
    client.send(request_bytes)
    agent = await wires.agent()
    head = await agent.take(b"\r\n\r\n")
    assert b"upgrade" not in head.lower()
    agent.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (await client.answer()).body == b"ok"


@pytest_twisted.ensureDeferred
async def test_a_body_is_read_as_a_body(wires: Any) -> None:
    """A request with one is not upgraded."""
    client = await wires.connect()
    request = asking("Content-Length: 4").replace(b"GET", b"POST")
    client.send(request + b"body")
    agent = await wires.agent()
    assert b"upgrade" not in (await agent.take(b"body")).lower()


@pytest_twisted.ensureDeferred
async def test_tasks_are_not_upgraded(corridor: Any) -> None:
    """The field is ignored; a task's answer is a task's answer."""
    corridor.tasks.respond = lambda task, exchange: exchange.say(task.params)
    answer = await corridor.ask(asking(path="/demo/x"))
    assert (answer.status, answer.body) == (200, b"[]")
    assert answer.field(b"connection") is None


@pytest_twisted.ensureDeferred
async def test_a_101_that_nobody_asked_for_is_broken(wires: Any) -> None:
    """Whatever the agent means by it."""
    client = await wires.connect()
    client.send(b"GET /shop/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    agent.send(SWITCHED)
    answer = await client.answer()
    assert (answer.status, b"AGENT_BROKEN" in answer.body) == (502, True)


# --- ends, and what is counted


@pytest.mark.parametrize("path", ["/shop/ws", "/tcp/ws"])
@pytest_twisted.ensureDeferred
async def test_a_half_that_ends_ends_alone(wires: Any, path: str) -> None:
    """The client stops sending; the agent hears of it, and its own bytes still come."""
    client, agent = await opened(wires, path)
    agent_heard = half_closing(agent)
    client.send(b"last words")
    client.transport.loseWriteConnection()
    await agent.take(b"last words")
    await until(lambda: agent_heard)
    agent.send(b"x" * 500_000 + b"|end")
    assert len(await client.take(b"|end")) == 500_004
    agent.transport.loseConnection()
    await client.lost
    assert wires.records()[0]["mood"] == "served"


@pytest.mark.parametrize("path", ["/shop/ws", "/tcp/ws"])
@pytest_twisted.ensureDeferred
async def test_so_does_the_agents(wires: Any, path: str) -> None:
    """The agent stops sending; the client has all of it, hears of it, and may go on."""
    client, agent = await opened(wires, path)
    client_heard = half_closing(client)
    agent_heard = half_closing(agent)
    agent.send(b"y" * 500_000 + b"|end")
    agent.transport.loseWriteConnection()
    assert len(await client.take(b"|end")) == 500_004
    await until(lambda: client_heard)
    client.send(b"still there")
    assert await agent.take(b"there") == b"still there"
    client.transport.loseWriteConnection()
    await until(lambda: agent_heard or agent.reason)
    await until(lambda: wires.orchestrator.in_flight() == 0)


@pytest_twisted.ensureDeferred
async def test_it_is_counted_and_recorded_once(wires: Any) -> None:
    """In hand for as long as it lasts; one line with its bytes and its seconds."""
    client, agent = await opened(wires)
    assert (wires.factory.in_hand(), wires.orchestrator.in_flight()) == (1, 1)
    assert wires.records() == []
    client.send(b"12345")
    await agent.take(b"12345")
    agent.send(b"123")
    await client.take(b"123")
    wires.clock.advance(12.5)
    agent.transport.loseConnection()
    await client.lost
    (record,) = wires.records()
    assert (record["status"], record["mood"], record["seconds"]) == (101, "served", 12.5)
    assert record["bytesIn"] == len(asking()) + 5
    assert record["bytesOut"] > 3
    assert (wires.factory.in_hand(), wires.orchestrator.in_flight()) == (0, 0)


@pytest.mark.parametrize(("side", "mood"), [("client", "gone"), ("agent", "broken")])
@pytest_twisted.ensureDeferred
async def test_a_side_that_breaks_off_ends_the_other(wires: Any, side: str, mood: str) -> None:
    """At once, and the record says who it was."""
    client, agent = await opened(wires, "/tcp/ws")
    broken, other = (client, agent) if side == "client" else (agent, client)
    broken.transport.abortConnection()
    await other.lost
    await until(lambda: wires.orchestrator.in_flight() == 0)
    (record,) = wires.records()
    assert (record["status"], record["mood"]) == (101, mood)


@pytest_twisted.ensureDeferred
async def test_a_tunnel_on_which_nothing_moves_ends(wires: Any) -> None:
    """Either way counts as moving."""
    client, agent = await opened(wires)
    for _ in range(3):
        wires.clock.pump([10.0] * 9)
        agent.send(b".")
        await client.take(b".")
        wires.clock.pump([10.0] * 9)
        client.send(b".")
        await agent.take(b".")
    wires.clock.pump([10.0] * 21)
    await client.lost
    await agent.lost
    assert wires.records()[0]["mood"] == "timed-out"


@pytest_twisted.ensureDeferred
async def test_half_a_tunnel_idles_shorter(wires: Any) -> None:
    """Who ended its half and does not come back does not keep it for long."""
    client, agent = await opened(wires)
    heard = half_closing(client)
    agent.transport.loseWriteConnection()
    await until(lambda: heard)
    wires.clock.pump([1.0] * 11)
    await until(lambda: not wires.factory.connections)
    assert wires.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_a_tunnel_ends_with_its_key(wires: Any, make_route: Any) -> None:
    """On both sides; while the key is valid it goes on."""
    target = Target("one", Address(path=str(wires.run_directory / "agent.sock")))
    closed = make_route("localhost/shop", Kind.SERVICE, targets=(target,), auth=CallAuth.KEY)
    key = Principal("ci", Role.CALLER, sha256(b"pk_1").hexdigest())
    wires.publish(closed, principals=(key,))
    client = await wires.connect()
    client.send(asking("X-API-Key: pk_1"))
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    agent.send(SWITCHED)
    await client.take(b"\r\n\r\n")
    wires.factory.expel()
    client.send(b"still here")
    await agent.take(b"still here")
    wires.publish(closed)
    wires.factory.expel()
    await until(lambda: client.reason and agent.reason)
    (record,) = wires.records()
    assert (record["status"], record["mood"], record["principal"]) == (101, "refused", "ci")


@pytest_twisted.ensureDeferred
async def test_draining_waits_for_tunnels_and_then_ends_them(wires: Any) -> None:
    """They have the grace period, as every request has, and are counted as cut off."""
    client, agent = await opened(wires)
    drained = ensureDeferred(wires.factory.drain(30))
    wires.clock.pump([1.0] * 20)
    client.send(b"still")
    await agent.take(b"still")
    assert not drained.called
    wires.clock.pump([1.0] * 11)
    assert await drained == 1
    await agent.lost
    await client.lost


# --- back-pressure


@pytest_twisted.ensureDeferred
async def test_a_slow_client_slows_the_agent(wires: Any) -> None:
    """At most 1 MiB is held for it, and nothing is lost."""
    client, agent = await opened(wires, small=True)
    client.transport.pauseProducing()
    (connection,) = wires.factory.connections
    agent.send(b"z" * 3_000_000 + b"|end")
    most = 0
    for _ in range(300):
        await turns(reactor, 1)
        most = max(most, connection.outlet.queued)
    assert 0 < most <= 1024 * 1024
    client.transport.resumeProducing()
    assert len(await client.take(b"|end")) == 3_000_004


@pytest_twisted.ensureDeferred
async def test_a_slow_agent_slows_the_client(wires: Any) -> None:
    """The other way round the same."""
    client, agent = await opened(wires, small=True)
    agent.transport.pauseProducing()
    (connection,) = wires.factory.connections
    client.send(b"z" * 3_000_000 + b"|end")
    most = 0
    for _ in range(300):
        await turns(reactor, 1)
        exchange = connection._call._exchange
        most = max(most, exchange._outlet.queued + len(connection._buffer))
    assert 0 < most <= 1024 * 1024
    agent.transport.resumeProducing()
    assert len(await agent.take(b"|end")) == 3_000_004
