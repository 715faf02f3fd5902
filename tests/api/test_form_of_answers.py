"""What every answer has, what every error looks like, and who may ask for what."""

from __future__ import annotations

import json
import re

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from ploinky.api.application import routes
from ploinky.errors import EngineUnavailable
from ploinky.security.roles import RULES
from ploinky.task_values import (
    Submission,
)
from ploinky.values import (
    Repository,
    Role,
)

ERROR_FIELDS = {"error", "message", "code", "requestId"}


def fits(answer, status: int, code: str) -> bool:
    """Whether an answer is an error of the contract's form (section 5)."""
    document = answer.json
    return (
        (answer.status, document["code"]) == (status, code)
        and ERROR_FIELDS <= set(document) <= ERROR_FIELDS | {"details"}
        and document["error"] == document["message"] != ""
        and document["requestId"] == answer.field("X-Request-Id") != ""
        and answer.field("Content-Type") == "application/json"
    )


@pytest_twisted.ensureDeferred
async def test_every_answer_has_an_id(server):
    """The caller's own where it is well-formed, else a new one."""
    answer = await server.ask("GET", "health", fields={"X-Request-Id": "abc-1.2:3_4"})
    assert answer.field("X-Request-Id") == "abc-1.2:3_4"
    for bad in ("", "a b", "x" * 129, 'quote"', "ü"):
        answer = await server.ask("GET", "health", fields={"X-Request-Id": bad.encode("latin-1")})
        assert re.fullmatch(r"made-\d+", answer.field("X-Request-Id"))


@pytest_twisted.ensureDeferred
async def test_answers_are_not_kept_by_anyone(server):
    """Neither stored, nor guessed at, nor telling what software it is."""
    answer = await server.ask("GET", "deployments")
    assert answer.field("Cache-Control") == "no-store"
    assert answer.field("X-Content-Type-Options") == "nosniff"
    assert answer.field("Server") is None


