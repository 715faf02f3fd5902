"""A request whose instance takes no connection goes to another one: once to each, and never twice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from select import select
from typing import Any

import attrs
import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.errors import AgentLeft, AgentUnreachable, Overloaded
from ploinky.testing.routing import RawClient, settled
from ploinky.values import Address, Kind, Target
from tests.routing.conftest import briefly

GET = b"GET /shop/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /shop/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"POST /shop/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECTING = (
    b"POST /shop/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
)
UPGRADE = GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TASK = (
    b"POST /demo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Content-Length: 19\r\n\r\n{"command":"hello"}'
)


@pytest.fixture
def absent(short_directory: Path) -> Iterator[dict[str, Target]]:
    """Instances to which no connection can be made, each in another way."""
    (short_directory / "file").write_text("")
    with socket.socket() as silent:  # it does not listen, and nobody else gets its port
        silent.bind(("127.0.0.1", 0))
        yield {
            "no socket": Target("gone", Address(path=str(short_directory / "gone.sock"))),
            "refuses": Target("refuses", Address(path=str(short_directory / "file"))),
            "refuses over TCP": Target("closed", Address("", *silent.getsockname())),
            "no directory": Target("removed", Address(path="/" + "x" * 200)),
        }


def lead(wires: Any, *targets: Target) -> None:
    """Let `/shop` lead to these, and then to the agent that a test plays."""
    known = wires.router.match(b"localhost", b"/shop")
    wires.publish(attrs.evolve(known, targets=(*targets, *known.targets)))


async def running(wires: Any, is_so: Any) -> None:
    """Let the gateway's own time run, too, until it is so."""

    def looked() -> Any:
        wires.clock.advance(0)
        return is_so()

    await settled(reactor, looked)


async def agent_of(wires: Any, number: int = 1) -> RawClient:
    await running(wires, lambda: len(wires.agents.accepted) >= number)
    agent: RawClient = wires.agents.accepted[number - 1]
    return agent


def failures(wires: Any) -> list[tuple[str, bool]]:
    """Give which instances had a place, and whether each is avoided from now on."""
    assert all(lease.released == 1 for lease in wires.orchestrator.leases)
    return [(lease.target.instance, lease.failed) for lease in wires.orchestrator.leases]


@pytest.mark.parametrize("request_bytes", [GET, POST], ids=["GET", "POST"])
@pytest.mark.parametrize("how", ["no socket", "refuses", "refuses over TCP", "no directory"])
@pytest_twisted.ensureDeferred
async def test_a_request_goes_to_the_instance_that_takes_it(
    wires: Any, absent: dict[str, Target], how: str, request_bytes: bytes
) -> None:
    """Whole, under its own id; the one that refused is avoided, and nobody else hears of it."""
    lead(wires, absent[how])
    client = await wires.connect()
    client.send(request_bytes)
    agent = await agent_of(wires)
    head = await agent.take(b"\r\n\r\n")
    assert head.startswith(request_bytes.partition(b" ")[0] + b" /a HTTP/1.1\r\n")
    await agent.until(lambda received: received == request_bytes.partition(b"\r\n\r\n")[2])
    agent.send(OK)
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"ok")
    assert b"X-Request-Id: %b\r\n" % answer.field(b"x-request-id") in head
    (record,) = wires.records()
    assert (record["status"], record["mood"], record.get("failedAt", "")) == (200, "served", "")
    assert failures(wires) == [(absent[how].instance, True), ("one", False)]


@pytest_twisted.ensureDeferred
async def test_a_request_to_another_route_than_the_one_before_goes_on_there(
    wires: Any, absent: dict[str, Target]
) -> None:
    """Its head was not read again, and it is not sent to the route of the one that was."""
    shop, other = (wires.router.match(b"localhost", path) for path in (b"/shop", b"/tcp"))
    dead = absent["no socket"]
    wires.publish(shop, attrs.evolve(other, targets=(dead, *other.targets)))
    client = await wires.connect()
    for number, target in enumerate((b"/shop/a", b"/tcp/b"), 1):
        client.send(GET.replace(b"/shop/a", target))
        agent = await agent_of(wires, number)
        assert (await agent.take(b"\r\n\r\n")).startswith(b"GET %b HTTP/1.1" % target[-2:])
        agent.send(OK)
        assert (await client.answer()).status == 200
    assert failures(wires) == [("one", False), (dead.instance, True), ("two", False)]


