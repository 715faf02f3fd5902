"""Connections to agents: kept, replaced when stale, and never trusted further than they go."""

from __future__ import annotations

import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ploinky.errors import AgentBroken, AgentUnreachable
from ploinky.interfaces import IExchange, IMovable, IUpstream
from ploinky.routing.upstream import Upstream
from ploinky.routing.wheel import Wheel
from ploinky.sockets import SocketPaths
from ploinky.testing.routing import FakeUpstream, RawClient, RawServer, settled, turns
from ploinky.testing.tasks import RecordedAnswer
from ploinky.values import Address

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def until(is_so: Callable[[], Any]) -> Awaitable[None]:
    return settled(reactor, is_so)


class Agents:
    """One upstream, and a server on a Unix socket and one on TCP for a test to play."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.paths = SocketPaths(str(directory))
        self.wheel = Wheel(reactor, tick_seconds=0.02)
        self.upstream = Upstream(reactor, self.wheel, self.paths)
        self.server = RawServer(reactor)
        path = directory / "agent.sock"
        self.ports = [
            reactor.listenUNIX(str(path), self.server),
            reactor.listenTCP(0, self.server, interface="127.0.0.1"),
        ]
        self.unix = Address(path=str(path))
        self.tcp = Address(host="127.0.0.1", port=self.ports[1].getHost().port)

    @property
    def accepted(self) -> list[RawClient]:
        return self.server.accepted

    def ask(
        self, head: bytes = GET, body: bytes | None = b"", to: Address | None = None
    ) -> tuple[IExchange, RecordedAnswer]:
        answer = RecordedAnswer()
        return self.upstream.exchange(to or self.unix, head, body, answer), answer

    async def connected(self, number: int = 1) -> RawClient:
        await until(lambda: len(self.accepted) >= number)
        return self.accepted[number - 1]

    async def begin(
        self, head: bytes = GET, body: bytes | None = b"", to: Address | None = None
    ) -> tuple[IExchange, RecordedAnswer, RawClient]:
        exchange, answer = self.ask(head, body, to)
        agent = await self.connected()
        await agent.take(b"\r\n\r\n" + (body or b""))
        return exchange, answer, agent

    async def warm(self, to: Address | None = None) -> RawClient:
        """Give the agent's end of a connection that has carried a request."""
        _, answer, agent = await self.begin(to=to)
        agent.send(OK)
        assert (await answer.whole).body == b"ok"
        return agent

    async def close(self) -> None:
        self.upstream.close()
        for port in self.ports:
            await port.stopListening()
        for agent in self.accepted:
            agent.transport.abortConnection()
            if agent.reason is None:
                await agent.lost
        self.paths.close()


@pytest.fixture
def agents(short_directory: Path) -> Iterator[Agents]:
    agents = Agents(short_directory)
    yield agents
    pytest_twisted.blockon(ensureDeferred(agents.close()))


def test_it_keeps_its_interface(agents: Agents) -> None:
    """And so does the fake."""
    verifyObject(IUpstream, agents.upstream)
    verifyObject(IUpstream, FakeUpstream())
    exchange, _ = agents.ask()
    verifyObject(IExchange, exchange)
    exchange.cancel()


@pytest.mark.parametrize("wire", ["unix", "tcp"])
@pytest_twisted.ensureDeferred
async def test_a_connection_carries_one_request_after_the_other(agents: Agents, wire: str) -> None:
    """Exactly the bytes that were given, and the answer's head and body."""
    for number in range(3):
        _, answer = agents.ask(POST, b"body", getattr(agents, wire))
        agent = await agents.connected()
        assert await agent.take(b"body") == POST + b"body"
        agent.send(b"HTTP/1.1 201 Made\r\nContent-Length: 1\r\nX-A: b\r\n\r\n%d" % number)
        await answer.whole
        assert (answer.status, answer.fields, answer.length) == (201, [(b"X-A", b"b")], 1)
        assert answer.body == b"%d" % number
    assert len(agents.accepted) == 1


