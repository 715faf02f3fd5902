"""The engines in the containers that they are for: no network, read-only, any user."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agentcore.running import ENGINES, ROOT, Agent, Watched

EXAMPLES = ROOT / "examples" / "agents"
USER = 1234


class Contained(Agent):
    """An agent in a container, without anything that it does not need."""

    def __init__(self, engine: str, source: Path, image: str) -> None:
        super().__init__(ENGINES[engine], source)
        self._name = f"agentcore-test-{uuid.uuid4().hex[:12]}"
        self._image = image
        self.home.chmod(0o755)
        for path in [self.directory, self.queue, *self.directory.rglob("*")]:
            if os.geteuid() == 0:
                os.chown(path, USER, USER)
            elif path.is_dir():
                path.chmod(0o777)

    def run(self, url: str) -> Contained:
        """Start it and wait until it is ready, or has failed."""
        (self.directory / ".ploinky").mkdir(exist_ok=True)
        command = ["docker", "--host", url, "run", "--detach", "--init", "--name", self._name]
        command += ["--network", "none", "--read-only", "--cap-drop", "ALL"]
        command += ["--security-opt", "no-new-privileges", "--user", f"{USER}:{USER}"]
        command += ["--env", "PLOINKY_TRANSPORT=file", "--env", "AGENT_DIR=/agent"]
        command += [
            "--volume",
            f"{self.directory}:/agent",
            "--volume",
            f"{ROOT / 'agentcore'}:/agentCore:ro",
        ]
        command += ["--volume", f"{self.queue}:/agent/.ploinky/queue"]
        subprocess.run(
            [*command, self._image, "/agentCore/run.sh"], check=True, capture_output=True
        )
        self._url = url
        Watched(self.queue).until(
            lambda: (self.queue / "ready").exists() or (self.queue / "failed").exists()
        )
        assert (self.queue / "ready").exists(), (self.queue / "failed").read_text()
        return self

    def stop(self) -> str:
        """Stop it, and give its exit status."""
        docker = ["docker", "--host", self._url]
        subprocess.run([*docker, "stop", self._name], check=True, capture_output=True)
        inspect = [*docker, "inspect", "--format", "{{.State.ExitCode}}", self._name]
        return subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.strip()

    def close(self) -> None:
        command = ["docker", "--host", self._url, "rm", "--force", self._name]
        subprocess.run(command, check=False, capture_output=True)
        super().close()


@pytest.fixture
def contain(docker_url: str) -> Iterator[object]:
    """Runs agents in Docker, and removes them."""
    agents: list[Contained] = []

    def start(engine: str, source: Path, image: str) -> Contained:
        agent = Contained(engine, source, image)
        agents.append(agent)
        return agent.run(docker_url)

    if shutil.which("docker") is None:
        pytest.skip("the docker command is not installed")
    yield start
    for agent in agents:
        agent.close()


@pytest.mark.engine("docker")
@pytest.mark.parametrize(
    ("example", "image", "engine"),
    [
        ("demo", "node:18-alpine", "node"),
        ("demo", "python:3.12-alpine", "python"),
        ("python-demo", "python:3.12-alpine", "python"),
        ("shell-demo", "busybox", "busybox"),
        ("shell-demo", "node:18-alpine", "node"),
        ("commands-demo", "busybox", "busybox"),
        ("runtask-demo", "busybox", "busybox"),
    ],
)
def test_example_runs_where_it_is_meant_to(
    contain: object, example: str, image: str, engine: str
) -> None:
    """As a stranger, without network, on a read-only file system."""
    agent = contain(engine, EXAMPLES / example, image)  # type: ignore[operator]
    assert agent.ready["engine"] == agent.engine.name
    for wire in agent.ready["transports"]:
        answer = agent.client(wire).call("hello", "World")
        assert (answer.status, answer.body) == (200, {"message": "Hello World"})
    assert agent.stop() == "0"
