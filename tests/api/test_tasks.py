"""Durable tasks over the API: handed in by workers, shown to callers, managed by others."""

from __future__ import annotations

import pytest
import pytest_twisted
import treq

from ploinky.errors import Overloaded, StateUnusable
from tests.api.conftest import Answered, Server

PLACE = "/_ploinky/tasks"


async def submit(
    server: Server, task: str = "t-1", body: bytes = b'["World"]', **fields: str
) -> Answered:
    """Hand a call in as a worker does; `fields` are `X-Ploinky-` fields."""
    said = {"Task": task, "Deployment": "d", "Command": "hello", "User": "InternetUser"}
    said |= {"Wait": "0.000", "Anonymous": "1", **fields}
    sent = {f"X-Ploinky-{name}": value for name, value in said.items() if value}
    answer = await server.client.request(
        "POST", "http://control/internal/tasks", headers=sent, data=body
    )
    return Answered(answer.code, answer.headers, await treq.content(answer))


@pytest_twisted.ensureDeferred
async def test_a_call_that_is_not_waited_for_is_202(server: Server) -> None:
    """With where to look, also where it is over by then."""
    answer = await submit(server, Async="1", Preference="respond-async")
    receipt = {"taskId": "t-1", "status": "queued", "href": f"{PLACE}/t-1"}
    assert (answer.status, answer.json) == (202, receipt)
    assert answer.field("Location") == f"{PLACE}/t-1"
    assert answer.field("Preference-Applied") == "respond-async"
    assert server.tasks.submitted[0].params == b'["World"]'
    await server.tasks.ends("t-1", 200, b'"Hello"')
    assert (await submit(server, Async="1")).json == receipt | {"status": "succeeded"}


@pytest_twisted.ensureDeferred
async def test_what_is_done_in_time_is_answered_as_the_agent_did(server: Server) -> None:
    """Results and errors alike, byte for byte."""
    for number, (status, outcome) in enumerate([(200, b'{"a":  1}'), (418, b'{"error": true}')]):
        await submit(server, f"t-{number}", Async="1")
        await server.tasks.ends(f"t-{number}", status, outcome)
        answer = await submit(server, f"t-{number}", Async="1", Wait="5.000")
        assert (answer.status, answer.body) == (status, outcome)
        assert answer.field("X-Ploinky-Command") == "hello"


@pytest_twisted.ensureDeferred
async def test_who_wants_no_receipt_gets_none(server: Server) -> None:
    """A call with a key alone is answered, or told that it goes on."""
    answer = await submit(server, Wait="45.000", Key="k")
    assert (answer.status, answer.code, answer.json["error"]) == (504, "TASK_PENDING", True)
    assert answer.json["details"]["taskId"] == "t-1"
    assert server.tasks.waits == [45.0]


@pytest_twisted.ensureDeferred
async def test_a_refusal_has_the_form_of_a_call(server: Server) -> None:
    """Its caller called an agent, not the management API."""
    server.tasks.refusal = Overloaded("no room", retry_after_seconds=10)
    answer = await submit(server)
    assert (answer.status, answer.json["error"], answer.code) == (503, True, "OVERLOADED")
    assert answer.field("Retry-After") == "10"
    assert answer.json["details"] == {"failedAt": "queue"}


@pytest_twisted.ensureDeferred
async def test_a_database_that_cannot_be_used_is_not_the_agents_fault(server: Server) -> None:
    """It is counted as the server's; whoever calls hears no path of it."""
    server.tasks.refusal = StateUnusable("the database /srv/x cannot be used: disk is full")
    answer = await submit(server)
    assert (answer.status, answer.json["error"], answer.code) == (500, True, "STATE_UNUSABLE")
    assert answer.field("X-Ploinky-Failed-At") == "gateway"
    assert "/srv" not in answer.json["message"]


@pytest_twisted.ensureDeferred
async def test_the_part_that_failed_is_said(server: Server) -> None:
    """To the worker, which counts it, and to whoever looks at the task."""
    error = b'{"error": true, "details": {"failedAt": "memory"}}'
    await submit(server, Async="1")
    await server.tasks.ends("t-1", 502, error)
    answer = await submit(server, Wait="5.000")
    assert (answer.status, answer.field("X-Ploinky-Failed-At")) == (502, "memory")
    shown = await server.ask("GET", "tasks/t-1")
    assert shown.json["failedAt"] == "memory"
    await submit(server, "t-2", Async="1")
    await server.tasks.ends("t-2", 200, b"1")
    assert (await submit(server, "t-2", Wait="5.000")).field("X-Ploinky-Failed-At") is None
    assert "failedAt" not in (await server.ask("GET", "tasks/t-2")).json