@pytest_twisted.ensureDeferred
async def test_requests_at_once_have_a_connection_each(agents: Agents) -> None:
    """And what came back is used again, the latest first."""
    answers = [agents.ask()[1] for _ in range(3)]
    await agents.connected(3)
    for agent in agents.accepted:
        agent.send(OK)
    for answer in answers:
        await answer.whole
    agents.ask()
    await until(lambda: any(agent.received.count(b"GET") == 2 for agent in agents.accepted))
    assert len(agents.accepted) == 3


ANSWERS = {
    "a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", 5, True),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"hello",
        None,
        True,
    ),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", None, True),
    "an interim answer first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK,
        b"ok",
        2,
        True,
    ),
    "Connection: close": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"ok",
        2,
        False,
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", 2, False),
    "HTTP/1.0 with keep-alive": (
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        b"ok",
        2,
        True,
    ),
    "more than was asked for": (OK + b"HTTP/1.1 200 OK\r\n", b"ok", 2, False),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest_twisted.ensureDeferred
async def test_answers_end_where_they_say(agents: Agents, name: str) -> None:
    """Whole or byte by byte; a connection goes on only where that is certain."""
    raw, body, length, kept = ANSWERS[name]
    _, answer, agent = await agents.begin()
    if name == "more than was asked for":
        agent.send(raw)
    else:
        for at in range(len(raw)):
            agent.transport.socket.send(raw[at : at + 1])
            await turns(reactor, 1)
    await answer.whole
    assert (answer.error, answer.body, answer.length) == (None, body, length)
    _, again = agents.ask()
    await until(lambda: b"GET" in agents.accepted[-1].received)
    assert len(agents.accepted) == (1 if kept else 2)
    agents.accepted[-1].send(OK)
    assert (await again.whole).body == b"ok"


@pytest_twisted.ensureDeferred
async def test_a_body_may_end_with_its_connection(agents: Agents) -> None:
    """Where the head names neither length nor chunks."""
    _, answer, agent = await agents.begin()
    agent.send(b"HTTP/1.1 200 OK\r\n\r\nsome")
    await until(lambda: answer.body)
    agent.send(b"thing")
    agent.transport.loseConnection()
    await answer.whole
    assert (answer.error, answer.body, answer.length) == (None, b"something", None)


@pytest_twisted.ensureDeferred
async def test_an_answer_to_head_has_no_body(agents: Agents) -> None:
    """Whatever length it names; the connection goes on."""
    for _ in range(2):
        _, answer = agents.ask(GET.replace(b"GET", b"HEAD"))
        agent = await agents.connected()
        await agent.take(b"\r\n\r\n")
        agent.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await answer.whole
        assert (answer.length, answer.body) == (5, b"")
    assert len(agents.accepted) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"\0HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"junk\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 101 Up\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_agent_that_does_not_speak_http_is_broken(agents: Agents, raw: bytes) -> None:
    """Its connection is closed."""
    _, answer, agent = await agents.begin()
    agent.send(raw)
    await answer.whole
    assert isinstance(answer.error, AgentBroken)
    await until(lambda: agent.reason)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nConte",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
    ],
)
@pytest_twisted.ensureDeferred
async def test_half_an_answer_is_none(agents: Agents, raw: bytes) -> None:
    """It fails as broken, on a reused connection as on a new one, and is not asked for again."""
    agent = await agents.warm()
    _, answer = agents.ask()
    await agent.take(b"\r\n\r\n")
    agent.send(raw)
    agent.transport.loseConnection()
    await answer.whole
    assert isinstance(answer.error, AgentBroken)
    assert len(agents.accepted) == 1


