"""Calls that ask to be durable: what is understood of that, and how the leader gets them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.errors import AgentBroken, AgentLeft, AgentUnreachable, BadRequest, CallFailed
from ploinky.routing.durable import Wish, wish_of
from ploinky.testing.routing import settled
from ploinky.values import Kind, Principal, Role
from tests.routing.test_gateway import HELLO, JSON, post, token

RECEIPT = b'{"taskId":"t-made","status":"queued","href":"/_ploinky/tasks/t-made"}'


@pytest.fixture
def leading(corridor: Any, make_route: Any) -> Any:
    """A gateway whose table has the leader in it."""
    corridor.publish(
        make_route("localhost/demo"),
        make_route("localhost/shop", Kind.SERVICE),
        make_route("*/_ploinky", Kind.CONTROL),
    )
    return corridor


def accepts(head: bytes, exchange: Any) -> None:
    """Answer as the leader does to who does not wait."""
    location = (b"Location", b"/_ploinky/tasks/t-made")
    applied = (b"Preference-Applied", b"respond-async")
    exchange.say(RECEIPT, 202, (JSON, location, applied, (b"X-Internal", b"1")))


@pytest.mark.parametrize(
    ("prefer", "wish"),
    [
        ("respond-async", Wish(True, None, "", b"respond-async")),
        ("Respond-Async , wait=5", Wish(True, 5, "", b"respond-async, wait=5")),
        ("wait=5", Wish(True, 5, "", b"wait=5")),
        ('handling=lenient, wait = "7"; x=y', Wish(True, 7, "", b"wait=7")),
        ("wait=100000", Wish(True, 300, "", b"wait=300")),
        ("wait=soon", None),
        ("wait=-1", None),
        ("respond-asynchronously", None),
        ("", None),
    ],
)
def test_preferences_are_read_and_others_ignored(prefer: str, wish: Wish | None) -> None:
    """RFC 7240: what is not known, or not well-formed, is as if it were not there."""
    assert wish_of({b"prefer": prefer.encode()}) == wish


def test_a_key_is_any_printable_text() -> None:
    """The same text is the same key, another one another."""
    one = wish_of({b"idempotency-key": b'"8e03978e-40d5-43dd-bc93-6894a57f9324"'})
    assert one is not None
    assert (one.is_async, one.wait_seconds) == (False, None)
    assert one.key == wish_of({b"idempotency-key": b'"8e03978e-40d5-43dd-bc93-6894a57f9324"'}).key
    assert one.key != wish_of({b"idempotency-key": b"other"}).key
    for bad in (b"", b"x" * 256, b"tab\there", b"\xc3\xa9"):
        with pytest.raises(BadRequest, match="Idempotency-Key"):
            wish_of({b"idempotency-key": bad})


@pytest_twisted.ensureDeferred
async def test_the_leader_gets_the_call_and_answers_it(leading: Any) -> None:
    """With all that it needs, and the params exactly as sent; no instance is claimed for it."""
    leading.upstream.respond = accepts
    body = b'{"command":"hello","params":[ "W" ]}'
    answer = await leading.ask(post("/demo", body, "Prefer: respond-async", "X-Request-Id: r"))
    assert (answer.status, answer.body) == (202, RECEIPT)
    assert answer.field(b"location") == b"/_ploinky/tasks/t-made"
    assert answer.field(b"preference-applied") == b"respond-async"
    assert answer.field(b"x-internal") is None
    ((_, head, exchange),) = leading.upstream.sent
    assert head.startswith(b"POST /internal/tasks HTTP/1.1\r\n")
    fields = dict(line.split(b": ") for line in head.split(b"\r\n")[1:-2])
    assert fields == {
        b"Host": b"localhost",
        b"Content-Type": b"application/json",
        b"Content-Length": b"7",
        b"X-Ploinky-Task": b"t-made",
        b"X-Ploinky-Deployment": b"id-of-demo",
        b"X-Ploinky-Command": b"hello",
        b"X-Ploinky-User": b"InternetUser",
        b"X-Ploinky-Anonymous": b"1",
        b"X-Ploinky-Wait": b"0.000",
        b"X-Ploinky-Async": b"1",
        b"X-Ploinky-Preference": b"respond-async",
        b"X-Request-Id": b"r",
    }
    assert exchange.written == b'[ "W" ]'
    assert leading.orchestrator.leases == []
    (record,) = leading.records()
    assert (record["command"], record["status"]) == ("hello", 202)


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/demo", b'{"async":true,"command":"hello"}'),
        ("/demo/hello", b"[]"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_every_form_may_be_durable(leading: Any, target: str, body: bytes) -> None:
    """The body of the plain form may say so itself; a key goes along from any."""
    leading.upstream.respond = accepts
    answer = await leading.ask(post(target, body, "Idempotency-Key: k"))
    assert answer.status == 202
    ((_, head, _),) = leading.upstream.sent
    assert b"\r\nX-Ploinky-Key: " in head
    assert (b"\r\nX-Ploinky-Async: 1" in head) is (target == "/demo")


@pytest_twisted.ensureDeferred
async def test_who_calls_is_the_workers_word(leading: Any, make_route: Any) -> None:
    """Fields of the client's own do not reach the leader."""
    leading.upstream.respond = accepts
    principal = Principal("dora", Role.CALLER, token_hash=token("secret"))
    leading.publish(
        make_route("localhost/demo"),
        make_route("*/_ploinky", Kind.CONTROL),
        principals=(principal,),
    )
    forged = ("X-Ploinky-User: Admin", "X-Ploinky-Anonymous: 1", "Prefer: respond-async")
    await leading.ask(post("/demo", HELLO, "Authorization: Bearer secret", *forged))
    ((_, head, _),) = leading.upstream.sent
    assert head.count(b"X-Ploinky-User: ") == 1
    assert b"X-Ploinky-User: dora\r\n" in head
    assert b"Anonymous" not in head
    assert b"secret" not in head


