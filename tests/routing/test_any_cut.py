"""Requests and answers of every framing, cut and interleaved at will: what comes is what was sent."""

from __future__ import annotations

import random
from typing import Any

import pytest
from attrs import field, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.protocol import Protocol

from tests.routing.memory import Client, Network

_OURS = (
    b"X-Forwarded-",
    b"X-Ploinky-User",
    b"X-Request-Id",
    b"Host: ",
    b"Content-Length: ",
    b"Transfer-",
)


@frozen
class Message:
    """A request or an answer, and how it is framed.

    Attributes:
        chunks: Of the body.
        framing: ``length``, ``chunked``, ``close`` (answers alone) or ``none``.
    """

    line: bytes
    fields: tuple[bytes, ...] = ()
    chunks: tuple[bytes, ...] = ()
    framing: str = "none"
    extra: bytes = b""

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks) if self.framing != "none" else b""

    def raw(self) -> bytes:
        lines = [self.line, *self.fields]
        body = self.body
        if self.framing == "length":
            lines.append(b"Content-Length: %d" % len(body))
        elif self.framing == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
            pieces = [b"%x%b\r\n%b\r\n" % (len(c), self.extra, c) for c in self.chunks if c]
            body = b"".join(pieces) + b"0\r\n" + (b"T: x\r\n" if self.extra else b"") + b"\r\n"
        elif self.framing == "close":
            lines.append(b"Connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


@frozen
class Exchanged:
    """A request and the answer that its agent gives."""

    request: Message
    answer: Message
    interim: int = field(default=0)


_VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20).map(str.encode)
_FIELD = st.builds(
    lambda n, v: b"X-%d: %b" % (n, v) if v else b"X-%d: -" % n, st.integers(0, 9), _VALUE
)
_FIELDS = st.lists(_FIELD, max_size=4).map(tuple)
_CHUNKS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.integers(1, 90_000).map(lambda n: b"GET / HTTP/1.1\r\n\r\n" * (n // 18)),
    ),
    max_size=4,
).map(tuple)
_SEGMENT = st.from_regex(rb"\A[a-zA-Z0-9_~-]{1,8}\Z")
_EXTRA = st.sampled_from([b"", b";a", b";a=b"])


def _request(
    method: bytes, path: bytes, fields: Any, chunks: Any, framing: str, extra: bytes
) -> Message:
    if method in (b"GET", b"HEAD") and framing == "chunked":
        framing = "none"
    line = b"%b /shop/%b HTTP/1.1" % (method, path)
    return Message(line, (b"Host: localhost", *fields), chunks, framing, extra)


_REQUEST = st.builds(
    _request,
    st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH"]),
    _SEGMENT,
    _FIELDS,
    _CHUNKS,
    st.sampled_from(["none", "length", "chunked"]),
    _EXTRA,
)
_ANSWER = st.builds(
    Message,
    st.sampled_from(
        [b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 500 Internal Server Error"]
    ),
    _FIELDS,
    _CHUNKS,
    st.sampled_from(["length", "length", "chunked", "close"]),
    _EXTRA,
)
_ORDINARY = st.builds(
    Exchanged,
    _REQUEST,
    st.builds(
        Message,
        st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found"]),
        _FIELDS,
        st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=2).map(tuple),
        st.just("length"),
    ),
)
_CONVERSATION = st.lists(
    st.one_of(
        st.builds(Exchanged, _REQUEST, _ANSWER, st.integers(0, 3)).map(lambda one: [one]),
        _ORDINARY.map(lambda one: [one] * 8),
    ),
    min_size=1,
    max_size=5,
).map(lambda parts: [one for part in parts for one in part])


class Patient:
    """Says the next thing once the last was answered."""

    def __init__(self, client: Client, requests: list[bytes]) -> None:
        self._client = client
        self._requests = requests
        self._answered = 0

    def next(self) -> bytes:
        """Give what is to be said now."""
        found = _whole(self._client.received[self._answered :])
        if found is None or not self._requests:
            return b""
        self._answered += found[2]
        return self._requests.pop(0)


