"""The audit trail: nothing is changed without a line that says who did it."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.web.client import ResponseNeverReceived

from ploinky.deploy_errors import ImageFailed
from ploinky.errors import StateUnusable

DEMO = {"domain": "localhost", "path": "/demo", "agent": "demo"}


@pytest_twisted.ensureDeferred
async def test_a_change_is_on_record_when_it_is_answered(server):
    """Who, from where, what, to what, with which result; looking is not a change."""
    await server.ask("POST", "deployments", DEMO, fields={"X-Request-Id": "r-1"})
    await server.ask("GET", "deployments")
    (entry,) = (await server.ask("GET", "audit")).json["entries"]
    assert json.loads(entry.pop("body")) == DEMO
    assert entry == {
        "number": 1,
        "time": "2023-11-14T22:13:20.000Z",
        "user": "Admin",
        "role": "admin",
        "address": "203.0.113.9",
        "action": "deployments.deploy",
        "subject": "localhost/demo",
        "status": 200,
        "code": "",
        "requestId": "r-1",
        "hash": "h",
    }


@pytest_twisted.ensureDeferred
async def test_what_was_refused_or_failed_is_on_record(server):
    """With the code that its caller was told."""
    await server.ask("POST", "domains", {"name": "x.example"}, key="viewer")
    await server.ask("POST", "domains", {"name": "not a name"})
    await server.ask("POST", "domains", {"name": "x.example"}, key=None)
    server.manager.refusal = ImageFailed("no")
    await server.ask("POST", "deployments", DEMO)
    found = [(one.user, one.code) for one in server.collaborators.audit.written]
    assert found == [
        ("vera", "FORBIDDEN"),
        ("Admin", "VALIDATION_FAILED"),
        ("InternetUser", "UNAUTHENTICATED"),
        ("Admin", "IMAGE_FAILED"),
    ]


@pytest_twisted.ensureDeferred
async def test_no_secret_is_on_record(server):
    """Neither in fields that hold one, nor in misspelt ones, nor in URLs."""
    secrets = {"environment": {"A": "needle-1"}, "secrets": {"B": "needle-2"}, "env": ["needle"]}
    await server.ask("POST", "deployments", {**DEMO, **secrets, "enviroment": {"C": "needle-3"}})
    url = "https://me:needle-4@git.example/x.git"
    credential = {"token": "needle-5", "sshKey": "needle-6"}
    await server.ask("POST", "repositories", {"name": "n", "url": url, "credential": credential})
    await server.ask("POST", "/auth", {"command": "login", "params": ["needle-7"]}, key=None)
    await server.ask("POST", "init", {"token": "needle-8"}, key=None)
    await server.ask("POST", "domains", data=b'{"name": "needle-9"', key="admin")
    bodies = "".join(one.body for one in server.collaborators.audit.written)
    assert len(server.collaborators.audit.written) == 5
    assert "needle" not in bodies
    assert "git.example" in bodies


@pytest_twisted.ensureDeferred
async def test_a_change_that_cannot_be_recorded_is_an_error(server):
    """Whoever asked is told; a disk that is full hides nothing."""
    server.collaborators.audit.refusal = StateUnusable("disk full")
    answer = await server.ask("POST", "domains", {"name": "x.example"})
    assert (answer.status, answer.code) == (500, "STATE_UNUSABLE")


@pytest_twisted.ensureDeferred
async def test_a_change_whose_client_left_is_on_record(server):
    """Leaving early is no way to leave no trace."""
    server.manager.gate = Deferred()
    asking = Deferred.fromCoroutine(server.ask("POST", "deployments", DEMO))
    while not server.manager.requests:
        await server.ask("GET", "health", key=None)
    asking.cancel()
    with pytest.raises(ResponseNeverReceived):
        await asking
    await server.ask("GET", "health", key=None)  # by the answer the server knows that it left
    server.manager.gate.callback(None)
    await server.ask("GET", "health", key=None)
    (entry,) = server.collaborators.audit.written
    assert (entry.action, entry.status, json.loads(entry.body)) == ("deployments.deploy", 200, DEMO)


@pytest_twisted.ensureDeferred
async def test_strangers_fill_no_disk(server):
    """So many refusals of one address are written down; what somebody does always is."""
    for _ in range(20):
        await server.ask("POST", "domains", {"name": "x"}, key=None)
    assert len(server.collaborators.audit.written) == 10
    await server.ask("POST", "domains", {"name": "x.example"})
    assert len(server.collaborators.audit.written) == 11


@pytest_twisted.ensureDeferred
async def test_the_trail_is_read_page_by_page(server):
    """The newest first."""
    for number in range(5):
        await server.ask("POST", "domains", {"name": f"d{number}.example"})
    answer = (await server.ask("GET", "audit?page=2&perPage=2")).json
    assert (answer["total"], answer["page"], answer["perPage"]) == (5, 2, 2)
    assert [one["subject"] for one in answer["entries"]] == ["d2.example", "d1.example"]
    verdict = (await server.ask("GET", "audit/verify")).json
    assert (verdict["intact"], verdict["entries"]) == (True, 5)
