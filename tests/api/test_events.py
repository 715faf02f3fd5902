"""`events`: what happens, to whoever listens and may know."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from ploinky.api.task_events import GATHER_SECONDS, MOST_AT_ONCE, MOST_OF_ONE, TaskEvents
from ploinky.deploy_errors import ProbeFailed
from ploinky.instance_values import InstanceSpec
from ploinky.observations import InstanceDeath
from ploinky.security.tokens import token_hash
from ploinky.task_values import Submission, Task, TaskState
from ploinky.telemetry.hub import MOST_WAITING, REMEMBERED, Hub
from ploinky.values import DeploymentKey, DeploymentState, Kind

KEY = DeploymentKey("localhost", "/demo")


def heard(opened):
    """Give the events that have come whole: (id, kind, document)."""
    found = []
    for block in opened.text.split("\n\n")[:-1]:
        lines = dict(line.partition(": ")[::2] for line in block.splitlines())
        if "data" in lines:
            found.append((lines["id"], lines["event"], json.loads(lines["data"])))
    return found


@pytest_twisted.ensureDeferred
async def test_what_happens_is_told(server):
    """Deployments, instances and metrics, as they change."""
    opened = await server.open("events")
    await opened.until(server, lambda: "retry" in opened.text)
    assert opened.answer.headers.getRawHeaders("Content-Type") == ["text/event-stream"]
    deployment = (await server.deploy(environment={"TOKEN": "needle"}))["id"]
    server.manager.becomes(KEY, DeploymentState.UNHEALTHY)
    history = server.collaborators.history
    spec = InstanceSpec("one", deployment, 1, "c", KEY, "demo", Kind.TASK, "x", "/q")
    history.started(spec, 0.25)
    history.died(InstanceDeath("one", deployment, 1, 1.0, "It ended", "agent", 3))
    server.count(1, deployment, 500, 4)
    await server.collaborators.metrics.write()
    await server.manager.remove(KEY)
    await opened.until(server, lambda: "removed" in opened.text)
    events = [(kind, document) for _, kind, document in heard(opened)]
    assert [kind for kind, _ in events] == [
        "deployment", "instance", "instance", "metrics", "metrics", "deployment"
    ]  # fmt: skip
    assert events[0][1]["status"] == "unhealthy"
    assert (events[1][1]["up"], events[1][1]["seconds"]) == (True, 0.25)
    assert (events[2][1]["up"], events[2][1]["exitCode"]) == (False, 3)
    assert (events[3][1]["path"], events[3][1]["errors"]) == ("/demo", 4)
    assert (events[4][1]["count"], "path" in events[4][1]) == (4, False)
    assert events[5][1]["status"] == "removed"
    assert "needle" not in opened.text


@pytest_twisted.ensureDeferred
async def test_how_a_release_that_failed_died_is_told_without_its_secrets(server):
    """The one that serves has others: those of the release that died are what it said."""
    serving = await server.deploy(secrets={"TOKEN": "served-needle"})
    opened = await server.open("events")
    await opened.until(server, lambda: "retry" in opened.text)
    server.manager.refusal = ProbeFailed("it is not well")
    body = {"domain": "localhost", "path": "/demo", "secrets": {"TOKEN": "failed-needle"}}
    assert (await server.ask("POST", "deployments", body)).code == "PROBE_FAILED"
    said = "GET /health was answered 500: no database for failed-needle"
    death = InstanceDeath("one", serving["id"], 2, 1.0, said, "probe", None, False, said)
    server.collaborators.history.died(death)
    await opened.until(server, lambda: "instance" in opened.text)
    health = await server.ask("GET", "health")
    for told in (opened.text, health.body.decode()):
        assert "no database for ***" in told
        assert "failed-needle" not in told


@pytest_twisted.ensureDeferred
async def test_a_tasks_changes_are_told_as_lists_show_them(server):
    """Queued, over, queued again; who is confined elsewhere hears nothing of it."""
    opened = await server.open("events")
    elsewhere = await server.open("events", key="confined")
    await opened.until(server, lambda: "retry" in opened.text)
    await server.tasks.submit(Submission("t-1", "1", "greet", b'["needle"]', "cleo", False, "r-1"))
    await server.tasks.ends("t-1", 502, b'{"needle": 1}')
    await server.tasks.retry("t-1")
    await server.tasks.cancel("t-1")
    await opened.until(server, lambda: "cancelled" in opened.text)
    events = heard(opened)
    assert {kind for _, kind, _ in events} == {"task"}
    documents = [document for _, _, document in events]
    told = [(document["status"], document.get("httpStatus")) for document in documents]
    assert told == [("queued", None), ("failed", 502), ("queued", None), ("cancelled", None)]
    (listed,) = (await server.ask("GET", "tasks")).json["tasks"]
    assert documents[-1] == listed
    assert "needle" not in opened.text
    await elsewhere.until(server, lambda: "still here" in elsewhere.text)
    assert not heard(elsewhere)


def noted(clock=None):
    """Give changes' teller, its clock, and what it has published."""
    clock, published = clock or Clock(), []
    events = TaskEvents(clock, lambda kind, document, key: published.append((key, document)))
    return events, clock, published


