"""A request's way to an agent and back, in raw bytes over a real socket."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.errors import AgentBroken, AgentLeft, AgentUnreachable, Overloaded
from ploinky.testing.routing import FakeExchange, settled
from ploinky.values import CallAuth, Kind, Principal, Role, TaskCall

JSON = (b"Content-Type", b"application/json")
HELLO = b'{"command":"hello","params":["World"]}'


def post(path: str, body: bytes, *fields: str, host: str = "localhost") -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str, *fields: str, method: str = "GET", host: str = "localhost") -> bytes:
    return (
        "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *fields]).encode() + b"\r\n\r\n"
    )


def greets(call: TaskCall, exchange: FakeExchange) -> None:
    exchange.say(b'{"message": "Hello World"}', fields=(JSON,))


def until(is_so: Callable[[], Any]) -> Awaitable[None]:
    return settled(reactor, is_so)


def token(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest_twisted.ensureDeferred
async def test_an_agent_answers_a_call(corridor: Any) -> None:
    """The result is passed on exactly, with the request's id."""
    corridor.tasks.respond = greets
    answer = await corridor.ask(post("/demo", HELLO))
    assert (answer.status, answer.body) == (200, b'{"message": "Hello World"}')
    assert answer.field(b"content-type") == b"application/json"
    assert answer.field(b"x-request-id") == b"w1-1"
    assert answer.field(b"date")
    [(_, task, _)] = corridor.tasks.sent
    assert (task.command, task.params) == ("hello", b'["World"]')
    assert (task.user, task.request_id) == ("InternetUser", "w1-1")
    assert task.deadline_ms == (1_800_000_000 + 30) * 1000
    [lease] = corridor.orchestrator.leases
    assert (lease.released, lease.failed) == (1, False)


@pytest_twisted.ensureDeferred
async def test_a_caller_may_bring_its_own_request_id(corridor: Any) -> None:
    """It goes to the agent and back; one that is not well-formed is replaced."""
    corridor.tasks.respond = greets
    answer = await corridor.ask(post("/demo", HELLO, "X-Request-Id: trace.1_a-B"))
    assert answer.field(b"x-request-id") == b"trace.1_a-B"
    assert corridor.tasks.sent[0][1].request_id == "trace.1_a-B"
    answer = await corridor.ask(post("/demo", HELLO, "X-Request-Id: a b"))
    assert answer.field(b"x-request-id").startswith(b"w1-")


