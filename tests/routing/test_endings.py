"""Calls whose agent leaves: the leader is asked why, for a moment, and the answer says it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.errors import AgentCutShort, AgentLeft, AgentUnreachable
from ploinky.routing.endings import PATIENCE_SECONDS
from ploinky.testing.routing import settled
from ploinky.values import Kind, Principal, Role
from tests.routing.test_gateway import JSON, post, token

KILLED = {
    "outline": "it was ended for its memory limit (exit code 137)",
    "failedAt": "memory",
    "exitCode": 137,
    "outOfMemory": True,
    "output": "the last words",
}
CALL = b'{"command":"eat"}'


@pytest.fixture
def leading(corridor: Any, make_route: Any) -> Any:
    """A gateway whose table has the leader in it; the time of a task at `/short` is a second."""
    corridor.publish(
        make_route("localhost/demo"),
        make_route("localhost/short", timeout_seconds=1.0),
        make_route("localhost/shop", Kind.SERVICE),
        make_route("localhost/elsewhere", Kind.EXTERNAL),
        make_route("*/_ploinky", Kind.CONTROL),
        principals=tuple(
            Principal(name, role, token(f"pk_{name}"), scope=scope)
            for name, role, scope in (
                ("admin", Role.ADMIN, ()),
                ("ours", Role.DEPLOYER, ("localhost/demo",)),
                ("other", Role.DEPLOYER, ("localhost/other",)),
                ("caller", Role.CALLER, ()),
            )
        ),
    )
    return corridor


async def left(corridor: Any, *fields: str, error: Any = None, path: str = "/demo") -> Any:
    """Let an agent leave amid a call; give the client."""
    client = await corridor.connect()
    client.send(post(path, CALL, *fields))
    count = len(corridor.tasks.sent)
    await settled(reactor, lambda: len(corridor.tasks.sent) > count)
    corridor.clock.advance(0.25)
    corridor.tasks.sent[-1][2].answer.failed(error or AgentLeft("the agent left"))
    return client


def said(corridor: Any, ending: Any = KILLED, status: int = 200) -> None:
    """Let the leader answer."""
    corridor.upstream.sent[-1][2].say(msgspec.json.encode(ending), status, (JSON,))


@pytest.mark.parametrize(
    ("key", "reads"),
    [(None, False), ("admin", True), ("ours", True), ("other", False), ("caller", False)],
)
@pytest_twisted.ensureDeferred
async def test_the_answer_says_why(leading: Any, key: str | None, reads: bool) -> None:
    """In the error, its field and the access line; what was printed is for those who may read it."""
    client = await left(leading, *([f"X-API-Key: pk_{key}"] if key else []))
    (lease,) = leading.orchestrator.leases
    assert (lease.released, lease.failed) == (1, True), "its place is free while we ask"
    ((_, head, _),) = leading.upstream.sent
    assert head.startswith(b"GET /internal/endings?instance=one&age=0.250 HTTP/1.1\r\n")
    assert b"X-Forwarded-For" not in head
    said(leading)
    answer = await client.answer()
    assert answer.status == 502
    document = msgspec.json.decode(answer.body)
    assert document["code"] == "AGENT_UNREACHABLE"
    assert "it was ended for its memory limit" in document["message"]
    details = {"exitCode": 137, "outOfMemory": True, "failedAt": "memory"}
    assert document["details"] == details | ({"output": "the last words"} if reads else {})
    assert answer.field(b"x-ploinky-failed-at") == b"memory"
    (record,) = leading.records()
    assert (record["failedAt"], record["mood"]) == ("memory", "broken")


@pytest.mark.parametrize("ending", ["nobody knows", "no leader", "nonsense", "no part", "silence"])
@pytest_twisted.ensureDeferred
async def test_what_nobody_knows_is_said_as_it_is(leading: Any, ending: str) -> None:
    """The call fails as if it had not been asked; a leader that is silent is not waited for long."""
    client = await left(leading)
    question = leading.upstream.sent[-1][2]
    if ending == "nobody knows":
        said(leading, {}, 404)
    elif ending == "no leader":
        question.answer.failed(AgentUnreachable("no connection"))
    elif ending == "nonsense":
        said(leading, ["?"])
    elif ending == "no part":
        said(leading, KILLED | {"failedAt": "elsewhere"})
    else:
        leading.clock.advance(PATIENCE_SECONDS)
        assert question.cancelled
    document = msgspec.json.decode((await client.answer()).body)
    assert (document["message"], document["details"]) == (
        "the agent left",
        {"failedAt": "instance"},
    )


@pytest_twisted.ensureDeferred
async def test_without_a_leader_in_the_table_nothing_is_asked(corridor: Any) -> None:
    """A worker that has routes from somebody else answers at once."""
    client = await left(corridor)
    assert (await client.answer()).status == 502
    assert not corridor.upstream.sent


@pytest_twisted.ensureDeferred
async def test_what_never_had_the_call_is_not_asked_about(leading: Any) -> None:
    """Who cannot be reached is told so at once, so that another one may be tried."""
    client = await left(leading, error=AgentUnreachable("no connection"))
    assert (await client.answer()).status == 502
    assert not leading.upstream.sent


@pytest_twisted.ensureDeferred
async def test_the_calls_of_one_instance_ask_once(leading: Any) -> None:
    """However many it took with it; one that gives up leaves the others their answer."""
    clients = [await left(leading) for _ in range(5)]
    assert len(leading.upstream.sent) == 1
    clients.pop(0).transport.abortConnection()
    await settled(reactor, lambda: leading.records())
    assert leading.records()[0]["status"] == 499
    said(leading)
    for client in clients:
        assert (await client.answer()).field(b"x-ploinky-failed-at") == b"memory"
    await left(leading)
    assert len(leading.upstream.sent) == 2, "and the next one asks anew"


@pytest_twisted.ensureDeferred
async def test_a_call_whose_time_ends_meanwhile_says_that_the_agent_left(leading: Any) -> None:
    """It was not the time that failed."""
    client = await left(leading, path="/short")
    leading.clock.advance(1.0)
    answer = await client.answer()
    assert (answer.status, answer.field(b"x-ploinky-failed-at")) == (502, b"instance")


@pytest_twisted.ensureDeferred
async def test_an_answer_that_had_begun_is_cut_off_and_attributed(leading: Any) -> None:
    """The client notices; log and metrics say why."""
    client = await leading.connect()
    client.send(post("/demo", CALL))
    await settled(reactor, lambda: leading.tasks.sent)
    answer = leading.tasks.sent[0][2].answer
    answer.started(200, (JSON,), None)
    answer.data(b"[1,")
    answer.failed(AgentCutShort("amid its answer"))
    said(leading)
    await client.lost
    assert not client.received.endswith(b"0\r\n\r\n")
    (record,) = leading.records()
    assert (record["failedAt"], record["status"]) == ("memory", 200)


@pytest_twisted.ensureDeferred
async def test_a_body_that_still_comes_does_no_harm(leading: Any) -> None:
    """A service that dies while it is sent a request: what is left of that is passed over."""
    client = await leading.connect()
    client.send(b"POST /shop/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nabc")
    await settled(reactor, lambda: leading.upstream.sent)
    leading.upstream.sent[0][2].answer.failed(AgentLeft("the agent left"))
    client.send(b"def")
    (connection,) = leading.factory.connections
    await settled(reactor, lambda: connection._body is None)
    said(leading)
    assert (await client.answer()).field(b"x-ploinky-failed-at") == b"memory"