def changed(path, number=0, state=TaskState.QUEUED):
    """A task at a path."""
    key = DeploymentKey("localhost", path)
    return Task(f"t-{number}", path, key, "c", b"", "u", False, "r", 1.0, 1.0, state=state)


def test_a_flood_of_changes_is_counted_instead_of_told():
    """Whoever shows them reads the list anew; another deployment's are told as ever."""
    events, clock, published = noted()
    for number in range(5000):
        events.changed(changed("/busy", number))
    events.changed(changed("/calm"))
    assert not published
    clock.advance(GATHER_SECONDS)
    assert published[0][1] == {"domain": "localhost", "path": "/busy", "changed": 5000}
    assert [document["path"] for _, document in published[1:]] == ["/calm"]
    events.changed(changed("/busy"))
    clock.advance(GATHER_SECONDS)
    assert published[-1][1]["status"] == "queued"


def test_many_deployments_take_turns():
    """No listener is drowned, and none of them is forgotten."""
    events, clock, published = noted()
    for number in range(10 * MOST_AT_ONCE):
        events.changed(changed(f"/{number}"))
    counts = []
    while clock.getDelayedCalls():
        before = len(published)
        clock.advance(GATHER_SECONDS)
        counts.append(len(published) - before)
    assert max(counts) < MOST_AT_ONCE + MOST_OF_ONE
    assert [document["path"] for _, document in published] == [
        f"/{number}" for number in range(10 * MOST_AT_ONCE)
    ]


@pytest.mark.parametrize("key", ["name", "session", "parent", "expiry", "logout"])
@pytest_twisted.ensureDeferred
async def test_who_may_listen_no_more_hears_no_more(server, key):
    """A key that is removed, or expires, takes its streams and its sessions' with it at once."""
    wanted = {"name": "new", "role": "viewer"} | ({"expiresIn": 3} if key == "expiry" else {})
    token = (await server.ask("POST", "keys", wanted)).json["apiKey"]
    body = {"command": "login", "params": [token]}
    session = (await server.ask("POST", "/auth", body, key=None)).json["authorizationToken"]
    ours = token if key in ("name", "expiry") else session
    opened = await server.open("events", Authorization=f"Bearer {ours}")
    follower = await server.open("logs?follow=1", Authorization=f"Bearer {ours}")
    others = await server.open("events")
    assert server.collaborators.streams.open == 3
    if key == "session":
        (handle,) = (one["id"] for one in (await server.ask("GET", "sessions")).json["sessions"])
        await server.ask("DELETE", f"sessions/{handle}")
    elif key == "logout":
        fields = {"Authorization": f"Bearer {session}"}
        await server.ask("POST", "/auth", {"command": "logout"}, key=None, fields=fields)
    elif key == "expiry":
        server.clock.advance(3)
    else:
        await server.ask("DELETE", "keys/new")
    assert server.collaborators.streams.open == 1
    await opened.ended
    await follower.ended
    assert not others.ended.called


@pytest_twisted.ensureDeferred
async def test_a_listener_goes_on_where_it_stopped(server):
    """By the id of the last event that it heard."""
    for number in range(3):
        server.collaborators.hub.publish("task", f'{{"n": {number}}}')
    opened = await server.open("events", Last_Event_ID="era-1")
    await opened.until(server, lambda: "era-3" in opened.text)
    assert [document["n"] for _, _, document in heard(opened)] == [1, 2]


@pytest.mark.parametrize("after", ["another-7", "era-99", "nonsense", "era-1"])
@pytest_twisted.ensureDeferred
async def test_a_listener_that_was_away_too_long_is_told_so(server, after):
    """So that it reads anew what it shows."""
    for _ in range(REMEMBERED if after == "era-1" else 3):
        server.collaborators.hub.publish("task", "{}")
    opened = await server.open("events", key="confined", Last_Event_ID=after)
    await opened.until(server, lambda: "lost" in opened.text)
    ((_, kind, _),) = heard(opened)
    assert kind == "lost"


