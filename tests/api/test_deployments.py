"""`deployments` over the API."""

from __future__ import annotations

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.web.client import ResponseNeverReceived

from ploinky.deploy_errors import ImageFailed
from ploinky.errors import ManifestInvalid
from ploinky.instance_values import InstanceStatus
from ploinky.values import DeploymentKey

DEMO = DeploymentKey("localhost", "/demo")


@pytest_twisted.ensureDeferred
async def test_a_deploy_is_answered_when_it_serves(server):
    """With the deployment as it stands; what was asked for reached the manager whole."""
    body = {
        "domain": "LocalHost",
        "path": "demo/",
        "agent": "demo",
        "repository": "https://git.example/x.git",
        "branch": "main",
        "subPath": "agents/demo",
        "image": "node:20",
        "environment": {"A": "1"},
        "env": {"A": "0", "B": "2"},
        "timeout": 5,
        "health": {"path": "/up"},
    }
    answer = await server.ask("POST", "deployments", body)
    assert answer.status == 200
    assert answer.json["success"] is True
    deployment = answer.json["deployment"]
    assert {"domain": "localhost", "path": "/demo", "agent": "demo", "status": "running",
            "release": 1, "image": "node:20", "imageId": "memory:node:20", "commit": "c0ffee", "kind": "task",
            "healthyInstances": 1, "error": None}.items() <= deployment.items()  # fmt: skip
    (request,) = server.manager.requests
    assert request.key == DEMO
    assert (request.agent, request.repository, request.branch, request.sub_path, request.image) == (
        "demo", "https://git.example/x.git", "main", "agents/demo", "node:20",
    )  # fmt: skip
    assert request.environment == {"A": "1", "B": "2"}
    assert request.settings == {"timeout": 5, "health": {"path": "/up"}}


@pytest_twisted.ensureDeferred
async def test_what_runs_elsewhere_is_external(server):
    """Whatever kind its settings would be of: nothing of it runs here."""
    deployment = await server.deploy(target="http://10.0.0.1:80")
    assert (deployment["kind"], deployment["target"]) == ("external", "http://10.0.0.1:80")


@pytest_twisted.ensureDeferred
async def test_deployments_are_listed_and_found(server):
    """All, those of one domain, or the one at a path."""
    await server.repositories.add_domain("a.example")
    for domain, path in (("localhost", "/"), ("localhost", "/demo"), ("a.example", "/demo")):
        await server.deploy(path, domain)

    async def listed(query: str) -> list[str]:
        answer = await server.ask("GET", f"deployments{query}", key="viewer")
        return [d["domain"] + d["path"] for d in answer.json["deployments"]]

    assert await listed("") == ["a.example/demo", "localhost/", "localhost/demo"]
    assert await listed("?domain=localhost") == ["localhost/", "localhost/demo"]
    assert await listed("?domain=localhost&path=%2Fdemo") == ["localhost/demo"]
    assert await listed("?domain=localhost&path=/") == ["localhost/"]
    assert await listed("?domain=nowhere") == []


