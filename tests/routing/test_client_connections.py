"""What a client's connection promises: order, limits, time-outs, and no more memory than said."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import msgspec
import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from ploinky.routing.http import Limits
from ploinky.testing.routing import FakeExchange, RawClient, settled, turns
from ploinky.values import TaskCall

HELLO = b'{"command":"hello","params":["World"]}'


@pytest.fixture
def limits() -> Limits:
    """Short ones for sending; the others as they are."""
    return attrs.evolve(Limits(), sending_seconds=10.0, lingering_seconds=1.0)


def until(is_so: Callable[[], Any]) -> Awaitable[None]:
    return settled(reactor, is_so)


def post(path: str, body: bytes, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str, *fields: str, method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def repeats(call: TaskCall, exchange: FakeExchange) -> None:
    """Answer with the params."""
    exchange.say(call.params)


def echoes(head: bytes, exchange: FakeExchange) -> None:
    """Answer with the request line."""
    exchange.say(head.partition(b"\r\n")[0])


# --- order and framing


@pytest_twisted.ensureDeferred
async def test_requests_are_answered_in_order(corridor: Any) -> None:
    """However many come at once, of whatever kind, and however the agents hurry."""
    corridor.tasks.respond = repeats
    client = await corridor.connect()
    chunked = get("/demo/x", "Transfer-Encoding: chunked", method="POST")
    client.send(
        get("/shop/slow")
        + post("/demo/x", b"[1]")
        + get("/nowhere")
        + chunked
        + b"3\r\n[2]\r\n0\r\n\r\n"
        + get("/shop/last")
        + post("/demo/x", b"[3]")
    )
    await until(lambda: corridor.upstream.sent)
    assert corridor.tasks.sent == []
    corridor.upstream.sent[0][2].say(b"slow")
    assert (await client.answer()).body == b"slow"
    assert (await client.answer()).body == b"[1]"
    assert (await client.answer()).status == 404
    assert (await client.answer()).body == b"[2]"
    await until(lambda: len(corridor.upstream.sent) == 2)
    corridor.upstream.sent[1][2].say(b"last")
    assert (await client.answer()).body == b"last"
    assert (await client.answer()).body == b"[3]"


@pytest_twisted.ensureDeferred
async def test_a_thousand_refusals_in_one_write(corridor: Any) -> None:
    """Answered one after the other, and no deeper for it."""
    client = await corridor.connect()
    client.send(get("/nowhere") * 1000)
    for _ in range(1000):
        assert (await client.answer()).status == 404


_REQUESTS = (
    post("/demo/x", b"[1]")
    + b"\r\n"
    + get("/shop/a?b=c")
    + get("/demo/x", "Transfer-Encoding: chunked", method="POST")
    + b"1;x\r\n[\r\n2\r\n2]\r\n0\r\nT: x\r\n\r\n"
    + post("/demo/x", b"[1]")
    + get("/nowhere", "X-Request-Id: fixed", method="HEAD")
    + get("/shop/z")
)


class Loopback:
    """A transport in memory, for the many cuts."""

    def __init__(self) -> None:
        self.written = b""
        self.producer: Any = None

    def getPeer(self) -> Any:
        return self

    def write(self, data: bytes) -> None:
        self.written += data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer
        while self.producer is not None:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def loseConnection(self) -> None: ...

    abortConnection = loseConnection


def answers_to(corridor: Any, pieces: list[bytes]) -> bytes:
    """Feed the pieces to a new connection; give its answers, without ids."""
    corridor.tasks.respond = repeats
    corridor.upstream.respond = echoes
    connection = corridor.factory.buildProtocol(None)
    transport = Loopback()
    connection.makeConnection(transport)
    for piece in pieces:
        connection.dataReceived(piece)
    corridor.factory.connections.pop(connection)
    lines = transport.written.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"X-Request-Id: "))


@pytest.mark.parametrize("cut", range(1, len(_REQUESTS)))
def test_answers_do_not_depend_on_where_reads_are_cut(corridor: Any, cut: int) -> None:
    """Cut at any byte, the same answers."""
    whole = answers_to(corridor, [_REQUESTS])
    assert whole.count(b"HTTP/1.1 200 OK") == 5
    assert whole.count(b"HTTP/1.1 404 Not Found") == 1
    assert answers_to(corridor, [_REQUESTS[:cut], _REQUESTS[cut:]]) == whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(1, len(_REQUESTS) - 1), max_size=12))
def test_answers_do_not_depend_on_how_often_reads_are_cut(corridor: Any, cuts: list[int]) -> None:
    """Cut at any bytes, the same answers."""
    edges = [0, *sorted(cuts), len(_REQUESTS)]
    pieces = [_REQUESTS[a:b] for a, b in itertools.pairwise(edges) if a < b]
    assert answers_to(corridor, pieces) == answers_to(corridor, [_REQUESTS])


def test_answers_do_not_depend_on_reads_at_all(corridor: Any) -> None:
    """Byte by byte, the same answers."""
    pieces = [_REQUESTS[at : at + 1] for at in range(len(_REQUESTS))]
    assert answers_to(corridor, pieces) == answers_to(corridor, [_REQUESTS])


SMUGGLED = {
    "both lengths": get("/demo", "Content-Length: 4", "Transfer-Encoding: chunked", method="POST"),
    "a bare line feed": b"GET /demo HTTP/1.1\nHost: localhost\n\n",
    "a bare carriage return": b"GET /demo HTTP/1.1\rHost: localhost\r\r",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "another host": get("http://other/demo"),
    "dot segments": get("/demo/%2e%2e/management"),
    "no host": b"GET /demo HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("raw", SMUGGLED.values(), ids=SMUGGLED.keys())
@pytest_twisted.ensureDeferred
async def test_after_a_bad_request_nothing_is_read(corridor: Any, raw: bytes) -> None:
    """400 and the end of the connection: a second request behind it stays unread."""
    client = await corridor.connect()
    client.send(raw + b"0\r\n\r\n" + get("/shop/smuggled"))
    answer = await client.answer()
    assert (answer.status, answer.field(b"connection")) == (400, b"close")
    assert msgspec.json.decode(answer.body)["code"] == "BAD_REQUEST"
    await client.lost
    assert client.received == b""
    assert corridor.upstream.sent == []
    assert corridor.records()[0]["mood"] == "refused"


@pytest.mark.parametrize("path", ["/demo/x", "/shop/x"])
@pytest_twisted.ensureDeferred
async def test_a_broken_body_ends_its_connection(corridor: Any, path: str) -> None:
    """And the agent that had begun to get it is told."""
    client = await corridor.connect()
    client.send(get(path, "Transfer-Encoding: chunked", method="POST") + b"3\r\nabcd\r\n")
    client.send(get("/shop/smuggled"))
    assert (await client.answer()).status == 400
    await client.lost
    assert all(exchange.cancelled for _, _, exchange in corridor.upstream.sent)
    assert corridor.orchestrator.in_flight() == 0


# --- persistence


@pytest.mark.parametrize(
    ("request_bytes", "goes_on", "said"),
    [
        (get("/shop/x"), True, None),
        (get("/shop/x", "Connection: close"), False, b"close"),
        (b"GET /shop/x HTTP/1.0\r\nHost: localhost\r\n\r\n", False, b"close"),
        (
            b"GET /shop/x HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
            True,
            b"keep-alive",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_connection_goes_on_where_the_client_wants_it(
    corridor: Any, request_bytes: bytes, goes_on: bool, said: bytes | None
) -> None:
    """And says what it does."""
    corridor.upstream.respond = echoes
    client = await corridor.connect()
    for _ in range(3 if goes_on else 1):
        client.send(request_bytes)
        assert (await client.answer()).field(b"connection") == said
    if not goes_on:
        await client.lost


@pytest_twisted.ensureDeferred
async def test_a_head_that_repeats_is_not_mistaken(corridor: Any) -> None:
    """What is remembered is the whole head: one byte more or less is another request."""
    corridor.tasks.respond = repeats
    corridor.upstream.respond = echoes
    client = await corridor.connect()
    first = post("/demo/x", b"[1]")
    for request, body in [
        (first, b"[1]"),
        (first, b"[1]"),
        (first.replace(b"[1]", b"[2]"), b"[2]"),
        (post("/demo/x", b"[1]", "X: y"), b"[1]"),
        (post("/demo/x", b"[10]"), b"[10]"),
        (first, b"[1]"),
        (get("/shop/a"), b"GET /a HTTP/1.1"),
        (get("/shop/b"), b"GET /b HTTP/1.1"),
        (get("/shop/b"), b"GET /b HTTP/1.1"),
        (first, b"[1]"),
    ]:
        client.send(request)
        assert (await client.answer()).body == body
    client.send(first + first)
    assert [(await client.answer()).body for _ in range(2)] == [b"[1]", b"[1]"]
    ids = [task.task for _, task, _ in corridor.tasks.sent]
    assert len(set(ids)) == len(ids)


# --- 100-continue


@pytest.mark.parametrize("framing", ["Content-Length: 3", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", ["/demo/x", "/shop/x"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_waits_is_told_to_go_on(corridor: Any, path: str, framing: str) -> None:
    """Once its request was admitted, and before the agent answers."""
    client = await corridor.connect()
    client.send(get(path, framing, "Expect: 100-continue", method="POST"))
    assert await client.take(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"[1]" if "Length" in framing else b"3\r\n[1]\r\n0\r\n\r\n")
    sent = corridor.tasks.sent if "demo" in path else corridor.upstream.sent
    await until(lambda: sent and sent[0][2].finished)
    assert sent[0][2].written == b"[1]"
    sent[0][2].say(b"ok")
    assert (await client.answer()).body == b"ok"


@pytest_twisted.ensureDeferred
async def test_a_client_that_waits_is_not_told_to_send_in_vain(corridor: Any) -> None:
    """A refusal is final; a body that is there already needs no leave."""
    client = await corridor.connect()
    client.send(get("/nowhere", "Content-Length: 3", "Expect: 100-continue", method="POST"))
    assert (await client.answer()).status == 404
    corridor.tasks.respond = repeats
    client = await corridor.connect()
    client.send(post("/demo/x", b"[1]", "Expect: 100-continue"))
    assert (await client.answer()).body == b"[1]"


# --- limits


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /" + b"a" * 9000, 414),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (get("/demo", "X: " + "y" * 70_000), 431),
        (get("/demo", "X: " + "y" * 60_000, *["X: y"] * 10_000)[:-4], 431),
        (get("/demo", *["X: y"] * 100), 431),
    ],
    ids=["target without end", "long target", "one long field", "head without end", "many fields"],
)
@pytest_twisted.ensureDeferred
async def test_what_is_too_long_is_refused_by_name(corridor: Any, raw: bytes, status: int) -> None:
    """And the client, which may still be sending, can read why."""
    client = await corridor.connect()
    client.send(raw)
    answer = await client.answer()
    assert answer.status == status
    await client.lost


@pytest_twisted.ensureDeferred
async def test_a_head_up_to_the_limit_is_read(corridor: Any) -> None:
    """64 KiB are enough for anybody."""
    corridor.upstream.respond = echoes
    answer = await corridor.ask(get("/shop/x", "X: " + "y" * 65_000))
    assert answer.status == 200


# --- time


@pytest_twisted.ensureDeferred
async def test_an_idle_connection_is_closed_without_a_word(corridor: Any) -> None:
    """After 75 seconds, counted anew from each answer."""
    corridor.tasks.respond = repeats
    client = await corridor.connect()
    await until(lambda: corridor.factory.connections)
    client.send(post("/demo/x", b"[1]"))
    await client.answer()
    corridor.clock.pump([1.0] * 70)
    client.send(post("/demo/x", b"[1]"))
    await client.answer()
    corridor.clock.pump([1.0] * 76)
    await client.lost
    assert client.received == b""


@pytest_twisted.ensureDeferred
async def test_a_connection_must_be_used_at_all(corridor: Any) -> None:
    """Within 30 seconds."""
    client = await corridor.connect()
    await until(lambda: corridor.factory.connections)
    corridor.clock.pump([1.0] * 29)
    assert client.reason is None
    corridor.clock.pump([1.0] * 2)
    await client.lost
    assert client.received == b""


@pytest_twisted.ensureDeferred
async def test_a_head_must_come_whole_in_time(corridor: Any) -> None:
    """Dripping bytes buy no more of it."""
    client = await corridor.connect()
    await until(lambda: corridor.factory.connections)
    (connection,) = corridor.factory.connections
    for byte in get("/demo", "X: y")[:18]:
        client.send(bytes([byte]))
        before = len(connection._buffer)
        await until(lambda: len(connection._buffer) > before)  # noqa: B023
        corridor.clock.advance(1.0)
    corridor.clock.pump([1.0] * 4)
    answer = await client.answer()
    assert (answer.status, answer.field(b"connection")) == (408, b"close")
    assert corridor.records()[0]["mood"] == "timed-out"
    await client.lost


async def drip(corridor: Any, client: RawClient, size: int, every: float, seconds: float) -> None:
    """Send `size` bytes of a body again and again, and let time pass."""
    (connection,) = corridor.factory.connections
    for _ in range(int(seconds / every)):
        corridor.clock.pump([every / 2] * 2)
        if connection._ending:
            return
        before = connection._call.bytes_in
        client.send(b"x" * size)
        await until(lambda: connection._call.bytes_in == before + size)  # noqa: B023


@pytest.mark.parametrize("path", ["/demo/x", "/shop/x"])
@pytest_twisted.ensureDeferred
async def test_a_body_must_go_on_coming(corridor: Any, path: str) -> None:
    """1 KiB buys a second: a client that drips is 30 seconds late before long, however often."""
    client = await corridor.connect()
    client.send(get(path, "Content-Length: 100000", method="POST"))
    await until(corridor.factory.in_hand)
    await drip(corridor, client, 512, 1.0, 59)
    assert client.received == b""
    await drip(corridor, client, 512, 1.0, 5)
    answer = await client.answer()
    assert (answer.status, answer.field(b"connection")) == (408, b"close")
    assert all(exchange.cancelled for _, _, exchange in corridor.upstream.sent)
    await client.lost


@pytest_twisted.ensureDeferred
async def test_a_slow_body_that_goes_on_coming_is_waited_for(corridor: Any) -> None:
    """At 1 KiB a second for as long as it takes; but what came early is not saved up."""
    client = await corridor.connect()
    client.send(get("/shop/x", "Content-Length: 9000000", method="POST") + b"x" * 500_000)
    await until(lambda: corridor.upstream.sent)
    await until(lambda: len(corridor.upstream.sent[0][2].written) == 500_000)
    await drip(corridor, client, 2048, 2.0, 200)
    assert client.received == b""
    corridor.clock.pump([1.0] * 31)
    assert (await client.answer()).status == 408


@pytest_twisted.ensureDeferred
async def test_requests_leave_no_delayed_calls(corridor: Any) -> None:
    """One for all time-outs, one for the access log, however many requests."""
    corridor.tasks.respond = repeats
    clients = [await corridor.connect() for _ in range(5)]
    for client in clients:
        for _ in range(20):
            client.send(post("/demo/x", b"[1]"))
            await client.answer()
    assert len(corridor.clock.getDelayedCalls()) <= 2
    for client in clients:
        client.transport.loseConnection()
    await until(lambda: not corridor.factory.connections)
    corridor.clock.pump([0.1] * 3)
    assert corridor.clock.getDelayedCalls() == []


# --- slow readers, slow agents


def outlet_bytes(corridor: Any) -> int:
    (connection,) = corridor.factory.connections
    queued: int = connection.outlet.queued
    return queued


async def begin_stream(corridor: Any, client: RawClient) -> FakeExchange:
    client.transport.pauseProducing()
    client.send(get("/shop/stream"))
    await until(lambda: corridor.upstream.sent)
    exchange: FakeExchange = corridor.upstream.sent[-1][2]
    exchange.answer.started(200, (), None)
    return exchange


@pytest_twisted.ensureDeferred
async def test_a_slow_reader_slows_its_agent(corridor: Any) -> None:
    """At most 1 MiB is held for it; nothing is lost or turned round."""
    client = await corridor.connect()
    exchange = await begin_stream(corridor, client)
    sent = b""
    chance = random.Random(1)
    for _ in range(3):
        while not exchange.paused:
            chunk = chance.randbytes(65536)
            sent += chunk
            exchange.answer.data(chunk)
            assert outlet_bytes(corridor) <= 1024 * 1024
        client.transport.resumeProducing()
        await until(lambda: not exchange.paused)
        client.transport.pauseProducing()
    client.transport.resumeProducing()
    exchange.answer.ended()
    answer = await client.answer()
    assert answer.body == sent


@pytest_twisted.ensureDeferred
async def test_what_is_queued_and_what_comes_keep_their_order(corridor: Any) -> None:
    """While a slow client takes some of it."""
    client = await corridor.connect()
    exchange = await begin_stream(corridor, client)
    client.transport.resumeProducing()
    chance = random.Random(5)
    sent = b""
    for _ in range(30):
        chunk = chance.randbytes(700_000)
        sent += chunk
        exchange.answer.data(chunk[:600_000])
        exchange.answer.data(chunk[600_000:])
        await turns(reactor, 1)
    exchange.answer.ended()
    assert (await client.answer()).body == sent


@pytest_twisted.ensureDeferred
async def test_a_reader_that_stops_is_let_go(corridor: Any) -> None:
    """After it took nothing for a while; its agent is told."""
    client = await corridor.connect()
    exchange = await begin_stream(corridor, client)
    while not exchange.paused:
        exchange.answer.data(b"x" * 65536)
    corridor.clock.pump([1.0] * 11)
    await until(lambda: exchange.cancelled)
    assert corridor.orchestrator.in_flight() == 0
    assert corridor.records()[0]["mood"] == "gone"


async def read_slowly(
    corridor: Any, client: RawClient, exchange: FakeExchange, size: int, rounds: int
) -> int:
    """Take so much every 10 seconds, while the agent sends what it may; give what was taken."""
    (connection,) = corridor.factory.connections
    taken = 0
    for _ in range(rounds):
        while not exchange.paused and not exchange.cancelled:
            exchange.answer.data(b"x" * 65536)
        goal = taken + size
        client.transport.resumeProducing()
        await client.until(lambda _: taken + len(client.received) >= goal or connection._ending)  # noqa: B023
        client.transport.pauseProducing()
        taken += len(client.received)
        client.received = b""
        corridor.clock.pump([1.0] * 10)
    return taken


@pytest_twisted.ensureDeferred
async def test_a_slow_reader_that_goes_on_is_waited_for(corridor: Any) -> None:
    """Whatever the kernel holds for it: what counts is what it has taken."""
    client = await corridor.connect()
    exchange = await begin_stream(corridor, client)
    await read_slowly(corridor, client, exchange, 400_000, 12)
    assert not exchange.cancelled


@pytest_twisted.ensureDeferred
async def test_a_reader_that_trickles_is_let_go(corridor: Any) -> None:
    """1 KiB a second is the least, averaged over ten seconds here."""
    client = await corridor.connect()
    client.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    exchange = await begin_stream(corridor, client)
    while not exchange.paused:
        exchange.answer.data(b"x" * 65536)
    for _ in range(8):
        client.transport.socket.setblocking(True)
        client.transport.socket.recv(500)
        client.transport.socket.setblocking(False)
        corridor.clock.pump([1.0] * 5)
        await turns(reactor, 2)
    assert exchange.cancelled
    assert corridor.records()[0]["mood"] == "gone"


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_gets_no_further_answers(corridor: Any) -> None:
    """Requests wait unread behind an answer that is not taken."""
    asked = []

    def respond(head: bytes, exchange: FakeExchange) -> None:
        asked.append(head)
        exchange.say(b"x" * 4_000_000)

    corridor.upstream.respond = respond
    client = await corridor.connect()
    client.transport.pauseProducing()
    client.send(get("/shop/large") * 5)
    await until(lambda: asked)
    await turns(reactor, 20)
    assert len(asked) < 5
    client.transport.resumeProducing()
    for _ in range(5):
        assert len((await client.answer()).body) == 4_000_000


@pytest_twisted.ensureDeferred
async def test_what_comes_behind_a_request_in_hand_stays_with_the_client(corridor: Any) -> None:
    """But for what was read with it; the rest is read once it is answered."""
    client = await corridor.connect()
    count = 50_000
    client.send(get("/shop/slow") + get("/nowhere") * count)
    await until(lambda: corridor.upstream.sent)
    await turns(reactor, 50)
    (connection,) = corridor.factory.connections
    assert len(connection._buffer) <= 256 * 1024
    corridor.upstream.sent[0][2].say(b"slow")
    assert (await client.answer()).body == b"slow"
    client.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_a_slow_agent_slows_its_client(corridor: Any) -> None:
    """The body stays with the client until the agent goes on; then it comes whole."""
    client = await corridor.connect()
    body = random.Random(2).randbytes(20_000_000)
    client.send(get("/shop/up", f"Content-Length: {len(body)}", method="POST"))
    await until(lambda: corridor.upstream.sent)
    exchange = corridor.upstream.sent[0][2]
    exchange.answer.pauseProducing()
    client.send(body)
    await turns(reactor, 20)
    (connection,) = corridor.factory.connections
    assert len(exchange.written) + len(connection._buffer) <= 512 * 1024
    exchange.answer.resumeProducing()
    await until(lambda: exchange.finished)
    assert exchange.written == body
    exchange.say(b"thanks")
    assert (await client.answer()).body == b"thanks"


@pytest_twisted.ensureDeferred
async def test_an_answer_from_an_agent_that_was_slow_frees_the_connection(corridor: Any) -> None:
    """Held back or not, the next request is read once the answer is whole."""
    client = await corridor.connect()
    client.send(get("/shop/up", "Content-Length: 4", method="POST") + b"bo")
    await until(lambda: corridor.upstream.sent)
    exchange = corridor.upstream.sent[0][2]
    client.send(b"dy")
    await until(lambda: exchange.finished)
    exchange.answer.pauseProducing()
    exchange.say(b"thanks")
    assert (await client.answer()).body == b"thanks"
    client.send(get("/nowhere"))
    assert (await client.answer()).status == 404


@implementer(IPullProducer)
class Emptied:
    """Is asked for data when it registers, and again when all before it is out."""

    asked = 0

    def resumeProducing(self) -> None:
        self.asked += 1

    def stopProducing(self) -> None: ...


@pytest_twisted.ensureDeferred
async def test_an_early_answer_ends_the_upload(corridor: Any) -> None:
    """A service may refuse before the body is whole, and the client can read why."""
    corridor.upstream.respond = lambda _, exchange: exchange.say(b"too large", 413)
    client = await corridor.connect()
    client.transport.pauseProducing()
    length = 20_000_000
    client.send(get("/shop/up", f"Content-Length: {length}", method="POST") + b"x" * length)
    sending = Emptied()
    client.transport.registerProducer(sending, False)
    await until(lambda: sending.asked == 2)  # a client that sends before it reads is not reset
    client.transport.unregisterProducer()
    client.transport.resumeProducing()
    answer = await client.answer()
    assert (answer.status, answer.body) == (413, b"too large")
    assert answer.field(b"connection") == b"close"
    await client.lost
    assert corridor.factory.in_hand() == 0


# --- draining


@pytest_twisted.ensureDeferred
async def test_draining_finishes_what_is_in_hand(corridor: Any) -> None:
    """The answer says that it is the last; nothing is cut off."""
    client = await corridor.connect()
    client.send(post("/demo", HELLO))
    await until(lambda: corridor.tasks.sent)
    drained = ensureDeferred(corridor.factory.drain(30))
    assert corridor.factory.in_hand() == 1
    corridor.clock.pump([1.0] * 5)
    assert not drained.called
    corridor.tasks.sent[0][2].say(b"[1]")
    answer = await client.answer()
    assert (answer.body, answer.field(b"connection")) == (b"[1]", b"close")
    assert await drained == 0


@pytest_twisted.ensureDeferred
async def test_a_busy_client_is_not_cut_off_between_two_requests(corridor: Any) -> None:
    """It gets one more answer, and hears that there will be no other."""
    corridor.tasks.respond = repeats
    busy, idle = await corridor.connect(), await corridor.connect()
    busy.send(post("/demo/x", b"[1]"))
    await busy.answer()
    await until(lambda: len(corridor.factory.connections) == 2)
    drained = ensureDeferred(corridor.factory.drain(30))
    corridor.clock.pump([0.1] * 5)
    busy.send(post("/demo/x", b"[2]"))
    answer = await busy.answer()
    assert (answer.body, answer.field(b"connection")) == (b"[2]", b"close")
    await busy.lost
    corridor.clock.pump([0.1] * 8)
    await idle.lost
    assert await drained == 0


@pytest_twisted.ensureDeferred
async def test_draining_ends_when_the_time_is_up(corridor: Any) -> None:
    """What is left is aborted, inside the agent too, and counted."""
    client = await corridor.connect()
    client.send(post("/demo", HELLO))
    await until(lambda: corridor.tasks.sent)
    drained = ensureDeferred(corridor.factory.drain(5))
    corridor.clock.pump([0.5] * 10)
    assert await drained == 1
    await client.lost
    await until(lambda: corridor.tasks.sent[0][2].cancelled)
    assert corridor.factory.in_hand() == 0


@pytest_twisted.ensureDeferred
async def test_draining_nothing_is_done_at_once(corridor: Any) -> None:
    """No connection, no wait."""
    assert await corridor.factory.drain(30) == 0