@pytest_twisted.ensureDeferred
async def test_tasks_have_ids_of_their_own(corridor: Any) -> None:
    """Callers' ids may repeat; file names derive from the task's."""
    corridor.tasks.respond = greets
    for _ in range(3):
        await corridor.ask(post("/demo", HELLO, "X-Request-Id: same"))
    assert len({task.task for _, task, _ in corridor.tasks.sent}) == 3


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (get("/nowhere"), 404, "NO_SUCH_ROUTE"),
        (get("/demo", host="elsewhere"), 404, "NO_SUCH_ROUTE"),
        (get("/demo"), 405, "METHOD_NOT_ALLOWED"),
        (post("/demo", b"hello"), 400, "BAD_JSON"),
        (post("/demo", b'{"command":"../../etc/passwd"}'), 400, "BAD_COMMAND"),
        (get("/demo/../x"), 400, "BAD_REQUEST"),
        (get("/demo", "Expect: x"), 417, "EXPECTATION_FAILED"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_refusals_say_why(
    corridor: Any, request_bytes: bytes, status: int, code: str
) -> None:
    """As JSON with code, message and request id; no agent is bothered."""
    answer = await corridor.ask(request_bytes)
    said = msgspec.json.decode(answer.body)
    assert (answer.status, said["code"], said["error"]) == (status, code, True)
    assert said["requestId"].encode() == answer.field(b"x-request-id")
    assert said["message"]
    assert corridor.tasks.sent == []
    (record,) = corridor.records()
    assert (record["status"], record["mood"], record["id"]) == (
        status,
        "refused",
        said["requestId"],
    )


@pytest_twisted.ensureDeferred
async def test_why_nothing_answers_is_said_in_words(corridor: Any, make_route: Any) -> None:
    """A stopped deployment is no mystery."""
    corridor.publish(make_route("localhost/demo", targets=(), reason="it was stopped"))
    answer = await corridor.ask(post("/demo", HELLO))
    assert (answer.status, answer.field(b"retry-after")) == (503, b"1")
    assert msgspec.json.decode(answer.body)["message"] == "it was stopped"


@pytest_twisted.ensureDeferred
async def test_an_agents_error_is_passed_on(corridor: Any) -> None:
    """Status and body are the agent's; the record says that it failed."""
    body = b'{"error":true,"code":"HANDLER_FAILED","message":"boom"}'
    corridor.tasks.respond = lambda _, exchange: exchange.say(body, 500, (JSON,))
    answer = await corridor.ask(post("/demo", HELLO))
    assert (answer.status, answer.body) == (500, body)
    assert corridor.records()[0]["mood"] == "failed"


@pytest.mark.parametrize(
    ("error", "status", "failed"),
    [(AgentUnreachable("gone"), 502, True), (AgentBroken("junk"), 502, False)],
)
@pytest_twisted.ensureDeferred
async def test_an_agent_that_gives_no_answer_is_a_bad_gateway(
    corridor: Any, error: Exception, status: int, failed: bool
) -> None:
    """And one that cannot be reached is avoided for a while."""
    corridor.tasks.respond = lambda _, exchange: exchange.answer.failed(error)
    answer = await corridor.ask(post("/demo", HELLO))
    assert (answer.status, msgspec.json.decode(answer.body)["code"]) == (status, error.code)
    assert corridor.orchestrator.leases[0].failed is failed
    assert corridor.orchestrator.in_flight() == 0
    assert corridor.records()[0]["mood"] == "broken"


@pytest_twisted.ensureDeferred
async def test_a_task_past_its_deadline_is_aborted(corridor: Any) -> None:
    """504 TASK_TIMEOUT, the agent is told, the place is free, the connection goes on."""
    client = await corridor.connect()
    client.send(post("/demo", HELLO))
    await until(lambda: corridor.tasks.sent)
    corridor.clock.pump([0.5] * 59)
    assert client.received == b""
    corridor.clock.pump([0.1] * 7)
    answer = await client.answer()
    assert (answer.status, msgspec.json.decode(answer.body)["code"]) == (504, "TASK_TIMEOUT")
    exchange = corridor.tasks.sent[0][2]
    assert exchange.cancelled
    exchange.say(b"too late")
    corridor.tasks.respond = greets
    client.send(post("/demo", HELLO))
    assert (await client.answer()).status == 200
    assert corridor.orchestrator.in_flight() == 0
    assert [record["mood"] for record in corridor.records()] == ["timed-out", "served"]


@pytest_twisted.ensureDeferred
async def test_a_caller_that_leaves_aborts_its_task(corridor: Any) -> None:
    """The place is free at once, and the record says 499."""
    client = await corridor.connect()
    client.send(post("/demo", HELLO))
    await until(lambda: corridor.tasks.sent)
    client.transport.abortConnection()
    await until(corridor.records)
    assert corridor.tasks.sent[0][2].cancelled
    assert corridor.orchestrator.in_flight() == 0
    (record,) = corridor.records()
    assert (record["status"], record["mood"]) == (499, "gone")
    assert corridor.factory.in_hand() == 0


@pytest_twisted.ensureDeferred
async def test_callers_wait_for_a_place(corridor: Any) -> None:
    """And get it in turn."""
    corridor.orchestrator.full = True
    corridor.tasks.respond = greets
    client = await corridor.connect()
    client.send(post("/demo", HELLO))
    await until(lambda: corridor.orchestrator.waiting)
    corridor.orchestrator.grant()
    assert (await client.answer()).status == 200
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_a_caller_that_leaves_while_it_waits_leaves_the_queue(corridor: Any) -> None:
    """Nobody is served in its place by mistake."""
    corridor.orchestrator.full = True
    client = await corridor.connect()
    client.send(post("/demo", HELLO))
    await until(lambda: corridor.orchestrator.waiting)
    client.transport.abortConnection()
    await until(lambda: not corridor.orchestrator.waiting)
    assert corridor.tasks.sent == []
    assert corridor.records()[0]["mood"] == "gone"


@pytest_twisted.ensureDeferred
async def test_a_caller_that_waited_in_vain_is_told_when_to_come_again(corridor: Any) -> None:
    """503 OVERLOADED with Retry-After."""
    corridor.orchestrator.full = True
    client = await corridor.connect()
    client.send(post("/demo", HELLO))
    await until(lambda: corridor.orchestrator.waiting)
    corridor.orchestrator.waiting[0][1].errback(Overloaded("busy", retry_after_seconds=2))
    answer = await client.answer()
    assert (answer.status, answer.field(b"retry-after")) == (503, b"2")


@pytest_twisted.ensureDeferred
async def test_what_never_had_a_place_was_not_aborted(corridor: Any) -> None:
    """503 also where its time is up before the queue says so, as on a busy machine: it may be repeated."""
    corridor.orchestrator.full = True
    client = await corridor.connect()
    client.send(post("/demo", HELLO))
    await until(lambda: corridor.orchestrator.waiting)
    corridor.clock.pump([0.5] * 62)
    answer = await client.answer()
    assert (answer.status, msgspec.json.decode(answer.body)["code"]) == (503, "OVERLOADED")
    assert answer.field(b"retry-after") == b"1"
    assert corridor.orchestrator.waiting == []
    assert corridor.records()[0]["failedAt"] == "queue"


# --- who calls

KEY = Principal("ci", Role.CALLER, token("pk_1"))
SESSION = Principal("ann", Role.ADMIN, token("ps_1"), 1_800_000_100.0, session=True)
VIEWER = Principal("eve", Role.VIEWER, token("pk_2"))
SCOPED = Principal("bob", Role.CALLER, token("pk_3"), scope=("localhost/other",))
DOMAIN_SCOPED = Principal("dora", Role.DEPLOYER, token("pk_4"), scope=("localhost",))
PRINCIPALS = (KEY, SESSION, VIEWER, SCOPED, DOMAIN_SCOPED)


@pytest.mark.parametrize(
    ("auth", "field", "status", "user"),
    [
        (CallAuth.KEY, "Authorization: Bearer pk_1", 200, "ci"),
        (CallAuth.KEY, "authorization: bearer  pk_1", 200, "ci"),
        (CallAuth.KEY, "X-API-Key: pk_1", 200, "ci"),
        (CallAuth.KEY, "X-API-Key: pk_4", 200, "dora"),
        (CallAuth.KEY, "X-API-Key: pk_9", 401, ""),
        (CallAuth.KEY, "X-API-Key: ", 401, ""),
        (CallAuth.KEY, "Authorization: Basic pk_1", 401, ""),
        (CallAuth.KEY, "X: y", 401, ""),
        (CallAuth.KEY, "Cookie: authorizationToken=ps_1", 401, ""),
        (CallAuth.KEY, "X-API-Key: pk_2", 403, ""),
        (CallAuth.KEY, "X-API-Key: pk_3", 403, ""),
        (CallAuth.SESSION, "Cookie: a=b; authorizationToken=ps_1; c=d", 200, "ann"),
        (CallAuth.SESSION, "Authorization: Bearer ps_1", 200, "ann"),
        (CallAuth.SESSION, "Cookie: authorizationToken=ps_2", 401, ""),
        (CallAuth.SESSION, "Cookie: xauthorizationToken=ps_1", 401, ""),
        (CallAuth.SESSION, "X-API-Key: pk_1", 401, ""),
        (CallAuth.NONE, "X-API-Key: pk_1", 200, "ci"),
        (CallAuth.NONE, "X-API-Key: pk_9", 200, "InternetUser"),
        (CallAuth.NONE, "X-Ploinky-User: Admin", 200, "InternetUser"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_who_may_call(
    corridor: Any, make_route: Any, auth: CallAuth, field: str, status: int, user: str
) -> None:
    """Closed to whoever is not let in; the agent learns who calls."""
    corridor.publish(make_route("localhost/demo", auth=auth), principals=PRINCIPALS)
    corridor.tasks.respond = greets
    answer = await corridor.ask(post("/demo", HELLO, field))
    assert answer.status == status
    assert [task.user for _, task, _ in corridor.tasks.sent] == ([user] if user else [])


COOKIE = "Cookie: authorizationToken=ps_1"
FROM_ELSEWHERE = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: null")
FROM_HERE = ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none", "Origin: http://LOCALHOST")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        *(((COOKIE, said), 403) for said in (*FROM_ELSEWHERE, "Origin: https://evil.localhost")),
        *(((COOKIE, said), 200) for said in FROM_HERE),
        ((COOKIE, "Sec-Fetch-Site: same-origin", "Origin: https://behind.a.proxy"), 200),
        *((("Authorization: Bearer ps_1", said), 200) for said in FROM_ELSEWHERE),
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_page_of_another_site_calls_with_a_visitors_session(
    corridor: Any, make_route: Any, fields: tuple[str, ...], status: int
) -> None:
    """A link may call a command too; what a script had to put there proves itself."""
    corridor.publish(make_route("localhost/demo", auth=CallAuth.SESSION), principals=PRINCIPALS)
    corridor.tasks.respond = greets
    client = await corridor.connect()
    client.send(post("/demo", HELLO, COOKIE, "Sec-Fetch-Site: same-origin"))
    assert (await client.answer()).status == 200
    client.send(post("/demo", HELLO, *fields))
    assert (await client.answer()).status == status
    link = get("/demo/subscribe?command=hello", *fields)
    assert (await corridor.ask(link)).status == status


@pytest_twisted.ensureDeferred
async def test_what_all_may_call_is_called_by_nobody_for_a_page_of_another_site(
    corridor: Any, make_route: Any
) -> None:
    """As by a visitor without a session."""
    corridor.publish(make_route("localhost/demo"), principals=PRINCIPALS)
    corridor.tasks.respond = greets
    client = await corridor.connect()
    for said in ("http://localhost", "http://evil.localhost"):
        client.send(post("/demo", HELLO, COOKIE, f"Origin: {said}"))
        await client.answer()
    assert [task.user for _, task, _ in corridor.tasks.sent] == ["ann", "InternetUser"]


@pytest.mark.parametrize(
    ("method", "more", "status"),
    [
        ("GET", (), 200),
        ("HEAD", (), 200),
        ("POST", ("Content-Length: 0",), 403),
        ("GET", ("Connection: Upgrade", "Upgrade: websocket"), 403),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_link_from_elsewhere_shows_a_services_pages_and_no_more(
    corridor: Any, make_route: Any, method: str, more: tuple[str, ...], status: int
) -> None:
    """Who follows one is logged in there; a form or socket of the other site's is not let in."""
    closed = make_route("localhost/shop", Kind.SERVICE, auth=CallAuth.SESSION)
    corridor.publish(closed, principals=PRINCIPALS)
    client = await corridor.connect()
    client.send(get("/shop", COOKIE, FROM_ELSEWHERE[0], *more, method=method))
    if status == 200:
        await until(lambda: corridor.upstream.sent)
        assert b"X-Ploinky-User: ann" in corridor.upstream.sent[0][1]
    else:
        assert (await client.answer()).status == status


@pytest_twisted.ensureDeferred
async def test_a_revoked_key_is_refused_on_an_open_connection(
    corridor: Any, make_route: Any
) -> None:
    """What is remembered of the last request does not outlive the table it came from."""
    closed = make_route("localhost/demo", auth=CallAuth.KEY)
    corridor.publish(closed, principals=PRINCIPALS)
    corridor.tasks.respond = greets
    client = await corridor.connect()
    statuses = []
    for _ in range(3):
        client.send(post("/demo", HELLO, "X-API-Key: pk_1"))
        statuses.append((await client.answer()).status)
    corridor.publish(closed, principals=(VIEWER,))
    client.send(post("/demo", HELLO, "X-API-Key: pk_1"))
    statuses.append((await client.answer()).status)
    assert statuses == [200, 200, 200, 401]


@pytest_twisted.ensureDeferred
async def test_a_session_expires_on_an_open_connection(corridor: Any, make_route: Any) -> None:
    """To the second, however often the same head came before."""
    corridor.publish(make_route("localhost/demo", auth=CallAuth.SESSION), principals=PRINCIPALS)
    corridor.tasks.respond = greets
    client = await corridor.connect()
    statuses = []
    for wall in (0, 50, 99, 100):
        corridor.wall = 1_800_000_000.0 + wall
        client.send(post("/demo", HELLO, "Cookie: authorizationToken=ps_1"))
        statuses.append((await client.answer()).status)
    assert statuses == [200, 200, 200, 401]


@pytest.mark.parametrize("how", ["revoked", "expired"])
@pytest_twisted.ensureDeferred
async def test_a_subscription_ends_with_its_key(corridor: Any, make_route: Any, how: str) -> None:
    """Its agent is told; whoever has a valid key, or needs none, hears on."""
    closed = make_route("localhost/demo", auth=CallAuth.KEY)
    short = Principal("cy", Role.CALLER, token("pk_5"), 1_800_000_100.0)
    corridor.publish(closed, make_route("localhost/open"), principals=(KEY, short, DOMAIN_SCOPED))
    key = "pk_1" if how == "revoked" else "pk_5"
    clients = [await corridor.connect() for _ in range(3)]
    for client, path, sent in zip(
        clients, ("demo", "demo", "open"), (key, "pk_4", key), strict=True
    ):
        client.send(
            SUBSCRIBE.replace(b"demo", path.encode())[:-2] + f"X-API-Key: {sent}\r\n\r\n".encode()
        )
        number = len(corridor.tasks.sent)
        await until(lambda number=number: len(corridor.tasks.sent) > number)
        exchange = corridor.tasks.sent[-1][2]
        exchange.answer.started(200, EVENTS, None)
        exchange.answer.data(b"data: 1\n\n")
        await client.take(b"data: 1\n\n")
    if how == "revoked":
        corridor.publish(closed, make_route("localhost/open"), principals=(DOMAIN_SCOPED,))
    else:
        corridor.wall += 100
    corridor.factory.expel()
    await until(lambda: clients[0].reason)
    assert [exchange.cancelled for _, _, exchange in corridor.tasks.sent] == [True, False, False]
    assert not clients[0].received.endswith(b"0\r\n\r\n")
    for client, (_, _, exchange) in zip(clients[1:], corridor.tasks.sent[1:], strict=True):
        exchange.answer.data(b"data: 2\n\n")
        await client.take(b"data: 2\n\n")
    (record,) = corridor.records()
    assert (record["principal"], record["mood"]) == ("ci" if how == "revoked" else "cy", "refused")


@pytest_twisted.ensureDeferred
async def test_a_call_whose_body_outlasts_its_key_is_refused(
    corridor: Any, make_route: Any
) -> None:
    """A request that was begun with a key cannot be kept back for after its end."""
    closed = make_route("localhost/demo", auth=CallAuth.KEY)
    corridor.publish(closed, principals=PRINCIPALS)
    corridor.tasks.respond = greets
    request = post("/demo", HELLO, "X-API-Key: pk_1")
    client = await corridor.connect()
    client.send(request[:-5])
    await until(lambda: corridor.factory.busy)
    corridor.publish(closed, principals=(VIEWER,))
    client.send(request[-5:])
    assert (await client.answer()).status == 401
    assert corridor.tasks.sent == []


@pytest_twisted.ensureDeferred
async def test_an_open_connection_follows_the_table(corridor: Any, make_route: Any) -> None:
    """A new release gets the next request, not the next connection."""
    corridor.tasks.respond = greets
    client = await corridor.connect()
    for release in (1, 2, 2, 3):
        corridor.publish(make_route("localhost/demo", release=release))
        client.send(post("/demo", HELLO))
        assert (await client.answer()).status == 200
    assert [lease.route.release for lease in corridor.orchestrator.leases] == [1, 2, 2, 3]
    corridor.publish()
    client.send(post("/demo", HELLO))
    assert (await client.answer()).status == 404


# --- services


@pytest_twisted.ensureDeferred
async def test_a_service_gets_requests_below_its_prefix(corridor: Any) -> None:
    """Any method, any body, and its answer as it gave it."""
    corridor.upstream.respond = lambda _, exchange: exchange.say(
        b"made", 201, ((b"Location", b"/cart/1"), (b"Set-Cookie", b"a=1"))
    )
    answer = await corridor.ask(post("/shop/cart", b"two apples").replace(b"POST", b"PUT"))
    assert (answer.status, answer.body) == (201, b"made")
    assert (answer.field(b"location"), answer.field(b"set-cookie")) == (b"/cart/1", b"a=1")
    _, head, exchange = corridor.upstream.sent[0]
    assert head.startswith(b"PUT /cart HTTP/1.1\r\nHost: localhost\r\n")
    assert head.endswith(b"\r\nContent-Length: 10\r\nX-Request-Id: w1-1\r\n\r\n")
    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in head
    assert (exchange.written, exchange.finished) == (b"two apples", True)
    assert corridor.orchestrator.in_flight() == 0


@pytest_twisted.ensureDeferred
async def test_built_in_routes_keep_their_paths(corridor: Any) -> None:
    """On any domain, and with the peer's true address."""
    corridor.upstream.respond = lambda _, exchange: exchange.say(b"{}")
    request = get("/management/api/health", "X-Forwarded-For: 1.2.3.4", host="any.where")
    assert (await corridor.ask(request)).status == 200
    head = corridor.upstream.sent[0][1]
    assert head.startswith(b"GET /management/api/health HTTP/1.1\r\nHost: any.where\r\n")
    assert b"1.2.3.4" not in head
    assert b"X-Ploinky-User" not in head


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AgentUnreachable("refused", got_nothing=True), "p-cli cloud start"),
        (AgentLeft("gone"), "ended amid this request"),
        (AgentBroken("junk"), "ended amid this request"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_leader_that_is_away_is_not_taken_for_an_agent(
    corridor: Any, error: Exception, said: str
) -> None:
    """Whoever manages is told which part does not run, and what goes on."""
    corridor.upstream.respond = lambda _, exchange: exchange.answer.failed(error)
    answer = await corridor.ask(get("/management/api/deployments"))
    document = msgspec.json.decode(answer.body)
    assert (answer.status, answer.field(b"retry-after")) == (503, b"2")
    assert (document["code"], document["details"]) == ("LEADER_AWAY", {"failedAt": "gateway"})
    assert said in document["message"]
    assert corridor.records()[0]["mood"] == "broken"


@pytest_twisted.ensureDeferred
async def test_a_body_is_passed_on_as_it_comes(corridor: Any) -> None:
    """In chunks as with a length; the agent need not wait for the end."""
    for framing, pieces, end in (
        ("Content-Length: 6", (b"abc", b"def"), b""),
        ("Transfer-Encoding: chunked", (b"3\r\nabc\r\n", b"3;x\r\ndef\r\n"), b"0\r\nT: x\r\n\r\n"),
    ):
        client = await corridor.connect()
        client.send(get("/shop/up", framing, method="POST"))
        sent = len(corridor.upstream.sent)
        await until(lambda: len(corridor.upstream.sent) > sent)  # noqa: B023
        exchange = corridor.upstream.sent[-1][2]
        assert framing.encode() in corridor.upstream.sent[-1][1]
        for number, piece in enumerate(pieces):
            client.send(piece)
            await until(lambda: len(exchange.written) == 3 * (number + 1))  # noqa: B023
        client.send(end)
        await until(lambda: exchange.finished)  # noqa: B023
        assert exchange.written == b"abcdef"
        exchange.say(b"thanks")
        assert (await client.answer()).body == b"thanks"
        client.send(get("/nowhere"))
        assert (await client.answer()).status == 404


@pytest_twisted.ensureDeferred
async def test_an_answer_of_unknown_length_goes_in_chunks(corridor: Any) -> None:
    """Its head at once, each piece as it comes."""
    client = await corridor.connect()
    client.send(get("/shop/events"))
    await until(lambda: corridor.upstream.sent)
    exchange = corridor.upstream.sent[0][2]
    exchange.answer.started(200, ((b"Content-Type", b"text/event-stream"),), None)
    head = await client.take(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    for number in range(3):
        exchange.answer.data(b"data: %d\n\n" % number)
        assert await client.take(b"\n\n\r\n") == b"9\r\ndata: %d\n\n\r\n" % number
    corridor.clock.pump([1.0] * 600)
    exchange.answer.ended()
    assert await client.take(b"0\r\n\r\n") == b"0\r\n\r\n"
    client.send(get("/nowhere"))
    assert (await client.answer()).status == 404


@pytest_twisted.ensureDeferred
async def test_http_10_gets_an_unknown_length_until_the_end(corridor: Any) -> None:
    """It knows no chunks."""
    client = await corridor.connect()
    client.send(b"GET /shop/x HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
    await until(lambda: corridor.upstream.sent)
    answer = corridor.upstream.sent[0][2].answer
    answer.started(200, (), None)
    answer.data(b"some")
    answer.data(b"thing")
    answer.ended()
    await client.lost
    head, _, body = client.received.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert body == b"something"


@pytest.mark.parametrize(
    ("method", "status", "length", "framing"),
    [
        ("HEAD", 200, 5, b"5"),
        ("HEAD", 200, None, None),
        ("GET", 204, None, None),
        ("GET", 304, 5, None),
        ("GET", 200, 0, b"0"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_answers_without_a_body_have_none(
    corridor: Any, method: str, status: int, length: int | None, framing: bytes | None
) -> None:
    """Whatever length their head may name; the connection goes on."""

    def respond(head: bytes, exchange: FakeExchange) -> None:
        exchange.answer.started(status, (), length)
        exchange.answer.ended()

    corridor.upstream.respond = respond
    client = await corridor.connect()
    for _ in range(2):
        client.send(get("/shop/x", method=method))
        answer = await client.answer(to_head=True)
        assert answer.status == status
        assert answer.field(b"content-length") == framing
        assert answer.field(b"transfer-encoding") is None
    assert client.received == b""


@pytest_twisted.ensureDeferred
async def test_an_answer_that_breaks_off_breaks_the_connection(corridor: Any) -> None:
    """So that nobody takes half of it for the whole."""
    client = await corridor.connect()
    client.send(get("/shop/x"))
    await until(lambda: corridor.upstream.sent)
    answer = corridor.upstream.sent[0][2].answer
    answer.started(200, (), 10)
    answer.data(b"half")
    answer.failed(AgentBroken("it died"))
    await client.lost
    assert client.received.endswith(b"\r\n\r\nhalf")
    (record,) = corridor.records()
    assert (record["mood"], record["status"]) == ("broken", 200)
    assert corridor.orchestrator.in_flight() == 0
    assert corridor.factory.in_hand() == 0


@pytest_twisted.ensureDeferred
async def test_an_answer_that_ends_too_early_breaks_the_connection(corridor: Any) -> None:
    """What a transport says of the length, the client was told."""

    def respond(head: bytes, exchange: FakeExchange) -> None:
        exchange.answer.started(200, (), 10)
        exchange.answer.data(b"short")
        exchange.answer.ended()

    corridor.upstream.respond = respond
    client = await corridor.connect()
    client.send(get("/shop/x"))
    await client.lost
    assert corridor.records()[0]["mood"] == "broken"


@pytest_twisted.ensureDeferred
async def test_the_same_fields_mean_another_head_for_another_kind_of_route(corridor: Any) -> None:
    """The leader answers tasks and its own API over one connection: neither gets the other's head."""
    fields = ((b"Content-Type", b"text/plain"), (b"X-Own", b"1"))

    def answers(_: Any, exchange: FakeExchange) -> None:
        exchange.answer.complete(200, fields, b"x")

    corridor.upstream.respond = corridor.tasks.respond = answers
    client = await corridor.connect()
    said = []
    for request in (get("/shop/x"), post("/demo", HELLO), get("/shop/x")):
        client.send(request)
        answer = await client.answer()
        said.append((answer.field(b"x-own"), answer.field(b"content-type")))
    passed_on, task = (b"1", b"text/plain"), (None, b"application/json")
    assert said == [passed_on, task, passed_on]


@pytest_twisted.ensureDeferred
async def test_answers_that_resemble_each_other_are_not_mistaken(corridor: Any) -> None:
    """Status, fields and date are each answer's own, on one connection."""
    first, second = ((b"X-A", b"1"),), ((b"X-A", b"2"),)
    client = await corridor.connect()
    said = []
    for status, fields, wall in (
        (200, first, 0),
        (201, first, 0),
        (201, second, 0),
        (201, second, 5),
        (201, second, 5),
        (200, second, 5),
    ):
        corridor.clock.advance(1_800_000_000.0 + wall - corridor.wall)
        corridor.wall = 1_800_000_000.0 + wall
        corridor.upstream.respond = lambda _, exchange: exchange.say(b"x", status, fields)  # noqa: B023
        client.send(get("/shop/x"))
        answer = await client.answer()
        date = answer.field(b"date")
        said.append((answer.status, answer.field(b"x-a"), date[-6:-4]))
    assert said == [
        (200, b"1", b"00"),
        (201, b"1", b"00"),
        (201, b"2", b"00"),
        (201, b"2", b"05"),
        (201, b"2", b"05"),
        (200, b"2", b"05"),
    ]


@pytest_twisted.ensureDeferred
async def test_bytes_are_counted_both_ways(corridor: Any) -> None:
    """Of each request its own, however they come."""
    corridor.tasks.respond = greets
    plain = post("/demo", HELLO)
    head = get("/demo/hello", "Transfer-Encoding: chunked", method="POST")
    body = b"2\r\n[]\r\n0\r\n\r\n"
    client = await corridor.connect()
    client.send(plain + head + body + plain)
    answers = [await client.answer() for _ in range(3)]
    client.send(plain)
    answers.append(await client.answer())
    records = corridor.records()
    sizes = [len(plain), len(head + body), len(plain), len(plain)]
    assert [record["bytesIn"] for record in records] == sizes
    sizes = [len(answer.head + answer.body) for answer in answers]
    assert [record["bytesOut"] for record in records] == sizes


@pytest_twisted.ensureDeferred
async def test_a_service_has_as_long_as_its_route_gives_to_begin(corridor: Any) -> None:
    """Then 504; once it has begun, it may take its time."""
    client = await corridor.connect()
    client.send(get("/shop/slow"))
    await until(lambda: corridor.upstream.sent)
    corridor.clock.pump([1.0] * 31)
    assert (await client.answer()).status == 504
    assert corridor.upstream.sent[0][2].cancelled


@pytest_twisted.ensureDeferred
async def test_a_refused_body_is_not_read(corridor: Any, make_route: Any) -> None:
    """413 comes at once; the answer arrives although the client was still sending."""
    corridor.publish(make_route("localhost/demo", max_body_bytes=1000))
    client = await corridor.connect()
    client.send(get("/demo", "Content-Length: 5000000", method="POST"))
    client.send(b"x" * 100_000)
    answer = await client.answer()
    assert (answer.status, answer.field(b"connection")) == (413, b"close")
    await client.lost


@pytest.mark.parametrize("path", ["/demo", "/management/api"])
@pytest_twisted.ensureDeferred
async def test_a_chunked_body_is_counted(corridor: Any, make_route: Any, path: str) -> None:
    """Whoever says no length has the same limit."""
    corridor.publish(
        make_route("localhost/demo", max_body_bytes=1000),
        make_route("*/management", Kind.CONTROL, max_body_bytes=1000),
    )
    client = await corridor.connect()
    client.send(get(path, "Transfer-Encoding: chunked", method="POST"))
    client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    client.send(b"1\r\nx\r\n")
    assert (await client.answer()).status == 413
    assert all(exchange.cancelled for _, _, exchange in corridor.upstream.sent)


@pytest_twisted.ensureDeferred
async def test_counters_add_up(corridor: Any) -> None:
    """By deployment, command and status; made-up commands are not kept."""
    corridor.tasks.respond = greets
    for _ in range(3):
        await corridor.ask(post("/demo", HELLO))
    body = b'{"error":true,"code":"UNKNOWN_COMMAND","message":""}'
    corridor.tasks.respond = lambda _, exchange: exchange.say(body, 404, (JSON,))
    await corridor.ask(post("/demo", b'{"command":"x1"}'))
    await corridor.ask(post("/demo", b'{"command":"x2"}'))
    counted = {
        (entry["deployment"], entry["command"], entry["status"]): entry["count"]
        for entry in corridor.access_log.drain()
    }
    assert counted == {("id-of-demo", "hello", 200): 3, ("id-of-demo", "", 404): 2}
    assert corridor.access_log.drain() == []


SUBSCRIBE = b"GET /demo/subscribe?command=count HTTP/1.1\r\nHost: localhost\r\n\r\n"
EVENTS = ((b"Content-Type", b"text/event-stream"), (b"X-Ploinky-Command", b"count"))


@pytest_twisted.ensureDeferred
async def test_events_come_as_they_are_made(corridor: Any) -> None:
    """None waits for the next one, and nobody on the way may keep them."""
    client = await corridor.connect()
    client.send(SUBSCRIBE)
    await until(lambda: corridor.tasks.sent)
    _, call, exchange = corridor.tasks.sent[0]
    assert call.to_events
    exchange.answer.started(200, EVENTS, None)
    exchange.answer.data(b"data: 1\n\n")
    received = await client.take(b"data: 1\n\n")
    assert b"\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n" in received
    assert b"application/json" not in received
    exchange.answer.data(b"data: 2\n\n")
    exchange.answer.ended()
    await client.take(b"data: 2\n\n\r\n0\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_a_subscription_that_has_begun_has_no_time_limit(corridor: Any) -> None:
    """The route's is that of its first event."""
    client = await corridor.connect()
    client.send(SUBSCRIBE)
    await until(lambda: corridor.tasks.sent)
    exchange = corridor.tasks.sent[0][2]
    corridor.clock.pump([1] * 29)
    exchange.answer.started(200, EVENTS, None)
    exchange.answer.data(b"data: 1\n\n")
    corridor.clock.pump([10] * 100)
    assert not exchange.cancelled
    exchange.answer.ended()
    await client.take(b"\r\n0\r\n\r\n")
    client.send(SUBSCRIBE)
    await until(lambda: len(corridor.tasks.sent) == 2)
    corridor.clock.pump([1] * 31)
    assert corridor.tasks.sent[1][2].cancelled


@pytest_twisted.ensureDeferred
async def test_an_array_that_takes_too_long_is_cut_off(corridor: Any) -> None:
    """Its time limit is that of the whole, and nobody takes half of it for all."""
    client = await corridor.connect()
    client.send(post("/demo", HELLO))
    await until(lambda: corridor.tasks.sent)
    exchange = corridor.tasks.sent[0][2]
    exchange.answer.started(200, ((b"Content-Type", b"application/json"),), None)
    exchange.answer.data(b"[1")
    corridor.clock.pump([1] * 31)
    await client.lost
    assert exchange.cancelled
    assert not client.received.endswith(b"0\r\n\r\n")