@pytest_twisted.ensureDeferred
async def test_each_is_tried_once_and_the_last_one_is_the_answer(
    wires: Any, absent: dict[str, Target]
) -> None:
    """Where all refuse: 502, and the line says that it was the instances."""
    route = wires.router.match(b"localhost", b"/shop")
    wires.publish(attrs.evolve(route, targets=tuple(absent.values())))
    client = await wires.connect()
    client.send(GET)
    await running(wires, lambda: client.received)
    answer = await client.answer()
    assert answer.status == 502
    assert answer.field(b"x-ploinky-failed-at") == b"instance"
    assert msgspec.json.decode(answer.body)["code"] == "AGENT_UNREACHABLE"
    (record,) = wires.records()
    assert (record["status"], record["mood"], record["failedAt"]) == (502, "broken", "instance")
    assert failures(wires) == [(one.instance, True) for one in absent.values()]


@pytest_twisted.ensureDeferred
async def test_a_repeated_request_leaves_the_instance_that_vanished(
    wires: Any, short_directory: Path
) -> None:
    """Also on the short way, over a connection that was kept and that nobody has said is gone."""
    vanishing = Address(path=str(short_directory / "vanishing.sock"))
    port = reactor.listenUNIX(vanishing.path, wires.agents)
    lead(wires, Target("vanishing", vanishing))
    client = await wires.connect()
    for _ in range(3):
        client.send(GET)
        agent = await agent_of(wires)
        await agent.take(b"\r\n\r\n")
        agent.send(OK)
        await client.answer()
    await port.stopListening()
    (kept,) = wires.upstream.pool(vanishing).idle
    kept.transport.stopReading()  # the kernel knows, our side has not looked yet
    (agent,) = wires.agents.accepted
    agent.transport.abortConnection()
    await agent.lost
    client.send(GET.replace(b"/a ", b"/b "))
    second = await agent_of(wires, 2)
    assert (await second.take(b"\r\n\r\n")).startswith(b"GET /b HTTP/1.1\r\n")
    second.send(OK)
    assert (await client.answer()).body == b"ok"
    assert wires.orchestrator.in_flight() == 0


@pytest.mark.parametrize("reads", [False, True])
@pytest_twisted.ensureDeferred
async def test_what_was_left_unread_goes_on_and_what_was_read_does_not(
    wires: Any, short_directory: Path, reads: bool
) -> None:
    """An instance killed before it looked at a call has done nothing; one after that may have."""
    path = str(short_directory / "dying.sock")
    lead(wires, Target("dying", Address(path=path)))
    client = await wires.connect()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        client.send(POST)
        await running(wires, lambda: select([listening], [], [], 0)[0])
        with listening.accept()[0] as accepted:
            await running(wires, lambda: select([accepted], [], [], 0)[0])
            if reads:
                assert accepted.recv(9999).endswith(b"body")
    if reads:
        await running(wires, lambda: client.received)
        assert (await client.answer()).status == 502
        assert not wires.agents.accepted
    else:
        agent = await agent_of(wires)
        assert (await agent.take(b"body")).endswith(b"\r\n\r\nbody")
        agent.send(OK)
        assert (await client.answer()).body == b"ok"


def the_agent(wires: Any) -> Target:
    """The agent that a test plays."""
    target: Target = wires.router.match(b"localhost", b"/shop").targets[-1]
    return target