@pytest_twisted.ensureDeferred
async def test_every_problem_of_a_body_is_told_at_once(server):
    """One entry a field, in words of JSON, with the right name for a misspelt one."""
    body = {
        "path": 5,
        "agent": None,
        "subPath": ["x"],
        "environment": {"A": 1, "B": "fine", "C_d": False},
        "enviroment": {},
        "timeoutt": 1,
    }
    answer = await server.ask("POST", "deployments", body)
    assert (answer.status, answer.code) == (400, "VALIDATION_FAILED")
    assert answer.json["details"] == {
        "domain": "is required",
        "path": "expected text, got a number",
        "agent": "expected text, got null",
        "subPath": "expected text, got a list",
        "environment['A']": "expected text, got a number",
        "environment['C_d']": "expected text, got false",
        "enviroment": "there is no such field; is it environment?",
        "timeoutt": "there is no such field; is it timeout?",
    }
    for field, problem in answer.json["details"].items():
        assert f"{field}: {problem}" in answer.json["message"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"domain": "a b", "path": "/x/../y"}, {"domain", "path"}),
        ({"domain": "localhost", "path": "/x", "environment": "A=1"}, {"environment"}),
        ({"domain": "localhost", "path": "/x", "env": {"A": None}}, {"env['A']"}),
        ([1, 2], {"body"}),
        ("text", {"body"}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_does_not_fit_is_refused_before_anything_happens(server, body, problem):
    """Domain, path and environment are checked in form."""
    answer = await server.ask("POST", "deployments", body)
    assert (answer.status, answer.code) == (400, "VALIDATION_FAILED")
    assert set(answer.json["details"]) == problem
    assert server.manager.requests == []


@pytest_twisted.ensureDeferred
async def test_a_credential_in_a_url_is_refused_and_not_repeated(server):
    """It would show in lists; there is another place for it, which is named."""
    body = {"domain": "localhost", "path": "/x", "repository": "https://me:needle@git.example/x"}
    answer = await server.ask("POST", "deployments", body)
    assert answer.status == 400
    assert "p-cli cloud repo add" in answer.json["details"]["repository"]
    assert b"needle" not in answer.body


@pytest_twisted.ensureDeferred
async def test_a_failed_deploy_says_which_step_and_what_it_printed(server):
    """And it is in the list afterwards, for whoever did not wait."""
    server.manager.refusal = ImageFailed(
        "the image x:1 is not there", output="manifest unknown\n", details={"image": "x:1"}
    )
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    answer = await server.ask("POST", "deployments", body)
    assert answer.status == 422
    assert answer.json == {
        "error": "the image x:1 is not there",
        "message": "the image x:1 is not there",
        "code": "IMAGE_FAILED",
        "details": {
            "image": "x:1",
            "step": "image",
            "failedAt": "image",
            "output": "manifest unknown\n",
        },
        "requestId": answer.field("X-Request-Id"),
    }
    listed = (await server.ask("GET", "deployments")).json["deployments"]
    assert [(d["status"], d["error"]["code"]) for d in listed] == [("failed", "IMAGE_FAILED")]


@pytest_twisted.ensureDeferred
async def test_an_invalid_manifest_keeps_its_line_and_column(server):
    """The details that the manager gave are handed on."""
    server.manager.refusal = ManifestInvalid("a comma", details={"line": 3, "column": 9})
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    answer = await server.ask("POST", "deployments", body)
    assert (answer.status, answer.code) == (422, "MANIFEST_INVALID")
    assert answer.json["details"] == {"line": 3, "column": 9}


@pytest_twisted.ensureDeferred
async def test_a_deploy_that_nobody_waits_for_is_accepted(server):
    """202 while it works; the list says when it serves."""
    server.manager.gate = Deferred()
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    answer = await server.ask("POST", "deployments?wait=false", body)
    assert answer.status == 202
    assert answer.json["deployment"]["status"] == "deploying"
    assert answer.json["deployment"]["step"] == "source"
    server.manager.gate.callback(None)
    listed = (await server.ask("GET", "deployments")).json["deployments"]
    assert [d["status"] for d in listed] == ["running"]


@pytest_twisted.ensureDeferred
async def test_what_is_refused_before_it_begins_is_not_accepted(server):
    """A deploy that cannot begin is an error, also for those who do not wait."""
    server.manager.silent = True
    server.manager.gate = Deferred()
    server.manager.refusal = ManifestInvalid("no")
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    asking = Deferred.fromCoroutine(server.ask("POST", "deployments?wait=false", body))
    while not server.manager.requests:
        await server.ask("GET", "health", key=None)
    server.manager.gate.callback(None)
    assert (await asking).status == 422


@pytest_twisted.ensureDeferred
async def test_a_deploy_that_waits_for_its_turn_is_accepted(server):
    """Those who do not wait are not kept for what another deploy takes."""
    server.manager.silent = True
    server.manager.gate = Deferred()
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    asking = Deferred.fromCoroutine(server.ask("POST", "deployments?wait=false", body))
    while not server.manager.requests:
        await server.ask("GET", "health", key=None)
    server.clock.advance(1)
    assert (await asking).status == 202
    assert server.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_deploy_goes_on_if_the_client_leaves(server):
    """Only its wait is over."""
    server.manager.gate = Deferred()
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    asking = Deferred.fromCoroutine(server.ask("POST", "deployments", body))
    while not server.manager.requests:
        await server.ask("GET", "health", key=None)
    asking.cancel()
    with pytest.raises(ResponseNeverReceived):
        await asking
    await server.ask("GET", "health", key=None)
    server.manager.gate.callback(None)
    listed = (await server.ask("GET", "deployments")).json["deployments"]
    assert [d["status"] for d in listed] == ["running"]


@pytest_twisted.ensureDeferred
async def test_whoever_waits_for_a_deploy_hears_that_the_server_stops(server):
    """It is nothing that the server did not foresee."""
    server.manager.gate = Deferred()
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    asking = Deferred.fromCoroutine(server.ask("POST", "deployments", body))
    while not server.manager.requests:
        await server.ask("GET", "health", key=None)
    await server.operations.stopService()
    answer = await asking
    assert (answer.status, answer.code, answer.field("Retry-After")) == (503, "DRAINING", "5")


@pytest_twisted.ensureDeferred
async def test_stopping_the_server_ends_deploys_in_progress(server):
    """It waits until they have ended; what comes later is told to come back."""
    server.manager.gate = Deferred()
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    await server.ask("POST", "deployments?wait=false", body)
    await server.operations.stopService()
    assert server.manager.gate.called
    assert [ended.error for ended in server.operations.recent()] == ["stopped with the server"]
    answer = await server.ask("POST", "deployments", body)
    assert (answer.status, answer.code) == (503, "DRAINING")
    assert answer.field("Retry-After") == "5"


@pytest.mark.parametrize(
    ("verb", "status"), [("restart", "running"), ("stop", "stopped"), ("start", "running")]
)
@pytest_twisted.ensureDeferred
async def test_a_deployment_is_restarted_stopped_and_started(server, verb, status):
    """Each answers with the deployment as it then stands."""
    await server.deploy()
    answer = await server.ask(
        "POST", f"deployments/{verb}", {"domain": "localhost", "path": "/demo"}
    )
    assert answer.status == 200
    assert answer.json["deployment"]["status"] == status


@pytest_twisted.ensureDeferred
async def test_a_sync_deploys_the_same_again(server):
    """What was asked for, secrets included, as a new release."""
    await server.deploy(environment={"TOKEN": "needle"}, timeout=5)
    answer = await server.ask("POST", "deployments/sync", {"domain": "localhost", "path": "/demo"})
    assert answer.json["deployment"]["release"] == 2
    first, second = server.manager.requests
    assert first == second


@pytest_twisted.ensureDeferred
async def test_a_sync_leaves_a_failed_attempt_behind(server):
    """What serves is deployed again, not what came after it and failed."""
    await server.deploy(branch="good")
    server.manager.refusal = ImageFailed("no")
    body = {"domain": "localhost", "path": "/demo", "agent": "demo", "branch": "bad"}
    await server.ask("POST", "deployments", body)
    server.manager.refusal = None
    await server.ask("POST", "deployments/sync", {"domain": "localhost", "path": "/demo"})
    assert [request.branch for request in server.manager.requests] == ["good", "bad", "good"]


@pytest.mark.parametrize(
    "verb", ["restart", "stop", "start", "sync"]
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_what_is_not_deployed_cannot_be_changed(server, verb):
    """404, by name."""
    body = {"domain": "localhost", "path": "/absent"}
    answer = await server.ask("POST", f"deployments/{verb}", body)
    assert (answer.status, answer.code) == (404, "NOT_FOUND")
    assert "localhost/absent" in answer.json["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("deployments", {"domain": "localhost", "path": "/a/b"}),
        ("deployments?domain=localhost&path=%2Fa%2Fb", None),
        ("deployments/localhost/%2Fa%2Fb", None),
        ("deployments/localhost/a%2Fb", None),
        ("deployments/localhost/a/b", None),
        ("deployments/localhost//a/b/", None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_deployment_is_removed_by_body_query_or_path(server, path, body):
    """However its key is written; a second time there is none."""
    await server.deploy("/a/b")
    answer = await server.ask("DELETE", path, body)
    assert (answer.status, answer.json) == (200, {"success": True})
    assert server.manager.deployments() == []
    assert (await server.ask("DELETE", path, body)).status == 404


@pytest_twisted.ensureDeferred
async def test_the_deployment_at_the_root_is_removed_too(server):
    """Its path is a slash, written `%2F` or not at all."""
    for written in ("deployments/localhost/%2F", "deployments/localhost/"):
        await server.deploy("/")
        assert (await server.ask("DELETE", written)).status == 200


@pytest_twisted.ensureDeferred
async def test_releases_are_listed_newest_first(server):
    """Failed ones with their reason; names of variables without their values."""
    await server.deploy(environment={"TOKEN": "needle"})
    server.manager.refusal = ImageFailed("no")
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    await server.ask("POST", "deployments", body)
    answer = await server.ask("GET", "deployments/releases?domain=localhost&path=/demo")
    second, first = answer.json["releases"]
    assert (first["number"], first["state"], first["error"]) == (1, "active", None)
    assert list(first["environment"]) == ["TOKEN"]
    assert (second["number"], second["state"]) == (2, "failed")
    assert second["error"]["code"] == "IMAGE_FAILED"
    assert b"needle" not in answer.body


@pytest_twisted.ensureDeferred
async def test_output_comes_from_the_instances_that_serve(server):
    """Of this deployment and release alone; the last lines; text."""
    deployment = (await server.deploy())["id"]
    mine = InstanceStatus("mine", deployment, 1, True)
    others = [
        attrs.evolve(mine, instance="other", deployment="x"),
        attrs.evolve(mine, instance="older", release=7),
    ]
    server.runtime.statuses = [mine, *others]
    server.runtime.outputs = {"mine": "one\ntwo\nthree", "other": "x", "older": "old"}
    place = "deployments/logs?domain=localhost&path=/demo"
    answer = await server.ask("GET", f"{place}&lines=2")
    assert answer.body == b"two\nthree"
    assert answer.field("Content-Type") == "text/plain; charset=utf-8"
    assert (await server.ask("GET", f"{place}&release=7")).body == b"old"
    server.runtime.statuses.append(attrs.evolve(mine, instance="twin"))
    server.runtime.outputs["twin"] = "four"
    answer = await server.ask("GET", place)
    assert answer.body == b"==> mine <==\none\ntwo\nthree\n==> twin <==\nfour"


@pytest_twisted.ensureDeferred
async def test_output_of_what_failed_is_there_after_it_is_gone(server):
    """Whoever asks why a first deploy failed sees its last words."""
    server.manager.refusal = ImageFailed("no")
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    await server.ask("POST", "deployments", body)
    answer = await server.ask("GET", "deployments/logs?domain=localhost&path=/demo")
    assert answer.body == b"last words"


@pytest.mark.parametrize("lines", ["0", "-1", "x", "10001", "9" * 400, "1e3", "\u0663"])
@pytest_twisted.ensureDeferred
async def test_a_count_that_is_none_is_refused(server, lines):
    """Never read as something else."""
    await server.deploy()
    place = f"deployments/logs?domain=localhost&path=/demo&lines={lines}"
    answer = await server.ask("GET", place)
    assert (answer.status, set(answer.json["details"])) == (400, {"lines"})


@pytest_twisted.ensureDeferred
async def test_only_an_admin_may_name_any_file(server):
    """A deployer's file URLs are held to the allowed roots."""
    body = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    for key in ("admin", "deployer"):
        assert (await server.ask("POST", "deployments", body, key=key)).status == 200
    assert [request.any_file_url for request in server.manager.requests] == [True, False]


@pytest_twisted.ensureDeferred
async def test_a_confined_deployer_keeps_to_their_scope(server):
    """They neither change nor see what is outside it."""
    await server.repositories.add_domain("a.example")
    await server.deploy("/demo")
    outside = {"domain": "localhost", "path": "/demo", "agent": "demo"}
    inside = {**outside, "path": "/carl"}
    elsewhere = {**outside, "domain": "a.example"}
    for body, status in ((outside, 403), (inside, 200), (elsewhere, 200)):
        assert (await server.ask("POST", "deployments", body, key="confined")).status == status
        answer = await server.ask("POST", "deployments/stop", body | {}, key="confined")
        assert answer.status in (status, 400)
    for place in ("releases", "logs"):
        query = f"deployments/{place}?domain=localhost&path=/demo"
        assert (await server.ask("GET", query, key="confined")).status == 403
    listed = (await server.ask("GET", "deployments", key="confined")).json["deployments"]
    assert [d["domain"] + d["path"] for d in listed] == ["a.example/demo", "localhost/carl"]
    answer = await server.ask("DELETE", "deployments/localhost/demo", key="confined")
    assert (answer.status, answer.code) == (403, "FORBIDDEN")
