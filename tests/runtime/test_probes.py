"""What a probe hears, it says; what it waits for, it notices."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from ploinky.deploy_errors import ProbeFailed
from ploinky.instance_values import Health, InstanceSpec, InstanceStatus
from ploinky.runtime.probes import Readiness, SocketProber, said_failure
from ploinky.sockets import SocketPaths
from ploinky.values import Address, DeploymentKey, Kind, Target, Wire

RUNNING = InstanceStatus("aaaaaaaaaaaa", "d", 1, running=True)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Answers(Protocol):
    """Answers every request with the same bytes, and keeps the connection."""

    def __init__(self, answer: bytes, asked: list[bytes]) -> None:
        self.answer = answer
        self.asked = asked

    def dataReceived(self, data: bytes) -> None:
        self.asked.append(data)
        if self.answer == b"close":
            self.transport.loseConnection()
        else:
            self.transport.write(self.answer)


Serve = Callable[..., Address]


@pytest_twisted.async_yield_fixture
async def serve(short_directory: Path) -> AsyncIterator[Serve]:
    """Makes a server that answers with given bytes, on TCP or at a path."""
    ports = []

    def start(answer: bytes, path: str = "", asked: list[bytes] | None = None) -> Address:
        factory = Factory.forProtocol(lambda: Answers(answer, [] if asked is None else asked))
        if path:
            ports.append(reactor.listenUNIX(path, factory))
            return Address(path=path)
        ports.append(reactor.listenTCP(0, factory, interface="127.0.0.1"))
        return Address(host="127.0.0.1", port=ports[-1].getHost().port)

    yield start
    for port in ports:
        await port.stopListening()


@pytest.fixture
def prober(short_directory: Path) -> SocketProber:
    return SocketProber(reactor, SocketPaths(str(short_directory)))


def a_spec(directory: Path, kind: Kind = Kind.TASK, **health: Any) -> InstanceSpec:
    queue = directory / "q"
    queue.mkdir(exist_ok=True)
    return InstanceSpec(
        instance="aaaaaaaaaaaa",
        deployment="d",
        release=1,
        cluster="c",
        key=DeploymentKey("localhost", "/demo"),
        agent="demo",
        kind=kind,
        image="i",
        queue_directory=str(queue),
        health=Health(**{"timeout_seconds": 2.0, "start_period_seconds": 5.0, **health}),
    )


def served_at(address: Address) -> Readiness:
    return Readiness(Target("aaaaaaaaaaaa", address), True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (OK, ""),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", ""),
        (b"HTTP/1.0 204 No Content\n\r\n\r\n", ""),
        (b'HTTP/1.1 200 OK\r\n\r\n{"status":"busy","inflight":64}', ""),
        (
            b"HTTP/1.1 503 Down\r\nContent-Length: 11\r\n\r\nno database",
            "GET /up was answered 503: no database",
        ),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "GET /up was answered 404"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\n" + b"x" * 3, "answered 500: xxx"),
        (b"close", "GET /up was answered by a closed connection"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_is_judged_by_its_status(
    serve: Serve, prober: SocketProber, short_directory: Path, answer: bytes, said: str
) -> None:
    """2xx and 3xx are well; anything else is said, with the beginning of its body."""
    asked: list[bytes] = []
    spec = a_spec(short_directory, path="/up")
    heard = await prober.health(spec, served_at(serve(answer, asked=asked)))
    assert heard == said if not said else said in heard
    assert asked[0].startswith(b"GET /up HTTP/1.1\r\nHost: 127.0.0.1\r\n")


@pytest_twisted.ensureDeferred
async def test_what_is_not_http_is_shown(
    serve: Serve, prober: SocketProber, short_directory: Path
) -> None:
    """As far as a person would want to see it."""
    spec = a_spec(short_directory)
    said = await prober.health(spec, served_at(serve(b"SSH-2.0-x\r\n\r\n" + b"y" * 20000)))
    assert said.startswith("GET /health was answered by SSH-2.0-x yyy")
    assert len(said) < 300


@pytest_twisted.ensureDeferred
async def test_silence_has_an_end(
    serve: Serve, prober: SocketProber, short_directory: Path
) -> None:
    """A server that accepts and then hangs is as bad as none."""
    spec = a_spec(short_directory, timeout_seconds=0.2)
    address = serve(b"")
    assert await prober.health(spec, served_at(address)) == f"{address} did not answer within 0.2 s"


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_said(
    serve: Serve, prober: SocketProber, short_directory: Path
) -> None:
    """For both kinds of address, in the system's words."""
    spec = a_spec(short_directory)
    socket = Address(path=f"{short_directory}/no.sock")
    assert "cannot be reached" in await prober.health(spec, served_at(socket))
    said = await prober.health(spec, served_at(Address(host="127.0.0.1", port=1)))
    assert said.startswith("tcp:127.0.0.1:1 cannot be reached: ")