@pytest_twisted.ensureDeferred
async def test_large_params_come_whole(server: Server) -> None:
    """The gateway has measured them; the API's own limit is for its own bodies."""
    await submit(server, body=b'["%b"]' % (b"x" * 2_000_000), Async="1")
    assert len(server.tasks.submitted[0].params) == 2_000_004


@pytest.mark.parametrize("user", ["Admin", ""])
@pytest_twisted.ensureDeferred
async def test_what_came_through_the_gateway_is_no_worker(server: Server, user: str) -> None:
    """Should anything ever lead there: the gateway says where all that it passes on comes from."""
    fields = {"X-Ploinky-User": user} if user else {}
    answer = await server.ask("POST", "/internal/tasks", [], fields=fields)
    assert (answer.status, answer.code) == (404, "NOT_FOUND")
    assert server.tasks.submitted == []


@pytest_twisted.ensureDeferred
async def test_an_anonymous_task_is_its_ids_holders(server: Server) -> None:
    """Whoever knows the id may look and cancel."""
    await submit(server, Async="1")
    found = (await server.ask("GET", f"{PLACE}/t-1", key=None)).json
    assert (found["status"], found["attempts"], found["command"]) == ("queued", 0, "hello")
    await server.tasks.ends("t-1", 200, b'{"a":  [1]}')
    shown = await server.ask("GET", f"{PLACE}/t-1?wait=5", key=None)
    assert b'"result":{"a":  [1]}' in shown.body
    refused = await server.ask("DELETE", f"{PLACE}/t-1", key=None)
    assert (refused.status, refused.code) == (409, "CONFLICT")
    assert (await server.ask("GET", f"{PLACE}/t-none", key=None)).status == 404


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (None, 401),
        ("caller", 200),
        ("admin", 200),
        ("deployer", 200),
        ("viewer", 403),
        ("confined", 403),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_callers_task_is_the_callers(server: Server, key: str | None, status: int) -> None:
    """And those may see it who look after its deployment."""
    await submit(server, User="cleo", Anonymous="", Async="1")
    assert (await server.ask("GET", f"{PLACE}/t-1", key=key)).status == status
    assert (await server.ask("DELETE", f"{PLACE}/t-1", key=key)).status == status


@pytest_twisted.ensureDeferred
async def test_tasks_are_listed_within_scope(server: Server) -> None:
    """By page, state and place; dead letters apart."""
    for number in range(3):
        await submit(server, f"t-{number}", Async="1")
    await server.tasks.ends("t-1", 500, b'{"error": true}')

    async def found(query: str = "", key: str = "viewer") -> list[str]:
        answer = await server.ask("GET", f"tasks{query}", key=key)
        assert answer.status == 200, answer.body
        return [task["taskId"] for task in answer.json["tasks"]]

    assert await found() == ["t-2", "t-1", "t-0"]
    assert await found("?page=2&perPage=2") == ["t-0"]
    assert await found("?status=queued") == ["t-2", "t-0"]
    assert await found("?domain=LOCALHOST&path=demo/&status=queued,failed") == ["t-2", "t-1", "t-0"]
    assert await found("?path=/other") == []
    assert await found("/dead") == ["t-1"]
    assert await found(key="confined") == []
    for query, field in (
        ("status=done", "status"),
        ("page=0", "page"),
        ("perPage=1001", "perPage"),
    ):
        answer = await server.ask("GET", f"tasks?{query}")
        assert (answer.code, list(answer.json["details"])) == ("VALIDATION_FAILED", [field])
    assert (await server.ask("GET", "tasks", key="caller")).status == 403


@pytest_twisted.ensureDeferred
async def test_who_deploys_may_cancel_and_retry(server: Server) -> None:
    """In scope; a viewer may look."""
    await submit(server, Async="1")
    for key in ("viewer", "confined", "caller"):
        for verb in ("cancel", "retry"):
            answer = await server.ask("POST", f"tasks/t-1/{verb}", key=key)
            assert (answer.status, answer.code) == (403, "FORBIDDEN")
    answer = await server.ask("POST", "tasks/t-1/cancel", key="deployer")
    assert (answer.status, answer.json["status"]) == (200, "cancelled")
    answer = await server.ask("POST", "tasks/t-1/retry", key="deployer")
    assert (answer.status, answer.json["status"]) == (200, "queued")
    assert (await server.ask("POST", "tasks/t-1/retry")).status == 409
    assert (await server.ask("GET", "tasks/t-1", key="viewer")).json["status"] == "queued"
    assert (await server.ask("GET", "tasks/t-1", key="confined")).status == 403
