"""Webhooks: a push deploys, and only whoever knows the secret pushes."""

from __future__ import annotations

import hashlib
import hmac
import json
from urllib.parse import urlencode

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

DEMO = {"domain": "localhost", "path": "/demo"}
PUSH = {"ref": "refs/heads/main", "after": "1234", "repository": {"default_branch": "main"}}


async def hooked(server, **more):
    """Deploy, and make a hook; gives its URL and secret."""
    await server.deploy(**more)
    answer = (await server.ask("POST", "deployments/hook", DEMO)).json
    return answer["url"], answer["secret"]


async def push(server, url, fields, body=None):
    """Deliver a push."""
    data = json.dumps(PUSH if body is None else body).encode()
    return await server.ask("POST", url, data=data, key=None, fields=fields(data))


def github(secret, event="push"):
    """What GitHub proves itself with."""

    def fields(data: bytes) -> dict[str, str]:
        digest = hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()
        return {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": event}

    return fields


def gitea(secret):
    """What Gitea proves itself with."""
    return lambda data: {
        "X-Gitea-Signature": hmac.new(secret.encode(), data, hashlib.sha256).hexdigest(),
        "X-Gitea-Event": "push",
    }


def gitlab(secret):
    """What GitLab proves itself with."""
    return lambda data: {"X-Gitlab-Token": secret, "X-Gitlab-Event": "Push Hook"}


@pytest.mark.parametrize("host", [github, gitea, gitlab])
@pytest_twisted.ensureDeferred
async def test_a_push_is_deployed_in_the_background(server, host):
    """202 at once; what was asked for last is deployed again."""
    url, secret = await hooked(server, branch="main")
    answer = await push(server, url, host(secret))
    assert (answer.status, answer.json["deploying"]) == (202, True)
    assert len(server.manager.requests) == 2
    assert server.manager.requests[0] == server.manager.requests[1]


@pytest.mark.parametrize("as_form", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_push_in_a_form_is_one(server, as_form):
    """What GitHub sends unless its user chose JSON; curl calls its JSON a form as well."""
    url, secret = await hooked(server)
    pushed = json.dumps({**PUSH, "ref": "refs/heads/täst&=+"})
    data = (urlencode({"payload": pushed}) if as_form else pushed).encode()
    for wrong, status in ((b"x", 401), (b"", 200)):
        fields = github(secret)(data + wrong)
        fields["Content-Type"] = "application/x-www-form-urlencoded"
        answer = await server.ask("POST", url, data=data, key=None, fields=fields)
        assert answer.status == status
    assert "täst&=+" in answer.json["reason"]


@pytest.mark.parametrize("host", [github, gitea, gitlab])
@pytest_twisted.ensureDeferred
async def test_whoever_does_not_know_the_secret_deploys_nothing(server, host):
    """Nor with an old one, an empty one, or for what is not deployed: all are told the same."""
    url, old = await hooked(server)
    await server.ask("POST", "deployments/hook", DEMO)
    for place, secret in ((url, old), (url, ""), (url, "guess"), (f"{url}x", old)):
        answer = await push(server, place, host(secret))
        assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")
    assert (await push(server, url, lambda data: {})).status == 401
    assert len(server.manager.requests) == 1


@pytest_twisted.ensureDeferred
async def test_a_deployment_without_a_hook_takes_no_push(server):
    """An empty secret is no secret."""
    deployment = await server.deploy()
    answer = await push(server, f"hooks/{deployment['id']}", github(""))
    assert answer.status == 401


@pytest.mark.parametrize(
    ("branch", "body", "event", "deploys"),
    [
        ("main", {**PUSH, "ref": "refs/heads/other"}, "push", False),
        ("feature/x", {**PUSH, "ref": "refs/heads/feature/x"}, "push", True),
        ("", PUSH, "push", True),
        ("", {**PUSH, "ref": "refs/heads/other"}, "push", False),
        ("", {"ref": "refs/heads/o", "project": {"default_branch": "o"}}, "push", True),
        ("main", {**PUSH, "after": "c0ffee"}, "push", False),
        ("main", {"zen": "x"}, "ping", False),
        ("main", [1], "push", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_news_deploys_nothing(server, branch, body, event, deploys):
    """Other branches, other events, what serves already: 200, and why."""
    url, secret = await hooked(server, branch=branch)
    answer = await push(server, url, github(secret, event), body)
    assert (answer.status, answer.json["deploying"]) == ((202, True) if deploys else (200, False))
    assert bool(answer.json["reason"]) is not deploys


@pytest_twisted.ensureDeferred
async def test_many_pushes_while_one_waits_are_one(server):
    """The one that has not begun will see them all."""
    url, secret = await hooked(server)
    server.manager.silent, server.manager.gate = True, Deferred()
    for _ in range(5):
        assert (await push(server, url, github(secret))).status == 202
    assert len(server.manager.requests) == 2
    server.manager.gate.callback(None)


@pytest_twisted.ensureDeferred
async def test_guessing_a_secret_slows_down(server):
    """As guessing keys does."""
    url, _ = await hooked(server)
    statuses = [(await push(server, url, gitlab(f"guess-{n}"))).status for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2


@pytest_twisted.ensureDeferred
async def test_a_secret_is_shown_once(server):
    """A second time there is a new one."""
    _, first = await hooked(server)
    second = (await server.ask("POST", "deployments/hook", DEMO)).json["secret"]
    assert first != second
    for place in ("deployments", "deployments/localhost/demo", "audit"):
        body = (await server.ask("GET", place)).body
        assert first.encode() not in body
        assert second.encode() not in body
