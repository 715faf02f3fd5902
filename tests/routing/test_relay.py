"""The short way: what is repeated is passed on in two steps, and nobody can tell but by the clock."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.error import ConnectionDone

from ploinky.testing.routing import Answered, RawClient, half_closing, settled, turns
from ploinky.values import Address, Kind, Target

GET = b"GET /shop/a HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
GONE = b"HTTP/1.1 410 Gone\r\nContent-Length: 4\r\n\r\ngone"


async def exchanged(
    wires: Any, client: RawClient, request: bytes = GET, answer: bytes = OK, agent: int = 1
) -> Answered:
    """Send one request on a connection and let the agent answer it."""
    client.send(request)
    end = await wires.agent(agent)
    await end.take(b"\r\n\r\n")
    end.send(answer)
    return await client.answer()


async def underway(wires: Any, request: bytes = GET) -> tuple[RawClient, RawClient]:
    """Give both ends with a request in hand on its short way."""
    client = await wires.connect()
    for _ in range(3):
        await exchanged(wires, client, request)
    client.send(request)
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    assert wires.factory.busy == 0
    assert wires.factory.in_hand() == 1
    return client, agent


def without_id_and_date(head: bytes) -> list[bytes]:
    """Give the fields of a head in order of their names, less what always differs."""
    fields = head.split(b"\r\n")
    return sorted(one for one in fields if not one.startswith((b"X-Request-Id: ", b"Date: ")))


@pytest_twisted.ensureDeferred
async def test_a_repeated_request_is_answered_as_the_first(wires: Any) -> None:
    """The same fields, the same line in the log, and an id of its own."""
    client = await wires.connect()
    answers = [await exchanged(wires, client) for _ in range(5)]
    assert len({answer.field(b"x-request-id") for answer in answers}) == 5
    assert [answer.body for answer in answers] == [b"ok"] * 5
    assert [without_id_and_date(answer.head) for answer in answers] == [
        without_id_and_date(answers[0].head)
    ] * 5
    records = wires.records()
    assert [one["id"].encode() for one in records] == [
        answer.field(b"x-request-id") for answer in answers
    ]
    of_first = {name: value for name, value in records[0].items() if name != "id"}
    for record in records[1:]:
        assert {name: value for name, value in record.items() if name != "id"} == of_first
    (counted,) = wires.access_log.drain()
    assert (counted["count"], counted["bytesIn"]) == (5, 5 * len(GET))
    assert wires.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_the_agent_gets_the_same_too(wires: Any) -> None:
    """Byte for byte, but for the id; with the body of this request, not of the one before."""
    client = await wires.connect()
    agent = None
    seen = []
    for number in range(4):
        client.send(
            b"POST /shop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n%d" % number
        )
        agent = agent or await wires.agent()
        head = await agent.take(b"\r\n\r\n")
        await agent.until(lambda received: bool(received))
        seen.append((without_id_and_date(head), agent.received))
        agent.received = b""
        agent.send(OK)
        await client.answer()
    assert [body for _, body in seen] == [b"0", b"1", b"2", b"3"]
    assert all(head == seen[0][0] for head, _ in seen)


@pytest_twisted.ensureDeferred
async def test_an_answer_is_counted_by_its_own_status(wires: Any) -> None:
    """Whatever the answers before had."""
    client = await wires.connect()
    for answer in (OK, OK, OK, GONE, GONE, GONE, OK):
        await exchanged(wires, client, answer=answer)
    assert [one["status"] for one in wires.records()] == [200, 200, 200, 410, 410, 410, 200]
    counted = {one["status"]: one["count"] for one in wires.access_log.drain()}
    assert counted == {200: 4, 410: 3}


@pytest_twisted.ensureDeferred
async def test_the_counts_go_on_after_they_were_drained(wires: Any) -> None:
    """As often as they are."""
    client = await wires.connect()
    found = []
    for _ in range(3):
        await exchanged(wires, client)
        await exchanged(wires, client)
        found += [one["count"] for one in wires.access_log.drain()]
    assert found == [2, 2, 2]


@pytest_twisted.ensureDeferred
async def test_the_date_goes_on(wires: Any) -> None:
    """Second by second."""
    client = await wires.connect()
    dates = []
    for _ in range(5):
        dates.append((await exchanged(wires, client)).field(b"date"))
        wires.clock.advance(1)
        wires.wall += 1
    assert len(set(dates)) == 5


@pytest_twisted.ensureDeferred
async def test_an_answer_that_begins_like_another_is_not_taken_for_it(wires: Any) -> None:
    """As long as the one before, with another head; or with more of it to come."""
    client = await wires.connect()
    other = OK.replace(b"text/plain", b"text/xhtml").replace(b"\r\nok", b"\r\nko")
    answers = [await exchanged(wires, client, answer=each) for each in (OK, OK, OK, other, OK)]
    assert [each.field(b"content-type") for each in answers] == [
        *[b"text/plain"] * 3,
        b"text/xhtml",
        b"text/plain",
    ]
    assert [each.body for each in answers] == [b"ok", b"ok", b"ok", b"ko", b"ok"]


@pytest_twisted.ensureDeferred
async def test_a_server_that_drains_says_so_in_the_answer_to_what_is_in_hand(wires: Any) -> None:
    """Nothing in hand is cut off, and nobody is left waiting."""
    client, agent = await underway(wires)
    drained = ensureDeferred(wires.factory.drain(30))
    agent.send(OK)
    answer = await client.answer()
    assert (answer.body, answer.field(b"connection")) == (b"ok", b"close")
    assert await drained == 0


@pytest_twisted.ensureDeferred
async def test_a_drain_whose_time_is_up_tells_of_what_it_cut_off(wires: Any) -> None:
    """On the short way as on the general one."""
    client, _ = await underway(wires)
    drained = ensureDeferred(wires.factory.drain(5))
    wires.clock.advance(6)
    assert await drained == 1
    await client.lost


@pytest_twisted.ensureDeferred
async def test_an_agent_that_is_silent_has_the_time_of_its_route(wires: Any) -> None:
    """Not that of a connection that idles, which may be shorter; and it counts from the beginning."""
    key = wires.router.match(b"localhost", b"/shop")
    wires.publish(attrs.evolve(key, timeout_seconds=200.0))
    client, agent = await underway(wires)
    wires.clock.advance(100)
    wires.clock.advance(99)
    assert client.received == b""
    wires.clock.advance(2)
    assert (await client.answer()).status == 504
    record = wires.records()[-1]
    assert (record["status"], record["bytesIn"]) == (504, len(GET))
    assert 200 <= record["seconds"] < 202
    assert wires.orchestrator.in_flight() == 0
    await agent.lost


@pytest_twisted.ensureDeferred
async def test_a_short_time_is_kept_too(wires: Any) -> None:
    """Of a route that gives less than a connection may idle."""
    route = wires.router.match(b"localhost", b"/shop")
    wires.publish(attrs.evolve(route, timeout_seconds=3.0))
    client = await wires.connect()
    for _ in range(3):
        await exchanged(wires, client)
    wires.clock.advance(10)  # it was idle for longer than a request may take
    client.send(GET)
    await (await wires.agent()).take(b"\r\n\r\n")
    wires.clock.advance(2.9)
    assert client.received == b""
    wires.clock.advance(0.3)
    assert (await client.answer()).status == 504


@pytest_twisted.ensureDeferred
async def test_an_idle_connection_that_was_busy_is_closed_in_time(wires: Any) -> None:
    """Its time counts from its last answer."""
    client = await wires.connect()
    for _ in range(4):
        await exchanged(wires, client)
        wires.clock.advance(50)
    await exchanged(wires, client)
    wires.clock.advance(wires.factory.gateway.limits.idle_seconds - 1)
    await turns(reactor)
    assert client.reason is None
    wires.clock.advance(2)
    await client.lost


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_takes_its_request_with_it(wires: Any) -> None:
    """The agent is told by the end of its connection, and the log by 499."""
    client, agent = await underway(wires)
    client.transport.abortConnection()
    await agent.lost
    assert wires.records()[-1]["status"] == 499
    assert wires.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_a_client_that_only_stops_sending_gets_its_answer(wires: Any) -> None:
    """And its connection ends with it."""
    client, agent = await underway(wires)
    heard = half_closing(client)
    client.transport.loseWriteConnection()
    await turns(reactor)
    agent.send(OK)
    assert (await client.answer()).body == b"ok"
    await settled(reactor, lambda: heard)


@pytest_twisted.ensureDeferred
async def test_what_a_client_sends_behind_a_request_in_hand_waits(wires: Any) -> None:
    """And is answered in its turn."""
    client, agent = await underway(wires)
    client.send(GET.replace(b"/a ", b"/b "))
    await turns(reactor)
    agent.send(OK)
    assert (await client.answer()).body == b"ok"
    assert (await agent.take(b"\r\n\r\n")).startswith(b"GET /b ")
    agent.send(GONE)
    assert (await client.answer()).status == 410


@pytest_twisted.ensureDeferred
async def test_an_agent_that_dies_with_a_request_is_not_asked_again(wires: Any) -> None:
    """It may have acted on it; a request that is safe to repeat goes on to a new connection."""
    post = b"POST /shop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    client, agent = await underway(wires, post)
    agent.transport.loseConnection()
    assert (await client.answer()).status == 502
    client = await wires.connect()
    for _ in range(3):
        await exchanged(wires, client, agent=2)
    client.send(GET)
    second = await wires.agent(2)
    await second.take(b"\r\n\r\n")
    second.transport.loseConnection()
    third = await wires.agent(3)
    await third.take(b"\r\n\r\n")
    third.send(OK)
    assert (await client.answer()).body == b"ok"
    assert wires.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_a_connection_in_hand_is_not_closed_as_idle(wires: Any) -> None:
    """Neither the client's, where room is made for others, nor the agent's."""
    client, agent = await underway(wires)
    (connection,) = wires.factory.connections
    assert connection.give_way() is False
    agent.send(OK)
    assert (await client.answer()).body == b"ok"
    assert connection.give_way() is True
    await client.lost


@pytest_twisted.ensureDeferred
async def test_an_agent_may_be_silent_for_longer_than_it_may_be_idle(wires: Any) -> None:
    """It is in use; afterwards it is idle, and closed in time."""
    client, agent = await underway(wires)
    wires.idle_clock.advance(1e11)
    agent.send(OK)
    assert (await client.answer()).body == b"ok"
    wires.idle_clock.advance(1e11)
    await agent.lost


@pytest_twisted.ensureDeferred
async def test_where_every_place_is_taken_a_request_waits(wires: Any) -> None:
    """And goes on as soon as one is free."""
    client = await wires.connect()
    for _ in range(3):
        await exchanged(wires, client)
    wires.orchestrator.full = True
    client.send(GET)
    await settled(reactor, lambda: wires.orchestrator.waiting)
    wires.orchestrator.full = False
    wires.orchestrator.grant()
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    agent.send(OK)
    assert (await client.answer()).body == b"ok"
    assert wires.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_one_of_several_instances_is_claimed_for_each_request(wires: Any) -> None:
    """A place at each, given back each time, also where there was no connection to it."""
    route = wires.router.match(b"localhost", b"/shop")
    nowhere = Target("three", Address(path="/run/three/agent.sock"))
    wires.publish(attrs.evolve(route, targets=(*route.targets, nowhere)))
    client = await wires.connect()
    for _ in range(4):
        assert (await exchanged(wires, client)).body == b"ok"
    agent = await wires.agent()
    agent.transport.loseConnection()
    await agent.lost
    await turns(reactor)
    assert (await exchanged(wires, client, agent=2)).body == b"ok"
    assert (await exchanged(wires, client, agent=2)).body == b"ok"
    assert wires.orchestrator.in_flight() == 0
    assert all(lease.released == 1 for lease in wires.orchestrator.leases)


@pytest_twisted.ensureDeferred
async def test_a_request_goes_to_the_instance_at_which_its_place_is(wires: Any) -> None:
    """Not to where the request before went: what is counted there would drain too early."""
    route = wires.router.match(b"localhost", b"/shop")
    other = wires.router.match(b"localhost", b"/tcp").targets[0]
    wires.publish(attrs.evolve(route, targets=(*route.targets, other)))
    client = await wires.connect()
    for _ in range(3):
        await exchanged(wires, client)
    wires.orchestrator.chosen = 1
    for _ in range(3):
        assert (await exchanged(wires, client, agent=2)).body == b"ok"
    wires.orchestrator.chosen = 0
    assert (await exchanged(wires, client, agent=1)).body == b"ok"
    wires.orchestrator.chosen = 1
    assert (await exchanged(wires, client, agent=2)).body == b"ok"
    assert len(wires.agents.accepted) == 2
    # One each, also where there was no connection yet: or the next in turn is never reached.
    assert len(wires.orchestrator.leases) == 8
    assert wires.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_each_of_a_clients_requests_goes_where_its_target_leads(wires: Any) -> None:
    """Whichever of its requests led elsewhere before, and in whatever order."""
    client = await wires.connect()
    targets = [b"/shop/a", b"/tcp/a", b"/tcp/a", b"/shop/a", b"/tcp/b", b"/shop/a", b"/shop/b"]
    agents: dict[bytes, int] = {}
    for target in targets:
        name = target[:4]
        number = agents.setdefault(name, len(agents) + 1)
        client.send(GET.replace(b"/shop/a", target))
        agent = await wires.agent(number)
        head = await agent.take(b"\r\n\r\n")
        assert head.startswith(b"GET /%b HTTP/1.1\r\n" % target[-1:])
        assert b"\r\nX-Forwarded-Prefix: %b\r\n" % target[:-2] in head
        agent.send(OK.replace(b"\r\nok", b"\r\n" + target[-2:]))
        assert (await client.answer()).body == target[-2:]
    assert len(wires.agents.accepted) == 2
    shown = [record["route"].encode() for record in wires.records()]
    assert shown == [b"localhost" + target[:-2] for target in targets]


@pytest.mark.parametrize(
    "request_",
    [GET.replace(b"X-A: 1", b"Connection: close"), GET.replace(b"HTTP/1.1", b"HTTP/1.0")],
)
@pytest_twisted.ensureDeferred
async def test_a_connection_may_be_for_one_request(wires: Any, request_: bytes) -> None:
    """It says so and ends, and the agent's goes on to the next client."""
    await exchanged(wires, await wires.connect())
    for _ in range(3):
        client = await wires.connect()
        answer = await exchanged(wires, client, request_)
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.field(b"connection") == b"close"
        await settled(reactor, lambda client=client: client.reason is not None)
        assert client.reason.check(ConnectionDone)
    await settled(reactor, lambda: len(wires.factory.connections) == 1)
    assert len(wires.agents.accepted) == 1
    assert [record["status"] for record in wires.records()] == [200] * 4
    assert wires.orchestrator.in_flight() == wires.factory.in_hand() == 0


