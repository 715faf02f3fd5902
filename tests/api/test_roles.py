"""Who may ask for what: every route and method, every role, every reach of a key; and what is said of it.

The table in ``docs/security.md`` is made of the same rules: ``WRITE_DOCS=1`` puts it there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from ploinky.api.application import routes
from ploinky.api.page import Files, web_directory
from ploinky.security.roles import READERS, RULES
from ploinky.security.tokens import token_hash
from ploinky.task_values import Submission
from ploinky.values import DeploymentKey, Principal, Role
from tests.api.conformance import fits

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"

READ = {"admin", "deployer", "confined", "viewer"}
READ_ALL = READ - {"confined"}
DEPLOY = {"admin", "deployer", "confined"}
DEPLOY_ALL = {"admin", "deployer"}
SOMEBODY = {"admin", "deployer", "confined", "viewer", "caller"}
EVERYBODY = {*SOMEBODY, None}

CARL = {"domain": "localhost", "path": "/carl"}
CARL_QUERY = "domain=localhost&path=/carl"

VERSION = Files.of(web_directory()).version

WALK = {
    "root": ("GET", "/", None, EVERYBODY),
    "page": ("GET", "/management", None, EVERYBODY),
    "page.file": ("GET", f"/management/web/{VERSION}/style.css", None, EVERYBODY),
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
    "domains.enable": ("POST", "domains/localhost/enable", None, {"admin"}),
    "domains.disable": ("POST", "domains/localhost/disable", None, {"admin"}),
    "domains.remove": ("DELETE", "domains", {"name": "n.example"}, {"admin"}),
    "domains.remove-named": ("DELETE", "domains/n.example", None, {"admin"}),
    "repositories.list": ("GET", "repositories", None, READ),
    "repositories.add": ("POST", "repositories", {"name": "n", "url": "u"}, DEPLOY_ALL),
    "repositories.remove": ("DELETE", "repositories", {"name": "n"}, DEPLOY_ALL),
    "repositories.remove-named": ("DELETE", "repositories/n", None, DEPLOY_ALL),
    "repositories.agents": ("GET", "repositories/n/agents", None, READ),
    "repositories.sync": ("POST", "repositories/n/sync", None, DEPLOY),
    "agents.list": ("GET", "agents", None, READ),
    # For anybody these are not there.
    "tasks.submit": ("POST", "/internal/tasks", [], EVERYBODY),
    "instances.ending": ("GET", "/internal/endings", None, EVERYBODY),
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
        if method == "GET" and path not in ("events", "/internal/endings"):
            said.append(await server.ask(method, path, body))
    for answer in said:
        assert answer.status < 400
        assert b"needle" not in answer.body
        assert not re.search(rb"pk_admin|[0-9a-f]{64}", answer.body)


@pytest.mark.parametrize("key", ["admin", "confined", None])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "X-A"])
@pytest_twisted.ensureDeferred
async def test_no_other_method_gets_anywhere(server, key, method):
    """405 with the methods that there are, whoever asks; nothing is done, and nothing else is told."""
    paths = {path for _, path, _, _ in WALK.values()}
    for path in sorted(paths):
        answer = await server.ask(method, path, {}, key=key)
        assert fits(answer, 405, "METHOD_NOT_ALLOWED"), path
        assert "OPTIONS" in answer.field("Allow")
    assert server.manager.requests == []


@pytest.mark.parametrize("key", ["admin", "deployer", "confined", "viewer", "caller", None])
@pytest_twisted.ensureDeferred
async def test_head_is_let_in_where_get_is(server, key):
    """It tells as much: whether there is something, and how long it is."""
    for route, (method, path, _, who) in WALK.items():
        if method == "GET" and route != "events":
            answer = await server.ask("HEAD", path, key=key)
            refused = answer.status in (401, 403)
            assert refused is (key not in who), (route, answer.status)
            assert answer.body == b""


OTHERS = {"domain": "localhost", "path": "/others"}
REACHES = {
    "a place": ("localhost/carl",),
    "a domain": ("a.example",),
    "both": ("a.example", "localhost/carl"),
    "what is beneath": ("localhost/others/beneath", "sub.localhost"),
}


def elsewhere(route: str) -> tuple[str, str, object] | None:
    """Give a route's call about what is others'; None where it is about no deployment."""
    method, path, body, _ = WALK[route]
    told = path.replace("/carl", "/others")
    if isinstance(body, dict) and body.get("path") == "/carl":
        return method, told, {**body, **OTHERS}
    about = told != path or path.startswith(("tasks/t", "agents/demo", "/_ploinky"))
    return (method, told, body) if about else None


@pytest.mark.parametrize("scope", REACHES.values(), ids=REACHES)
@pytest.mark.parametrize("role", [Role.DEPLOYER, Role.VIEWER, Role.CALLER])
@pytest_twisted.ensureDeferred
async def test_whoever_is_confined_reaches_nothing_of_others(server, scope, role):
    """Not by any route that names a deployment, a task or an agent; nor is any of it listed."""
    token = "pk_narrow"
    await server.keys.add_principal(Principal("nat", role, token_hash(token), scope=scope))
    deployment = await server.deploy("/others", agent="demo")
    key = DeploymentKey("localhost", "/others")
    await server.tasks.submit(
        Submission("t-1", deployment["id"], "hello", b"[]", "cleo", False, "r-1")
    )
    before = (await server.ask("GET", "deployments")).json
    walked = 0
    for route in WALK:
        told = elsewhere(route)
        if told is None:
            continue
        walked += 1
        method, path, body = told
        answer = await server.ask(method, path, body, key="narrow")
        assert answer.status in (403, 404), (route, answer.status, answer.body)
    assert walked > 20
    assert (await server.ask("GET", "deployments")).json == before
    for path in ("deployments", "tasks", "health", "metrics"):
        said = await server.ask("GET", path, key="narrow")
        assert b"/others" not in said.body, path
        assert said.status == (200 if role in READERS or path == "health" else 403)
    assert str(key) not in scope


# --- what the documents say --------------------------------------------------


def table(endpoints) -> str:
    """Give the rules for people: a line a route, in the order of their paths."""
    lines = ["| method | path | who | with a scope |", "|---|---|---|---|"]
    shown = sorted((one for one in endpoints if not one.internal), key=lambda one: one.path)
    for one in shown:
        rule = RULES[one.name]
        who = ", ".join(role.value for role in Role if role in rule.roles) or "everybody"
        if one.name == "prometheus":
            who = "admin; everybody on this machine"
        if one.proves_itself:
            who = "who signs it"
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", one.path)
        scoped = ("yes" if rule.confined else "no") if rule.roles - {Role.ADMIN} else ""
        lines.append(f"| {one.method} | `{path}` | {who} | {scoped} |")
    return "\n".join(lines)


def test_the_documents_table_is_what_is_held(server):
    """Line by line."""
    begin, end = "<!-- routes -->\n", "\n<!-- /routes -->"
    text = DOCUMENT.read_text(encoding="utf-8")
    assert (text.count(begin), text.count(end)) == (1, 1)
    before, rest = text.split(begin)
    said, after = rest.split(end)
    held = table(routes(server.collaborators))
    if os.environ.get("WRITE_DOCS"):
        DOCUMENT.write_text(before + begin + held + end + after, encoding="utf-8")
    assert said == held, "say WRITE_DOCS=1 to this test to put it right"
