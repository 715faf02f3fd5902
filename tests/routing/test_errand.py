"""The short way of tasks: nobody can tell it from the general one but by the clock."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs
import msgspec
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.error import ConnectionDone
from zope.interface.verify import verifyObject

from ploinky.errors import AgentUnreachable
from ploinky.interfaces import IAnswer
from ploinky.testing.routing import (
    Answered,
    FakeExchange,
    RawClient,
    half_closing,
    settled,
    turns,
)
from ploinky.values import CallAuth, Principal, Role, TaskCall

JSON = ((b"Content-Type", b"application/json"), (b"X-Ploinky-Command", b"hello"))


def call(*params: str, command: str = "hello", more: str = "") -> bytes:
    """Give a call of a command."""
    body = msgspec.json.encode({"command": command, "params": params}).decode()
    body = body[:-1] + more + "}"
    head = "POST /demo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body):03d}\r\n\r\n{body}".encode()


async def asked(corridor: Any, client: RawClient, request: bytes) -> FakeExchange:
    """Send one request and give what the agent's side got."""
    before = len(corridor.tasks.sent)
    client.send(request)
    await settled(reactor, lambda: len(corridor.tasks.sent) > before)
    exchange: FakeExchange = corridor.tasks.sent[-1][2]
    return exchange


async def exchanged(
    corridor: Any, client: RawClient, request: bytes, body: bytes = b'"ok"', status: int = 200
) -> Answered:
    """Send one request and let the agent answer it in one piece."""
    (await asked(corridor, client, request)).answer.complete(status, JSON, body)
    return await client.answer()


async def underway(corridor: Any) -> tuple[RawClient, FakeExchange]:
    """Give a client and what the agent's side got, with a task in hand on its short way."""
    client = await corridor.connect()
    for _ in range(3):
        await exchanged(corridor, client, call("a"))
    exchange = await asked(corridor, client, call("b"))
    assert corridor.factory.busy == 0
    assert corridor.factory.in_hand() == 1
    return client, exchange


@pytest_twisted.ensureDeferred
async def test_a_connection_may_be_for_one_task(corridor: Any) -> None:
    """It says so, and ends."""
    client = await corridor.connect()
    request = call("a").replace(b"Host: ", b"Connection: close\r\nHost: ")
    answer = await exchanged(corridor, client, request)
    assert (answer.body, answer.field(b"connection")) == (b'"ok"', b"close")
    await settled(reactor, lambda: client.reason is not None)
    assert client.reason is not None
    assert client.reason.check(ConnectionDone)
    assert not corridor.factory.connections


@pytest_twisted.ensureDeferred
async def test_a_repeated_task_is_called_and_answered_as_the_first(corridor: Any) -> None:
    """Each with its own params, ids, result and record."""
    client = await corridor.connect()
    answers = []
    for number in range(5):
        answers.append(await exchanged(corridor, client, call(str(number)), b"%d" % number))
    assert [answer.body for answer in answers] == [b"0", b"1", b"2", b"3", b"4"]
    ids = [answer.field(b"x-request-id") for answer in answers]
    calls: list[TaskCall] = [request for _, request, _ in corridor.tasks.sent]
    assert [one.request_id.encode() for one in calls] == ids
    assert len({one.task for one in calls}) == 5
    assert [one.params for one in calls] == [b'["%d"]' % number for number in range(5)]
    alike = {(one.command, one.user, one.deadline_ms, one.to_events) for one in calls}
    assert alike == {("hello", "InternetUser", round((corridor.wall + 30) * 1000), False)}

    def plain(answer: Answered) -> list[tuple[bytes, bytes]]:
        return sorted(field for field in answer.fields if field[0] != b"x-request-id")

    assert all(plain(answer) == plain(answers[0]) for answer in answers)
    records = corridor.records()
    assert [one.pop("id").encode() for one in records] == ids
    assert all(one == records[0] for one in records)
    (counted,) = corridor.access_log.drain()
    assert (counted["command"], counted["count"]) == ("hello", 5)
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_each_command_is_counted_by_its_name(corridor: Any) -> None:
    """Also where they take turns on one connection."""
    client = await corridor.connect()
    for command in ("hello", "bye", "hello", "hello", "bye"):
        await exchanged(corridor, client, call(command=command))
    counted = {one["command"]: one["count"] for one in corridor.access_log.drain()}
    assert counted == {"hello": 3, "bye": 2}