@pytest_twisted.ensureDeferred
async def test_how_far_one_head_was_read_says_nothing_of_the_next(agents: Agents) -> None:
    """A head that came in two reads and was known; then a short interim one."""
    agent = await agents.warm()
    _, answer = agents.ask()
    await agent.take(b"\r\n\r\n")
    agent.send(OK[:-8])
    await turns(reactor)
    agent.send(OK[-8:])
    assert (await answer.whole).body == b"ok"
    _, answer = agents.ask()
    await agent.take(b"\r\n\r\n")
    agent.send(b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK)
    whole = await answer.whole
    assert (whole.status, whole.fields, whole.body) == (200, [], b"ok")


@pytest_twisted.ensureDeferred
async def test_interim_answers_are_counted_for_each_answer(agents: Agents) -> None:
    """A connection that is kept may carry any number of them, but not before one answer."""
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    for _ in range(5):
        _, answer = agents.ask()
        agent = await agents.connected()
        await agent.take(b"\r\n\r\n")
        agent.send(hints * 10 + OK)
        assert (await answer.whole).body == b"ok"
    assert len(agents.accepted) == 1
    _, answer = agents.ask()
    await agent.take(b"\r\n\r\n")
    agent.send(hints * 17)
    await answer.whole
    assert isinstance(answer.error, AgentBroken)


# --- no connection


@pytest_twisted.ensureDeferred
async def test_no_agent_is_unreachable(agents: Agents, short_directory: Path) -> None:
    """Absent or refusing, over both families; the message says why and names no path."""
    (short_directory / "file").write_text("")
    with socket.socket() as silent:  # it does not listen, and nobody else gets its port
        silent.bind(("127.0.0.1", 0))
        for address in (
            Address(path=str(short_directory / "absent")),
            Address(path=str(short_directory / "file")),
            Address("", *silent.getsockname()),
            Address(path="/" + "x" * 200),
        ):
            _, answer = agents.ask(to=address)
            await answer.whole
            assert isinstance(answer.error, AgentUnreachable)
            assert answer.error.got_nothing
            assert str(short_directory) not in answer.error.message


def test_a_connection_is_waited_for_only_so_long(short_directory: Path) -> None:
    """Over both families."""
    memory = MemoryReactorClock()
    paths = SocketPaths(str(short_directory))
    upstream = Upstream(memory, Wheel(memory), paths, connect_seconds=3.0)
    upstream.exchange(Address(path="/a"), GET, b"", RecordedAnswer())
    assert memory.unixClients[0][2] == 3.0
    upstream.exchange(Address(host="127.0.0.1", port=1), GET, b"", RecordedAnswer())
    assert memory.tcpClients[0][3] == 3.0
    paths.close()


@implementer(IMovable)
class OfSeveral(RecordedAnswer):
    """An answer that any of so many instances may give."""

    def __init__(self, candidates: int) -> None:
        super().__init__()
        self.candidates = candidates


def test_each_of_several_instances_has_its_share_of_the_time(short_directory: Path) -> None:
    """One that lets connections wait must leave time for the others; but never none to itself."""
    memory = MemoryReactorClock()
    paths = SocketPaths(str(short_directory))
    upstream = Upstream(memory, Wheel(memory), paths, connect_seconds=3.0)
    for candidates in (1, 2, 1000):
        upstream.exchange(Address(path="/a"), GET, b"", OfSeveral(candidates))
    assert [client[2] for client in memory.unixClients] == [3.0, 1.5, pytest.approx(0.3)]
    paths.close()


@pytest_twisted.ensureDeferred
async def test_a_socket_may_lie_deep(agents: Agents, short_directory: Path) -> None:
    """Deeper than the kernel's 107 bytes."""
    deep = short_directory / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    paths = SocketPaths(str(deep))
    agents.upstream = Upstream(reactor, agents.wheel, paths)
    path = str(deep / "agent.sock")
    port = reactor.listenUNIX(paths.usable(path), agents.server)
    _, answer = agents.ask(to=Address(path=path))
    (await agents.connected()).send(OK)
    assert (await answer.whole).body == b"ok"
    await port.stopListening()
    paths.close()


