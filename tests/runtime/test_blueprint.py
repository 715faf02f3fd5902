"""What an engine is asked for, and what is read from its answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import pytest

from ploinky.instance_values import InstanceSpec, Volume
from ploinky.runtime import blueprint, inspection
from ploinky.runtime.docker import connections
from ploinky.runtime.engine import _next_step, _without_secrets
from ploinky.runtime.facts import EngineFacts, read_facts
from ploinky.values import Address, DeploymentKey, Kind

SPEC = InstanceSpec(
    instance="aaaaaaaaaaaa",
    deployment="dddddddddddd",
    release=3,
    cluster="cccccccccccc",
    key=DeploymentKey("localhost", "/demo"),
    agent="demo",
    kind=Kind.TASK,
    image="node:18-alpine",
    queue_directory="/data/run/i/aaaaaaaaaaaa",
    code_directory="/data/code",
    environment={"TOKEN": "s3cret-token", "PIN": "12"},
)
SERVICE = attrs.evolve(SPEC, kind=Kind.SERVICE, code_directory="", port=80)


@pytest.fixture
def surroundings(tmp_path: Path) -> blueprint.Surroundings:
    return blueprint.Surroundings(Path("/opt/agentCore"), tmp_path, uid=1000, gid=1001)


def plan(
    spec: InstanceSpec, surroundings: blueprint.Surroundings, port: int | None = None, **facts: Any
) -> blueprint.Blueprint:
    return blueprint.instance_blueprint(spec, EngineFacts(**facts), surroundings, port, False)


def mounts(made: blueprint.Blueprint) -> dict[str, tuple[str, bool]]:
    return {each["Target"]: (each["Source"], each["ReadOnly"]) for each in made.host["mounts"]}


def test_an_entrypoint_replaces_the_images_own_and_its_command(
    surroundings: blueprint.Surroundings,
) -> None:
    """As an engine has it by itself; a task agent is started by AgentCore whatever is asked."""
    served = plan(attrs.evolve(SERVICE, entrypoint=("/app", "-v")), surroundings, port=80)
    assert served.container["entrypoint"] == ["/app", "-v"]
    assert served.container["command"] == []
    both = attrs.evolve(SERVICE, entrypoint=("/app",), command=("serve",))
    assert plan(both, surroundings, port=80).container["command"] == ["serve"]
    task = plan(attrs.evolve(SPEC, entrypoint=("/app",)), surroundings)
    assert task.container["entrypoint"] == ["/bin/sh", "/agentCore/run.sh"]


def test_what_the_contract_says_of_a_task_agent(surroundings: blueprint.Surroundings) -> None:
    """Labels, mounts, who it runs as, and what it may not."""
    made = plan(SPEC, surroundings)
    assert made.container["labels"] == {
        "ploinky.cluster": "cccccccccccc",
        "ploinky.deployment": "dddddddddddd",
        "ploinky.release": "3",
        "ploinky.instance": "aaaaaaaaaaaa",
    }
    assert made.container["name"] == "ploinky-aaaaaaaaaaaa"
    assert made.container["user"] == "1000:1001"
    assert made.container["entrypoint"] == ["/bin/sh", "/agentCore/run.sh"]
    assert made.container["working_dir"] == "/agent"
    assert mounts(made) == {
        "/agent": ("/data/code", False),
        "/agent/.ploinky/queue": ("/data/run/i/aaaaaaaaaaaa", False),
        "/agentCore": ("/opt/agentCore", True),
    }
    assert made.host["cap_drop"] == ["ALL"]
    assert made.host["security_opt"] == ["no-new-privileges"]
    assert made.host["restart_policy"] == {"Name": "unless-stopped"}
    assert made.host["init"] is True
    assert made.host["port_bindings"] is None


def test_root_inside_a_rootless_engine_is_its_user(surroundings: blueprint.Surroundings) -> None:
    """So that what an agent writes is the server's own there too."""
    assert plan(SPEC, surroundings, rootless=True).container["user"] == "0:0"
    named = attrs.evolve(SPEC, user="33:33")
    assert plan(named, surroundings, rootless=True).container["user"] == "33:33"


