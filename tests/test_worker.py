"""What a leader may rely on about a worker process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from ploinky.link import ICorridor
from ploinky.processgroup import COULD_NOT_BOOT
from ploinky.tasks.orchestrator import Orchestrator
from ploinky.values import Route, RouteChange, RouteSnapshot
from ploinky.worker import Corridor, Rooms, WorkerConfiguration

CONFIGURATION = {
    "slot": 1,
    "build": "x",
    "run_directory": "/nowhere",
    "log_directory": "/nowhere",
    "trusted_proxies": ["127.0.0.1"],
}


class Router:
    """Remembers its generation, as `RouteTable` does: -1 before the first."""

    generation = -1

    def adopt(self, snapshot: RouteSnapshot) -> Sequence[Route]:
        """Move forward."""
        self.generation = snapshot.generation
        return []

    def amend(self, change: RouteChange) -> Sequence[Route]:
        """Move forward."""
        self.generation = change.generation
        return []


class Gateway(Factory):
    """Drains when the test says so."""

    def __init__(self) -> None:
        self.drains: list[tuple[float, Deferred[int]]] = []
        self.expelled = 0

    def expel(self) -> None:
        """Count."""
        self.expelled += 1

    async def drain(self, seconds: float) -> int:
        """Wait for the test."""
        self.drains.append((seconds, Deferred()))
        return await self.drains[-1][1]


class Scene:
    """A corridor behind a real listening socket, in a reactor in memory."""

    def __init__(self, listening: socket.socket) -> None:
        self.descriptor = os.dup(listening.fileno())
        self.reactor = MemoryReactorClock()
        self.gateway = Gateway()
        self.ends: list[str] = []
        rooms = Rooms(
            Router(),
            Orchestrator(self.reactor),
            self.gateway,
            lambda: b"",
            lambda: b"",
            lambda: b"",
            lambda: self.ends.append("closed"),
        )
        self.corridor = Corridor(
            self.reactor, rooms, self.descriptor, lambda: self.ends.append("leaves")
        )

    def is_open(self) -> bool:
        """Tell whether the listening socket is still held."""
        try:
            os.fstat(self.descriptor)
        except OSError:
            return False
        return True


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A corridor that has seen no table yet."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Scene(listening)


def test_nothing_is_accepted_before_the_first_table(scene: Scene) -> None:
    """Nor is the generation said to be anything but 0."""
    verifyObject(ICorridor, scene.corridor)
    assert scene.corridor.generation == 0
    assert scene.reactor.adoptedPorts == []
    assert scene.corridor.listening() == scene.descriptor


def test_the_first_table_opens_the_door_and_later_ones_do_not(scene: Scene) -> None:
    """One port, whichever generation; who may call no more is cut off with each."""
    for generation in (4, 5):
        scene.corridor.adopt(RouteSnapshot(generation, ()))
    scene.corridor.amend(RouteChange(5, 6))
    assert scene.corridor.generation == 6
    assert scene.gateway.expelled == 3
    ((descriptor, family, factory),) = scene.reactor.adoptedPorts
    assert (descriptor, family, factory) == (scene.descriptor, socket.AF_INET, scene.gateway)
    assert scene.is_open()


def test_answers_go_out_at_once(scene: Scene) -> None:
    """No accepted connection waits for what it sent before to be acknowledged."""
    scene.corridor.adopt(RouteSnapshot(1, ()))
    with (
        socket.socket(fileno=os.dup(scene.descriptor)) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest_twisted.ensureDeferred
async def test_a_drain_closes_the_door_and_finishes_what_is_in_hand(scene: Scene) -> None:
    """Rooms are closed after that, and no table opens the door again."""
    drained = Deferred.fromCoroutine(scene.corridor.drain(28.0))
    assert not scene.is_open()
    assert scene.corridor.listening() is None
    scene.corridor.adopt(RouteSnapshot(1, ()))
    assert scene.reactor.adoptedPorts == []
    ((seconds, in_hand),) = scene.gateway.drains
    assert (seconds, scene.ends) == (28.0, [])
    in_hand.callback(1)
    await drained
    assert scene.ends == ["closed"]


def test_stop_begins_the_end_of_the_process(scene: Scene) -> None:
    """By whatever the root gave for it."""
    scene.corridor.stop()
    assert scene.ends == ["leaves"]


def test_the_configuration_comes_as_json() -> None:
    """What the leader leaves out has a default."""
    read = msgspec.json.decode(json.dumps(CONFIGURATION), type=WorkerConfiguration)
    assert read == WorkerConfiguration(1, "x", "/nowhere", "/nowhere", "info", ("127.0.0.1",))


def start(
    listening: Any = None, configuration: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a worker that should not get far."""
    environment = {**os.environ, "PLOINKY_WORKER": configuration or ""}
    script = (
        "import os, sys; fd = int(sys.argv[1]); fd != 3 and os.dup2(fd, 3);" if listening else ""
    )
    script += "from ploinky.worker import build_rooms, run; run(build_rooms)"
    return subprocess.run(
        [sys.executable, "-c", script, str(listening.fileno() if listening else 0)],
        env=environment,
        pass_fds=[listening.fileno()] if listening else [],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )


def test_a_worker_started_by_hand_says_what_to_do(tmp_path: Path) -> None:
    """It has no listening socket: exit status 78, and one line."""
    places = {"run_directory": str(tmp_path), "log_directory": str(tmp_path)}
    done = start(None, json.dumps(CONFIGURATION | places))
    assert done.returncode == COULD_NOT_BOOT
    assert "p-cli cloud start" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("configuration", ["", "{", '{"slot": "one"}'])
def test_a_configuration_that_cannot_be_read_is_a_reason_not_to_boot(configuration: str) -> None:
    """Trying again would not help."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = start(listening, configuration)
    assert done.returncode == COULD_NOT_BOOT
    assert len(done.stderr.splitlines()) == 1


def test_a_setting_that_does_not_fit_is_named(tmp_path: Path) -> None:
    """As the rooms say it."""
    places = {"run_directory": str(tmp_path), "log_directory": str(tmp_path)}
    wrong = CONFIGURATION | places | {"trusted_proxies": ["my proxy"]}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = start(listening, json.dumps(wrong))
    assert done.returncode == COULD_NOT_BOOT
    assert "my proxy" in done.stderr


def test_the_reactor_is_chosen_by_the_root_alone() -> None:
    """No room that a worker imports has installed one before it can."""
    script = "import sys, ploinky.worker; sys.exit('twisted.internet.reactor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