@pytest.mark.parametrize("early", [b"", b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n\r\n"])
@pytest_twisted.ensureDeferred
async def test_a_body_in_pieces_goes_whole_to_the_one_that_takes_it(
    wires: Any, absent: dict[str, Target], early: bytes
) -> None:
    """However much of it came before there was a connection."""
    lead(wires, *absent.values())
    client = await wires.connect()
    client.send(CHUNKED + early)
    agent = await agent_of(wires)
    client.send(b"3\r\nabc\r\n0\r\n\r\n"[len(early) :])
    assert (await agent.take(b"0\r\n\r\n")).partition(b"\r\n\r\n")[2] == b"3\r\nabc\r\n0\r\n\r\n"
    agent.send(OK)
    assert (await client.answer()).body == b"ok"
    assert [failed for _, failed in failures(wires)] == [True] * 4 + [False]


@pytest_twisted.ensureDeferred
async def test_a_body_in_pieces_goes_to_one_that_has_a_connection(
    wires: Any, absent: dict[str, Target]
) -> None:
    """As to one that has none; a connection that is held back reads on."""
    client = await wires.connect()
    client.send(GET)
    agent = await agent_of(wires)
    await agent.take(b"\r\n\r\n")
    agent.send(OK)
    await client.answer()
    lead(wires, absent["no socket"])
    size = 3_000_000
    client.send(POST.partition(b"4\r\n")[0] + b"%d\r\n\r\n" % size + b"x" * size)
    await running(wires, lambda: agent.received)
    await agent.take(b"\r\n\r\n")
    await agent.until(lambda received: len(received) == size)
    agent.send(OK)
    assert (await client.answer()).body == b"ok"
    assert len(wires.agents.accepted) == 1


@pytest_twisted.ensureDeferred
async def test_a_client_that_waits_for_leave_to_send_gets_it_once(
    wires: Any, absent: dict[str, Target]
) -> None:
    """Whatever becomes of it behind the gateway."""
    lead(wires, *absent.values())
    client = await wires.connect()
    client.send(EXPECTING)
    agent = await agent_of(wires)
    await agent.take(b"\r\n\r\n")
    assert await client.take(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"12345")
    assert await agent.take(b"12345") == b"12345"
    agent.send(OK)
    assert (await client.answer()).status == 200


@pytest_twisted.ensureDeferred
async def test_a_body_of_which_something_was_handed_on_goes_nowhere_else(
    wires: Any, short_directory: Path
) -> None:
    """Whoever closed the connection then: it is not at hand any more."""
    other = Target("two", wires.router.match(b"localhost", b"/tcp").targets[0].address)
    wires.publish(
        attrs.evolve(wires.router.match(b"localhost", b"/shop"), targets=(the_agent(wires), other))
    )
    client = await wires.connect()
    client.send(CHUNKED + b"3\r\nabc\r\n")
    agent = await agent_of(wires)
    await agent.take(b"abc\r\n")
    agent.transport.abortConnection()
    await running(wires, lambda: client.received)
    assert (await client.answer()).status == 502
    assert len(wires.agents.accepted) == 1


@pytest_twisted.ensureDeferred
async def test_an_upgrade_goes_to_the_instance_that_takes_it(
    wires: Any, absent: dict[str, Target]
) -> None:
    """As any other request."""
    lead(wires, *absent.values())
    client = await wires.connect()
    client.send(UPGRADE)
    agent = await agent_of(wires)
    await agent.take(b"\r\n\r\n")
    agent.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhi"
    )
    assert (await client.take(b"hi")).startswith(b"HTTP/1.1 101 ")


@pytest.fixture
def full(short_directory: Path) -> Iterator[Target]:
    """An instance whose queue of connections is full."""
    path = str(short_directory / "full.sock")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as waiting:
        listening.bind(path)
        listening.listen(0)
        waiting.connect(path)
        yield Target("full", Address(path=path))


@briefly
@pytest_twisted.ensureDeferred
async def test_a_busy_instance_is_left_after_its_share_of_the_time(
    wires: Any, full: Target
) -> None:
    """Without being avoided."""
    lead(wires, full)
    client = await wires.connect()
    client.send(GET)
    agent = await agent_of(wires)
    await agent.take(b"\r\n\r\n")
    agent.send(OK)
    assert (await client.answer()).body == b"ok"
    assert failures(wires) == [("full", False), ("one", False)]


@pytest_twisted.ensureDeferred
async def test_no_other_is_tried_once_the_time_to_connect_is_over(
    corridor: Any, make_route: Any
) -> None:
    """However many there are."""
    targets = [Target(str(n), Address(path=f"/run/{n}/agent.sock")) for n in range(4)]
    corridor.publish(make_route("localhost/shop", Kind.SERVICE, targets=tuple(targets)))
    client = await corridor.connect()
    client.send(GET)
    error = AgentUnreachable("it takes too long", got_nothing=True)
    for number, seconds in enumerate((1.25, 3.0, 1.0)):
        await running(corridor, lambda: len(corridor.upstream.sent) > number)  # noqa: B023
        corridor.clock.advance(seconds)
        corridor.upstream.sent[-1][2].answer.failed(error)
    assert (await client.answer()).status == 502
    assert len(corridor.upstream.sent) == 3


@pytest_twisted.ensureDeferred
async def test_the_wait_for_a_place_is_not_part_of_that(corridor: Any, make_route: Any) -> None:
    """Others may be full for long, and refuse then."""
    targets = [Target(str(n), Address(path=f"/run/{n}/agent.sock")) for n in range(3)]
    corridor.publish(make_route("localhost/shop", Kind.SERVICE, targets=tuple(targets)))
    client = await corridor.connect()
    client.send(GET)
    error = AgentUnreachable("it refuses", got_nothing=True)
    await running(corridor, lambda: corridor.upstream.sent)
    corridor.orchestrator.full = True
    corridor.upstream.sent[0][2].answer.failed(error)
    await running(corridor, lambda: corridor.orchestrator.waiting)
    corridor.clock.advance(20)
    corridor.orchestrator.full = False
    corridor.orchestrator.chosen = 1
    corridor.orchestrator.grant()
    corridor.upstream.sent[1][2].answer.failed(error)
    await running(corridor, lambda: len(corridor.upstream.sent) == 3)
    corridor.upstream.sent[2][2].say(b"ok")
    assert (await client.answer()).body == b"ok"
    assert [instance for instance, _ in failures(corridor)] == ["0", "1", "2"]
    (record,) = corridor.records()
    assert (record["status"], record["queued"]) == (200, 20.0)


@pytest_twisted.ensureDeferred
async def test_a_task_goes_to_the_instance_that_takes_it(corridor: Any, make_route: Any) -> None:
    """The first call of a connection as well as a repeated one, and the same task each time."""
    targets = [Target(name, Address(path=f"/run/{name}/agent.sock")) for name in ("one", "two")]
    corridor.publish(make_route("localhost/demo", targets=tuple(targets)))
    client = await corridor.connect()
    for number in range(1, 5):
        client.send(TASK)
        await running(corridor, lambda: len(corridor.tasks.sent) == 2 * number - 1)  # noqa: B023
        corridor.tasks.sent[-1][2].answer.failed(AgentLeft("it is gone", got_nothing=True))
        await running(corridor, lambda: len(corridor.tasks.sent) == 2 * number)  # noqa: B023
        (first, refused, _), (second, taken, exchange) = corridor.tasks.sent[-2:]
        assert (first.target.instance, second.target.instance) == ("one", "two")
        assert refused == taken
        exchange.answer.complete(200, ((b"Content-Type", b"application/json"),), b'"done"')
        assert (await client.answer()).body == b'"done"'
    assert len(corridor.records()) == 4
    assert failures(corridor) == [("one", True), ("two", False)] * 4


@pytest_twisted.ensureDeferred
async def test_a_task_that_fails_while_it_is_sent_goes_on_too(
    corridor: Any, make_route: Any
) -> None:
    """A queue directory that cannot be written says so at once."""
    targets = [Target(name, Address(path=f"/run/{name}/agent.sock")) for name in ("one", "two")]
    corridor.publish(make_route("localhost/demo", targets=tuple(targets)))
    refusals = [AgentUnreachable("no", got_nothing=True), None] * 3

    def respond(task: Any, exchange: Any) -> None:
        error = refusals.pop(0)
        if error is not None:
            exchange.answer.failed(error)
        else:
            exchange.say(b'"done"', 200, ((b"Content-Type", b"application/json"),))

    corridor.tasks.respond = respond
    client = await corridor.connect()
    for _ in range(3):
        client.send(TASK)
        await running(corridor, lambda: client.received)
        assert (await client.answer()).body == b'"done"'
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_an_instance_that_replaced_the_refusing_one_is_another(corridor: Any) -> None:
    """The routes that hold when it refuses say which there are."""
    client = await corridor.connect()
    client.send(GET)
    await running(corridor, lambda: corridor.upstream.sent)
    route = corridor.router.match(b"localhost", b"/shop")
    new = Target("new", Address(path="/run/new/agent.sock"))
    corridor.publish(attrs.evolve(route, targets=(new,), release=2))
    corridor.upstream.sent[0][2].answer.failed(AgentUnreachable("gone", got_nothing=True))
    await running(corridor, lambda: len(corridor.upstream.sent) == 2)
    address, _, exchange = corridor.upstream.sent[1]
    assert address == new.address
    exchange.say(b"ok")
    assert (await client.answer()).body == b"ok"


@pytest.mark.parametrize("becomes", ["removed", "another deployment", "the same one"])
@pytest_twisted.ensureDeferred
async def test_nothing_else_is_tried_where_nothing_else_is(corridor: Any, becomes: str) -> None:
    """What was meant for one deployment never goes to another that took its place."""
    client = await corridor.connect()
    client.send(GET)
    await running(corridor, lambda: corridor.upstream.sent)
    route = corridor.router.match(b"localhost", b"/shop")
    new = Target("new", Address(path="/run/new/agent.sock"))
    if becomes == "removed":
        corridor.publish()
    elif becomes == "another deployment":
        corridor.publish(attrs.evolve(route, targets=(new,), deployment="other"))
    corridor.upstream.sent[0][2].answer.failed(AgentUnreachable("gone", got_nothing=True))
    assert (await client.answer()).status == 502
    assert len(corridor.upstream.sent) == 1


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_takes_its_request_along(corridor: Any, make_route: Any) -> None:
    """While another instance is waited for, too."""
    targets = [Target(name, Address(path=f"/run/{name}/agent.sock")) for name in ("one", "two")]
    corridor.publish(make_route("localhost/shop", Kind.SERVICE, targets=tuple(targets)))
    client = await corridor.connect()
    client.send(GET)
    await running(corridor, lambda: corridor.upstream.sent)
    corridor.orchestrator.full = True
    corridor.upstream.sent[0][2].answer.failed(
        Overloaded("busy", retry_after_seconds=1, got_nothing=True)
    )
    await running(corridor, lambda: corridor.orchestrator.waiting)
    client.transport.abortConnection()
    await running(corridor, lambda: not corridor.orchestrator.waiting)
    assert len(corridor.upstream.sent) == 1
    assert corridor.orchestrator.in_flight() == 0
    (record,) = corridor.records()
    assert (record["status"], record["mood"], record["failedAt"]) == (499, "gone", "client")
