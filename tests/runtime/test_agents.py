"""Real agents on real runtimes, from launch to end."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from ploinky.deploy_errors import ProbeFailed, StartFailed
from ploinky.instance_values import Health, Resources, Volume
from ploinky.runtime import processes
from ploinky.values import Kind, Target, Wire
from tests.runtime.conftest import EVERYWHERE, ON_ENGINES, House

NODE = "node:18-alpine"
PYTHON = "python:3.12-alpine"
BUSYBOX = "busybox"

HELLO = {"index.js": "exports.hello = () => ({ message: 'Hello World' });\n"}
pytestmark = pytest.mark.program("node")
everywhere = pytest.mark.parametrize("house", EVERYWHERE, indirect=True)
on_engines = pytest.mark.parametrize("house", ON_ENGINES, indirect=True)


def silent(line: str) -> None:
    """A report that nobody reads."""


def _post(target: Target, command: str) -> Any:
    body = json.dumps({"command": command, "params": []})
    if target.address.path:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(target.address.path)
    else:
        connection = socket.create_connection((target.address.host, target.address.port))
    with connection:
        connection.settimeout(20)
        connection.sendall(
            f"POST /task HTTP/1.1\r\nHost: a\r\nX-Ploinky-Task: t1\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    head, _, rest = received.partition(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0], received
    return json.loads(rest)


async def call(target: Target, command: str = "hello") -> Any:
    return await deferToThread(_post, target, command)


@everywhere
@pytest_twisted.ensureDeferred
async def test_an_agent_is_launched_called_and_ended(house: House) -> None:
    """It answers on its socket once it is launched, and nothing is left once it is ended."""
    spec = house.spec(HELLO, NODE)
    target = await house.instances.launch(spec, silent)
    queue = str(house.directory / "i" / spec.instance)
    inner = target.inner_queue
    assert target == Target(spec.instance, target.address, Wire.FRAMES, queue, inner)
    assert target.address.path == f"{spec.queue_directory}/agent.sock"
    assert house.instances.target(spec.instance) == target
    assert await call(target) == {"message": "Hello World"}
    (status,) = await house.instances.discover()
    assert (status.instance, status.running) == (spec.instance, True)
    await house.instances.end(spec.instance, 5.0)
    assert await house.instances.discover() == []
    assert house.instances.target(spec.instance) is None
    assert not Path(spec.queue_directory).exists()
    await house.instances.end(spec.instance, 5.0)


@everywhere
@pytest_twisted.ensureDeferred
async def test_what_an_agent_writes_can_be_removed(house: House) -> None:
    """It runs as the server's own user; also its state directory in the checkout is ours."""
    writes = {"index.js": "exports.hello = () => require('fs').writeFileSync('/agent/x', 'x') ?? 1"}
    if not _sees_agent_directory(house):
        writes["index.js"] = writes["index.js"].replace(
            "'/agent/x'", "process.env.AGENT_DIR + '/x'"
        )
    spec = house.spec(writes, NODE)
    await call(await house.instances.launch(spec, silent))
    for place in (Path(spec.code_directory, "x"), Path(spec.code_directory, ".ploinky", "queue")):
        assert place.stat().st_uid == os.getuid()


def _sees_agent_directory(house: House) -> bool:
    return house.runtime.name != "process" or house.runtime._sandbox is not None


@on_engines
@pytest_twisted.ensureDeferred
async def test_an_image_with_a_shell_alone_is_served_over_files(house: House) -> None:
    """Although HTTP was asked for."""
    spec = house.spec({"handlers/hello.sh": "#!/bin/sh\necho '{\"a\": 1}'\n"}, BUSYBOX)
    target = await house.instances.launch(spec, silent)
    assert target.wire is Wire.FILE
    queue = Path(target.queue_directory)
    task = {"id": "t1", "command": "hello", "params": [], "user": "x", "deadline": 4102444800000}
    (queue / "tmp" / "t1").write_text(json.dumps(task))
    (queue / "tmp" / "t1").rename(queue / "tasks" / "t1")
    await house.until((queue / "results" / "t1").exists)
    assert json.loads((queue / "results" / "t1").read_text())["data"] == {"a": 1}


@everywhere
@pytest_twisted.ensureDeferred
async def test_an_agent_that_cannot_be_loaded_says_why(house: House) -> None:
    """The error is its own, with what it printed, and nothing is left of it."""
    broken = {"agent.py": "print('about to fail')\nraise RuntimeError('no database')\n"}
    spec = house.spec(broken, PYTHON, environment={"PLOINKY_ENGINE": "python"})
    with pytest.raises(ProbeFailed) as caught:
        await house.instances.launch(spec, silent)
    assert "no database" in caught.value.message + caught.value.output
    assert await house.instances.discover() == []
    assert not Path(spec.queue_directory).exists()