@pytest_twisted.ensureDeferred
async def test_where_no_path_is_given_a_connection_is_enough(
    serve: Serve, prober: SocketProber, short_directory: Path
) -> None:
    """A database answers no GET."""
    asked: list[bytes] = []
    spec = a_spec(short_directory, Kind.SERVICE, path="")
    assert await prober.health(spec, served_at(serve(b"", asked=asked))) == ""
    assert asked == []


@pytest_twisted.ensureDeferred
async def test_a_socket_deep_in_the_tree_is_reached(serve: Serve, short_directory: Path) -> None:
    """Deeper than the kernel lets a socket's name be."""
    deep = short_directory / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    paths = SocketPaths(str(deep))
    address = Address(path=f"{deep}/agent.sock")
    serve(OK, path=paths.usable(address.path))
    assert (
        await SocketProber(reactor, paths).health(a_spec(short_directory), served_at(address)) == ""
    )


def says(spec: InstanceSpec, name: str, document: Any) -> None:
    place = Path(spec.queue_directory)
    (place / "new").write_text(json.dumps(document))
    (place / "new").rename(place / name)


@pytest.mark.parametrize("kind", ["pipe", "link", "deep", "large"])
def test_an_agent_holds_nobody_up_with_what_it_leaves(short_directory: Path, kind: str) -> None:
    """A pipe is not waited for, a link not followed, and nothing is read without end."""
    spec = a_spec(short_directory)
    said, elsewhere = Path(spec.queue_directory) / "failed", short_directory / "elsewhere"
    elsewhere.write_text(json.dumps({"code": "AGENT_BROKEN", "message": "read"}))
    if kind == "pipe":
        os.mkfifo(said)
    elif kind == "link":
        said.symlink_to(elsewhere)
    else:
        said.write_text("[" * 60_000 if kind == "deep" else f'{{"message": "{"x" * 100_000}"}}')
    assert said_failure(spec) is None


def test_what_an_agent_says_of_its_failure_fills_no_screen(short_directory: Path) -> None:
    """It is shown with each list of deployments."""
    spec = a_spec(short_directory)
    says(spec, "failed", {"code": "c" * 10_000, "message": "m" * 50_000})
    failure = said_failure(spec)
    assert failure is not None
    assert len(failure.message) < 5000
    assert len(str(failure.details)) < 5000


@pytest_twisted.ensureDeferred
async def test_an_agent_is_ready_when_it_says_so_and_answers(
    serve: Serve, prober: SocketProber, short_directory: Path
) -> None:
    """Neither alone is enough."""
    spec = a_spec(short_directory)
    waiting = Deferred.fromCoroutine(prober.when_ready(spec, RUNNING))
    says(spec, "ready", {"engine": "node", "transports": ["http", "file"]})
    await deferLater(reactor, 0.1)
    assert not waiting.called
    path = f"{spec.queue_directory}/agent.sock"
    serve(OK, path=path)
    readiness = await waiting
    assert readiness.target == Target(
        spec.instance,
        Address(path=path),
        Wire.HTTP,
        spec.queue_directory,
        inner_queue="/agent/.ploinky/queue",
    )
    assert readiness.answers_http