@pytest_twisted.ensureDeferred
async def test_a_client_cannot_ask_the_leader_itself(leading: Any) -> None:
    """The place where workers hand in tasks is on no route, and a look-alike is marked."""
    answer = await leading.ask(post("/internal/tasks", b"[]", "X-Ploinky-User: Admin"))
    assert (answer.status, msgspec.json.decode(answer.body)["code"]) == (404, "NO_SUCH_ROUTE")
    client = await leading.connect()
    client.send(post("/_ploinky/internal/tasks", b"[]", "X-Ploinky-User: Admin"))
    await settled(reactor, lambda: leading.upstream.sent)
    ((_, head, _),) = leading.upstream.sent
    assert b"X-Ploinky-User" not in head
    assert b"X-Forwarded-For: 127.0.0.1" in head


@pytest_twisted.ensureDeferred
async def test_without_a_leader_nothing_is_accepted(leading: Any) -> None:
    """503, and how to be sure that it runs once."""
    leading.upstream.respond = lambda head, exchange: exchange.answer.failed(
        AgentUnreachable("connection refused", got_nothing=True)
    )
    answer = await leading.ask(post("/demo", HELLO, "Prefer: respond-async"))
    said = msgspec.json.decode(answer.body)
    assert (answer.status, said["code"], answer.field(b"retry-after")) == (503, "DRAINING", b"2")
    assert "Idempotency-Key" in said["message"]


@pytest.mark.parametrize("error", [AgentLeft("it closed"), AgentBroken("half a line")])
@pytest_twisted.ensureDeferred
async def test_a_leader_that_goes_with_the_call_in_hand_may_have_accepted_it(
    leading: Any, error: CallFailed
) -> None:
    """So it is not said that it did not; its caller learns where that can be seen."""
    leading.upstream.respond = lambda head, exchange: exchange.answer.failed(error)
    answer = await leading.ask(post("/demo", HELLO, "Prefer: respond-async"))
    said = msgspec.json.decode(answer.body)
    assert (answer.status, said["code"]) == (504, "TASK_PENDING")
    assert answer.field(b"retry-after") is None
    assert said["details"] == {
        "taskId": "t-made",
        "href": "/_ploinky/tasks/t-made",
        "failedAt": "gateway",
    }


@pytest.mark.parametrize(
    ("status", "said", "part"),
    [
        (502, b"memory", "memory"),
        (502, None, "agent"),
        (504, b"queue", "queue"),
        (504, None, "timeout"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_leader_says_which_part_failed(
    leading: Any, status: int, said: bytes | None, part: str
) -> None:
    """In the answer, the access line and so the metrics; not that the agent did, where it did not."""
    fields = (JSON,) if said is None else (JSON, (b"X-Ploinky-Failed-At", said))
    leading.upstream.respond = lambda head, exchange: exchange.say(b"{}", status, fields)
    answer = await leading.ask(post("/demo", HELLO, "Prefer: wait=5"))
    assert answer.head.lower().count(b"failed-at") == 1
    assert answer.field(b"x-ploinky-failed-at") == part.encode()
    assert leading.records()[0]["failedAt"] == part
    assert leading.access_log.drain()[0]["failedAt"] == part


@pytest_twisted.ensureDeferred
async def test_a_leader_that_says_nothing_is_not_waited_for(leading: Any) -> None:
    """What became of the task is not claimed to be known."""
    client = await leading.connect()
    client.send(post("/demo", HELLO, "Prefer: wait=5"))
    await settled(reactor, lambda: leading.upstream.sent)
    leading.clock.advance(5 + 15 + 2)
    said = msgspec.json.decode((await client.answer()).body)
    assert (said["code"], said["details"]["taskId"]) == ("TASK_PENDING", "t-made")


@pytest_twisted.ensureDeferred
async def test_a_service_does_as_it_likes_with_preferences(leading: Any) -> None:
    """They are passed on, and mean nothing here."""
    client = await leading.connect()
    client.send(post("/shop", b"{}", "Prefer: respond-async", "Idempotency-Key: k"))
    await settled(reactor, lambda: leading.upstream.sent)
    ((_, head, _),) = leading.upstream.sent
    assert b"Prefer: respond-async" in head
    assert b"Idempotency-Key: k" in head