@on_engines
@pytest_twisted.ensureDeferred
async def test_want_of_memory_is_told_from_other_ends(house: House) -> None:
    """In the launch's error and with the death, with the last words.

    The engine starts it again at once and then tells how it ended by an event alone, which may be
    late, and which Podman does not have for want of memory.
    """
    eats = "python3 -c 'x = bytearray(300_000_000)'"
    limits = Resources(memory_bytes=32 * 1024 * 1024)
    command = ("/bin/sh", "-c", f"echo hungry; exec {eats}")
    spec = house.spec(HELLO, PYTHON, command=command, resources=limits)
    with pytest.raises(ProbeFailed) as caught:
        await house.instances.launch(spec, silent)
    (death,) = house.history.deaths
    assert death.exit_code in (137, None)
    assert caught.value.details == {
        "exitCode": death.exit_code,
        "outOfMemory": death.out_of_memory,
    }
    assert death.failed_at == caught.value.failed_at
    assert death.failed_at == ("memory" if death.out_of_memory else "agent")
    assert death.out_of_memory or death.exit_code is None or house.runtime.name == "podman"
    assert "hungry" in house.history.outputs[spec.instance]


@everywhere
@pytest_twisted.ensureDeferred
async def test_an_agent_that_ends_while_it_starts_is_not_waited_for(house: House) -> None:
    """Long before its time is up, with exit code and output."""
    spec = house.spec(HELLO, NODE, command=("/bin/sh", "-c", "echo cannot go on; exit 3"))
    with pytest.raises(ProbeFailed) as caught:
        await house.instances.launch(spec, silent)
    assert "It ended" in caught.value.message
    assert "cannot go on" in caught.value.output
    assert await house.instances.discover() == []


@everywhere
@pytest_twisted.ensureDeferred
async def test_an_agent_that_never_becomes_ready_is_given_up(house: House) -> None:
    """At the end of its start period, with what was last answered."""
    health = Health(start_period_seconds=1.0)
    command = ("/bin/sh", "-c", "echo still here; exec sleep 300")
    spec = house.spec(HELLO, NODE, command=command, health=health)
    with pytest.raises(ProbeFailed) as caught:
        await house.instances.launch(spec, silent)
    assert "AgentCore has not said that it is ready" in caught.value.message
    assert "still here" in caught.value.output
    assert await house.instances.discover() == []


@everywhere
@pytest_twisted.ensureDeferred
async def test_a_launch_that_is_cancelled_leaves_nothing(house: House) -> None:
    """A deploy that is given up does not leave its container behind."""
    command = ("/bin/sh", "-c", "exec sleep 300")
    spec = house.spec(HELLO, NODE, command=command)
    launching = Deferred.fromCoroutine(house.instances.launch(spec, silent))
    await deferLater(reactor, 0.2)
    launching.cancel()
    with pytest.raises(CancelledError):
        await launching
    assert await house.instances.discover() == []


@everywhere
@pytest_twisted.ensureDeferred
async def test_an_agent_that_dies_comes_back(house: House) -> None:
    """Whoever watches is told of both, and it answers again."""
    deadly = {"index.js": "exports.hello = () => 'Hello'\n"}
    spec = house.spec(deadly, NODE)
    await house.instances.launch(spec, silent)
    await _kill_inside(house, spec.instance)
    await house.until(lambda: (spec.instance, False) in house.changes)
    await house.until(lambda: (spec.instance, True) in house.changes)
    target = house.instances.target(spec.instance)
    assert target is not None
    assert await call(target) == "Hello"
    assert house.changes.index((spec.instance, False)) < house.changes.index((spec.instance, True))


async def _kill_inside(house: House, instance: str) -> None:
    """Kill its main process from outside, as the kernel does when memory runs out."""
    if house.runtime.name == "process":
        processes.kill(processes.members(instance=instance), signal.SIGKILL)
        return
    client, _ = house.runtime._engine()
    pid = client.inspect_container(f"ploinky-{instance}")["State"]["Pid"]
    os.kill(pid, signal.SIGKILL)


