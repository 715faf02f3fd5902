"""What only a container engine can be held to."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from ploinky.deploy_errors import EngineUnavailable, ImageUnavailable, StartFailed
from ploinky.instance_values import Resources
from ploinky.runtime import assembly, facts
from ploinky.runtime.engine import ContainerEngine
from ploinky.runtime.events import DEATHS, REMOVALS, ContainerEvent, EventStream
from ploinky.runtime.facts import Connection, EngineFacts
from ploinky.threads import Blocking
from tests.runtime.conftest import ON_ENGINES, PATIENCE, House

BUSYBOX = "busybox"
on_engines = pytest.mark.parametrize("house", ON_ENGINES, indirect=True)


def silent(line: str) -> None:
    """A report that nobody reads."""


async def inside(house: House, command: str, **changes: object) -> str:
    """Run a shell command as an agent's, and give its output once it is whole."""
    spec = house.spec({"a": ""}, BUSYBOX, command=("sh", "-c", f"{command}; echo end; sleep 300"))
    spec = attrs.evolve(spec, **changes)
    Path(spec.queue_directory).mkdir(parents=True)
    await house.runtime.start(spec)
    said = ""
    while "end" not in said:
        await deferLater(reactor, 0.05)
        said = await house.runtime.output(spec.instance, 100)
    await house.runtime.remove(spec.instance, 0.0)
    return said


@on_engines
@pytest_twisted.ensureDeferred
async def test_a_task_agent_is_held_tight(house: House) -> None:
    """No capability, no new privileges, the server's user, an init process, a bridge."""
    said = await inside(
        house, "id -u; id -g; grep -E 'CapEff|NoNewPrivs' /proc/self/status; cat /proc/1/comm; pwd"
    )
    uid, gid, capabilities, privileges, init, directory, *_ = said.splitlines()
    assert (int(uid), int(gid)) == (os.getuid(), os.getgid())
    assert capabilities.split()[1] == "0" * 16
    assert privileges.split()[1] == "1"
    assert init in ("docker-init", "podman-init")
    assert directory == "/agent"


@on_engines
@pytest_twisted.ensureDeferred
async def test_user_and_capabilities_override(house: House) -> None:
    """For an agent that asks for them."""
    said = await inside(house, "id -u", user="1234:1234")
    assert said.splitlines()[0] == "1234"
    said = await inside(
        house, "grep CapEff /proc/self/status", capabilities=("NET_BIND_SERVICE",), user="0:0"
    )
    assert int(said.split()[1], 16) == 1 << 10


@on_engines
@pytest_twisted.ensureDeferred
async def test_limits_hold(house: House) -> None:
    """Memory, cores and processes, as the kernel has them."""
    limits = Resources(memory_bytes=64 * 1024 * 1024, cpus=0.5, pids=50)
    spec = house.spec({"a": ""}, BUSYBOX, command=("sleep", "300"), resources=limits)
    Path(spec.queue_directory).mkdir(parents=True)
    await house.runtime.start(spec)
    client, _ = house.runtime._engine()
    held = client.inspect_container(f"ploinky-{spec.instance}")["HostConfig"]
    assert (held["Memory"], held["MemorySwap"]) == (64 * 1024 * 1024, 64 * 1024 * 1024)
    assert held["NanoCpus"] == 500_000_000
    assert held["PidsLimit"] == 50
    assert held["RestartPolicy"]["Name"] == "unless-stopped"
    assert held["NetworkMode"] in ("bridge", "podman")


@on_engines
@pytest_twisted.ensureDeferred
async def test_memory_that_runs_out_is_seen(house: House) -> None:
    """As such, and not only as exit code 137."""
    limits = Resources(memory_bytes=32 * 1024 * 1024)
    hungry = ("sh", "-c", "sleep 0.5; exec tail /dev/zero")
    spec = house.spec({"a": ""}, BUSYBOX, command=hungry, resources=limits)
    Path(spec.queue_directory).mkdir(parents=True)
    await house.runtime.start(spec)
    for _ in range(PATIENCE):
        (status,) = await house.runtime.instances(house.cluster)
        if status.out_of_memory or status.exit_code == 137 or status.restarts:
            break
        await deferLater(reactor, 0.05)
    assert status.out_of_memory or status.exit_code == 137 or status.restarts


@on_engines
@pytest_twisted.ensureDeferred
async def test_other_containers_are_not_touched(house: House) -> None:
    """Not one that another server started, whatever its name."""
    theirs = house.spec({"a": ""}, BUSYBOX, command=("sleep", "300"), cluster=secrets.token_hex(6))
    Path(theirs.queue_directory).mkdir(parents=True)
    await house.runtime.start(theirs)
    try:
        assert await house.instances.discover() == []
        await house.runtime.remove("nosuchinstan", 0.0)
        assert len(await house.runtime.instances(theirs.cluster)) == 1
    finally:
        await house.runtime.remove(theirs.instance, 0.0)


@on_engines
@pytest_twisted.ensureDeferred
async def test_a_name_that_is_taken_is_refused_and_left_alone(house: House) -> None:
    """Somebody else's container of our name stays what it was."""
    spec = house.spec({"a": ""}, BUSYBOX, command=("sleep", "300"))
    Path(spec.queue_directory).mkdir(parents=True)
    client, _ = house.runtime._engine()
    theirs = client.create_container(BUSYBOX, ["true"], name=f"ploinky-{spec.instance}")["Id"]
    try:
        with pytest.raises(StartFailed, match="already in use"):
            await house.runtime.start(spec)
        assert client.inspect_container(theirs)["State"]["Status"] == "created"
    finally:
        client.remove_container(theirs, force=True)


