"""Engines to test: those whose program this machine has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agentcore.running import AGENTS, ENGINES, Agent, Client

PROGRAMS = {"node": "node", "python": "python3", "dash": "sh", "busybox": "busybox"}


def require(engine: str) -> None:
    """Skip where an engine's program is missing; in CI, fail."""
    if shutil.which(PROGRAMS[engine]) is None:
        if os.environ.get("PLOINKY_REQUIRE_ENGINES") == "1":
            pytest.fail(f"{PROGRAMS[engine]} is not installed")
        pytest.skip(f"{PROGRAMS[engine]} is not installed")


@pytest.fixture(scope="session")
def running() -> Iterator[Callable[[str, str], Agent]]:
    """Gives an agent by engine and source, started once; for tests that leave it well."""
    agents: dict[tuple[str, str], Agent] = {}

    def find(engine: str, source: str) -> Agent:
        require(engine)
        if (engine, source) not in agents:
            agent = Agent(ENGINES[engine], AGENTS / source, PLOINKY_MAX_RESULT_BYTES="1000000")
            agents[engine, source] = agent
            agent.start()
        return agents[engine, source]

    yield find
    for agent in agents.values():
        agent.close()


WIRES = [
    "node-http",
    "node-frames",
    "node-file",
    "python-http",
    "python-frames",
    "python-file",
    "dash-file",
    "busybox-file",
]


@pytest.fixture(params=WIRES)
def client(request: pytest.FixtureRequest, running: Callable[[str, str], Agent]) -> Client:
    """A client of the agent that can do everything, on every engine and wire."""
    engine, wire = request.param.split("-")
    return running(engine, "everything").client(wire)


@pytest.fixture(params=[wire for wire in WIRES if not wire.endswith("-frames")])
def text_client(request: pytest.FixtureRequest, running: Callable[[str, str], Agent]) -> Client:
    """The same, on the wires where a task is one JSON text."""
    engine, wire = request.param.split("-")
    return running(engine, "everything").client(wire)


@pytest.fixture(params=WIRES[:6])
def inner(request: pytest.FixtureRequest, running: Callable[[str, str], Agent]) -> Client:
    """The same, on the engines that run handlers in-process."""
    engine, wire = request.param.split("-")
    return running(engine, "everything").client(wire)


@pytest.fixture(params=["node", "python"])
def served(request: pytest.FixtureRequest, running: Callable[[str, str], Agent]) -> Agent:
    """The agent that can do everything, on the engines that serve HTTP."""
    return running(request.param, "everything")


@pytest.fixture
def make() -> Iterator[Callable[..., Agent]]:
    """Makes agents of a test's own: engine, source or None, environment."""
    agents: list[Agent] = []

    def build(engine: str, source: str | None = None, **environment: str) -> Agent:
        require(engine)
        agents.append(Agent(ENGINES[engine], AGENTS / source if source else None, **environment))
        return agents[-1]

    yield build
    for agent in agents:
        agent.close()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine."""
    require(request.param)
    return str(request.param)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A path to which handlers add `.begun` and `.told`."""
    return tmp_path / "mark"
