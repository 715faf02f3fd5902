"""Fixtures that every room's tests share: engines, and places on disk.

A test marked `engine("docker")` or `engine("podman")` runs where that engine
answers, one marked `program("node")` where that is installed.  Elsewhere the test
is skipped on a developer's machine and fails in CI (`PLOINKY_REQUIRE_ENGINES=1`):
there it never skips.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import hypothesis
import pytest

from tests.timeouts import pytest_timeout_set_timer

__all__ = ["pytest_timeout_set_timer"]

# How long an example takes, or its making, says something of the machine, and nothing of us.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

SOCKETS = {
    "docker": [os.environ.get("DOCKER_HOST", ""), "unix:///var/run/docker.sock"],
    "podman": [os.environ.get("PODMAN_SOCK", ""), "unix:///run/podman/podman.sock"],
}


@cache
def engine_url(name: str) -> str:
    """Give the URL at which an engine answers, or `""`."""
    for url in SOCKETS[name]:
        if not url.startswith("unix://"):
            continue
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(30)
            try:
                probe.connect(url.removeprefix("unix://"))
                probe.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
                if b" 200 " in probe.recv(64):
                    return url
            except OSError:
                continue
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Hold the promise of the marks `engine` and `program`."""
    for mark in item.iter_markers("engine"):
        if not engine_url(mark.args[0]):
            _absent(f"{mark.args[0]} does not answer; see CONTRIBUTING.md on how to start it")
    for mark in item.iter_markers("program"):
        if shutil.which(mark.args[0]) is None:
            _absent(f"{mark.args[0]} is not installed")


def _absent(what: str) -> None:
    if os.environ.get("PLOINKY_REQUIRE_ENGINES") == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture
def docker_url() -> str:
    """The URL of Docker's API; use with the mark `engine("docker")`."""
    return engine_url("docker")


@pytest.fixture
def podman_url() -> str:
    """The URL of Podman's API; use with the mark `engine("podman")`."""
    return engine_url("podman")


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A new directory whose path is short enough for sockets below it."""
    directory = Path(tempfile.mkdtemp(prefix="pl"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