@pytest_twisted.ensureDeferred
async def test_who_is_confined_hears_of_their_own(server):
    """Not of others' deployments, nor of the server as a whole."""
    opened = await server.open("events", key="confined")
    await opened.until(server, lambda: "retry" in opened.text)
    hub = server.collaborators.hub
    hub.publish("task", "{}")
    hub.publish("task", "{}", DeploymentKey("localhost", "/other"))
    hub.publish("task", "{}", DeploymentKey("localhost", "/carl"))
    await opened.until(server, lambda: heard(opened))
    assert [id for id, _, _ in heard(opened)] == ["era-3"]


@pytest_twisted.ensureDeferred
async def test_silence_is_told_from_death(server):
    """By comments."""
    opened = await server.open("events")
    await opened.until(server, lambda: ": still here\n\n" in opened.text)


@pytest_twisted.ensureDeferred
async def test_whoever_goes_is_let_go_without_a_word(server):
    """Browsers leave amid a stream all day long: that is no fault, and nothing goes on for them."""
    with capturedLogs() as said:
        await server.open("events", leaving=True)
        stayed = await server.open("events")
        await stayed.until(server, lambda: server.collaborators.streams.open == 1)
        assert not stayed.ended.called
    assert [event for event in said if event["log_level"] >= LogLevel.warn] == []


@pytest_twisted.ensureDeferred
async def test_only_readers_may_listen(server):
    """Callers may not, nor strangers."""
    assert (await server.ask("GET", "events", key="caller")).status == 403
    assert (await server.ask("GET", "events", key=None)).status == 401


@pytest.mark.parametrize("how", ["removed", "expired", "maker removed"])
@pytest_twisted.ensureDeferred
async def test_listening_ends_with_the_key(server, how):
    """In order, at once, and for those alone whose key it is; the log is left as events are."""
    boss = {"name": "boss", "role": "deployer"}
    boss_key = (await server.ask("POST", "keys", boss)).json["apiKey"]
    child = {"name": "child", "role": "viewer", "expiresIn": 3600}
    fields = {"Authorization": f"Bearer {boss_key}"}
    child_key = (await server.ask("POST", "keys", child, key=None, fields=fields)).json["apiKey"]
    heard_on = await server.open("events")
    opened = [
        await server.open(path, key=child_key.removeprefix("pk_"))
        for path in ("events", "logs?follow=1")
    ]
    await opened[0].until(server, lambda: "retry" in opened[0].text)
    assert server.collaborators.streams.open == 3
    if how == "expired":
        server.clock.advance(3600)
    else:
        named = "child" if how == "removed" else "boss"
        assert (await server.ask("DELETE", f"keys/{named}")).status == 200
    assert server.collaborators.streams.open == 1
    for each in opened:
        await each.ended
    assert not heard_on.ended.called


@pytest_twisted.ensureDeferred
async def test_a_key_that_goes_while_its_stream_is_made_ready_hears_nothing(serve):
    """It is refused, as if it had come a moment later."""

    class SlowFiles:
        async def run(self, work, *arguments):
            await server.keys.remove_principal(token_hash("pk_viewer"))
            return work(*arguments)

    server = await serve(files=SlowFiles())
    opened = await server.open("logs?follow=1", key="viewer")
    assert (opened.answer.code, server.collaborators.streams.open) == (401, 0)


def test_a_slow_listener_is_dropped():
    """What it does not take is not kept for it for ever; others hear on."""
    hub, dropped = Hub("era"), []
    slow = hub.listen("", lambda key: True, lambda: dropped.append("slow"))
    for number in range(MOST_WAITING + 10):
        hub.publish("task", str(number))
    assert dropped == ["slow"]
    assert len(slow._queue) == MOST_WAITING


@pytest_twisted.ensureDeferred
async def test_one_that_reads_nothing_is_cut_off(server):
    """Its connection is closed instead of its events being kept."""
    opened = await server.open("events")
    await opened.until(server, lambda: "retry" in opened.text)
    opened.answer.original._transport.pauseProducing()
    for _ in range(200):
        server.collaborators.hub.publish("task", '"' + "x" * 100_000 + '"')
        await opened.until(server, lambda: True)
        server.clock.advance(0.01)
    for _ in range(MOST_WAITING + 1):
        server.collaborators.hub.publish("task", "{}")
    await opened.until(server, lambda: not server.collaborators.streams.open)
