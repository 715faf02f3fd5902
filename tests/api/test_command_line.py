"""``p-cli`` reaches all that the API can do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytest_twisted
from click.testing import CliRunner
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from ploinky.api.application import make_site, routes
from ploinky.cli.main import cli
from ploinky.source_values import AgentListing
from ploinky.task_values import Submission

URL = "https://git.example/x.git"
AT = ("localhost", "/demo")

COMMANDS = [
    ("connect", "{url}"),
    ("status",),
    ("login", "pk_admin"),
    ("health",),
    ("host", "add", "a.example"),
    ("host", "list"),
    ("host", "disable", "a.example"),
    ("host", "enable", "a.example"),
    ("host", "remove", "a.example"),
    ("repo", "add", "demo", URL),
    ("repo", "list"),
    ("repo", "sync", "demo"),
    ("agent", "list"),
    ("agent", "list", "--repository", "demo"),
    ("deploy", *AT, "demo", "--env", "A=1", "--secret", "S=2"),
    ("deployments",),
    ("deployments", "show", *AT),
    ("deployments", "sync", *AT),
    ("deployments", "update", *AT, "--set", "timeout=5", "--unset", "A"),
    ("deployments", "stop", *AT),
    ("deployments", "start", *AT),
    ("deployments", "restart", *AT),
    ("deployments", "logs", *AT),
    ("deployments", "stats", *AT),
    ("deployments", "hook", *AT),
    ("metrics", "1h"),
    ("metrics", "--prometheus"),
    ("events", "--after", "of-another-server", "--count", "1"),
    ("openapi",),
    ("logs",),
    ("logs", "list"),
    ("logs", "download", "2023-11-14"),
    ("releases", *AT),
    ("rollback", *AT),
    ("scale", *AT, "2"),
    ("client", "methods", "/demo"),
    ("client", "task-status", "t-1"),
    ("client", "task-status", "t-1", "--cancel"),
    ("tasks", "list", "--state", "cancelled", "--deployment", "localhost/demo"),
    ("tasks", "dead"),
    ("tasks", "show", "t-1"),
    ("tasks", "retry", "t-1"),
    ("tasks", "cancel", "t-1"),
    ("agent", "info", "demo"),
    ("agent", "stop", "demo"),
    ("agent", "start", "demo"),
    ("agent", "restart", "demo"),
    ("keys", "add", "ci", "--role", "deployer", "--scope", "localhost/demo", "--expires", "30d"),
    ("keys", "list"),
    ("keys", "remove", "ci"),
    ("sessions", "list"),
    ("sessions", "end", "{session}"),
    ("audit", "list"),
    ("audit", "verify"),
    ("settings", "show"),
    ("settings", "set", "taskTimeout=1234"),
    ("config",),
    ("overview",),
    ("backup", "server.tar.gz", "--plain"),
    ("destroy", "--yes"),
    ("undeploy", *AT),
    ("repo", "remove", "demo"),
    ("logout",),
]

NOT_REACHED = {
    "root": "leads browsers to the page",
    "page": "is for browsers",
    "page.file": "is for browsers",
    "docs": "is for browsers",
    "hooks.push": "is for Git hosts, which sign what they push",
    "tasks.submit": "is for workers",
    "instances.ending": "is for workers",
    "init": "has a command, for new servers alone: a functional test types it",
    "deployments.remove-named": "is another way to do the same",
    "domains.remove-named": "is another way to do the same",
    "repositories.remove": "is another way to do the same",
    "keys.remove-named": "is another way to do the same",
}
"""Routes without a command, and why."""


@pytest_twisted.ensureDeferred
async def test_every_route_has_a_command(server, tmp_path, monkeypatch):
    """Each is typed, works, and gives JSON where that is asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    server.source.contents = {URL: [AgentListing("demo", "demo")]}
    await server.tasks.submit(Submission("t-1", "d", "hello", b"[]", "cleo", False, "r-1"))
    site = make_site(server.collaborators)
    seen: list[tuple[str, str]] = []
    find = site.getResourceFor

    def noting(request):
        seen.append((request.method.decode(), request.path.decode()))
        return find(request)

    site.getResourceFor = noting
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}"
    known = {"url": url, "session": ""}
    try:
        for command in COMMANDS:
            if command[:2] == ("sessions", "end"):
                sessions = json.loads(await typed(("sessions", "list"), "--json"))["sessions"]
                known["session"] = sessions[0]["id"]
            line = tuple(word.format(**known) for word in command)
            said = await typed(line, "--json")
            if "--prometheus" not in command:
                for document in said.splitlines() if command == LINES_OF_JSON else [said]:
                    json.loads(document)
            if command[:2] == ("sessions", "end"):
                await typed(("login", "pk_admin"))
    finally:
        await port.stopListening()
    reached = {server.description.name_of(method, path) for method, path in seen}
    named = {endpoint.name for endpoint in routes(server.collaborators)}
    assert named - reached == set(NOT_REACHED)


LINES_OF_JSON = ("logs",)


async def typed(words: tuple[str, ...], *options: str) -> str:
    """Type a command; gives what it printed on standard output."""
    runner = CliRunner()
    arguments = [*(() if words[0] == "client" else ("cloud",)), *words, *options]
    done = await deferToThread(runner.invoke, cli, arguments)
    assert done.exit_code == 0, f"{arguments}: {done.output} {done.exception!r}"
    output: str = done.stdout
    return output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell):
    """With what click makes for each."""
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert "_P_CLI_COMPLETE" in done.output


def test_destroying_is_asked_for_first(monkeypatch, tmp_path):
    """Whoever does not say yes destroys nothing, and needs no server for it."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["cloud", "destroy"], input="n\n")
    assert done.exit_code == 1
    assert "Stop everything" in done.output