@pytest_twisted.ensureDeferred
async def test_the_date_goes_on(corridor: Any) -> None:
    """Second by second."""
    client = await corridor.connect()
    dates = []
    for _ in range(5):
        dates.append((await exchanged(corridor, client, call())).field(b"date"))
        corridor.clock.advance(1)
        corridor.wall += 1
    assert len(set(dates)) == 5


@pytest_twisted.ensureDeferred
async def test_other_fields_make_another_head(corridor: Any) -> None:
    """Whatever the answer before had."""
    client = await corridor.connect()
    for _ in range(3):
        await exchanged(corridor, client, call())
    exchange = await asked(corridor, client, call())
    exchange.answer.complete(200, (JSON[0], (b"X-Ploinky-Command", b"bye")), b"1")
    assert (await client.answer()).field(b"x-ploinky-command") == b"bye"


@pytest_twisted.ensureDeferred
async def test_an_error_of_the_agents_is_passed_on(corridor: Any) -> None:
    """And the next task is answered as ever."""
    client, exchange = await underway(corridor)
    exchange.answer.complete(500, JSON, b'{"error":true}')
    answer = await client.answer()
    assert (answer.status, answer.body) == (500, b'{"error":true}')
    record = corridor.records()[-1]
    assert (record["status"], record["mood"], record["failedAt"]) == (500, "failed", "agent")
    assert (await exchanged(corridor, client, call())).body == b'"ok"'
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_an_answer_in_pieces_is_passed_on(corridor: Any) -> None:
    """Each as it comes."""
    client, exchange = await underway(corridor)
    assert verifyObject(IAnswer, exchange.answer)
    exchange.answer.started(200, JSON, None)
    exchange.answer.data(b"[1")
    await client.take(b"[1")
    exchange.answer.data(b",2]")
    exchange.answer.ended()
    await client.take(b"0\r\n\r\n")
    assert (await exchanged(corridor, client, call())).body == b'"ok"'
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_an_agent_that_fails_is_told_of(corridor: Any) -> None:
    """As on the general way."""
    client, exchange = await underway(corridor)
    exchange.answer.failed(AgentUnreachable("it is gone"))
    assert (await client.answer()).status == 502
    assert corridor.orchestrator.leases[-1].failed is True


@pytest_twisted.ensureDeferred
async def test_a_transport_that_answers_at_once_is_heard(corridor: Any) -> None:
    """Before it has given its exchange: with a result, or with a failure."""
    client = await corridor.connect()
    for _ in range(3):
        await exchanged(corridor, client, call())
    corridor.tasks.respond = lambda task, exchange: exchange.answer.complete(200, JSON, b"7")
    for _ in range(2):
        client.send(call())
        assert (await client.answer()).body == b"7"
    error = AgentUnreachable("no")
    corridor.tasks.respond = lambda task, exchange: exchange.answer.failed(error)
    for _ in range(2):
        client.send(call())
        assert (await client.answer()).status == 502
    corridor.tasks.respond = None
    assert (await exchanged(corridor, client, call())).body == b'"ok"'
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_a_task_that_takes_too_long_is_aborted(corridor: Any) -> None:
    """Inside the agent too; what it still says then disturbs no other."""
    client, exchange = await underway(corridor)
    corridor.clock.advance(31)
    assert (await client.answer()).status == 504
    assert exchange.cancelled
    assert corridor.records()[-1]["command"] == "hello"
    later = await asked(corridor, client, call("later"))
    exchange.answer.complete(200, JSON, b'"late"')
    await turns(reactor)
    assert client.received == b""
    later.answer.complete(200, JSON, b'"mine"')
    assert (await client.answer()).body == b'"mine"'
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_aborts_its_task(corridor: Any) -> None:
    """And the log says 499."""
    client, exchange = await underway(corridor)
    client.transport.abortConnection()
    await settled(reactor, lambda: exchange.cancelled)
    assert corridor.records()[-1]["status"] == 499
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_a_client_that_only_stops_sending_gets_its_result(corridor: Any) -> None:
    """And then the end of the connection."""
    client, exchange = await underway(corridor)
    heard = half_closing(client)
    client.transport.loseWriteConnection()
    await turns(reactor)
    exchange.answer.complete(200, JSON, b"1")
    assert (await client.answer()).body == b"1"
    await settled(reactor, lambda: heard)