class Recorder(Protocol):
    """An agent that reads what the gateway frames, by rules of its own, and answers by script."""

    def __init__(
        self, script: dict[bytes, Exchanged], seen: list[tuple[bytes, tuple[bytes, ...], bytes]]
    ) -> None:
        self._script = script
        self._seen = seen
        self._held = b""

    def dataReceived(self, data: bytes) -> None:
        self._held += data
        while (found := _whole(self._held)) is not None:
            head, body, size = found
            self._held = self._held[size:]
            line, *fields = head.split(b"\r\n")
            kept = tuple(one for one in fields if not one.startswith(_OURS))
            self._seen.append((line, kept, body))
            exchanged = self._script[line.split(b" ")[1].split(b"/")[1]]
            interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * exchanged.interim
            self.transport.write(interim + exchanged.answer.raw())
            if exchanged.answer.framing == "close":
                self.transport.loseConnection()


def _whole(data: bytes) -> tuple[bytes, bytes, int] | None:
    """Take one message off that is framed as a gateway must frame it; None while it is not whole."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    at = len(head) + 4
    if b"\r\nTransfer-Encoding: chunked" in head:
        body = b""
        while True:
            size, end, _ = data[at:].partition(b"\r\n")
            if not end:
                return None
            count = int(size, 16)
            at += len(size) + 2
            if len(data) < at + count + 2:
                return None
            body += data[at : at + count]
            at += count + 2
            if not count:
                return head, body, at
    length = 0
    for line in head.split(b"\r\n"):
        if line.startswith(b"Content-Length: "):
            length = int(line[16:])
    return (head, rest[:length], at + length) if len(rest) >= length else None


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("run")


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)
@given(st.lists(_CONVERSATION, min_size=1, max_size=3), st.booleans(), st.integers(0, 2**32))
def test_what_comes_is_what_was_sent(
    directory: Any, conversations: list[list[Exchanged]], patient: bool, seed: int
) -> None:
    """Both ways, in order, for several clients at once, wherever reads are cut.

    Some say everything at once, others each thing once the last was answered, often the same.
    """
    script: dict[bytes, Exchanged] = {}
    seen: list[tuple[bytes, tuple[bytes, ...], bytes]] = []
    network = Network(directory, lambda: Recorder(script, seen))
    clients = []
    for number, conversation in enumerate(conversations):
        client, end = network.connect()
        requests = []
        for turn, exchanged in enumerate(conversation):
            name = b"c%d-%d" % (number, turn)
            script[name] = exchanged
            requests.append(exchanged.request.raw().replace(b"/shop/", b"/shop/%b/" % name, 1))
        if patient:
            client.heard = Patient(client, requests).next
            end.write(requests.pop(0))
        else:
            end.write(b"".join(requests))
        clients.append(client)
    network.run(random.Random(seed), 100_000, lambda: None)
    for number, conversation in enumerate(conversations):
        of_this = [one for one in seen if one[0].split(b" ")[1].startswith(b"/c%d-" % number)]
        assert of_this == [
            _as_seen(b"c%d-%d" % (number, turn), e.request) for turn, e in enumerate(conversation)
        ]
        received = clients[number].received
        for exchanged in conversation:
            found = _whole(received)
            assert found is not None
            head, body, size = found
            received = received[size:]
            line, *fields = head.split(b"\r\n")
            assert (line, body) == (exchanged.answer.line, exchanged.answer.body)
            assert [
                one for one in fields if one.startswith(b"X-") and not one.startswith(_OURS)
            ] == list(exchanged.answer.fields)
        assert received == b""
    assert network.orchestrator.in_flight() == 0
    network.close()


def _as_seen(name: bytes, request: Message) -> tuple[bytes, tuple[bytes, ...], bytes]:
    line = request.line.replace(b"/shop/", b"/%b/" % name)
    return line, tuple(one for one in request.fields if not one.startswith(_OURS)), request.body