@everywhere
@pytest_twisted.ensureDeferred
async def test_an_agent_that_hangs_is_started_again(house: House) -> None:
    """Its container runs, and no probe is answered: that is unhealthy all the same."""
    health = Health(interval_seconds=0.2, timeout_seconds=1.0, retries=2, start_period_seconds=30.0)
    spec = house.spec(HELLO, NODE, health=health)
    await house.instances.launch(spec, silent)
    if house.runtime.name == "process":
        processes.kill(processes.members(instance=spec.instance), signal.SIGSTOP)
    else:
        client, _ = house.runtime._engine()
        client.pause(f"ploinky-{spec.instance}")
    await house.until(lambda: (spec.instance, False) in house.changes)
    await house.until(lambda: (spec.instance, True) in house.changes)
    target = house.instances.target(spec.instance)
    assert target is not None
    assert await call(target) == {"message": "Hello World"}


@everywhere
@pytest_twisted.ensureDeferred
async def test_the_next_leader_takes_agents_over(house: House) -> None:
    """They run on while nobody looks, and are the next one's afterwards."""
    spec = house.spec(HELLO, NODE)
    target = await house.instances.launch(spec, silent)
    (before,) = await house.instances.discover()
    await house.instances.stopService()
    assert await call(target) == {"message": "Hello World"}
    successor = house.open()
    assert await successor.adopt(spec) == target
    (after,) = await successor.discover()
    assert after == before
    await successor.end(spec.instance, 5.0)
    assert await successor.discover() == []


@everywhere
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_taken_over_is_ended(house: House) -> None:
    """One that does not answer, and one that is not there."""
    spec = house.spec(HELLO, NODE, command=("/bin/sh", "-c", "exec sleep 300"))
    impatient = attrs.evolve(spec, health=Health(timeout_seconds=0.2, retries=2))
    Path(spec.queue_directory).mkdir(parents=True)
    await house.runtime.start(spec)
    assert await house.instances.adopt(impatient) is None
    assert await house.instances.discover() == []
    assert await house.instances.adopt(house.spec(HELLO, NODE)) is None


@on_engines
@pytest_twisted.ensureDeferred
async def test_a_service_is_reached_at_the_address_the_engine_gave(house: House) -> None:
    """Its own server, on its own port, as the image's own user."""
    serve = "mkdir -p /tmp/w && id -u > /tmp/w/index.html && httpd -f -p $PORT -h /tmp/w"
    spec = house.spec(
        {},
        BUSYBOX,
        kind=Kind.SERVICE,
        port=8080,
        command=("sh", "-c", serve),
        health=Health(path="/", start_period_seconds=20.0),
    )
    target = await house.instances.launch(spec, silent)
    assert target.address.port == 8080
    assert target.wire is Wire.HTTP
    assert target.queue_directory == ""
    page = await deferToThread(_get, target)
    assert page.endswith(b"\r\n\r\n0\n")


def _get(target: Target) -> bytes:
    with socket.create_connection((target.address.host, target.address.port)) as connection:
        connection.settimeout(10)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


@on_engines
@pytest_twisted.ensureDeferred
async def test_a_service_whose_port_nobody_knows_is_refused(house: House) -> None:
    """With what to do about it."""
    spec = house.spec({}, BUSYBOX, kind=Kind.SERVICE)
    with pytest.raises(StartFailed, match="set `port`"):
        await house.instances.launch(spec, silent)


@on_engines
@pytest_twisted.ensureDeferred
async def test_volumes_outlive_an_instance(house: House) -> None:
    """A task agent's and a service's alike."""
    deployment = secrets.token_hex(6)  # no run that was broken off has left a volume of its
    for kind in (Kind.TASK, Kind.SERVICE):
        writes = ("sh", "-c", "echo kept >> /notes/a; cat /notes/a; exec sleep 300")
        spec = house.spec(
            {},
            BUSYBOX,
            kind=kind,
            port=80,
            command=writes,
            volumes=(Volume("notes", "/notes"),),
            deployment=deployment,
        )
        Path(spec.queue_directory).mkdir(parents=True)
        for times in (1, 2):
            await house.runtime.start(spec)
            said = ""
            while said.count("kept\n") < times:
                said = await house.runtime.output(spec.instance, 10)
            await house.runtime.remove(spec.instance, 0.0)
        assert said == "kept\nkept\n"
    client, _ = house.runtime._engine()
    client.remove_volume(f"ploinky-{deployment}-notes")


@everywhere
@pytest_twisted.ensureDeferred
async def test_a_link_where_the_queue_belongs_is_refused(house: House) -> None:
    """A repository cannot have us write outside of its checkout."""
    spec = house.spec(HELLO, NODE)
    outside = house.directory / "outside"
    outside.mkdir()
    Path(spec.code_directory, ".ploinky").symlink_to(outside)
    with pytest.raises(StartFailed, match=r"\.ploinky"):
        await house.instances.launch(spec, silent)
    assert list(outside.iterdir()) == []
