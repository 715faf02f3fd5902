"""The server's log, and what instances print, use and died of."""

from __future__ import annotations

import gzip
import json

import attrs
import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ploinky.instance_values import InstanceSpec, InstanceStatus
from ploinky.observations import InstanceDeath, InstanceUsage
from ploinky.values import DeploymentKey, Kind

DAY = "2023-11-14"
KEY = DeploymentKey("localhost", "/demo")


def log(server, *entries, name="server", day=DAY):
    """Write entries to a day's log, as leader and workers do."""
    path = server.collaborators.log_directory / f"{name}-{day}.jsonl"
    with path.open("a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def event(message, level="info", **more):
    return {"time": "T", "level": level, "process": "leader", "message": message, **more}


@pytest_twisted.ensureDeferred
async def test_the_servers_log_is_text(server):
    """The last lines of it, from as many days as it takes."""
    log(server, *(event(f"line {number}") for number in range(300)))
    log(server, event("today"), day="2023-11-15")
    answer = await server.ask("GET", "logs?lines=3")
    assert answer.field("Content-Type") == "text/plain; charset=utf-8"
    assert (
        answer.body
        == b"T info  leader: line 298\nT info  leader: line 299\nT info  leader: today\n"
    )
    assert len((await server.ask("GET", "logs")).body.splitlines()) == 100
    assert (await server.ask("GET", "logs?lines=0")).code == "VALIDATION_FAILED"


@pytest_twisted.ensureDeferred
async def test_lines_can_be_chosen(server):
    """By level, by request, by deployment; as JSON for programs."""
    log(
        server,
        event("quiet", "debug"),
        event("localhost/demo serves release 1"),
        event("localhost/demolition serves release 1"),
        event("it broke", "error", request_id="r-1"),
        event("and again", "critical", request_id="r-11"),
    )

    async def found(query):
        answer = await server.ask("GET", f"logs?format=json&{query}")
        return [json.loads(line)["message"] for line in answer.body.splitlines()]

    assert await found("level=error") == ["it broke", "and again"]
    assert await found("request=r-1") == ["it broke"]
    assert await found("deployment=localhost/demo") == ["localhost/demo serves release 1"]
    assert await found("level=error&request=r-11") == ["and again"]
    assert (await server.ask("GET", "logs?level=loud")).code == "VALIDATION_FAILED"


@pytest_twisted.ensureDeferred
async def test_the_access_log_can_be_read_too(server):
    """One line a request, with the part that failed."""
    entry = {"time": 1.5, "id": "r-1", "method": "POST", "route": "localhost/demo", "seconds": 0.25,
             "command": "hello", "principal": "ci", "status": 503, "mood": "refused"}  # fmt: skip
    log(server, {**entry, "failedAt": "queue"}, name="access")
    answer = await server.ask("GET", "logs?log=access&deployment=localhost/demo")
    assert answer.body == (
        b"1.500 r-1 ci POST localhost/demo hello: 503 refused in 250.0 ms, failed at queue\n"
    )
    assert (await server.ask("GET", "logs?log=secrets")).code == "VALIDATION_FAILED"


@pytest_twisted.ensureDeferred
async def test_a_day_can_be_taken_away(server):
    """Packed; the list says which there are."""
    log(server, *(event("x" * 1000) for _ in range(2000)))
    log(server, event("b"), day="2023-11-15")
    assert (await server.ask("GET", "logs/list")).json == {"dates": ["2023-11-15", DAY]}
    answer = await server.ask("GET", f"logs/download?date={DAY}")
    assert answer.field("Content-Type") == "application/gzip"
    assert f"server-{DAY}.jsonl.gz" in answer.field("Content-Disposition")
    kept = (server.collaborators.log_directory / f"server-{DAY}.jsonl").read_bytes()
    assert gzip.decompress(answer.body) == kept
    assert (await server.ask("GET", "logs/download?date=2020-01-01")).code == "NOT_FOUND"


@pytest.mark.parametrize("date", ["", "../../x", "2023-11-14/../x", "today"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_day_is_no_file(server, date):
    """Nothing but days leaves the directory."""
    assert (await server.ask("GET", f"logs/download?date={date}")).code == "VALIDATION_FAILED"


@pytest_twisted.ensureDeferred
async def test_the_log_is_followed_over_midnight(server):
    """What is there, then what comes, chosen alike; until the server stops."""
    log(server, event("first", "warn"))
    opened = await server.open("logs?follow=1&level=warn")
    await opened.until(server, lambda: "first" in opened.text)
    log(server, event("quiet"), event("second", "warn"))
    await opened.until(server, lambda: "second" in opened.text)
    log(server, event("third", "error"), day="2023-11-15")
    await opened.until(server, lambda: "third" in opened.text)
    assert [line.split()[-1] for line in opened.text.splitlines()] == ["first", "second", "third"]
    await server.collaborators.streams.stopService()
    await opened.ended


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_ends_its_stream(server):
    """Nothing is read for it any more, and stopping does not wait for it."""
    opened = await server.open("logs?follow=1")
    log(server, event("first"))
    await opened.until(server, lambda: "first" in opened.text)
    opened.answer.original._transport.loseConnection()
    await opened.until(server, lambda: not server.collaborators.streams.open)


def spec(deployment, release, instance):
    return InstanceSpec(instance, deployment, release, "c", KEY, "demo", Kind.TASK, "x", "/q")


@pytest_twisted.ensureDeferred
async def test_output_of_what_is_gone_is_still_there(server):
    """Of any release; of an instance that was started again, from before as well."""
    deployment = (await server.deploy())["id"]
    history = server.collaborators.history
    history.parted(deployment, 1, "again", "old\n")
    history.parted(deployment, 7, "gone", "last words\n")
    await history.stopService()
    server.runtime.statuses = [InstanceStatus("again", deployment, 1, True)]
    server.runtime.outputs = {"again": "new\n"}
    place = "deployments/logs?domain=localhost&path=/demo"
    assert (await server.ask("GET", place)).body == b"old\nnew"
    assert (await server.ask("GET", f"{place}&release=7")).body == b"last words\n"


@pytest_twisted.ensureDeferred
async def test_output_is_followed_to_the_next_instance(server):
    """Until the deployment is removed."""
    deployment = (await server.deploy())["id"]
    one = InstanceStatus("one", deployment, 1, True)
    server.runtime.statuses = [one]
    server.runtime.outputs = {"one": "a\n"}
    opened = await server.open("deployments/logs?domain=localhost&path=/demo&follow=1")
    await opened.until(server, lambda: "a\n" in opened.text)
    server.runtime.outputs["one"] += "b\n"
    await opened.until(server, lambda: "b\n" in opened.text)
    server.runtime.statuses = [attrs.evolve(one, instance="two", release=2)]
    server.runtime.outputs["two"] = "c\n"
    await opened.until(server, lambda: "c\n" in opened.text)
    assert opened.text == "==> one <==\na\nb\n==> two <==\nc\n"
    await server.manager.remove(KEY)
    await opened.until(server, lambda: opened.ended.called)


SECRET = "needle-in-a-haystack"


@pytest_twisted.ensureDeferred
async def test_a_secret_that_is_printed_in_pieces_is_masked_while_it_is_followed(server):
    """However it is cut; a pause shows no more than the few first characters of it."""
    deployment = (await server.deploy(secrets={"TOKEN": SECRET}))["id"]
    one = InstanceStatus("one", deployment, 1, True)
    server.runtime.statuses = [one]
    server.runtime.outputs = {"one": f"{SECRET[5:]} is what is left\na {SECRET[:9]}"}
    opened = await server.open("deployments/logs?domain=localhost&path=/demo&follow=1")
    await opened.until(server, lambda: "left\na " in opened.text)
    server.runtime.outputs["one"] += SECRET[9:] + " b nee"
    await opened.until(server, lambda: opened.text.endswith(" b nee"))
    server.runtime.outputs["one"] += "dles\nneedle-in"
    await opened.until(server, lambda: opened.text.endswith("dles\n"))
    server.runtime.statuses = [attrs.evolve(one, instance="two")]
    server.runtime.outputs["two"] = "c\n"
    await opened.until(server, lambda: "c\n" in opened.text)
    assert opened.text == ("==> one <==\n*** is what is left\na *** b needles\n***==> two <==\nc\n")


@pytest_twisted.ensureDeferred
async def test_half_a_secret_at_the_edge_of_an_output_is_masked(server):
    """As the last lines that are asked for, or kept, may begin amid one of several lines."""
    key = "one-line-of-many\nand-another-one\nand-the-last"
    deployment = (await server.deploy(secrets={"TOKEN": key}))["id"]
    server.runtime.statuses = [InstanceStatus("one", deployment, 1, True)]
    server.runtime.outputs = {"one": f"{key}\ndone"}
    place = "deployments/logs?domain=localhost&path=/demo"
    assert (await server.ask("GET", f"{place}&lines=3")).body == b"***\ndone"
    death = InstanceDeath(
        "one", deployment, 1, 1.0, f"said {key}", "agent", 1, False, f"500 {key[:20]}", key[20:]
    )
    server.collaborators.history.died(death)
    await server.collaborators.history.stopService()
    for where in ("deployments/releases?domain=localhost&path=/demo", "health"):
        body = (await server.ask("GET", where)).body
        assert b"said ***" in body
        assert b"another" not in body
        assert b"many" not in body


@pytest_twisted.ensureDeferred
async def test_a_worker_learns_how_an_instance_ended(server):
    """In words for any caller, and without the deployment's secrets; others learn nothing here."""
    deployment = (await server.deploy(secrets={"TOKEN": SECRET}))["id"]
    death = InstanceDeath(
        "one", deployment, 1, server.clock.seconds(), "why", "memory", 137, True, "", SECRET
    )
    server.collaborators.history.died(death)

    async def asked(instance, **fields):
        place = f"http://control/internal/endings?instance={instance}&age=0.500"
        answer = await server.client.get(place, headers=fields)
        return answer.code, await treq.json_content(answer)

    worker = {"X-Ploinky-User": "worker"}
    assert await asked("one", **worker) == (
        200,
        {
            "outline": "it was ended for its memory limit (exit code 137)",
            "failedAt": "memory",
            "exitCode": 137,
            "outOfMemory": True,
            "output": "***",
        },
    )
    for fields in ({}, {**worker, "X-Forwarded-For": "203.0.113.9"}):
        assert (await asked("one", **fields))[0] == 404
    unknown = Deferred.fromCoroutine(asked("two", **worker))
    while not unknown.called:
        server.clock.advance(0.1)
        await deferLater(reactor, 0.005)
    assert (await unknown)[0] == 404


@pytest_twisted.ensureDeferred
async def test_what_instances_use_is_told(server):
    """Now, and since the last look; with what is in hand."""
    deployment = (await server.deploy())["id"]
    one = InstanceStatus("one", deployment, 1, True, restarts=2)
    dead = attrs.evolve(one, instance="dead", running=False, exit_code=137, out_of_memory=True)
    server.runtime.statuses = [one, dead, attrs.evolve(one, instance="other", deployment="x")]
    server.runtime.usages = {"one": InstanceUsage(1.0, 5_000_000, 64_000_000, 3)}
    server.collaborators.loads.take(1, f'{{"{deployment}": [3, 2]}}'.encode())
    server.collaborators.history.started(spec(deployment, 1, "one"), 0.5)
    place = "deployments/stats?domain=localhost&path=/demo"
    await server.ask("GET", place)
    server.runtime.usages["one"] = InstanceUsage(2.0, 6_000_000, 64_000_000, 3)
    server.clock.advance(4)
    server.collaborators.loads.take(1, f'{{"{deployment}": [3, 2]}}'.encode())
    stats = (await server.ask("GET", place, key="viewer")).json
    assert (stats["inFlight"], stats["waiting"]) == (3, 2)
    assert (stats["starts"], stats["avgStartSeconds"]) == (1, 0.5)
    running, ended = stats["instances"]
    assert running == {
        "instance": "one",
        "release": 1,
        "running": True,
        "restarts": 2,
        "exitCode": None,
        "outOfMemory": False,
        "cores": 0.25,
        "cpuSeconds": 2.0,
        "memoryBytes": 6_000_000,
        "memoryLimitBytes": 64_000_000,
        "processes": 3,
    }
    assert (ended["exitCode"], ended["outOfMemory"], ended["cpuSeconds"]) == (137, True, None)


@pytest_twisted.ensureDeferred
async def test_releases_and_health_tell_how_instances_died(server):
    """Exit code, want of memory, the part that failed; the output with the release alone."""
    deployment = (await server.deploy())["id"]
    death = InstanceDeath(
        "one", deployment, 1, 1_700_000_000.0, "It ended", "memory", 137, True, "", "last words"
    )
    server.collaborators.history.died(death)
    await server.collaborators.history.stopService()
    expected = {
        "instance": "one",
        "release": 1,
        "time": "2023-11-14T22:13:20.000Z",
        "reason": "It ended",
        "failedAt": "memory",
        "exitCode": 137,
        "outOfMemory": True,
        "probe": "",
    }
    place = "deployments/releases?domain=localhost&path=/demo"
    (release,) = (await server.ask("GET", place)).json["releases"]
    assert release["deaths"] == [{**expected, "output": "last words"}]
    (health,) = (await server.ask("GET", "health")).json["deployments"]
    assert health["lastFailure"] == expected
