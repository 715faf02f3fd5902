"""Podman is found, and served where nobody serves it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import pytest_twisted
from attrs import frozen
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from ploinky.deploy_errors import EngineUnavailable
from ploinky.runtime import facts
from ploinky.runtime.facts import Connection
from ploinky.runtime.podman import PodmanService, available, check_program, connections, create
from ploinky.threads import Blocking


@frozen
class Directories:
    data_directory: Path
    run_directory: Path


def urls(environment: dict[str, str], uid: int) -> list[str]:
    return [each.url for each in connections(environment, uid)]


def test_its_socket_is_where_podman_puts_it() -> None:
    """Root's own, an ordinary user's own, or the one that is named."""
    assert urls({}, 0) == ["unix:///run/podman/podman.sock"]
    assert urls({}, 1000) == ["unix:///run/user/1000/podman/podman.sock"]
    assert urls({"XDG_RUNTIME_DIR": "/x"}, 1000) == ["unix:///x/podman/podman.sock"]
    assert urls({"PODMAN_SOCK": "/a.sock"}, 0) == ["unix:///a.sock"]
    assert urls({"CONTAINER_HOST": "unix:///b.sock"}, 0) == ["unix:///b.sock"]


def test_a_podman_that_is_not_installed_is_said() -> None:
    """Before anything is tried with it."""
    assert check_program({"PATH": "/nonexistent"}) == "the program podman is not installed"


def test_a_podman_that_does_not_work_says_why(tmp_path: Path) -> None:
    """In its own words."""
    program = tmp_path / "podman"
    program.write_text("#!/bin/sh\necho noise >&2\necho 'no subuid ranges' >&2\nexit 125\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert check_program({"PATH": path}) == "podman info failed: no subuid ranges"


@pytest_twisted.ensureDeferred
async def test_a_named_socket_that_is_not_there_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, short_directory: Path
) -> None:
    """Whoever named one wants that one; the reason names it."""
    monkeypatch.setenv("PODMAN_SOCK", f"{short_directory}/no.sock")
    assert f"there is no socket at unix://{short_directory}/no.sock" in await available(reactor)
    with pytest.raises(EngineUnavailable):
        await create(reactor, Directories(short_directory, short_directory))


async def answers(connection: Connection) -> bool:
    asking = Blocking(reactor, 1, "asking")
    asking.start()
    try:
        return (await asking.run(facts.ask, connection)).podman
    finally:
        asking.stop()


@pytest.mark.engine("podman")
@pytest_twisted.ensureDeferred
async def test_its_service_is_ours_from_start_to_end(short_directory: Path) -> None:
    """It answers once it has booted, is started again when it dies, and ends with us."""
    service = PodmanService(reactor, short_directory, os.environ)
    await service.boot()
    service.startService()
    try:
        assert await answers(service.connection)
        first = service.pid
        os.kill(first, signal.SIGKILL)
        while service.pid in (0, first):
            await deferLater(reactor, 0.05)
    finally:
        last = service.pid
        await service.stopService()
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)
    assert not (short_directory / "podman.sock").exists()


@pytest.mark.engine("podman")
@pytest_twisted.ensureDeferred
async def test_its_service_is_started_once_it_can_be(short_directory: Path) -> None:
    """A start that fails, as the disk is full or the like, is not the last one."""
    service = PodmanService(reactor, short_directory, os.environ)
    await service.boot()
    service.startService()
    log = short_directory / "podman.log"
    try:
        log.unlink()
        log.mkdir()  # it cannot be written
        with capturedLogs() as logged:
            os.kill(service.pid, signal.SIGKILL)
            while not any("cannot be started" in event["log_format"] for event in logged):
                await deferLater(reactor, 0.05)
        log.rmdir()
        while not service.pid:
            await deferLater(reactor, 0.05)
    finally:
        await service.stopService()


@pytest.mark.engine("podman")
@pytest_twisted.ensureDeferred
async def test_the_service_of_a_killed_leader_is_taken_over(short_directory: Path) -> None:
    """One listens at the socket already: a second one would only take it away."""
    first = PodmanService(reactor, short_directory, os.environ)
    await first.boot()
    second = PodmanService(reactor, short_directory, os.environ)
    await second.boot()
    assert second.pid == first.pid
    second.startService()
    await second.stopService()
    await first.end()
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid or 2**22, 0)


@pytest.mark.engine("podman")
@pytest_twisted.ensureDeferred
async def test_a_runtime_brings_its_own_service(
    monkeypatch: pytest.MonkeyPatch, short_directory: Path
) -> None:
    """Where no socket answers; it is there while the runtime is, and no longer."""
    monkeypatch.delenv("PODMAN_SOCK", raising=False)
    monkeypatch.delenv("CONTAINER_HOST", raising=False)
    if Path("/run/podman/podman.sock").exists():
        pytest.skip("Podman's own service listens on this machine")
    assert await available(reactor) == ""
    runtime = await create(reactor, Directories(short_directory, short_directory))
    runtime.startService()
    try:
        assert await runtime.instances("nobody") == []
        assert (short_directory / "podman.sock").exists()
    finally:
        await runtime.stopService()
    assert not (short_directory / "podman.sock").exists()


@pytest_twisted.ensureDeferred
async def test_a_service_is_told_no_secret_of_the_servers(
    monkeypatch: pytest.MonkeyPatch, short_directory: Path
) -> None:
    """It, and what it leaves running, live on beside agents; its own variables it has."""
    program = short_directory / "podman"
    program.write_text("#!/bin/sh\nenv\nexit 125\n")
    program.chmod(0o755)
    told = {
        "PATH": f"{short_directory}:{os.environ['PATH']}",
        "CONTAINERS_CONF": "/its/own",
        "PLOINKY_MASTER_KEY": "needle",
    }
    monkeypatch.setenv("PATH", told["PATH"])
    with pytest.raises(EngineUnavailable):
        await PodmanService(reactor, short_directory, told).boot()
    said = (short_directory / "podman.log").read_text()
    assert "CONTAINERS_CONF=/its/own" in said
    assert "needle" not in said


@pytest_twisted.ensureDeferred
async def test_a_service_that_cannot_start_says_why(
    monkeypatch: pytest.MonkeyPatch, short_directory: Path
) -> None:
    """In Podman's own words, and nothing is left."""
    program = short_directory / "podman"
    program.write_text("#!/bin/sh\necho 'storage is broken'; exit 125\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{short_directory}:{os.environ['PATH']}")
    service = PodmanService(reactor, short_directory, os.environ)
    with pytest.raises(EngineUnavailable, match="storage is broken"):
        await service.boot()
    assert service.pid == 0
