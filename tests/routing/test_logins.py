"""Logins at a worker's gateway: who is wrong never reaches the leader, all others do."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.api import problems
from ploinky.errors import TooManyRequests, Unauthenticated
from ploinky.security.tokens import token_hash
from ploinky.testing.routing import Answered, FakeExchange, settled
from ploinky.values import AuditEntry, Kind, Principal, Role
from tests.routing.conftest import Corridor, route

ADMIN = Principal("Admin", Role.ADMIN, token_hash("pk_right"))
SESSION = Principal("Admin", Role.ADMIN, token_hash("ps_right"), session=True)
WRONG = {"command": "login", "params": ["pk_wrong"]}
RIGHT = {"command": "login", "params": ["pk_right"]}


@pytest.fixture
def trusted() -> tuple[str, ...]:
    """Nobody, where a test says nothing else."""
    return ()


@pytest.fixture
def entrance(corridor: Corridor) -> Corridor:
    """A gateway whose leader answers 204 to whatever reaches it."""

    def respond(head: bytes, exchange: FakeExchange) -> None:
        if exchange.finished:
            exchange.answer.complete(204, (), b"")

    corridor.upstream.respond = respond
    corridor.publish(
        route("*/auth", Kind.CONTROL),
        route("*/management", Kind.CONTROL),
        principals=(ADMIN, SESSION),
    )
    return corridor


def post(body: Any, *fields: str, path: str = "/auth") -> bytes:
    """Give a request with a JSON body."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(sent)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + sent


async def ask(entrance: Corridor, *request: Any, **place: str) -> int:
    """Send one; give the status."""
    return int((await entrance.ask(post(*request, **place))).status)


async def hold_up(entrance: Corridor, *fields: str) -> None:
    """Guess until it is too much."""
    for _ in range(10):
        assert await ask(entrance, WRONG, *fields) == 401
    assert await ask(entrance, WRONG, *fields) == 429


def records(entrance: Corridor) -> list[AuditEntry]:
    """Give what is for the audit trail."""
    lines = entrance.logins.drain().splitlines()
    return [msgspec.json.decode(line, type=AuditEntry) for line in lines]


def said(answer: Answered) -> tuple[int, dict[str, str], bytes]:
    """Give what a client can tell an answer by, but for framing and date."""
    fields = {
        name.decode().lower(): value.decode()
        for name, value in answer.fields
        if name.lower() not in (b"date", b"content-length", b"x-request-id")
    }
    return int(answer.status), fields, answer.body


@pytest_twisted.ensureDeferred
async def test_guessing_reaches_no_leader(entrance: Corridor) -> None:
    """Ten at once are told that they are wrong, then one in six seconds; the rest, when to come."""
    await hold_up(entrance)
    entrance.clock.advance(6)
    assert await ask(entrance, WRONG) == 401
    assert await ask(entrance, WRONG) == 429
    assert entrance.upstream.sent == []


@pytest_twisted.ensureDeferred
async def test_it_is_answered_as_the_leader_would(entrance: Corridor) -> None:
    """Status, fields and body, so that no client sees who answered."""
    wrong = await entrance.ask(post(WRONG, "X-Request-Id: r-1"))
    await hold_up_rest(entrance)
    early = await entrance.ask(post(WRONG, "X-Request-Id: r-2"))
    for answer, error, id_ in (
        (wrong, Unauthenticated("this API key is not valid"), "r-1"),
        (
            early,
            TooManyRequests(
                "too many attempts to log in from 127.0.0.1; try again in 6 s",
                retry_after_seconds=6,
            ),
            "r-2",
        ),
    ):
        leaders = problems.answer(error, id_)
        fields = {name.lower(): value for name, value in leaders.fields}
        assert said(answer) == (
            leaders.status,
            {
                "cache-control": "no-store",
                "x-content-type-options": "nosniff",
                "referrer-policy": "no-referrer",
                "content-type": leaders.content_type,
                **fields,
            },
            leaders.body,
        )