@on_engines
@pytest_twisted.ensureDeferred
async def test_the_engines_words_reach_the_user(house: House) -> None:
    """Of why an image cannot be had."""
    with pytest.raises(ImageUnavailable) as caught:
        await house.runtime.prepare("nosuch.invalid/image:1", silent)
    assert "nosuch.invalid" in caught.value.message
    assert "no such host" in caught.value.message


def elsewhere(connection: Connection) -> EngineFacts:
    """What an engine in a machine of its own says of itself."""
    return attrs.evolve(facts.ask(connection), same_machine=False)


@on_engines
@pytest_twisted.ensureDeferred
async def test_an_agent_in_another_machine_is_called_over_tcp(house: House) -> None:
    """Where a socket in a mounted directory cannot be reached, `$PORT` on loopback is."""
    here = house.runtime
    house.runtime = ContainerEngine(
        reactor,
        Blocking(reactor, 4, "elsewhere"),
        here._title,
        here._connection,
        assembly.surroundings(house.directory),
        ask=elsewhere,
    )
    house.runtime.startService()
    await house.instances.stopService()
    instances = house.open()
    try:
        hello = {"index.js": "exports.hello = () => 'Hello'\n"}
        spec = house.spec(hello, "node:18-alpine")
        target = await instances.launch(spec, silent)
        assert target.address.host == "127.0.0.1"
        assert target.address.port > 1024
        (status,) = await instances.discover()
        assert status.address == target.address
        await instances.end(spec.instance, 0.0)
    finally:
        await instances.stopService()
        await house.runtime.stopService()
        house.runtime = here
        house.open()


@pytest_twisted.ensureDeferred
async def test_an_engine_that_is_not_there_is_unavailable(short_directory: Path) -> None:
    """Every method says so, and what to do."""
    url = f"unix://{short_directory}/no.sock"
    engine = assembly.assembled(reactor, "Docker", Connection(url), short_directory)
    engine.startService()
    try:
        for asked in (
            engine.instances("c"),
            engine.prepare("busybox", silent),
            engine.output("i", 1),
            engine.remove("i", 0.0),
        ):
            with pytest.raises(EngineUnavailable, match=r"Docker.*no\.sock"):
                await asked
    finally:
        await engine.stopService()


@pytest_twisted.ensureDeferred
async def test_a_socket_that_nobody_listens_at_is_unavailable(short_directory: Path) -> None:
    """A socket file that a dead engine left refuses connections."""
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(f"{short_directory}/stale.sock")
    stale.close()
    url = f"unix://{short_directory}/stale.sock"
    engine = assembly.assembled(reactor, "Docker", Connection(url), short_directory)
    engine.startService()
    try:
        with pytest.raises(EngineUnavailable, match="nothing listens"):
            await engine.instances("c")
    finally:
        await engine.stopService()


@on_engines
@pytest_twisted.ensureDeferred
async def test_the_end_of_an_instance_is_told_at_once(house: House) -> None:
    """By the engine itself, so that it need not be asked all the time."""
    told: list[str] = []
    house.runtime.listen(told.append)
    spec = house.spec({"a": ""}, BUSYBOX, command=("sh", "-c", "sleep 0.3; exit 1"))
    Path(spec.queue_directory).mkdir(parents=True)
    await house.runtime.start(spec)
    await house.until(lambda: spec.instance in told)


@on_engines
@pytest_twisted.ensureDeferred
async def test_only_an_end_has_an_exit_code(house: House) -> None:
    """Podman says 0 of a removal, too."""
    ours: set[str] = set()
    told: list[ContainerEvent] = []

    def tell(event: ContainerEvent) -> None:
        if event.instance in ours:
            told.append(event)

    stream = EventStream(house.runtime._connection, tell)
    following = deferToThread(stream.follow)
    try:
        while len(told) < 2:  # it may not listen yet
            spec = house.spec({"a": ""}, BUSYBOX, command=("sh", "-c", "sleep 0.2; exit 3"))
            ours.add(spec.instance)
            Path(spec.queue_directory).mkdir(parents=True)
            await house.runtime.start(spec)
            await deferLater(reactor, 0.5)
            await house.runtime.remove(spec.instance, 0.0)
        await house.until(lambda: told[-1].action in REMOVALS)
    finally:
        stream.close()
        await following
    assert {each.exit_code for each in told if each.action in DEATHS} >= {3}
    assert {each.exit_code for each in told if each.action not in DEATHS} == {None}
    assert all(each.at and each.container for each in told)


@on_engines
@pytest_twisted.ensureDeferred
async def test_what_ended_in_order_does_not_explain_its_successor(house: House) -> None:
    """That a container was stopped with 0 says nothing of the one that came after it."""
    told: list[str] = []
    house.runtime.listen(told.append)
    obeys = "trap 'exit 0' TERM; echo listening; while :; do sleep 0.05; done"
    spec = house.spec({"a": ""}, BUSYBOX, command=("sh", "-c", obeys))
    Path(spec.queue_directory).mkdir(parents=True)
    await house.runtime.start(spec)
    while "listening" not in await house.runtime.output(spec.instance, 1):
        await deferLater(reactor, 0.05)
    await house.runtime.remove(spec.instance, 5.0)
    await house.until(lambda: spec.instance in told)
    dies = attrs.evolve(spec, command=("sh", "-c", "sleep 0.3; exit 3"))
    await house.runtime.start(dies)
    seen: set[int | None] = set()
    while 3 not in seen:
        statuses = await house.runtime.instances(house.cluster)
        seen.update(each.exit_code for each in statuses if each.restarts)
    assert seen <= {3, None}