@pytest_twisted.ensureDeferred
async def test_an_agent_that_hangs_up_on_a_new_connection_is_unreachable(agents: Agents) -> None:
    """It may have acted on the request, which is therefore not repeated."""
    _, answer, agent = await agents.begin()
    agent.transport.loseConnection()
    await answer.whole
    assert isinstance(answer.error, AgentUnreachable)
    assert not answer.error.got_nothing
    assert len(agents.accepted) == 1


# --- stale connections


@pytest.mark.parametrize("wire", ["unix", "tcp"])
@pytest_twisted.ensureDeferred
async def test_a_connection_that_closed_while_idle_is_not_used(agents: Agents, wire: str) -> None:
    """It is gone before anybody asks."""
    agent = await agents.warm(getattr(agents, wire))
    agent.transport.loseConnection()
    await until(lambda: not agents.upstream._pools)
    _, answer = agents.ask(POST, b"body", getattr(agents, wire))
    second = await agents.connected(2)
    await second.take(b"body")
    second.send(OK)
    assert (await answer.whole).body == b"ok"


@pytest.mark.parametrize("wire", ["unix", "tcp"])
@pytest.mark.parametrize(("head", "body"), [(GET, b""), (POST, b"body")])
@pytest_twisted.ensureDeferred
async def test_a_stale_connection_is_replaced(
    agents: Agents, wire: str, head: bytes, body: bytes
) -> None:
    """Closed by the agent at the moment of the request: the request is sent once more."""
    address = getattr(agents, wire)
    agent = await agents.warm(address)
    agent.transport.stopReading()
    agent.transport.socket.shutdown(2)  # the kernel knows, our side has not looked yet
    _, answer = agents.ask(head, body, address)
    second = await agents.connected(2)
    assert await second.take(head + body) == head + body
    second.send(OK)
    assert (await answer.whole).body == b"ok"


@pytest.mark.parametrize("wire", ["unix", "tcp"])
@pytest_twisted.ensureDeferred
async def test_a_request_that_an_agent_left_unread_is_repeated(agents: Agents, wire: str) -> None:
    """The kernel tells: it was closed with the request still in it."""
    agent = await agents.warm(getattr(agents, wire))
    agent.transport.stopReading()
    _, answer = agents.ask(POST, b"body", getattr(agents, wire))
    agent.transport.loseConnection()
    second = await agents.connected(2)
    assert await second.take(b"body") == POST + b"body"
    second.send(OK)
    assert (await answer.whole).body == b"ok"


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
@pytest_twisted.ensureDeferred
async def test_an_idempotent_request_is_repeated_once(agents: Agents, method: bytes) -> None:
    """On a reused connection that closed without a byte; a second failure is final."""
    agent = await agents.warm()
    _, answer = agents.ask(GET.replace(b"GET", method))
    await agent.take(b"\r\n\r\n")
    agent.transport.loseConnection()
    second = await agents.connected(2)
    await second.take(b"\r\n\r\n")
    second.transport.loseConnection()
    await answer.whole
    assert isinstance(answer.error, AgentUnreachable)
    assert not answer.error.got_nothing
    assert len(agents.accepted) == 2


@pytest.mark.parametrize("wire", ["unix", "tcp"])
@pytest.mark.parametrize("body", [b"body", b"body" + b"y" * 60_000], ids=["all", "some"])
@pytest_twisted.ensureDeferred
async def test_a_task_that_an_agent_read_is_never_run_twice(
    agents: Agents, wire: str, body: bytes
) -> None:
    """An agent that dies over a POST may have acted on it: nothing is repeated."""
    agent = await agents.warm(getattr(agents, wire))
    if len(body) > 4:
        agent.transport.stopReading()
    _, answer = agents.ask(POST, body, getattr(agents, wire))
    if len(body) > 4:
        assert agent.transport.socket.recv(100).startswith(b"POST ")
    else:
        await agent.take(b"body")
    agent.transport.loseConnection()
    await answer.whole
    assert isinstance(answer.error, AgentUnreachable)
    assert not answer.error.got_nothing
    assert len(agents.accepted) == 1


