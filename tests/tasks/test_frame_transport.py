"""Tasks as frames: what goes out when, and what comes of what an agent says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack, unpack_from
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ploinky.errors import AgentBroken, AgentUnreachable
from ploinky.interfaces import IOutlet
from ploinky.routing.streams import Outlet
from ploinky.sockets import SocketPaths
from ploinky.tasks.frame_transport import FrameTransport
from ploinky.tasks.frames import PREFACE, WINDOW
from ploinky.testing.tasks import HeldLease, RecordedAnswer, ScriptedTransport, a_call
from ploinky.values import Address, Target, Wire

OPEN, CANCEL, CREDIT = 1, 2, 3
HELLO, RESULT, ERROR, BEGIN, DATA, END, FAIL, GOAWAY = range(16, 24)
LEASE = HeldLease(Target("one", Address(path="/run/one/agent.sock"), Wire.FRAMES))
JSON_BEGINS = pack(">BQ", 0, 0)


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    return pack(">IIB", len(payload), number, kind) + payload


@implementer(IOutlet)
class DirectOutlet:
    """Writes to its transport, or fails to."""

    def __init__(self, transport: Any, moved: Callable[[], None]) -> None:
        self._transport = transport
        self.queued = 0
        self.broken = False

    def send(self, data: bytes) -> None:
        if self._transport.gone:
            self.broken = True
            self.queued += len(data)
        else:
            self._transport.write(data)
            self._transport.sends.append(data)


class Connection(StringTransport):
    """One connection as its agent sees it."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.gone = False
        self.sends: list[bytes] = []
        protocol.makeConnection(self)

    def say(self, *frames: bytes) -> None:
        """Send as an agent would."""
        self.protocol.dataReceived(b"".join(frames))

    def greet(self) -> None:
        self.say(PREFACE, frame(HELLO, 0, pack(">I", 65536)))

    def heard(self) -> list[tuple[int, int, bytes]]:
        """Take the frames that came since the last call."""
        data = self.value().removeprefix(PREFACE)
        self.clear()
        found = []
        while data:
            length, number, kind = unpack_from(">IIB", data)
            found.append((kind, number, data[9 : 9 + length]))
            data = data[9 + length :]
        return found

    def lose(self, reason: Exception | None = None) -> None:
        self.protocol.connectionLost(Failure(reason or ConnectionDone()))


def attached(transport: Any, received: Any, moved: Any) -> DirectOutlet:
    """Leave the transport's own way of reading, which a fake one has not."""
    return DirectOutlet(transport, moved)


class Wires:
    """A transport, and the agent at the other end."""

    def __init__(self, paths: SocketPaths) -> None:
        self.reactor = MemoryReactorClock()
        self.large = ScriptedTransport({"hello": lambda call, *params: len(params[0])})
        self.transport = FrameTransport(self.reactor, paths, attached, self.large)

    def send(self, command: str = "hello", **given: Any) -> tuple[Any, RecordedAnswer]:
        answer = RecordedAnswer()
        return self.transport.send(LEASE, a_call(command, "World", **given), answer), answer

    @property
    def attempts(self) -> int:
        return len(self.reactor.unixClients)

    def connect(self) -> Connection:
        """Accept the last connection."""
        path, factory, *_ = self.reactor.unixClients[-1]
        assert path == "/run/one/agent.sock"
        return Connection(factory.buildProtocol(None))

    def accept(self) -> Connection:
        """Accept it and greet."""
        connection = self.connect()
        connection.greet()
        return connection

    def turn(self) -> None:
        self.reactor.advance(0)


@pytest.fixture
def wires(tmp_path: Path) -> Iterator[Wires]:
    paths = SocketPaths(str(tmp_path))
    yield Wires(paths)
    paths.close()


def in_hand(wires: Wires, number: int = 1, **given: Any) -> tuple[Connection, list[Any]]:
    """Give a connection with so many tasks sent, and their exchanges and answers."""
    sent = [wires.send(**given) for _ in range(number)]
    connection = wires.accept()
    assert [kind for kind, _, _ in connection.heard()] == [OPEN] * number
    return connection, sent