def test_selinux_is_told_to_let_our_directories_in(surroundings: blueprint.Surroundings) -> None:
    """They lie in a home, whose labels are not ours to change."""
    assert "label=disable" in plan(SPEC, surroundings, selinux=True).host["security_opt"]


def test_a_service_image_has_the_engines_own_defaults(
    surroundings: blueprint.Surroundings,
) -> None:
    """Most official images need them; only privileges cannot grow."""
    made = plan(SERVICE, surroundings, port=80)
    assert made.container["user"] is None
    assert made.container["environment"]["PORT"] == "80"
    assert "entrypoint" not in made.container
    assert "command" not in made.container
    assert "HOME" not in made.container["environment"]
    assert "cap_drop" not in made.host
    assert made.host["security_opt"] == ["no-new-privileges"]
    chosen = attrs.evolve(SERVICE, capabilities=("NET_RAW",))
    assert plan(chosen, surroundings, port=80).host["cap_add"] == ["NET_RAW"]


def test_volumes_are_where_their_user_can_write(surroundings: blueprint.Surroundings) -> None:
    """A task agent's a directory of ours, a service's the engine's own."""
    volumes = (Volume("notes", "/notes"),)
    made = plan(attrs.evolve(SPEC, volumes=volumes), surroundings)
    here, _ = mounts(made)["/notes"]
    assert here == str(surroundings.deployments / "dddddddddddd" / "volumes" / "notes")
    assert Path(here).stat().st_uid == os.getuid()
    made = plan(attrs.evolve(SERVICE, volumes=volumes), surroundings, port=80)
    assert mounts(made)["/notes"][0] == "ploinky-dddddddddddd-notes"


def container(**changes: Any) -> dict[str, Any]:
    """What Docker says of a container that runs."""
    described: dict[str, Any] = {
        "Config": {
            "Labels": {
                "ploinky.instance": "aaaaaaaaaaaa",
                "ploinky.deployment": "d",
                "ploinky.release": "3",
            },
            "Env": ["PORT=9999"],
        },
        "State": {"Status": "running", "Running": True, "ExitCode": 0, "OOMKilled": False},
        "RestartCount": 2,
        "NetworkSettings": {
            "Networks": {"bridge": {"IPAddress": "172.17.0.2", "Gateway": "172.17.0.1"}},
            "Ports": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}]},
        },
    }
    described["Config"]["Labels"] |= changes.pop("labels", {})
    described["State"] |= changes.pop("state", {})
    return {**described, **changes}


def test_a_running_container_is_read() -> None:
    """An agent's own `PORT` variable does not make a service of it."""
    status = inspection.read_status(container(), lambda gateway: True)
    assert (status.running, status.exit_code, status.restarts, status.release) == (True, None, 2, 3)
    assert status.address is None


@pytest.mark.parametrize(
    ("in_reach", "address"),
    [
        (True, Address(host="172.17.0.2", port=80)),
        (False, Address(host="127.0.0.1", port=32768)),
    ],
)
def test_a_service_is_reached_over_the_bridge_or_loopback(in_reach: bool, address: Address) -> None:
    """Whichever this host can reach."""
    asked: list[str] = []

    def reach(gateway: str) -> bool:
        asked.append(gateway)
        return in_reach

    described = container(labels={"ploinky.port": "80"})
    assert inspection.read_status(described, reach).address == address
    assert asked == ["172.17.0.1"]