@pytest.mark.parametrize(
    ("asked", "transports", "used"),
    [
        (Wire.HTTP, ["http", "frames", "file"], Wire.FRAMES),
        (Wire.HTTP, ["http", "file"], Wire.HTTP),
        (Wire.FILE, ["http", "frames", "file"], Wire.FILE),
        (Wire.HTTP, ["frames"], Wire.FILE),
    ],
)
@pytest_twisted.ensureDeferred
async def test_frames_are_used_where_they_are_offered(
    serve: Serve,
    prober: SocketProber,
    short_directory: Path,
    asked: Wire,
    transports: list[str],
    used: Wire,
) -> None:
    """In place of HTTP, and beside it; who asked for files gets files."""
    spec = attrs.evolve(a_spec(short_directory), wire=asked)
    says(spec, "ready", {"engine": "node", "transports": transports})
    serve(OK, path=f"{spec.queue_directory}/agent.sock")
    readiness = await prober.when_ready(spec, RUNNING)
    assert readiness.target.wire is used


@pytest_twisted.ensureDeferred
async def test_an_agent_without_http_is_spoken_to_in_files(
    prober: SocketProber, short_directory: Path
) -> None:
    """Whatever was asked for; and it cannot be asked how it is."""
    spec = a_spec(short_directory)
    says(spec, "ready", {"engine": "sh", "transports": ["file"]})
    readiness = await prober.when_ready(spec, RUNNING)
    assert readiness.target.wire is Wire.FILE
    assert not readiness.answers_http
    assert await prober.health(spec, readiness) == ""


@pytest_twisted.ensureDeferred
async def test_an_agent_that_cannot_start_says_why(
    prober: SocketProber, short_directory: Path
) -> None:
    """At once, and with its code."""
    spec = a_spec(short_directory)
    waiting = Deferred.fromCoroutine(prober.when_ready(spec, RUNNING))
    says(spec, "failed", {"code": "MANIFEST_INVALID", "message": "line 3: a comma too many"})
    with pytest.raises(ProbeFailed, match="line 3: a comma too many") as caught:
        await waiting
    assert caught.value.details == {"code": "MANIFEST_INVALID"}


@pytest_twisted.ensureDeferred
async def test_the_last_answer_is_kept(
    serve: Serve, prober: SocketProber, short_directory: Path
) -> None:
    """Where it was not ready in time, the error says what it answered instead."""
    spec = a_spec(short_directory, Kind.SERVICE, path="/up", start_period_seconds=0.3)
    address = serve(b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nmigrating")
    service = InstanceStatus(spec.instance, "d", 1, running=True, address=address)
    with pytest.raises(ProbeFailed, match="GET /up was answered 500: migrating"):
        await prober.when_ready(spec, service)


@pytest_twisted.ensureDeferred
async def test_an_address_of_the_runtimes_wins_over_the_socket(
    serve: Serve, prober: SocketProber, short_directory: Path
) -> None:
    """Where the engine runs in another machine."""
    spec = a_spec(short_directory)
    says(spec, "ready", {"engine": "node", "transports": ["http", "file"]})
    address = serve(OK)
    status = InstanceStatus(spec.instance, "d", 1, running=True, address=address)
    assert (await prober.when_ready(spec, status)).target.address == address


def connecting(directory: Path) -> tuple[MemoryReactorClock, Deferred[Readiness]]:
    """Give a probe of a host that answers no attempt to connect."""
    silent = MemoryReactorClock()
    prober = SocketProber(silent, SocketPaths(str(directory)))
    status = attrs.evolve(RUNNING, address=Address(host="10.0.0.1", port=8000))
    spec = a_spec(directory, Kind.SERVICE, start_period_seconds=1.0)
    return silent, Deferred.fromCoroutine(prober.when_ready(spec, status))


def test_a_probe_that_is_given_up_while_it_connects_is_given_up(short_directory: Path) -> None:
    """And has not broken: whoever asked has seen the instance die meanwhile."""
    _, probing = connecting(short_directory)
    ended: list[Failure] = []
    probing.addErrback(ended.append)
    probing.cancel()
    assert [failure.type for failure in ended] == [CancelledError]


def test_a_host_that_takes_no_connection_is_told_of(short_directory: Path) -> None:
    """As one that did not answer in time."""
    silent, probing = connecting(short_directory)
    ended: list[Failure] = []
    probing.addErrback(ended.append)
    silent.advance(2.0)
    (failure,) = ended
    assert failure.type is ProbeFailed
    assert "did not answer within 2 s" in str(failure.value)