def test_the_gateways_outlet_is_what_it_takes() -> None:
    """Both keep the interface between them."""
    connection = StringTransport()
    for outlet in (Outlet(connection, print, list), DirectOutlet(connection, list)):
        assert verifyObject(IOutlet, outlet)


def test_many_tasks_share_one_connection(wires: Wires) -> None:
    """Nothing is sent before the agent has said that it speaks frames; then all at once."""
    answers = [wires.send()[1] for _ in range(3)]
    assert wires.attempts == 1
    connection = wires.connect()
    assert connection.value() == PREFACE
    connection.greet()
    assert [(kind, number) for kind, number, _ in connection.heard()] == [
        (OPEN, 1),
        (OPEN, 2),
        (OPEN, 3),
    ]
    connection.say(frame(RESULT, 2, b'"b"'), frame(RESULT, 1, b'"a"'), frame(RESULT, 3, b'"c"'))
    assert [answer.json() for answer in answers] == ["a", "b", "c"]
    wires.send()
    assert wires.attempts == 1
    assert connection.heard()[0][:2] == (OPEN, 4)


def test_tasks_of_one_turn_leave_in_one_send(wires: Wires) -> None:
    """The first alone leaves at once."""
    connection, _ = in_hand(wires)
    connection.say(frame(RESULT, 1, b"1"))
    connection.sends.clear()
    wires.send()
    assert len(connection.sends) == 1
    for _ in range(5):
        wires.send()
    assert len(connection.sends) == 1
    wires.turn()
    assert len(connection.sends) == 2
    assert len(connection.heard()) == 6


def test_a_result_is_passed_on_as_it_came(wires: Wires) -> None:
    """With the fields that HTTP would have brought."""
    connection, [(_, answer)] = in_hand(wires)
    connection.say(frame(RESULT, 1, b'{"a":\t1}'))
    assert (answer.status, answer.length, answer.body) == (200, 8, b'{"a":\t1}')
    assert answer.fields == [
        (b"Content-Type", b"application/json"),
        (b"X-Ploinky-Command", b"hello"),
    ]


def test_an_error_is_passed_on(wires: Wires) -> None:
    """With its status; one that may be tried again says when."""
    connection, [(_, no), (_, later)] = in_hand(wires, 2)
    connection.say(frame(ERROR, 1, pack(">H", 404) + b'{"error":true}'))
    connection.say(frame(ERROR, 2, pack(">H", 503) + b"{}"))
    assert (no.status, no.body, no.field(b"retry-after")) == (404, b'{"error":true}', None)
    assert (later.status, later.field(b"retry-after")) == (503, b"1")


def test_pieces_are_passed_on_as_they_come(wires: Wires) -> None:
    """Of an answer whose length is known, and of one whose length is not."""
    connection, [(_, known), (_, unknown)] = in_hand(wires, 2)
    connection.say(frame(BEGIN, 1, pack(">BQ", 0, 4)), frame(DATA, 1, b"[1"))
    connection.say(frame(BEGIN, 2, JSON_BEGINS), frame(DATA, 2, b"[2"), frame(DATA, 2, b"]"))
    assert (known.length, known.body) == (4, b"[1")
    assert (unknown.length, unknown.body) == (None, b"[2]")
    assert not unknown.whole.called
    connection.say(frame(END, 2), frame(DATA, 1, b" ]"), frame(END, 1))
    assert (known.json(), unknown.json()) == ([1], [2])


def test_events_are_events(wires: Wires) -> None:
    """For a caller that reads them."""
    connection, [(_, answer)] = in_hand(wires, to_events=True)
    connection.say(frame(BEGIN, 1, pack(">BQ", 1, 0)), frame(DATA, 1, b"data: 1\n\n"))
    assert answer.field(b"content-type") == b"text/event-stream"
    assert answer.body == b"data: 1\n\n"