@pytest.mark.parametrize(
    ("state", "running", "exit_code"),
    [
        ({"Status": "restarting", "ExitCode": 3}, False, 3),
        ({"Status": "exited", "Running": False, "ExitCode": 137}, False, 137),
        ({"Status": "stopped", "Running": False, "ExitCode": 3}, False, 3),
        ({"Status": "created", "Running": False}, False, None),
        ({"Status": "paused", "Paused": True}, True, None),
    ],
)
def test_a_state_is_read(state: dict[str, Any], running: bool, exit_code: int | None) -> None:
    """Docker calls one that it waits to start again running."""
    status = inspection.read_status(container(state=state), lambda gateway: True)
    assert (status.running, status.exit_code) == (running, exit_code)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:10.000000007Z", 10_000_000_007),
        ("1970-01-01T01:00:10.25+01:00", 10_250_000_000),
        ("1970-01-01T00:00:10Z", 10_000_000_000),
    ],
)
def test_the_last_end_is_read_to_the_nanosecond(text: str, expected: int) -> None:
    """Both engines write as many digits as it takes, Podman in the machine's own zone."""
    assert inspection.finished_at({"State": {"FinishedAt": text}}) == expected


def test_what_never_ended_did_so_before_everything() -> None:
    """As engines put it: in the year 1."""
    assert inspection.finished_at({"State": {"FinishedAt": "0001-01-01T00:00:00Z"}}) < 0


def test_the_port_of_an_image() -> None:
    """Where it declares exactly one."""
    assert inspection.exposed_port({"Config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}}) == 80
    assert (
        inspection.exposed_port({"Config": {"ExposedPorts": {"80/tcp": {}, "81/tcp": {}}}}) is None
    )
    assert inspection.exposed_port({"Config": {"ExposedPorts": None}}) is None


HERE = os.uname()
INFO = {"KernelVersion": HERE.release, "Name": HERE.nodename, "SecurityOptions": []}


@pytest.mark.parametrize(
    ("info", "same_machine", "rootless", "selinux"),
    [
        ({}, True, False, False),
        ({"KernelVersion": "6.6.12-linuxkit", "Name": "docker-desktop"}, False, False, False),
        ({"Name": "elsewhere"}, False, False, False),
        ({"SecurityOptions": ["name=seccomp", "name=rootless"]}, True, True, False),
        ({"Rootless": True, "SecurityOptions": None}, True, True, False),
        ({"SecurityOptions": ["name=selinux"]}, True, False, True),
    ],
)
def test_an_engine_is_known_by_what_it_says_of_itself(
    info: dict[str, Any], same_machine: bool, rootless: bool, selinux: bool
) -> None:
    """Another kernel is another machine, as with Docker Desktop."""
    version = {"Components": [{"Name": "Podman Engine"}]}
    found = read_facts({**INFO, **info}, version, HERE)
    assert found == EngineFacts(True, same_machine, rootless, selinux)
    assert not read_facts(INFO, {}, HERE).podman


def test_dockers_socket_is_where_docker_puts_it() -> None:
    """The machine's, an ordinary user's own, or the one that is named."""

    def urls(environment: dict[str, str], uid: int) -> list[str]:
        return [each.url for each in connections(environment, uid)]

    assert urls({}, 0) == ["unix:///var/run/docker.sock"]
    assert urls({"HOME": "/home/a"}, 1000) == [
        "unix:///var/run/docker.sock",
        "unix:///run/user/1000/docker.sock",
        "unix:///home/a/.docker/run/docker.sock",
        "unix:///home/a/.docker/desktop/docker.sock",
    ]
    assert urls({"DOCKER_HOST": "tcp://127.0.0.1:2375"}, 1000) == ["tcp://127.0.0.1:2375"]


def test_an_error_repeats_no_secret() -> None:
    """Should an engine ever repeat a variable; what is too short to be one is left."""
    said = _without_secrets("cannot use s3cret-token for 12 containers", SPEC)
    assert said == "cannot use <TOKEN> for 12 containers"


def test_an_engine_without_an_init_says_what_to_install() -> None:
    """Podman's words name a file, not the package that it comes from."""
    said = "Podman: container create: container-init binary not found on the host: stat /x"
    assert _next_step(said) == ". Install the package catatonit."
    assert _next_step("no space left on device") == ""
