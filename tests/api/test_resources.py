"""`domains`, `repositories`, `agents`, `health`, `overview`, `config`, `logs`, and the page."""

from __future__ import annotations

import pytest
import pytest_twisted

from ploinky.deploy_errors import ImageFailed
from ploinky.errors import StateUnusable
from ploinky.source_values import AgentListing, GitCredential, GitSource
from ploinky.values import DeploymentKey, DeploymentState

URL = "https://git.example/x.git"
ONE_PAGE = {"total": 1, "page": 1, "perPage": 100}


@pytest_twisted.ensureDeferred
async def test_domains_are_added_listed_and_removed(server):
    """In canonical form; by body or by path."""
    assert (await server.ask("GET", "domains")).json == {
        "domains": [{"name": "localhost", "enabled": True}],
        **ONE_PAGE,
    }
    answer = await server.ask("POST", "domains", {"name": "API.Example.com."})
    assert answer.json["domain"] == {"name": "api.example.com", "enabled": True}
    twice = await server.ask("POST", "domains", {"name": "api.example.com"})
    assert (twice.status, twice.code) == (409, "CONFLICT")
    assert (await server.ask("DELETE", "domains/api.example.com")).status == 200
    gone = await server.ask("DELETE", "domains", {"name": "api.example.com"})
    assert (gone.status, gone.code) == (404, "NOT_FOUND")


@pytest_twisted.ensureDeferred
async def test_domains_are_disabled_and_enabled(server):
    """As often as one likes; the routes follow before the answer, and only what is there can be."""
    await server.ask("POST", "domains", {"name": "a.example"})
    for verb, enabled in (("disable", False), ("disable", False), ("enable", True)):
        adopted = server.manager.domains_adopted
        answer = await server.ask("POST", f"domains/A.example/{verb}")
        assert answer.json["domain"] == {"name": "a.example", "enabled": enabled}
        assert server.manager.domains_adopted == adopted + 1
        listed = (await server.ask("GET", "domains")).json["domains"]
        assert [d["enabled"] for d in listed if d["name"] == "a.example"] == [enabled]
    absent = await server.ask("POST", "domains/b.example/disable")
    assert (absent.status, absent.code) == (404, "NOT_FOUND")
    entries = (await server.ask("GET", "audit")).json["entries"]
    assert ("domains.disable", "a.example", "") in {
        (e["action"], e["subject"], e["code"]) for e in entries
    }


@pytest_twisted.ensureDeferred
async def test_a_domain_that_comes_back_is_enabled(server):
    """What was disabled and removed leaves nothing hidden behind."""
    await server.ask("POST", "domains", {"name": "a.example"})
    await server.ask("POST", "domains/a.example/disable")
    adopted = server.manager.domains_adopted
    await server.ask("DELETE", "domains/a.example")
    assert server.manager.domains_adopted == adopted + 1
    answer = await server.ask("POST", "domains", {"name": "a.example"})
    assert answer.json["domain"] == {"name": "a.example", "enabled": True}


@pytest.mark.parametrize("name", ["", "a b", "http://x", "x:80", "-x", "x/y", "x" * 300])
@pytest_twisted.ensureDeferred
async def test_what_is_no_host_name_is_no_domain(server, name):
    """It is told, with what one looks like."""
    answer = await server.ask("POST", "domains", {"name": name})
    assert (answer.status, answer.code) == (400, "VALIDATION_FAILED")


@pytest_twisted.ensureDeferred
async def test_a_domain_in_use_stays(server):
    """It names what is deployed there."""
    await server.deploy("/demo")
    answer = await server.ask("DELETE", "domains/localhost")
    assert (answer.status, answer.code) == (409, "CONFLICT")
    assert "localhost/demo" in answer.json["message"]


@pytest_twisted.ensureDeferred
async def test_a_repository_is_read_before_it_is_registered(server):
    """A wrong URL is told at once, and leaves nothing."""
    answer = await server.ask("POST", "repositories", {"name": "demo", "url": URL})
    assert (answer.status, answer.code) == (422, "REPOSITORY_UNREACHABLE")
    assert (await server.ask("GET", "repositories")).json["repositories"] == []
    server.source.contents[URL] = []
    answer = await server.ask("POST", "repositories", {"name": "demo", "url": URL})
    expected = {
        "name": "demo",
        "url": URL,
        "branch": "",
        "hasCredential": False,
        "createdAt": "2023-11-14T22:13:20.000Z",
    }
    assert answer.json == {"success": True, "repository": expected}
    assert (await server.ask("GET", "repositories")).json == {
        "repositories": [expected],
        **ONE_PAGE,
    }
    twice = await server.ask("POST", "repositories", {"name": "demo", "url": URL})
    assert (twice.status, twice.code) == (409, "CONFLICT")