@pytest_twisted.ensureDeferred
async def test_a_streamed_request_is_never_repeated(agents: Agents) -> None:
    """Its body is not at hand any more."""
    agent = await agents.warm()
    exchange, answer = agents.ask(POST, None)
    exchange.write(b"bo")
    await agent.take(b"bo")
    agent.transport.loseConnection()
    await answer.whole
    assert isinstance(answer.error, AgentUnreachable)
    assert not answer.error.got_nothing
    assert len(agents.accepted) == 1


@pytest_twisted.ensureDeferred
async def test_what_an_idle_agent_says_answers_nobody(agents: Agents) -> None:
    """An answer that nobody asked for must not become the next request's."""
    agent = await agents.warm()
    agent.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    await until(lambda: agent.reason)
    _, answer = agents.ask()
    (await agents.connected(2)).send(OK)
    assert (await answer.whole).body == b"ok"


@pytest_twisted.ensureDeferred
async def test_idle_connections_end(agents: Agents) -> None:
    """After their time."""
    agents.upstream = Upstream(reactor, agents.wheel, agents.paths, idle_seconds=0.05)
    agent = await agents.warm()
    await until(lambda: agent.reason)
    assert agents.upstream._pools == {}


@pytest_twisted.ensureDeferred
async def test_closing_ends_idle_connections_and_lets_the_others_finish(agents: Agents) -> None:
    """Nobody loses an answer."""
    _, answer, busy = await agents.begin()
    agents.ask()
    idle = await agents.connected(2)
    idle.send(OK)
    await until(lambda: agents.upstream._pools[agents.unix].idle)
    agents.upstream.close()
    await until(lambda: idle.reason)
    busy.send(OK)
    assert (await answer.whole).body == b"ok"
    await until(lambda: busy.reason)


# --- cancel, stream, pause


@pytest_twisted.ensureDeferred
async def test_cancelling_closes_the_connection(agents: Agents) -> None:
    """That is how an agent learns of it; the answer hears no more."""
    exchange, answer, agent = await agents.begin()
    agent.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
    await until(lambda: answer.body)
    exchange.cancel()
    await until(lambda: agent.reason)
    exchange.cancel()
    assert not answer.whole.called


@pytest_twisted.ensureDeferred
async def test_cancelling_before_there_is_a_connection(agents: Agents) -> None:
    """Nothing is sent, and nobody is told."""
    exchange, answer = agents.ask(to=agents.tcp)
    exchange.cancel()
    _, other, agent = await agents.begin()
    agent.send(OK)
    await other.whole
    assert not answer.whole.called
    assert all(agent.received == b"" for agent in agents.accepted)