def test_an_answer_that_cannot_be_finished_is_none(wires: Wires) -> None:
    """FAIL, and an end before the announced length; the connection goes on."""
    connection, [(_, failed), (_, short), (_, other)] = in_hand(wires, 3)
    connection.say(frame(BEGIN, 1, JSON_BEGINS), frame(DATA, 1, b"[1"), frame(FAIL, 1))
    connection.say(frame(BEGIN, 2, pack(">BQ", 0, 4)), frame(DATA, 2, b"[1"), frame(END, 2))
    assert isinstance(failed.error, AgentBroken)
    assert isinstance(short.error, AgentBroken)
    connection.say(frame(RESULT, 3, b"3"))
    assert other.json() == 3


@pytest.mark.parametrize(
    "said",
    [
        frame(RESULT, 9, b"1"),
        frame(RESULT, 1, b""),
        frame(RESULT, 0, b"1"),
        frame(ERROR, 1, pack(">H", 200) + b"{}"),
        frame(ERROR, 1, pack(">H", 600) + b"{}"),
        frame(ERROR, 1, pack(">H", 404)),
        frame(BEGIN, 1, b"\0"),
        frame(BEGIN, 1, pack(">BQ", 2, 0)),
        frame(BEGIN, 1, pack(">BQ", 1, 0)),
        frame(BEGIN, 1, JSON_BEGINS) * 2,
        frame(BEGIN, 1, JSON_BEGINS) + frame(RESULT, 1, b"1"),
        frame(BEGIN, 1, JSON_BEGINS) + frame(ERROR, 1, pack(">H", 404) + b"{}"),
        frame(BEGIN, 1, JSON_BEGINS) + frame(END, 1, b"x"),
        frame(BEGIN, 1, pack(">BQ", 0, 1)) + frame(DATA, 1, b"ab"),
        frame(DATA, 1, b"x"),
        frame(END, 1),
        frame(FAIL, 1),
        frame(HELLO, 0, pack(">I", 65536)),
        frame(GOAWAY, 1),
        frame(OPEN, 1),
        frame(99, 1),
        pack(">IIB", 2**31, 1, RESULT),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_what_an_agent_may_not_say_costs_it_the_connection(wires: Wires, said: bytes) -> None:
    """All that it had in hand fails, whoever was meant; the next task has a new connection."""
    connection, [(_, meant), (_, other)] = in_hand(wires, 2)
    connection.say(said)
    connection.say(frame(RESULT, 2, b"2"))
    assert isinstance(meant.error, AgentBroken)
    assert isinstance(other.error, AgentBroken)
    assert connection.disconnected
    connection.lose()
    wires.send()
    assert wires.attempts == 2


def test_an_agent_cannot_send_more_than_it_may(wires: Wires) -> None:
    """So it cannot fill this server's memory for a caller that does not read."""
    connection, [(exchange, answer)] = in_hand(wires)
    exchange.pause()
    connection.say(frame(BEGIN, 1, JSON_BEGINS), *[frame(DATA, 1, b"x" * 65536)] * 4)
    assert answer.error is None
    connection.say(frame(DATA, 1, b"x"))
    assert isinstance(answer.error, AgentBroken)


def test_what_was_sent_is_never_sent_again(wires: Wires) -> None:
    """An agent that went away may have acted on it."""
    connection, [(_, sent), (_, begun)] = in_hand(wires, 2)
    connection.say(frame(BEGIN, 2, JSON_BEGINS))
    connection.lose(ConnectionLost())
    assert isinstance(sent.error, AgentUnreachable)
    assert not sent.error.got_nothing
    assert isinstance(begun.error, AgentBroken)
    assert wires.attempts == 1


def test_what_was_not_sent_is_sent_on_a_new_connection(wires: Wires) -> None:
    """Once: an agent that never greets is not reached."""
    _, answer = wires.send()
    wires.connect().lose()
    assert wires.attempts == 2
    connection = wires.accept()
    assert connection.heard()[0][0] == OPEN
    connection.say(frame(RESULT, 1, b"1"))
    assert answer.json() == 1


def test_it_is_not_tried_for_ever(wires: Wires) -> None:
    """Two connections that are lost before they greet are enough."""
    _, answer = wires.send()
    wires.connect().lose()
    wires.connect().lose()
    assert isinstance(answer.error, AgentUnreachable)
    assert answer.error.got_nothing
    assert wires.attempts == 2


def test_what_the_kernel_did_not_take_was_not_sent(wires: Wires) -> None:
    """The agent had gone, and nobody had told this server yet."""
    connection, [(_, first)] = in_hand(wires)
    connection.say(frame(RESULT, 1, b"1"))
    connection.gone = True
    _, answer = wires.send()
    _, behind = wires.send()
    assert wires.attempts == 2
    connection.lose()
    again = wires.accept()
    assert sorted(number for kind, number, _ in again.heard() if kind == OPEN) == [1, 2]
    again.say(frame(RESULT, 1, b"1"), frame(RESULT, 2, b"2"))
    assert {answer.json(), behind.json(), first.json()} == {1, 2}


def test_an_agent_that_does_not_greet_is_not_reached(wires: Wires) -> None:
    """It is waited for only so long."""
    _, answer = wires.send()
    connection = wires.connect()
    wires.reactor.advance(4.9)
    assert not answer.whole.called
    wires.reactor.advance(0.2)
    assert isinstance(answer.error, AgentUnreachable)
    assert answer.error.got_nothing
    assert connection.disconnected


def test_no_agent_is_unreachable(wires: Wires) -> None:
    """Nobody listens on its socket."""
    _, answer = wires.send()
    _, factory, *_ = wires.reactor.unixClients[-1]
    factory.clientConnectionFailed(None, Failure(ConnectionRefusedError("refused")))
    assert isinstance(answer.error, AgentUnreachable)
    assert answer.error.got_nothing
    wires.send()
    assert wires.attempts == 2


def test_a_socket_that_cannot_be_named_is_unreachable(wires: Wires) -> None:
    """It lies deeper than the kernel takes, and not in our directory."""
    answer = RecordedAnswer()
    far = HeldLease(Target("far", Address(path="/" + "x" * 200), Wire.FRAMES))
    wires.transport.send(far, a_call("hello"), answer)
    assert isinstance(answer.error, AgentUnreachable)
    assert answer.error.got_nothing


def test_cancelling_aborts_inside(wires: Wires) -> None:
    """At once; what crosses it on the way is let be, and the end of it confirms."""
    connection, [(exchange, answer), (late, late_answer)] = in_hand(wires, 2)
    exchange.cancel()
    late.cancel()
    exchange.cancel()
    assert connection.heard() == [(CANCEL, 1, b""), (CANCEL, 2, b"")]
    connection.say(frame(END, 1))
    connection.say(frame(BEGIN, 2, JSON_BEGINS), frame(DATA, 2, b"["), frame(END, 2))
    assert not connection.disconnected
    assert answer.status is late_answer.status is None
    connection.say(frame(END, 1))
    assert connection.disconnected


def test_cancelling_before_it_was_sent(wires: Wires) -> None:
    """Its agent never hears of it."""
    exchange, _ = wires.send()
    _, kept = wires.send()
    exchange.cancel()
    connection = wires.accept()
    assert [number for _, number, _ in connection.heard()] == [2]
    connection.say(frame(RESULT, 2, b"2"))
    assert kept.json() == 2


def test_cancelling_what_is_over_says_nothing(wires: Wires) -> None:
    """Neither after an answer nor after the connection was lost."""
    connection, [(done, _), (lost, _)] = in_hand(wires, 2)
    connection.say(frame(RESULT, 1, b"1"))
    connection.lose()
    done.cancel()
    lost.cancel()
    assert connection.heard() == []


def test_an_agent_that_confirms_nothing_is_stuck(wires: Wires) -> None:
    """What it leaves open does not pile up."""
    connection, _ = in_hand(wires)
    connection.say(frame(RESULT, 1, b"1"))
    for _ in range(1024):
        exchange, _ = wires.send()
        wires.turn()
        exchange.cancel()
    assert not connection.disconnected
    exchange, _ = wires.send()
    wires.turn()
    exchange.cancel()
    assert connection.disconnected


def test_a_slow_caller_slows_its_agent(wires: Wires) -> None:
    """And nobody else's: credit is given for what was taken, and none while it is not."""
    connection, [(exchange, answer), (_, other)] = in_hand(wires, 2)
    connection.say(frame(BEGIN, 1, JSON_BEGINS), frame(DATA, 1, b"x" * 65535))
    assert connection.heard() == []
    connection.say(frame(DATA, 1, b"x"))
    assert connection.heard() == [(CREDIT, 1, pack(">I", 65536))]
    exchange.pause()
    connection.say(*[frame(DATA, 1, b"x" * 65536)] * 4, frame(RESULT, 2, b"2"))
    assert connection.heard() == []
    assert (len(answer.body), other.json()) == (65536 + WINDOW, 2)
    exchange.resume()
    assert connection.heard() == [(CREDIT, 1, pack(">I", WINDOW))]
    exchange.cancel()
    exchange.resume()
    assert connection.heard() == [(CANCEL, 1, b"")]


class Faulty(RecordedAnswer):
    """Raises on what it gets."""

    def data(self, chunk: bytes) -> None:
        raise ValueError("a bug")


@pytest.mark.parametrize(
    "said", [frame(RESULT, 1, b"1"), frame(BEGIN, 1, JSON_BEGINS) + frame(DATA, 1, b"[")]
)
def test_one_callers_bug_costs_nobody_else(wires: Wires, said: bytes) -> None:
    """It is logged; the connection and what else is on it go on."""
    wires.transport.send(LEASE, a_call("hello"), Faulty())
    _, other = wires.send()
    connection = wires.accept()
    connection.say(said, frame(RESULT, 2, b"2"))
    assert other.json() == 2
    assert not connection.disconnected


def test_an_agent_that_goes_away_gets_nothing_new(wires: Wires) -> None:
    """What it has is waited for; then the connection is closed."""
    connection, [(_, answer)] = in_hand(wires)
    connection.say(frame(GOAWAY, 0))
    wires.send()
    assert wires.attempts == 2
    assert not connection.disconnected
    connection.say(frame(RESULT, 1, b"1"))
    assert answer.json() == 1
    assert connection.disconnected


def test_an_idle_connection_is_closed(wires: Wires) -> None:
    """A minute or two after its last task."""
    connection, _ = in_hand(wires)
    wires.reactor.advance(500)
    connection.say(frame(RESULT, 1, b"1"))
    wires.reactor.advance(59)
    assert not connection.disconnected
    wires.reactor.advance(61)
    wires.reactor.advance(61)
    assert connection.disconnected
    connection.lose()
    wires.reactor.advance(61)
    assert wires.reactor.getDelayedCalls() == []


def test_closing_lets_tasks_end(wires: Wires) -> None:
    """Idle connections end at once, others with their last task."""
    connection, [(_, answer)] = in_hand(wires)
    wires.transport.close()
    assert not connection.disconnected
    connection.say(frame(RESULT, 1, b"1"))
    assert answer.json() == 1
    assert connection.disconnected
    assert wires.reactor.getDelayedCalls() == []


def test_what_is_too_large_goes_by_http(wires: Wires) -> None:
    """The caller does not notice."""
    answer = RecordedAnswer()
    wires.transport.send(LEASE, a_call("hello", "x" * 100_000), answer)
    assert answer.json() == 100_000
    assert wires.attempts == 0


def test_an_agent_says_what_is_too_large(wires: Wires) -> None:
    """Until it has, it is taken to take little."""
    wires.transport.send(LEASE, a_call("hello", "x" * 20_000), RecordedAnswer())
    assert len(wires.large.sent) == 1
    connection, _ = in_hand(wires)
    wires.transport.send(LEASE, a_call("hello", "x" * 60_000), RecordedAnswer())
    wires.turn()
    assert len(connection.heard()[0][2]) > 60_000
    assert len(wires.large.sent) == 1