@pytest_twisted.ensureDeferred
async def test_a_server_that_drains_says_so(corridor: Any) -> None:
    """In the answer to what is in hand."""
    client, exchange = await underway(corridor)
    drained = ensureDeferred(corridor.factory.drain(20))
    exchange.answer.complete(200, JSON, b"1")
    answer = await client.answer()
    assert (answer.body, answer.field(b"connection")) == (b"1", b"close")
    assert await drained == 0


@pytest_twisted.ensureDeferred
async def test_what_is_no_task_is_refused_as_ever(corridor: Any) -> None:
    """With the same head as the tasks before it."""
    client = await corridor.connect()
    good = call("a")
    for _ in range(3):
        await exchanged(corridor, client, good)
    client.send(good[:-1] + b"!")
    assert (await client.answer()).status == 400
    assert (await exchanged(corridor, client, good)).body == b'"ok"'


@pytest_twisted.ensureDeferred
async def test_a_wish_in_the_body_is_heeded(corridor: Any) -> None:
    """A task that is to be durable goes to the leader, though its head is that of those before."""
    more = ',"async":false'
    client = await corridor.connect()
    for _ in range(3):
        await exchanged(corridor, client, call(more=more))
    control = corridor.router.match(b"x", b"/management")
    key = attrs.evolve(control.key, path="/_ploinky")
    corridor.publish(corridor.router.match(b"localhost", b"/demo"), attrs.evolve(control, key=key))
    for _ in range(3):
        await exchanged(corridor, client, call(more=more))
    sent = len(corridor.tasks.sent)
    client.send(call(more=',"async": true'))
    await settled(reactor, lambda: corridor.upstream.sent)
    assert corridor.upstream.sent[0][1].startswith(b"POST /internal/tasks")
    assert len(corridor.tasks.sent) == sent


@pytest_twisted.ensureDeferred
async def test_where_every_place_is_taken_a_task_waits(corridor: Any) -> None:
    """And is sent once one is free."""
    client = await corridor.connect()
    for _ in range(3):
        await exchanged(corridor, client, call())
    corridor.orchestrator.full = True
    client.send(call())
    await settled(reactor, lambda: corridor.orchestrator.waiting)
    corridor.orchestrator.full = False
    before = len(corridor.tasks.sent)
    corridor.orchestrator.grant()
    await settled(reactor, lambda: len(corridor.tasks.sent) > before)
    corridor.tasks.sent[-1][2].answer.complete(200, JSON, b"1")
    assert (await client.answer()).body == b"1"
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_a_key_that_expires_is_known_until_then_and_no_longer(
    corridor: Any, make_route: Any
) -> None:
    """Whatever was remembered while it was valid."""
    hashed = hashlib.sha256(b"pk_1").hexdigest()
    key = Principal("ci", Role.CALLER, hashed, expires_at=corridor.wall + 60)
    corridor.publish(make_route("localhost/demo", auth=CallAuth.KEY), principals=(key,))
    client = await corridor.connect()
    request = call("a").replace(b"Host: ", b"X-API-Key: pk_1\r\nHost: ")
    for _ in range(3):
        exchange = await asked(corridor, client, request)
        assert (corridor.factory.busy, corridor.factory.in_hand()) == (0, 1)
        exchange.answer.complete(200, JSON, b'"ok"')
        assert (await client.answer()).status == 200
    corridor.wall += 60
    client.send(request)
    assert (await client.answer()).status == 401
    assert {one.user for _, one, _ in corridor.tasks.sent} == {"ci"}