async def hold_up_rest(entrance: Corridor) -> None:
    """Guess on after the first."""
    for _ in range(9):
        assert await ask(entrance, WRONG) == 401


@pytest_twisted.ensureDeferred
async def test_a_login_that_is_right_goes_to_the_leader_whole(entrance: Corridor) -> None:
    """It counts it, and makes the session; here nothing is counted."""
    for _ in range(20):
        assert await ask(entrance, RIGHT) == 204
    _, head, exchange = entrance.upstream.sent[-1]
    assert head.startswith(b"POST /auth HTTP/1.1\r\n")
    assert json.loads(exchange.written) == RIGHT


@pytest_twisted.ensureDeferred
async def test_a_session_is_no_key(entrance: Corridor) -> None:
    """Nobody makes another session of it."""
    assert await ask(entrance, {"command": "login", "params": ["ps_right"]}) == 401


@pytest_twisted.ensureDeferred
async def test_a_key_that_is_taken_back_is_wrong(entrance: Corridor) -> None:
    """From the next table on, on a connection that is open too."""
    client = await entrance.connect()
    client.send(post(RIGHT))
    assert (await client.answer()).status == 204
    entrance.publish(route("*/auth", Kind.CONTROL))
    client.send(post(RIGHT))
    assert (await client.answer()).status == 401


@pytest_twisted.ensureDeferred
async def test_one_connection_may_guess_and_log_in(entrance: Corridor) -> None:
    """Each request is looked at, also where its head is that of the one before; in pieces as well."""
    client = await entrance.connect()
    for body, status in ((RIGHT, 204), (RIGHT, 204), (WRONG, 401), (RIGHT, 204), (WRONG, 401)):
        request = post(body | {"params": [body["params"][0].ljust(9)[:8]]})
        for piece in (request[:40], request[40:-5], request[-5:]):
            client.send(piece)
        assert (await client.answer()).status == status


@pytest_twisted.ensureDeferred
async def test_even_the_right_key_waits_while_its_address_is_held_up(entrance: Corridor) -> None:
    """So nobody learns from the answer whether a guess was right."""
    await hold_up(entrance)
    assert await ask(entrance, RIGHT) == 429
    entrance.clock.advance(6)
    assert await ask(entrance, RIGHT) == 204


