"""One trial: some clients' bytes and an agent's, through the gateway, and what must hold of it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import field, frozen
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser
from twisted.internet.protocol import Protocol
from twisted.logger import LogLevel, globalLogPublisher

from tests.fuzz.mutations import ANSWER_SEEDS, REQUEST_SEEDS, made_from
from tests.routing.corpus import OK
from tests.routing.memory import End, Network

HELD_BYTES = 1024 * 1024
"""What may be held for one connection, each way."""

MOST_STEPS = 200_000

_OUR_HEAD = re.compile(rb"\r\nX-Forwarded-Proto: http\r\n(?:[^\r\n]+\r\n)+\r\n")
_OUR_ID = re.compile(rb"\r\nX-Request-Id: w1-([0-9]+)\r\n")


class Agent(Protocol):
    """An agent that keeps what comes, and says one thing for each head that it saw end.

    Attributes:
        received: All of it.
    """

    transport: Any

    def __init__(self, say: Callable[[], bytes]) -> None:
        self._say = say
        self._heads = 0
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        heads = len(_OUR_HEAD.findall(self.received))
        for _ in range(self._heads, heads):
            self.transport.write(self._say())
        self._heads = heads


@frozen
class Outcome:
    """What a trial did, for figures.

    Attributes:
        answered: Requests by status.
        held: The most that was held for a connection at once.
    """

    steps: int
    answered: dict[int, int] = field(factory=dict)
    held: int = 0


class Errors:
    """A context that keeps what is logged as an error meanwhile."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, event: Any) -> None:
        if event["log_level"] in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            self.seen.append(failure.getTraceback() if failure is not None else str(event))

    def __enter__(self) -> Errors:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self)


def run(number: int, directory: Path) -> Outcome:
    """Do trial `number`.

    Raises:
        AssertionError: Something does not hold that must.
    """
    chance = random.Random(number)
    hostile_agent = chance.random() < 0.4

    def say() -> bytes:
        return made_from(ANSWER_SEEDS, chance) if hostile_agent else OK

    agents: list[Agent] = []

    def agent() -> Agent:
        agents.append(Agent(say))
        return agents[-1]

    network = Network(directory, agent)
    sent = [made_from(REQUEST_SEEDS, chance) for _ in range(chance.choice((1, 1, 1, 2)))]
    clients = []
    for data in sent:
        client, end = network.connect()
        end.write(data)
        if chance.random() < 0.3:
            end.loseWriteConnection()
        clients.append(client)
    most = 0

    def watch() -> None:
        nonlocal most
        for end in network.ends:
            most = max(most, _held(end))
        assert most <= HELD_BYTES, f"{most} bytes are held for one connection"

    with Errors() as errors:
        steps = network.run(chance, MOST_STEPS, watch)
        for _ in range(400):  # and then all time-outs pass
            network.advance(10.0)
            steps += network.run(chance, MOST_STEPS, watch)
        network.close()
    assert not errors.seen, errors.seen[0]
    assert not network.factory.connections, "a connection outlived every time-out"
    assert network.orchestrator.in_flight() == 0, "a lease was not given back"
    assert network.factory.in_hand() == 0, "a call was never ended"
    for data, client in zip(sent, clients, strict=True):
        _check_answers(data, client.received)
    if len(sent) == 1 and not hostile_agent:
        _compare(sent[0], [one.received for one in agents])
    return Outcome(steps, _statuses(network.lines), most)


def _held(end: End) -> int:
    """Tell how much the gateway holds at its end of a connection."""
    protocol = getattr(end.protocol, "_wrappedProtocol", end.protocol)
    outlet = getattr(protocol, "outlet", getattr(protocol, "_outlet", None))
    unread = len(getattr(protocol, "_buffer", b"")) + len(getattr(protocol, "_held", b""))
    return unread + (outlet.queued if outlet is not None else 0)


def _statuses(lines: list[str]) -> dict[int, int]:
    counted: dict[int, int] = {}
    for line in "".join(lines).splitlines():
        status = int(line.partition('"status":')[2][:3])
        counted[status] = counted.get(status, 0) + 1
    return counted


def _check_answers(sent: bytes, received: bytes) -> None:
    """See that what a client gets is HTTP as llhttp reads it, or the beginning of it."""
    if b"HEAD" in sent or b"HTTP/1.1 101 " in received:
        return  # llhttp would have to be told of them
    try:
        HttpResponseParser(_Answers()).feed_data(received)
    except HttpParserError as error:
        raise AssertionError(f"{error}: {received!r}") from error


class _Answers:
    """Nobody asks what they were."""

    def on_body(self, body: bytes) -> None: ...


class _Read:
    """Requests as llhttp reads them."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes, bytes]] = []
        self._url = self._body = b""
        self.parser = HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_message_complete(self) -> None:
        self.requests.append((self.parser.get_method(), self._url, self._body))


def _compare(sent: bytes, received: list[bytes]) -> None:
    """Hold our framing against llhttp's: whatever an agent got whole, llhttp reads the same way."""
    theirs = _Read()
    try:
        theirs.parser.feed_data(sent)
    except HttpParserUpgrade:
        return
    except HttpParserError:
        pass
    left = iter([(m, _path(url), body) for m, url, body in theirs.requests])
    for mine in _requests(received):
        assert any(mine == one for one in left), f"{mine} is no request of {theirs.requests}"


def _path(url: bytes) -> bytes:
    if not url.startswith(b"/"):
        rest = url.partition(b"://")[2]
        at = min((rest.find(c) for c in (b"/", b"?") if c in rest), default=len(rest))
        url = rest[at:] if rest[at : at + 1] == b"/" else b"/" + rest[at:]
    path = url.removeprefix(b"/shop")
    return path if path[:1] == b"/" else b"/" + path


def _requests(received: list[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    """Read what agents got, in the order in which it was sent: by the ids that count them."""
    found: list[tuple[int, tuple[bytes, bytes, bytes]]] = []
    for data in received:
        theirs = _Read()
        try:
            theirs.parser.feed_data(data)
        except HttpParserUpgrade:
            return []
        ids = [int(one) for one in _OUR_ID.findall(data)]
        if len(ids) < len(theirs.requests):  # a client chose ids of its own
            return []
        found += zip(ids, theirs.requests, strict=False)
    return [request for _, request in sorted(found)]
