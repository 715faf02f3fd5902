"""A server that moves from one runtime to another."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from ploinky.runtime import processes
from tests.functional.conftest import Server, engine_api, git_repository, until

AGENT = {
    "manifest.json": '{"container": "node:18-alpine", "engine": "node"}',
    "handlers/hello.js": "module.exports = () => 'hello';",
}


@pytest.fixture
def deployed(own_server: Server, tmp_path: Path) -> Server:
    """An agent at /app, on the process runtime."""
    own_server.start()
    answer = own_server.deploy("/app", git_repository(tmp_path / "agent", AGENT))
    assert answer.status_code == 200, answer.text
    return own_server


def running(runtime: str, cluster: str) -> int:
    """Count what runs of a server on a runtime: instances, or where it is a process its parts."""
    if runtime == "process":
        return len(processes.members(cluster=cluster))
    with closing(engine_api(runtime)) as client:
        return len(client.containers(all=True, filters={"label": [f"ploinky.cluster={cluster}"]}))


def move(server: Server, runtime: str) -> None:
    """Start a server anew on another runtime."""
    server.stop()
    server.runtime = runtime
    server.start()


@pytest.mark.engine("docker")
@pytest.mark.engine("podman")
@pytest.mark.program("node")
def test_what_ran_on_the_runtime_before_is_ended(deployed: Server) -> None:
    """Nothing would look at it any more; all that is deployed is served on the new one."""
    data = deployed.directory / ".ploinky-cloud"
    cluster = (data / "cluster-id").read_text().strip()
    for before, now in (("process", "docker"), ("docker", "podman"), ("podman", "process")):
        assert running(before, cluster)
        move(deployed, now)
        assert deployed.call("/app", "hello").json() == "hello"
        until(lambda before=before: not running(before, cluster), f"nothing is left on {before}")
        assert running(now, cluster)
        kept = data / "runtime"
        until(lambda kept=kept, now=now: kept.read_text() == f"{now}\n", "that is on record")


@pytest.mark.engine("docker")
@pytest.mark.program("node")
def test_what_cannot_be_ended_now_is_ended_at_a_later_start(deployed: Server) -> None:
    """An engine that does not answer when the server leaves it is looked at again."""
    data = deployed.directory / ".ploinky-cloud"
    cluster = (data / "cluster-id").read_text().strip()
    move(deployed, "docker")
    assert deployed.call("/app", "hello").json() == "hello"
    there = deployed.environment["DOCKER_HOST"]
    deployed.environment["DOCKER_HOST"] = f"unix://{deployed.directory}/nobody.sock"
    move(deployed, "process")
    assert deployed.call("/app", "hello").json() == "hello"
    log = ("cloud", "logs", "1000", "--json")
    told = "may still run on docker"
    until(lambda: told in deployed.p_cli(*log).stdout, "what was not done is told")
    assert running("docker", cluster) == 1
    assert (data / "runtime").read_text() == "process\ndocker\n"
    deployed.environment["DOCKER_HOST"] = there
    deployed.stop()
    deployed.start()
    until(lambda: not running("docker", cluster), "it is ended")
    assert json.loads(deployed.p_cli("cloud", "call", "/app", "hello").stdout) == "hello"
