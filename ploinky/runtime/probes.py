"""Asks an instance whether it is ready, and later whether it is well.

A task agent tells by its queue: AgentCore writes ``ready`` once it takes tasks, ``failed`` where
it cannot start.  Everything that speaks HTTP is asked with one small ``GET``.  Each question
comes back as words: ``""`` where all is well, else what was answered instead.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ploinky.deploy_errors import ProbeFailed
from ploinky.errors import AGENT
from ploinky.instance_values import InstanceSpec, InstanceStatus
from ploinky.runtime import places
from ploinky.sockets import SocketPaths
from ploinky.values import Address, Kind, Target, Wire

FIRST_POLL_SECONDS = 0.01
SLOWEST_POLL_SECONDS = 0.25
ANSWER_LIMIT_BYTES = 16 * 1024
SHOWN_CHARACTERS = 200
GOOD = range(200, 400)
_LARGEST_DOCUMENT_BYTES = 64 * 1024
_MOST_SAID = 4096  # characters, in each list of deployments; an agent may have said them
_CONNECT_SECONDS = 30.0  # to a Unix socket, which takes a connection at once or never
_AGENTS_OWN = ("AGENT_BROKEN", "MANIFEST_INVALID")

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r?\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)


@frozen
class Readiness:
    """What a ready instance turned out to be.

    Attributes:
        answers_http: Whether it can be asked how it is; ``sh`` agents cannot.
    """

    target: Target
    answers_http: bool


class Prober(Protocol):
    """Asks instances how they are."""

    async def when_ready(self, spec: InstanceSpec, status: InstanceStatus) -> Readiness:
        """Wait until it is ready.

        Raises:
            ProbeFailed: It said that it cannot start, or was not ready in time; with its last answer.
        """

    async def health(self, spec: InstanceSpec, readiness: Readiness) -> str:
        """Ask a ready instance once; ``""`` where it is well, else what was wrong."""


class SocketProber:
    """The `Prober` that asks over real sockets and files.

    Args:
        reactor: Connects, and tells the time.
        paths: Names for sockets below the run directory.
    """

    def __init__(self, reactor: Any, paths: SocketPaths) -> None:
        self._reactor = reactor
        self._paths = paths

    async def when_ready(self, spec: InstanceSpec, status: InstanceStatus) -> Readiness:
        """See `Prober`."""
        began = self._reactor.seconds()
        pause = FIRST_POLL_SECONDS
        while True:
            outcome = await self._ready_now(spec, status)
            if isinstance(outcome, Readiness):
                return outcome
            waited = self._reactor.seconds() - began
            if waited >= spec.health.start_period_seconds:
                raise ProbeFailed(
                    f"It was not ready after {waited:.0f} s: {outcome}.", details={"probe": outcome}
                )
            await deferLater(self._reactor, pause)
            pause = min(SLOWEST_POLL_SECONDS, pause * 1.1)

    async def health(self, spec: InstanceSpec, readiness: Readiness) -> str:
        """See `Prober`."""
        if not readiness.answers_http:
            return ""
        return await self._ask(spec, readiness.target.address)

    async def _ready_now(self, spec: InstanceSpec, status: InstanceStatus) -> Readiness | str:
        """Look once: what it turned out to be, or in words why it is not ready."""
        if spec.kind is not Kind.TASK:
            if status.address is None:
                return "the runtime gave it no address"
            target = Target(spec.instance, status.address)
            return await self._ask(spec, target.address) or Readiness(target, True)
        queue = Path(spec.queue_directory)
        failure = said_failure(spec)
        if failure is not None:
            raise failure
        said = _read_document(queue / places.READY)
        if said is None:
            return "AgentCore has not said that it is ready"
        spoken = said.get("transports")
        if not isinstance(spoken, list):
            return "AgentCore does not say which transports it serves"
        speaks_http = "http" in spoken
        address = status.address or Address(path=str(queue / places.SOCKET))
        wire = spec.wire if speaks_http else Wire.FILE
        if wire is Wire.HTTP and Wire.FRAMES.value in spoken:
            wire = Wire.FRAMES
        readiness = Readiness(
            Target(spec.instance, address, wire, spec.queue_directory, status.inner_queue),
            speaks_http,
        )
        problem = await self._ask(spec, address) if speaks_http else ""
        return problem or readiness

    async def _ask(self, spec: InstanceSpec, address: Address) -> str:
        asking = Deferred.fromCoroutine(self._exchange(address, spec.health.path))
        asking.addTimeout(spec.health.timeout_seconds, self._reactor)
        try:
            return await asking
        except TimeoutError:
            return f"{address} did not answer within {spec.health.timeout_seconds:g} s"
        except (ConnectError, OSError, ValueError) as error:
            return f"{address} cannot be reached: {_reason(error)}"

    async def _exchange(self, address: Address, path: str) -> str:
        """Connect and, where there is a path, ask for it."""
        question = (
            f"GET {path} HTTP/1.1\r\nHost: {address.host or 'agent'}\r\n"
            "User-Agent: ploinky-probe\r\nConnection: close\r\n\r\n"
        )
        asked = _Question(question.encode("ascii", "replace") if path else b"")
        factory = Factory.forProtocol(lambda: asked)
        factory.noisy = False
        try:
            await self._endpoint(address).connect(factory)
        except ConnectingCancelledError as error:
            raise CancelledError from error  # it is none to whoever waits for one
        try:
            answer = await asked.answer
        finally:
            asked.close()
        return "" if not path else _judge(path, answer)

    def _endpoint(self, address: Address) -> IStreamClientEndpoint:
        if address.path:
            return self._paths.endpoint(self._reactor, address, _CONNECT_SECONDS)
        kind = TCP6ClientEndpoint if ":" in address.host else TCP4ClientEndpoint
        return kind(self._reactor, address.host, address.port)


class _Question(TwistedProtocol):
    """Sends a request and collects as much of the answer as a person would want to see."""

    def __init__(self, question: bytes) -> None:
        self.answer: Deferred[bytes] = Deferred()
        self._question = question
        self._received = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self._question:
            self.transport.write(self._question)
        else:
            self.answer.callback(b"")

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if _whole(self._received):
            self._answered()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self._answered()

    def _answered(self) -> None:
        if not self.answer.called:
            self.answer.callback(self._received)

    def close(self) -> None:
        """Close at once: nobody is interested in more."""
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]


def _whole(received: bytes) -> bool:
    """Tell whether there is enough to judge by: a good answer's head, a bad one's body too."""
    if len(received) > ANSWER_LIMIT_BYTES:
        return True
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    if _status(head + end) in GOOD:
        return True
    length = _LENGTH.search(head + b"\r\n")
    return length is not None and len(body) >= int(length.group(1))


def _judge(path: str, answer: bytes) -> str:
    """Read an answer: ``""`` where its status is 2xx or 3xx, else what it was."""
    status = _status(answer)
    if status is None:
        return f"GET {path} was answered by {_shown(answer) or 'a closed connection'}"
    if status in GOOD:
        return ""
    body = answer.partition(b"\r\n\r\n")[2]
    said = f": {_shown(body)}" if body else ""
    return f"GET {path} was answered {status}{said}"


def _status(answer: bytes) -> int | None:
    line = _STATUS_LINE.match(answer)
    return int(line.group(1)) if line else None


def _shown(raw: bytes) -> str:
    text = " ".join(raw.decode(errors="replace").split())
    return text[:SHOWN_CHARACTERS] + ("..." if len(text) > SHOWN_CHARACTERS else "")


def _reason(error: Exception) -> str:
    """The system's words, where Twisted wrapped its own around them."""
    return str(getattr(error, "osError", None) or error)


def said_failure(spec: InstanceSpec) -> ProbeFailed | None:
    """Give what AgentCore said of why it cannot start; None where it did not."""
    said = _read_document(Path(spec.queue_directory) / places.FAILED)
    if said is None:
        return None
    code, message = (str(said.get(name, ""))[:_MOST_SAID] for name in ("code", "message"))
    part = AGENT if code in _AGENTS_OWN else "start"
    return ProbeFailed(
        f"AgentCore could not start: {message}", details={"code": code}, failed_at=part
    )


def _read_document(path: Path) -> dict[str, Any] | None:
    """Read what AgentCore left; None where there is nothing (or nothing whole) yet.

    An agent can put anything there: a link is not followed, a pipe not waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            document = json.loads(file.read(_LARGEST_DOCUMENT_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
