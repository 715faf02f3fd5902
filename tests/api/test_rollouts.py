"""`update`, `rollback`, `scale`, all at once; and changes held to the version that was seen."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from ploinky.deploy_errors import ImageFailed

DEMO = {"domain": "localhost", "path": "/demo"}


@pytest_twisted.ensureDeferred
async def test_an_update_changes_what_it_names_and_nothing_else(server):
    """Variables are added and taken away; secrets stay secrets."""
    await server.deploy(
        branch="main", environment={"A": "1", "B": "2"}, secrets={"S": "s"}, timeout=5
    )
    body = {**DEMO, "image": "node:20", "environment": {"A": None, "C": "3"}, "replicas": 2}
    answer = await server.ask("POST", "deployments/update", body)
    assert answer.json["deployment"]["release"] == 2
    request = server.manager.requests[-1]
    assert (request.branch, request.image, request.agent) == ("main", "node:20", "demo")
    assert request.environment == {"B": "2", "S": "s", "C": "3"}
    assert request.secrets == ("S",)
    assert request.settings == {"timeout": 5, "replicas": 2}


@pytest_twisted.ensureDeferred
async def test_a_rollback_serves_the_release_before(server):
    """Or the one that is named; one that never served is refused by name."""
    for _ in range(3):
        await server.deploy()
    answer = await server.ask("POST", "deployments/rollback", DEMO)
    assert answer.json["deployment"]["release"] == 2
    answer = await server.ask("POST", "deployments/rollback", {**DEMO, "release": 1})
    assert answer.json["deployment"]["release"] == 1
    for release, status in ((1, 409), (9, 404), (0, 404)):
        answer = await server.ask("POST", "deployments/rollback", {**DEMO, "release": release})
        assert answer.status == status
    server.manager.refusal = ImageFailed("no")
    await server.ask("POST", "deployments", {**DEMO, "agent": "demo"})
    server.manager.refusal = None
    answer = await server.ask("POST", "deployments/rollback", {**DEMO, "release": 4})
    assert (answer.status, "never served" in answer.json["message"]) == (409, True)


@pytest.mark.parametrize("replicas", [0, -1, 1001, "2", 1.5, None])
@pytest_twisted.ensureDeferred
async def test_a_number_of_instances_that_is_none_is_refused(server, replicas):
    """Between 1 and 1000; to run none there is stop."""
    await server.deploy()
    answer = await server.ask("POST", "deployments/scale", {**DEMO, "replicas": replicas})
    assert (answer.status, set(answer.json["details"])) == (400, {"replicas"})


@pytest_twisted.ensureDeferred
async def test_agents_are_stopped_wherever_they_are_deployed(server):
    """Within the scope of who asks; an agent that is nowhere is told."""
    for path in ("/one", "/two", "/carl"):
        await server.deploy(path)
    answer = await server.ask("POST", "agents/demo/stop", key="confined")
    assert [one["path"] for one in answer.json["deployments"]] == ["/carl"]
    answer = await server.ask("POST", "agents/demo/restart")
    assert {one["status"] for one in answer.json["deployments"]} == {"running"}
    assert (await server.ask("POST", "agents/absent/start")).status == 404


@pytest_twisted.ensureDeferred
async def test_everything_is_stopped_at_once(server):
    """Deployments stay, stopped."""
    for path in ("/one", "/two"):
        await server.deploy(path)
    answer = await server.ask("POST", "stopAndDeleteAll")
    assert answer.json == {"success": True, "runtime": "listed", "removed": [], "problems": {}}
    listed = (await server.ask("GET", "deployments")).json["deployments"]
    assert [one["status"] for one in listed] == ["stopped", "stopped"]


@pytest_twisted.ensureDeferred
async def test_two_admins_do_not_overwrite_each_other(server):
    """Who changes what somebody else has changed meanwhile is told, and changes nothing."""
    await server.deploy()
    seen = (await server.ask("GET", "deployments/localhost/demo")).field("ETag")
    body = {**DEMO, "agent": "demo"}
    fields = {"If-Match": seen}
    assert (await server.ask("POST", "deployments", body, fields=fields)).status == 200
    answer = await server.ask("POST", "deployments", body, fields=fields)
    assert (answer.status, answer.code) == (412, "PRECONDITION_FAILED")
    for method, path in (("DELETE", "deployments"), ("POST", "deployments/stop")):
        assert (await server.ask(method, path, DEMO, fields=fields)).status == 412
    assert len(server.manager.requests) == 2
    answer = await server.ask("POST", "deployments/restart", DEMO, fields={"If-Match": "*"})
    assert answer.status == 200


@pytest_twisted.ensureDeferred
async def test_of_two_that_saw_the_same_one_is_let_through(server):
    """Also where the first is still at it."""
    await server.deploy()
    fields = {"If-Match": (await server.ask("GET", "deployments/localhost/demo")).field("ETag")}
    server.manager.gate = Deferred()
    body = {**DEMO, "agent": "demo"}
    first = Deferred.fromCoroutine(server.ask("POST", "deployments", body, fields=fields))
    while len(server.manager.requests) < 2:
        await server.ask("GET", "health", key=None)
    assert (await server.ask("POST", "deployments", body, fields=fields)).status == 412
    server.manager.gate.callback(None)
    assert (await first).status == 200


@pytest_twisted.ensureDeferred
async def test_secret_variables_are_masked_in_output(server):
    """Whatever an agent prints of them; other variables are not hunted for."""
    from ploinky.instance_values import InstanceStatus

    deployment = await server.deploy(secrets={"S": "needle-1"}, environment={"A": "plain-2"})
    assert deployment["secrets"] == ["S"]
    server.runtime.statuses = [InstanceStatus("mine", deployment["id"], 1, True)]
    server.runtime.outputs = {"mine": "got needle-1 and plain-2"}
    answer = await server.ask("GET", "deployments/logs?domain=localhost&path=/demo")
    assert answer.body == b"got *** and plain-2"


@pytest_twisted.ensureDeferred
async def test_lists_come_in_pages(server):
    """With the total; what is no page is refused, and so is what is no parameter."""
    for number in range(5):
        await server.deploy(f"/d{number}")
    answer = (await server.ask("GET", "deployments?page=2&perPage=2")).json
    assert [one["path"] for one in answer["deployments"]] == ["/d2", "/d3"]
    assert (answer["total"], answer["page"], answer["perPage"]) == (5, 2, 2)
    assert (await server.ask("GET", "deployments?page=9")).json["deployments"] == []
    for query, field in (("page=0", "page"), ("perPage=1001", "perPage"), ("pages=1", "pages")):
        answer = await server.ask("GET", f"deployments?{query}")
        assert (answer.status, set(answer.json["details"])) == (400, {field})
