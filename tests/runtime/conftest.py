"""Real runtimes, one fixture for all of them, and agents to run on them."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.task import deferLater

from ploinky.instance_values import Health, InstanceSpec
from ploinky.runtime import places
from ploinky.runtime.assembly import assembled
from ploinky.runtime.facts import Connection
from ploinky.runtime.instances import Instances
from ploinky.runtime.probes import SocketProber
from ploinky.runtime.process import ProcessRuntime
from ploinky.runtime.sandbox import find_sandbox
from ploinky.sockets import SocketPaths
from ploinky.testing.deployment import DirectBlocking
from ploinky.testing.runtime import RecordedHistory
from ploinky.values import DeploymentKey, Kind
from tests.conftest import engine_url

ON_ENGINES = [
    pytest.param("docker", marks=pytest.mark.engine("docker")),
    pytest.param("podman", marks=pytest.mark.engine("podman")),
]
SANDBOX = pytest.param("sandbox", marks=pytest.mark.program("bwrap"))
EVERYWHERE = [*ON_ENGINES, SANDBOX, "plain"]
PATIENCE = 600


def make_runtime(kind: str, directory: Path) -> Any:
    """Give a runtime of a kind, not started."""
    if kind in ("docker", "podman"):
        return assembled(reactor, kind.capitalize(), Connection(engine_url(kind)), directory)
    sandbox = None
    if kind == "sandbox":
        sandbox, problem = find_sandbox(os.environ, [str(directory)])
        assert sandbox is not None, problem
    agentcore = places.agentcore_directory()
    places_ = (directory / "p", directory / "deployments")
    return ProcessRuntime(reactor, agentcore, *places_, os.environ, sandbox)


@define
class House:
    """One data directory with a runtime and its instances."""

    directory: Path
    runtime: Any
    paths: SocketPaths
    cluster: str = field(factory=lambda: secrets.token_hex(6))
    instances: Instances = field(init=False)
    changes: list[tuple[str, bool]] = field(factory=list)
    history: RecordedHistory = field(factory=RecordedHistory)

    def open(self) -> Instances:
        """Make the instances' owner, as a leader does at its start."""
        self.instances = Instances(
            reactor,
            self.runtime,
            SocketProber(reactor, self.paths),
            self.directory,
            self.cluster,
            self.history,
            DirectBlocking(),
        )
        self.instances.watch(lambda instance, healthy: self.changes.append((instance, healthy)))
        self.instances.startService()
        return self.instances

    def spec(self, files: dict[str, str], image: str, **given: Any) -> InstanceSpec:
        """A task agent with these files."""
        instance = secrets.token_hex(6)
        code = self.directory / "code" / instance
        for name, text in files.items():
            place = code / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        settings: dict[str, Any] = {
            "instance": instance,
            "deployment": "d" * 12,
            "release": 1,
            "cluster": self.cluster,
            "key": DeploymentKey("localhost", "/demo"),
            "agent": "demo",
            "kind": Kind.TASK,
            "image": image,
            "queue_directory": str(self.directory / "i" / instance),
            "code_directory": str(code) if files else "",
            "health": Health(interval_seconds=0.3, timeout_seconds=3.0, start_period_seconds=30.0),
        }
        return InstanceSpec(**{**settings, **given})

    async def until(self, happened: Callable[[], Any]) -> Any:
        """Wait until something has happened."""
        for _ in range(PATIENCE):
            if value := happened():
                return value
            await deferLater(reactor, 0.05)
        raise AssertionError("it did not happen")


@pytest_twisted.async_yield_fixture
async def house(request: pytest.FixtureRequest, short_directory: Path) -> AsyncIterator[House]:
    """A house on the runtime that the test names; emptied afterwards."""
    runtime = make_runtime(request.param, short_directory)
    runtime.startService()
    paths = SocketPaths(str(short_directory))
    built = House(short_directory, runtime, paths)
    built.open()
    yield built
    await built.instances.stopService()
    for left in await runtime.instances(built.cluster):
        await runtime.remove(left.instance, 0.0)
    ended = runtime.stopService()
    if ended is not None:
        await ended
    paths.close()
    shutil.rmtree(short_directory, ignore_errors=True)