@pytest.mark.parametrize(
    "path", ["nothing", "deployments/x", "repositories/a/b", "/management/nothing", "/client/x",
             "/management/api", "/%2e%2e/etc/passwd", "/nothing/at%2Fall"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_what_is_not_there_is_404(server, path):
    """In the same form as any other error."""
    assert fits(await server.ask("GET", path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "deployments", {"GET", "HEAD", "OPTIONS", "POST", "DELETE"}),
        ("POST", "health", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/auth", {"OPTIONS", "POST"}),
        ("GET", "deployments/restart", {"OPTIONS", "POST"}),
        ("BREW", "domains", {"GET", "HEAD", "OPTIONS", "POST", "DELETE"}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_wrong_method_is_told_the_right_ones(server, method, path, allow):
    """405 with `Allow`, also for who is not logged in."""
    answer = await server.ask(method, path, key=None)
    assert fits(answer, 405, "METHOD_NOT_ALLOWED")
    assert set(answer.field("Allow").split(", ")) == allow


@pytest_twisted.ensureDeferred
async def test_head_is_get_without_a_body(server):
    """With the length that the body would have."""
    answer = await server.ask("HEAD", "domains")
    whole = await server.ask("GET", "domains")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.field("Content-Length") == str(len(whole.body))


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [(b'{"domain": "x",}', 1, 16), (b'{\n  "a": 1\n  "b": 2\n}', 3, 3), (b"hello", 1, 1)],
)
@pytest_twisted.ensureDeferred
async def test_broken_json_is_pointed_at(server, data, line, column):
    """By line and column; Python's versions differ by a character at most."""
    answer = await server.ask("POST", "deployments", data=data)
    assert fits(answer, 400, "BAD_JSON")
    assert answer.json["details"]["line"] == line
    assert abs(answer.json["details"]["column"] - column) <= 1
    assert f"line {line}, column" in answer.json["message"]


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b"NaN", b'{"a": Infinity}', b"[" * 100_000, b'{"a": 1' + b"0" * 10_000 + b"}"],
)
@pytest_twisted.ensureDeferred
async def test_what_only_resembles_json_is_refused(server, data):
    """Other encodings, other numbers, depth without end."""
    assert fits(await server.ask("POST", "deployments", data=data), 400, "BAD_JSON")


@pytest_twisted.ensureDeferred
async def test_the_content_type_does_not_matter(server):
    """What `curl -d` sends is read as what it is."""
    for kind in ("application/x-www-form-urlencoded", "text/plain", "application/json"):
        body = {"name": f"{kind.replace('/', '-')}.example"}
        answer = await server.ask("POST", "domains", body, fields={"Content-Type": kind})
        assert answer.status == 200, kind


@pytest_twisted.ensureDeferred
async def test_a_large_body_is_refused_and_not_kept(server):
    """Over one MiB, and never more than that in memory."""
    fitting = json.dumps({"name": "a.example"}).encode().ljust(1024 * 1024)
    assert (await server.ask("POST", "domains", data=fitting)).status == 200
    answer = await server.ask("POST", "domains", data=fitting + b" " * 5_000_000)
    assert fits(answer, 413, "BODY_TOO_LARGE")


@pytest_twisted.ensureDeferred
async def test_an_error_that_nobody_foresaw_tells_nothing_but_its_id(server):
    """The cause is in the log; the next request is served."""
    server.source.contents = None  # what it is asked to look into is not there any more
    await server.repositories.add_repository(Repository("demo", "https://git.example/x.git"))
    answer = await server.ask("POST", "repositories/demo/sync")
    assert fits(answer, 500, "INTERNAL_ERROR")
    assert answer.json["requestId"] in answer.json["message"]
    assert b"NoneType" not in answer.body
    assert b"Traceback" not in answer.body
    assert (await server.ask("GET", "health")).status == 200


@pytest_twisted.ensureDeferred
async def test_an_engine_that_is_away_is_503(server):
    """An error's own status is kept."""
    server.manager.refusal = EngineUnavailable("Docker does not answer; is it running?")
    body = {"domain": "localhost", "path": "/x", "agent": "demo"}
    assert fits(await server.ask("POST", "deployments", body), 503, "ENGINE_UNAVAILABLE")


@pytest.mark.parametrize("host", ["a" * 70, "x..y", "\u00fc.example"])
@pytest_twisted.ensureDeferred
async def test_a_strange_host_breaks_nothing(server, host):
    """It is refused or ignored, in the form of any other error."""
    answer = await server.ask("GET", "check-auth", host=host.encode())
    assert answer.status in (200, 400)
    assert answer.field("Content-Type") == "application/json"


@pytest_twisted.ensureDeferred
async def test_a_path_that_is_no_text_is_refused(server):
    """Bytes that are not UTF-8 are not a path of ours."""
    assert fits(await server.ask("GET", "/management/%ff%fe"), 400, "BAD_REQUEST")


# --- the walk of all routes and roles ---------------------------------------

READ = {"admin", "deployer", "confined", "viewer"}
READ_ALL = READ - {"confined"}
DEPLOY = {"admin", "deployer", "confined"}
DEPLOY_ALL = {"admin", "deployer"}
SOMEBODY = {"admin", "deployer", "confined", "viewer", "caller"}
EVERYBODY = {*SOMEBODY, None}

CARL = {"domain": "localhost", "path": "/carl"}
CARL_QUERY = "domain=localhost&path=/carl"

WALK = {
    "root": ("GET", "/", None, EVERYBODY),
    "page": ("GET", "/management", None, EVERYBODY),
    "init": ("POST", "init", {}, EVERYBODY),
    "auth": ("POST", "/auth", {"command": "logout"}, EVERYBODY),
    "check-auth": ("GET", "check-auth", None, EVERYBODY),
    "health": ("GET", "health", None, EVERYBODY),
    "openapi": ("GET", "openapi.json", None, EVERYBODY),
    "docs": ("GET", "docs", None, EVERYBODY),
    "hooks.push": ("POST", "hooks/absent", {}, set()),
    "keys.list": ("GET", "keys", None, DEPLOY),
    "keys.add": ("POST", "keys", {"name": "n", "role": "caller"}, DEPLOY),
    "keys.remove": ("DELETE", "keys", {"name": "absent"}, DEPLOY),
    "keys.remove-named": ("DELETE", "keys/absent", None, DEPLOY),
    "sessions.list": ("GET", "sessions", None, SOMEBODY),
    "sessions.end": ("DELETE", "sessions/absent", None, SOMEBODY),
    "audit.list": ("GET", "audit", None, {"admin"}),
    "audit.verify": ("GET", "audit/verify", None, {"admin"}),
    "settings.show": ("GET", "settings", None, READ_ALL),
    "settings.change": ("POST", "settings", {"taskTimeout": 5}, {"admin"}),
    "all.stop": ("POST", "stopAndDeleteAll", None, {"admin"}),
    "backup": ("POST", "backup", {}, {"admin"}),
    "overview": ("GET", "overview", None, READ_ALL),
    "metrics": ("GET", "metrics", None, READ),
    "prometheus": ("GET", "/metrics", None, {"admin"}),
    "config": ("GET", "config", None, READ_ALL),
    "logs": ("GET", "logs", None, READ_ALL),
    "events": ("GET", "events", None, READ),  # it never ends: see test_events
    "logs.list": ("GET", "logs/list", None, READ_ALL),
    "logs.download": ("GET", "logs/download?date=2023-11-14", None, READ_ALL),
    "deployments.stats": ("GET", f"deployments/stats?{CARL_QUERY}", None, READ),
    "deployments.list": ("GET", "deployments", None, READ),
    "deployments.releases": ("GET", f"deployments/releases?{CARL_QUERY}", None, READ),
    "deployments.logs": ("GET", f"deployments/logs?{CARL_QUERY}", None, READ),
    "deployments.commands": ("GET", f"deployments/commands?{CARL_QUERY}", None, READ),
    "deployments.show": ("GET", "deployments/localhost/carl", None, READ),
    "deployments.update": ("POST", "deployments/update", CARL, DEPLOY),
    "deployments.rollback": ("POST", "deployments/rollback", CARL, DEPLOY),
    "deployments.scale": ("POST", "deployments/scale", {**CARL, "replicas": 2}, DEPLOY),
    "deployments.hook": ("POST", "deployments/hook", CARL, DEPLOY),
    "deployments.deploy": ("POST", "deployments", {**CARL, "agent": "demo"}, DEPLOY),
    "deployments.restart": ("POST", "deployments/restart", CARL, DEPLOY),
    "deployments.stop": ("POST", "deployments/stop", CARL, DEPLOY),
    "deployments.start": ("POST", "deployments/start", CARL, DEPLOY),
    "deployments.sync": ("POST", "deployments/sync", CARL, DEPLOY),
    "deployments.remove": ("DELETE", "deployments", CARL, DEPLOY),
    "deployments.remove-named": ("DELETE", "deployments/localhost/carl", None, DEPLOY),
    "domains.list": ("GET", "domains", None, READ),
    "domains.add": ("POST", "domains", {"name": "n.example"}, {"admin"}),
    "domains.remove": ("DELETE", "domains", {"name": "n.example"}, {"admin"}),
    "domains.remove-named": ("DELETE", "domains/n.example", None, {"admin"}),
    "repositories.list": ("GET", "repositories", None, READ),
    "repositories.add": ("POST", "repositories", {"name": "n", "url": "u"}, DEPLOY_ALL),
    "repositories.remove": ("DELETE", "repositories", {"name": "n"}, DEPLOY_ALL),
    "repositories.remove-named": ("DELETE", "repositories/n", None, DEPLOY_ALL),
    "repositories.agents": ("GET", "repositories/n/agents", None, READ),
    "repositories.sync": ("POST", "repositories/n/sync", None, DEPLOY),
    "agents.list": ("GET", "agents", None, READ),
    "tasks.submit": ("POST", "/internal/tasks", [], EVERYBODY),  # for anybody it is not there
    "tasks.own": ("GET", "/_ploinky/tasks/t-1", None, EVERYBODY),
    "tasks.cancel-own": ("DELETE", "/_ploinky/tasks/t-1", None, EVERYBODY),
    "tasks.list": ("GET", "tasks", None, READ),
    "tasks.dead": ("GET", "tasks/dead", None, READ),
    "tasks.show": ("GET", "tasks/t-1", None, READ),
    "tasks.cancel": ("POST", "tasks/t-1/cancel", None, DEPLOY),
    "tasks.retry": ("POST", "tasks/t-1/retry", None, DEPLOY),
    "agents.start": ("POST", "agents/demo/start", None, DEPLOY),
    "agents.stop": ("POST", "agents/demo/stop", None, DEPLOY),
    "agents.restart": ("POST", "agents/demo/restart", None, DEPLOY),
}


def test_the_walk_knows_every_route(server):
    """A route that is added without a rule, or without a line here, is found."""
    named = {endpoint.name for endpoint in routes(server.collaborators)}
    assert named == set(RULES) == set(WALK)
    assert len(named) == len(routes(server.collaborators))


@pytest.mark.parametrize("key", ["admin", "deployer", "confined", "viewer", "caller", None])
@pytest.mark.parametrize("route", sorted(set(WALK) - {"events"}))
@pytest_twisted.ensureDeferred
async def test_each_role_is_let_in_where_it_should_be_and_nowhere_else(server, route, key):
    """401 without a credential, 403 with too small a one, otherwise what the route does."""
    method, path, body, who = WALK[route]
    answer = await server.ask(method, path, body, key=key)
    if key in who:
        assert answer.status not in (401, 403) or route == "init"
    elif key is None or route == "hooks.push":  # a push proves itself, whoever sends it
        assert fits(answer, 401, "UNAUTHENTICATED")
    else:
        assert fits(answer, 403, "FORBIDDEN")
    assert {role.value for role in Role} | {"confined"} >= who - {None}


@pytest_twisted.ensureDeferred
async def test_every_secret_stays_inside(server):
    """Whatever is read back over the API, by whom ever: no key, token, variable or credential."""
    server.source.contents["https://git.example/x.git"] = []
    credential = {"username": "me", "token": "needle-1", "sshKey": "needle-2"}
    repository = {"name": "n", "url": "https://git.example/x.git", "credential": credential}
    said = [await server.ask("POST", "repositories", repository)]
    environment = {
        "environment": {"TOKEN": "needle-3"},
        "env": {"OTHER": "needle-4"},
        "secrets": {"MORE": "needle-5"},
    }
    deploy = {**CARL, "agent": "demo", **environment}
    said.append(await server.ask("POST", "deployments", deploy))
    server.manager.gate = Deferred()
    said.append(await server.ask("POST", "deployments?wait=false", deploy))
    server.manager.gate.callback(None)
    await server.tasks.submit(
        Submission("t-1", "d", "hello", b"[]", "InternetUser", True, "r-1", key="needle-5")
    )
    for method, path, body, _ in WALK.values():
        if method == "GET" and path != "events":
            said.append(await server.ask(method, path, body))
    for answer in said:
        assert answer.status < 400
        assert b"needle" not in answer.body
        assert not re.search(rb"pk_admin|[0-9a-f]{64}", answer.body)