@pytest_twisted.ensureDeferred
async def test_file_urls_are_an_admins(server):
    """A deployer's are held to the allowed roots; once registered, anybody may look."""
    server.source.contents["file:///srv/x"] = [AgentListing("demo", "demo")]
    for key, name in (("admin", "a"), ("deployer", "b")):
        await server.ask("POST", "repositories", {"name": name, "url": "file:///srv/x"}, key=key)
    assert [source.any_file_url for source, _ in server.source.asked] == [True, False]
    answer = await server.ask("GET", "repositories/a/agents", key="viewer")
    assert [agent["name"] for agent in answer.json["agents"]] == ["demo"]


@pytest.mark.parametrize(
    ("url", "credential", "kept"),
    [
        (URL, {"token": "t"}, GitCredential("git", "t")),
        (
            URL,
            {"username": "u", "sshKey": "k", "knownHosts": "h"},
            GitCredential("u", "", "k", "h"),
        ),
        ("https://u:t%40@git.example/x.git", None, GitCredential("u", "t@")),
        ("https://t@git.example/x.git", None, GitCredential("git", "t")),
        ("ssh://git@git.example/x.git", None, None),
        ("git@git.example:x.git", None, None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_credentials_are_taken_and_never_given(server, url, credential, kept):
    """Those in the URL as well; lists only say that there is one."""
    bare = URL if "git.example/x" in url and url.startswith("https") else url
    server.source.contents[bare] = []
    body = {"name": "demo", "url": url} | ({"credential": credential} if credential else {})
    answer = await server.ask("POST", "repositories", body)
    assert answer.status == 200, answer.body
    assert answer.json["repository"]["url"] == bare
    assert answer.json["repository"]["hasCredential"] == (kept is not None)
    assert server.source.asked == [(GitSource(bare, "", kept, True), False)]
    (repository,) = await server.repositories.repositories()
    assert repository.credential == kept


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"name", "url"}),
        ({"name": "a/b", "url": " "}, {"name", "url"}),
        ({"name": "-x", "url": URL}, {"name"}),
        ({"name": "x", "url": "https://[x/y@z"}, {"url"}),
        ({"name": "x", "url": URL, "credential": "t"}, {"credential"}),
        ({"name": "x", "url": URL, "credential": {"token": 1, "key": ""}}, {"credential.token"}),
        ({"name": "x", "url": "https://a:b@h/x", "credential": {"token": "t"}}, {"credential"}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_repository_that_does_not_fit_is_refused(server, body, fields):
    """Every field with its problem; nothing is read."""
    answer = await server.ask("POST", "repositories", body)
    assert (answer.status, set(answer.json["details"])) == (400, fields)
    assert server.source.asked == []


@pytest_twisted.ensureDeferred
async def test_a_removed_repository_is_forgotten_when_no_other_shares_it(server):
    """Its mirror goes with the last name for it; deployments stay."""
    server.source.contents[URL] = []
    for name in ("one", "two"):
        await server.ask("POST", "repositories", {"name": name, "url": URL})
    await server.deploy(repository="one")
    assert (await server.ask("DELETE", "repositories/one")).status == 200
    assert server.source.forgotten == []
    assert (await server.ask("DELETE", "repositories", {"name": "two"})).status == 200
    assert server.source.forgotten == [URL]
    assert (await server.ask("DELETE", "repositories/two")).status == 404
    assert len(server.manager.deployments()) == 1


@pytest_twisted.ensureDeferred
async def test_a_sync_fetches_now(server):
    """Whatever the cache's age; it tells the commit."""
    server.source.contents[URL] = []
    await server.ask("POST", "repositories", {"name": "demo", "url": URL, "branch": "main"})
    answer = await server.ask("POST", "repositories/demo/sync")
    assert answer.json == {"success": True, "commit": "c0ffee"}
    assert server.source.asked[-1] == (GitSource(URL, "main", None, True), True)
    assert (await server.ask("POST", "repositories/absent/sync")).status == 404


@pytest_twisted.ensureDeferred
async def test_agents_are_those_of_all_repositories(server):
    """One repository that cannot be read is told, and hides no other."""
    server.source.contents = {
        URL: [
            AgentListing("demo", "agents/demo", "says hello"),
            AgentListing("bad", "b", "", "no"),
        ],
        "https://other.example": [],
    }
    for name, url in (("one", URL), ("other", "https://other.example")):
        await server.ask("POST", "repositories", {"name": name, "url": url})
    del server.source.contents["https://other.example"]
    answer = await server.ask("GET", "agents", key="viewer")
    assert answer.json["agents"] == [
        {"name": "demo", "repository": "one", "path": "agents/demo", "about": "says hello",
         "problem": ""},
        {"name": "bad", "repository": "one", "path": "b", "about": "", "problem": "no"},
    ]  # fmt: skip
    (problem,) = answer.json["problems"]
    assert (problem["repository"], problem["code"]) == ("other", "REPOSITORY_UNREACHABLE")


@pytest_twisted.ensureDeferred
async def test_health_is_ok_degraded_or_down(server, serve):
    """By workers and deployments; a deployment that was stopped is no trouble."""

    async def health():
        answer = await server.ask("GET", "health", key=None)
        return answer.status, answer.json

    assert await health() == (200, {"status": "ok"})
    await server.deploy()
    key = DeploymentKey("localhost", "/demo")
    for state, expected in (
        (DeploymentState.STOPPED, "ok"),
        (DeploymentState.UNHEALTHY, "degraded"),
        (DeploymentState.FAILED, "degraded"),
        (DeploymentState.RUNNING, "ok"),
    ):
        server.manager.becomes(key, state)
        assert await health() == (200, {"status": expected})
    server.workers.states = ["serving", "waiting"]
    assert await health() == (200, {"status": "degraded"})
    server.workers.states = ["waiting", "starting"]
    assert await health() == (503, {"status": "down"})


@pytest_twisted.ensureDeferred
async def test_health_tells_more_to_who_may_know(server):
    """Parts and deployments, within the reader's scope."""
    await server.deploy("/demo")
    await server.deploy("/carl")
    answer = await server.ask("GET", "health", key="viewer")
    assert answer.json["status"] == answer.json["server"] == answer.json["database"] == "ok"
    assert [worker["state"] for worker in answer.json["workers"]] == ["serving"]
    assert answer.json["agents"] == {"healthyInstances": 2}
    assert answer.json["deployments"] == [
        {"domain": "localhost", "path": "/carl", "status": "running", "lastFailure": None},
        {"domain": "localhost", "path": "/demo", "status": "running", "lastFailure": None},
    ]
    confined = await server.ask("GET", "health", key="confined")
    assert [d["path"] for d in confined.json["deployments"]] == ["/carl"]
    assert set((await server.ask("GET", "health", key="caller")).json) == {"status"}


@pytest_twisted.ensureDeferred
async def test_a_database_that_fails_is_down(serve):
    """With its own words, to who may know."""

    class Broken:
        async def domains(self):
            raise StateUnusable("the database x cannot be used: disk I/O error")

    server = await serve(repositories=Broken())
    answer = await server.ask("GET", "health")
    assert (answer.status, answer.json["status"]) == (503, "down")
    assert "disk I/O error" in answer.json["database"]


@pytest_twisted.ensureDeferred
async def test_the_overview_counts(server):
    """Calls, agents, errors, time, and what was done last."""
    for number, (status, count) in enumerate(((200, 988), (500, 5), (401, 7)), 1):
        server.count(number, "d1", status, count)
    await server.deploy("/one")
    await server.deploy("/two")
    await server.ask("POST", "deployments/stop", {"domain": "localhost", "path": "/two"})
    server.manager.refusal = ImageFailed("no image")
    body = {"domain": "localhost", "path": "/one", "agent": "demo"}
    await server.ask("POST", "deployments", body, fields={"X-Request-Id": "r-1"})
    server.clock.advance(1.5)
    overview = (await server.ask("GET", "overview", key="viewer")).json
    activity = overview.pop("recentActivity")
    assert overview == {
        "totalRequests": 1000,
        "activeAgents": 0,
        "totalDeployments": 2,
        "errorRate": "0.50%",
        "unauthorizedRequests": 7,
        "uptime": 1500,
    }
    assert activity[0] == {
        "time": "2023-11-14T22:13:20.000Z",
        "action": "deployments.deploy",
        "subject": "localhost/one",
        "user": "Admin",
        "success": False,
        "error": "no image",
        "requestId": "r-1",
    }
    assert [one["action"].partition(".")[2] for one in activity] == [
        "deploy", "stop", "deploy", "deploy",
    ]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_a_server_without_calls_has_no_errors(server):
    """Rather than a division by zero."""
    assert (await server.ask("GET", "overview")).json["errorRate"] == "0.00%"


@pytest_twisted.ensureDeferred
async def test_the_configuration_is_what_is_in_force(serve, short_directory):
    """By the names that the settings have."""
    server = await serve(port=8080, git_file_roots=("/srv",))
    config = (await server.ask("GET", "config")).json
    assert config["directory"] == str(short_directory)
    assert config["settings"]["port"] == 8080
    assert config["settings"]["gitFileRoots"] == ["/srv"]
    assert config["settings"]["taskTimeout"] == 30_000


@pytest_twisted.ensureDeferred
async def test_the_front_door_leads_to_the_page(server):
    """Where nothing is deployed at `/`."""
    answer = await server.ask("GET", "/", key=None)
    assert (answer.status, answer.field("Location")) == (302, "/management")
