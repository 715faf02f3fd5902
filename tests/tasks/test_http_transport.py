"""Tasks over HTTP: what goes out, and what is let through on the way back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from zope.interface import implementer

from ploinky.errors import AgentBroken, AgentUnreachable
from ploinky.interfaces import IAnswer, IExchange, IUpstream
from ploinky.tasks.http_transport import HttpTransport
from ploinky.testing.tasks import HeldLease, RecordedAnswer, a_call
from ploinky.values import Address, Target

JSON = (b"Content-Type", b"application/json")
LEASE = HeldLease(Target("one", Address(path="/run/one/agent.sock")))


@implementer(IExchange)
class Exchange:
    def __init__(self) -> None:
        self.cancelled = False

    def write(self, chunk: bytes) -> None: ...

    def finish(self) -> None: ...

    def cancel(self) -> None:
        self.cancelled = True

    def pause(self) -> None: ...

    def resume(self) -> None: ...


@implementer(IUpstream)
class Upstream:
    """Keeps what was sent; the test plays the agent through `answer`."""

    def __init__(self) -> None:
        self.exchanged = Exchange()
        self.at_once: Sequence[tuple[bytes, bytes]] | None = None

    def exchange(
        self, address: Address, head: bytes, body: bytes | None, answer: IAnswer
    ) -> IExchange:
        self.address, self.head, self.body, self.answer = address, head, body, answer
        if self.at_once is not None:
            answer.started(200, self.at_once, 2)
        return self.exchanged

    def close(self) -> None: ...


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def answer(upstream: Upstream) -> RecordedAnswer:
    answer = RecordedAnswer()
    HttpTransport(upstream).send(LEASE, a_call("hello"), answer)
    return answer


def test_a_task_is_one_request(upstream: Upstream) -> None:
    """Method, target, framing and fields are what the contract says, byte by byte."""
    call = a_call("hello", "wörld", 1, user="ci key", deadline_ms=1234, request_id="r-1")
    HttpTransport(upstream).send(LEASE, call, RecordedAnswer())
    assert upstream.address == LEASE.target.address
    assert upstream.body == '{"command":"hello","params":["wörld",1]}'.encode()
    assert upstream.head.decode().split("\r\n") == [
        "POST /task HTTP/1.1",
        "Host: agent",
        "Content-Type: application/json",
        f"Content-Length: {len(upstream.body)}",
        f"X-Ploinky-Task: {call.task}",
        "X-Ploinky-User: ci key",
        "X-Ploinky-Deadline: 1234",
        "X-Request-Id: r-1",
        "",
        "",
    ]


def test_a_subscription_asks_for_events(upstream: Upstream) -> None:
    """So that the agent streams them."""
    HttpTransport(upstream).send(LEASE, a_call("count", to_events=True), RecordedAnswer())
    assert b"\r\nAccept: text/event-stream\r\n" in upstream.head


@pytest.fixture
def events(upstream: Upstream) -> RecordedAnswer:
    answer = RecordedAnswer()
    HttpTransport(upstream).send(LEASE, a_call("count", to_events=True), answer)
    return answer


def test_events_are_passed_on(upstream: Upstream, events: RecordedAnswer) -> None:
    """As they come; the kind of the answer is written in one way."""
    upstream.answer.started(200, [(b"content-type", b"Text/Event-Stream; charset=utf-8")], None)
    upstream.answer.data(b"data: 1\n\n")
    assert events.fields == [(b"Content-Type", b"text/event-stream")]
    assert events.body == b"data: 1\n\n"


def test_an_agent_that_cannot_stream_gives_one_event(
    upstream: Upstream, events: RecordedAnswer
) -> None:
    """On one line, however it was written."""
    upstream.answer.started(200, [JSON], 10)
    upstream.answer.data(b'{"a":\r\n')
    upstream.answer.data(b" 1}")
    upstream.answer.ended()
    assert (events.length, events.field(b"content-type")) == (None, b"text/event-stream")
    assert events.body == b'data: {"a":   1}\n\nevent: end\ndata: null\n\n'


def test_an_error_of_a_subscription_is_json(upstream: Upstream, events: RecordedAnswer) -> None:
    """There was no event yet."""
    upstream.answer.started(404, [JSON], 2)
    upstream.answer.data(b"{}")
    upstream.answer.ended()
    assert (events.status, events.json()) == (404, {})


@pytest.mark.parametrize(
    ("user", "written"),
    [
        ("a\r\nX-Ploinky-User: Admin", "a%0D%0AX-Ploinky-User: Admin"),
        ("Zoë", "Zo%C3%AB"),
        ("50%", "50%25"),
        ("a\x00b\x7f", "a%00b%7F"),
        ("\ud800", "?"),
        ("", ""),
    ],
)
def test_no_name_can_break_out_of_its_field(upstream: Upstream, user: str, written: str) -> None:
    """Whatever a key is called, the head has the same number of lines."""
    HttpTransport(upstream).send(LEASE, a_call("hello", user=user), RecordedAnswer())
    assert f"\r\nX-Ploinky-User: {written}\r\n" in upstream.head.decode("ascii")
    assert upstream.head.count(b"\r\n") == 9


def test_the_answer_is_passed_on_as_it_comes(upstream: Upstream, answer: RecordedAnswer) -> None:
    """Nothing is held back until the end, and internal fields are gone."""
    own = (b"X-Own", b"kept")
    command = (b"X-Ploinky-Command", b"hello")
    internal = (b"x-ploinky-error", b"1")
    upstream.answer.started(404, [JSON, own, command, internal], 4)
    assert (answer.status, answer.fields, answer.length) == (404, [JSON, own, command], 4)
    upstream.answer.data(b"nu")
    assert answer.body == b"nu"
    upstream.answer.data(b"ll")
    upstream.answer.ended()
    assert answer.json() is None


def test_a_failure_of_the_connection_is_passed_on(
    upstream: Upstream, answer: RecordedAnswer
) -> None:
    """The upstream's own words reach the caller."""
    error = AgentUnreachable("refused")
    upstream.answer.failed(error)
    assert answer.error is error


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (200, []),
        (200, [(b"content-type", b"text/html")]),
        (200, [(b"content-type", b"application/jsonp")]),
        (200, [(b"content-type", b"text/event-stream")]),
        (204, [JSON]),
        (302, [JSON, (b"Location", b"http://elsewhere/")]),
        (600, [JSON]),
    ],
)
def test_an_answer_that_is_no_tasks_outcome_is_the_agents_fault(
    upstream: Upstream, answer: RecordedAnswer, status: int, fields: list[tuple[bytes, bytes]]
) -> None:
    """A web server in place of AgentCore is broken off, and said to be so."""
    upstream.answer.started(status, fields, 2)
    assert isinstance(answer.error, AgentBroken)
    assert upstream.exchanged.cancelled
    upstream.answer.data(b"{}")
    upstream.answer.ended()
    upstream.answer.failed(AgentUnreachable("closed"))
    assert answer.body == b""


def test_parameters_of_the_content_type_do_not_matter(
    upstream: Upstream, answer: RecordedAnswer
) -> None:
    """`application/json; charset=utf-8` in any case is JSON."""
    upstream.answer.started(200, [(b"content-type", b"Application/JSON; charset=utf-8")], None)
    assert answer.status == 200


def test_an_answer_that_comes_before_send_returns_is_held_to_the_same(upstream: Upstream) -> None:
    """A connection that answers at once is broken off as soon as it can be."""
    upstream.at_once = [(b"Content-Type", b"text/plain")]
    answer = RecordedAnswer()
    HttpTransport(upstream).send(LEASE, a_call("hello"), answer)
    assert isinstance(answer.error, AgentBroken)
    assert upstream.exchanged.cancelled
