"""Agents to call: the example's, in a repository of its own, and AgentCore run by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from benchmarks import machine
from benchmarks.children import BenchmarkFailed, Child, Children, until
from benchmarks.machine import LOAD_CORE
from benchmarks.product import Product

IMAGE = "node:18-alpine"
CALL = json.dumps({"command": "hello", "params": ["World"]})

_ROOT = Path(__file__).parent.parent
_EXAMPLES = _ROOT / "examples" / "agents"
AGENTCORE = _ROOT / "agentcore"


def repository(place: Path) -> str:
    """Make a Git repository of the example agents; give its URL."""
    shutil.copytree(_EXAMPLES, place)
    author = ["-c", "user.name=Bench", "-c", "user.email=bench@localhost"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "Agents"]):
        subprocess.run(["git", "-C", str(place), *author, *command], check=True)
    return f"file://{place}"


def engine() -> Any:
    """Give a client of Docker, with the agents' image.

    Raises:
        BenchmarkFailed: Docker does not answer, or the image cannot be had.
    """
    try:
        client = docker.from_env()
        try:
            client.images.get(IMAGE)
        except docker.errors.ImageNotFound:
            client.images.pull(IMAGE)
    except DockerException as error:
        raise BenchmarkFailed(f"needs Docker with the image {IMAGE}: {error}") from error
    return client


def container_processes(client: Any, server: Product) -> list[int]:
    """Give the pids of all that runs in a server's containers."""
    cluster = (server.data / "cluster-id").read_text().strip()
    found = client.containers.list(filters={"label": f"ploinky.cluster={cluster}"})
    return [
        pid
        for container in found
        for pid in machine.tree(client.api.inspect_container(container.id)["State"]["Pid"])
    ]


def start_agentcore(children: Children, name: str, place: Path, engine: str = "node") -> Child:
    """Run an engine for the example agent, with both wires, where the load does not run.

    Args:
        place: A new directory; code goes to `code`, the queue is at `q`.
    """
    code, queue = place / "code", place / "q"
    shutil.copytree(_EXAMPLES / "demo", code)
    queue.mkdir(parents=True)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PLOINKY_")},
        "AGENT_DIR": str(code),
        "PLOINKY_QUEUE": str(queue),
        "PLOINKY_ENGINE": engine,
        "PLOINKY_TRANSPORT": "file",
    }
    command = ["sh", str(AGENTCORE / "run.sh")]
    child = children.start(name, command, LOAD_CORE, environment)
    until((queue / "ready").exists, "AgentCore is ready", child)
    return child