@pytest.mark.parametrize("chunked", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_body_is_sent_as_it_comes(agents: Agents, chunked: bool) -> None:
    """Also what came before there was a connection; framed as the head says."""
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 6"
    head = b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n"
    exchange, answer = agents.ask(head, None)
    exchange.write(b"ab")
    agent = await agents.connected()
    await agent.take(b"ab\r\n" if chunked else b"ab")
    exchange.write(b"")
    exchange.write(b"cdef")
    exchange.finish()
    assert await agent.take(b"0\r\n\r\n" if chunked else b"cdef") == (
        b"4\r\ncdef\r\n0\r\n\r\n" if chunked else b"cdef"
    )
    agent.send(OK)
    assert (await answer.whole).body == b"ok"
    assert agents.upstream._pools[agents.unix].idle


@pytest_twisted.ensureDeferred
async def test_an_answer_before_the_body_is_whole_is_an_answer(agents: Agents) -> None:
    """The connection cannot go on."""
    exchange, answer, agent = await agents.begin(POST, None)
    agent.send(OK)
    assert (await answer.whole).body == b"ok"
    exchange.write(b"late")
    exchange.finish()
    await until(lambda: agent.reason)


@pytest_twisted.ensureDeferred
async def test_an_answer_to_a_body_that_is_still_on_its_way_is_an_answer(agents: Agents) -> None:
    """What is left of the body must not be taken for the next request."""
    body = b"x" * 8_000_000
    head = POST.replace(b"4", b"%d" % len(body))
    _, answer = agents.ask(head, body)
    agent = await agents.connected()
    agent.transport.pauseProducing()
    agent.send(OK)
    assert (await answer.whole).body == b"ok"
    agents.ask()
    second = await agents.connected(2)
    assert await second.take(b"\r\n\r\n") == GET


@pytest_twisted.ensureDeferred
async def test_pausing_before_there_is_a_connection(agents: Agents) -> None:
    """Counts for the connection that is made."""
    exchange, answer = agents.ask(to=agents.tcp)
    exchange.pause()
    agent = await agents.connected()
    await agent.take(b"\r\n\r\n")
    agent.send(OK)
    await turns(reactor)
    assert answer.status is None
    exchange.resume()
    assert (await answer.whole).body == b"ok"


class Hesitant(RecordedAnswer):
    """An answer that wants no more after each piece."""

    exchange: IExchange

    def data(self, chunk: bytes) -> None:
        super().data(chunk)
        self.exchange.pause()


@pytest_twisted.ensureDeferred
async def test_a_connection_that_was_paused_to_the_end_reads_again(agents: Agents) -> None:
    """For the next request, and for the agent's farewell."""
    for _ in range(2):
        answer = Hesitant()
        answer.exchange = agents.upstream.exchange(agents.unix, GET, b"", answer)
        agent = await agents.connected()
        await agent.take(b"\r\n\r\n")
        agent.send(OK)
        await until(lambda: answer.whole.called)  # noqa: B023
    agent.transport.loseConnection()
    await until(lambda: not agents.upstream._pools)
    assert len(agents.accepted) == 1


@implementer(IPushProducer)
class Source(RecordedAnswer):
    """An answer that stands for its request's body, too."""

    held = False

    def pauseProducing(self) -> None:
        self.held = True

    def resumeProducing(self) -> None:
        self.held = False

    def stopProducing(self) -> None: ...


@pytest.mark.parametrize("wire", ["unix", "tcp"])
@pytest_twisted.ensureDeferred
async def test_a_slow_agent_holds_the_body_back(agents: Agents, wire: str) -> None:
    """From a connection that is not there yet as from one that is full; nothing is lost."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n"
    answer = Source()
    exchange = agents.upstream.exchange(getattr(agents, wire), head, None, answer)
    body = random.Random(3).randbytes(8_000_000)
    held = 0
    for at in range(0, len(body), 50_000):
        exchange.write(body[at : at + 50_000])
        held += answer.held
        await until(lambda: not answer.held)
    exchange.finish()
    agent = await agents.connected()
    await agent.take(b"\r\n\r\n")
    await agent.until(lambda received: len(received) == len(body))
    assert agent.received == body
    assert held > 0


@pytest_twisted.ensureDeferred
async def test_a_paused_answer_stays_with_its_agent(agents: Agents) -> None:
    """And comes whole when it goes on; the connection reads again afterwards."""
    exchange, answer, agent = await agents.begin()
    body = random.Random(4).randbytes(8_000_000)
    exchange.pause()
    agent.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n" + body)
    await turns(reactor, 10)
    assert answer.status is None
    exchange.resume()
    await until(lambda: answer.body)
    exchange.pause()
    so_far = len(answer.body)
    await turns(reactor, 10)
    assert len(answer.body) == so_far
    exchange.resume()
    assert (await answer.whole).body == body
    _, again = agents.ask()
    await agent.take(b"\r\n\r\n")
    agent.send(OK)
    assert (await again.whole).body == b"ok"