@pytest_twisted.ensureDeferred
async def test_an_old_client_may_keep_its_connection(wires: Any) -> None:
    """As ``ab -k`` does: it asks for that, and is told so each time."""
    request = GET.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"X-A: 1", b"Connection: Keep-Alive")
    client, agent = await underway(wires, request)
    agent.send(OK)
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.field(b"connection") == b"keep-alive"
    assert (await exchanged(wires, client, GET)).field(b"connection") is None
    assert len(wires.factory.connections) == 1


@pytest_twisted.ensureDeferred
async def test_a_new_generation_of_routes_holds_for_the_next_request(wires: Any) -> None:
    """Also for one that is the same, byte for byte."""
    client = await wires.connect()
    for _ in range(3):
        await exchanged(wires, client)
    route = wires.router.match(b"localhost", b"/tcp")
    wires.publish(attrs.evolve(route, key=wires.router.match(b"localhost", b"/shop").key))
    client.send(GET)
    second = await wires.agent(2)
    await second.take(b"\r\n\r\n")
    second.send(GONE)
    assert (await client.answer()).status == 410


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_is_held_to_the_time_for_that(wires: Any) -> None:
    """Not to that of one that idles."""
    big = b"x" * 40_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(big), big)
    client = await wires.connect()
    client.transport.pauseProducing()
    await settled(reactor, lambda: wires.factory.connections)
    (connection,) = wires.factory.connections
    agent = None

    async def is_stuck() -> bool:
        """Tell whether something is queued that the kernel does not take a moment later, either."""
        if connection.outlet.queued:
            await turns(reactor)
        return bool(connection.outlet.queued)

    while not await is_stuck():
        client.send(GET)
        agent = agent or await wires.agent()
        await agent.take(b"\r\n\r\n")
        agent.send(answer)
        await settled(reactor, lambda: wires.factory.in_hand() == 0)
    limits = wires.factory.gateway.limits
    assert limits.sending_seconds < limits.idle_seconds
    wires.clock.advance(limits.sending_seconds + 1)
    client.transport.resumeProducing()
    await client.lost


@pytest_twisted.ensureDeferred
async def test_the_management_plane_is_repeated_the_same_way(wires: Any) -> None:
    """It is a target like any other."""
    assert wires.router.match(b"x", b"/management").kind is Kind.CONTROL
    ask = b"GET /management/api/check-auth HTTP/1.1\r\nHost: localhost\r\n\r\n"
    client, agent = await underway(wires, ask)
    agent.send(OK)
    assert (await client.answer()).body == b"ok"