@pytest.mark.parametrize(
    ("body", "fields", "path"),
    [
        ({"command": "logout"}, (), "/auth"),
        ({"command": "login", "params": []}, (), "/auth"),
        ({"command": "login", "params": ["a", "b"]}, (), "/auth"),
        ({"command": "login", "params": ["a"], "more": 1}, (), "/auth"),
        (b"{", (), "/auth"),
        (b'{"command": "login", "params": ["\\ud800"]}', (), "/auth"),
        (b'{"command": "login", "params": ["\xff"]}', (), "/auth"),
        (b'{"command": "login", "params": ' + b"[" * 3000, (), "/auth"),
        (b'{"more": ' + b"[" * 3000, (), "/auth"),
        (WRONG, (), "/auth?more=1"),
        (WRONG, (), "/auth/more"),
        ({"command": "login", "params": ["a" * 5000]}, (), "/auth"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_ordinary_login_is_the_leaders(entrance, body, fields, path):
    """Held up or not: it says what is wrong with it, and it counts by itself."""
    assert await ask(entrance, body, *fields, path=path) == 204
    await hold_up(entrance)
    assert await ask(entrance, body, *fields, path=path) == 204


@pytest_twisted.ensureDeferred
async def test_a_login_in_chunks_is_the_leaders(entrance: Corridor) -> None:
    """It is handed on as it comes."""
    client = await entrance.connect()
    client.send(
        b"POST /auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    )
    await settled(reactor, lambda: entrance.upstream.sent and entrance.upstream.sent[0][2].finished)
    _, head, exchange = entrance.upstream.sent[0]
    assert b"Transfer-Encoding: chunked" in head
    assert exchange.written == b"{}"


@pytest.mark.parametrize("field", ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"])
@pytest_twisted.ensureDeferred
async def test_a_page_elsewhere_counts_against_nobody(entrance, field):
    """Whoever visits it is not locked out: the leader sees where it comes from, and counts then."""
    for _ in range(20):
        assert await ask(entrance, WRONG, field) == 204
    await hold_up(entrance)
    assert await ask(entrance, WRONG, field) == 429


@pytest_twisted.ensureDeferred
async def test_pushes_of_who_guesses_are_refused_unread(entrance: Corridor) -> None:
    """Those of all others are the leader's to prove."""
    hook = "/management/api/hooks/d1"
    for _ in range(20):
        assert await ask(entrance, {}, path=hook) == 204
    await hold_up(entrance)
    answer = await entrance.ask(
        b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{" % hook.encode()
    )
    assert (answer.status, json.loads(answer.body)["code"]) == (429, "TOO_MANY_REQUESTS")


@pytest_twisted.ensureDeferred
async def test_no_field_makes_another_address(entrance: Corridor) -> None:
    """What a client says of where it comes from is not believed."""
    for number in range(10):
        assert await ask(entrance, WRONG, f"X-Forwarded-For: 198.51.100.{number}") == 401
    forged = ("X-Forwarded-For: 198.51.100.99", "X-Real-IP: 198.51.100.99", "Forwarded: for=a")
    assert await ask(entrance, WRONG, *forged) == 429


class TestBehindAProxy:
    """One that is trusted, at the address that tests call from."""

    @pytest.fixture
    def trusted(self) -> tuple[str, ...]:
        return ("127.0.0.1",)

    @pytest_twisted.ensureDeferred
    async def test_guessers_are_told_apart_as_it_says(self, entrance: Corridor) -> None:
        """However they spell their address, and whatever they say before it."""
        await hold_up(entrance, "X-Forwarded-For: 6.6.6.6, 2001:db8::1")
        for spelt in ("2001:DB8:0::2", "[2001:db8::1]", "6.6.6.7, 2001:db8::1%eth0"):
            assert await ask(entrance, WRONG, f"X-Forwarded-For: {spelt}") == 429
        assert await ask(entrance, WRONG, "X-Forwarded-For: 2001:db8:0:1::1") == 401
        await hold_up(entrance, "X-Forwarded-For: 192.0.2.1")
        assert await ask(entrance, WRONG, "X-Forwarded-For: ::ffff:192.0.2.1") == 429


@pytest_twisted.ensureDeferred
async def test_each_wrong_login_is_for_the_audit_trail_but_not_its_key(entrance: Corridor) -> None:
    """And, once an hour, that an address is held up; who is right is the leader's to write down."""
    await ask(entrance, RIGHT)
    await hold_up(entrance)
    for _ in range(20):
        await ask(entrance, WRONG)
    found = records(entrance)
    assert [one.status for one in found] == [401] * 10 + [429]
    assert found[0] == AuditEntry(
        at=entrance.wall,
        user="InternetUser",
        role="",
        address="127.0.0.1",
        action="auth",
        subject="/auth",
        status=401,
        code="UNAUTHENTICATED",
        request_id=found[0].request_id,
        body='{"command": "login", "params": "********"}',
    )
    assert found[0].request_id.startswith("w1-")
    assert records(entrance) == []


class TestManyGuessers:
    """From more addresses than anybody writes down."""

    @pytest.fixture
    def trusted(self) -> tuple[str, ...]:
        return ("127.0.0.1",)

    @pytest_twisted.ensureDeferred
    async def test_they_fill_no_memory(self, entrance: Corridor) -> None:
        """Where no leader takes the records, so many are kept and no more."""
        client = await entrance.connect()
        for number in range(250):
            client.send(post(WRONG, f"X-Forwarded-For: 10.0.1.{number}"))
            assert (await client.answer()).status == 401
        assert len(records(entrance)) == 200
