"""What the Git room's tests share: the room itself, and remotes that are real."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.git.source import GitRepositories
from ploinky.testing.git import LocalOrigin
from ploinky.threads import Blocking
from tests.git.remotes import HttpRemote, SshRemote


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    """A pool for git, ended with the test."""
    blocking = Blocking(reactor, 4, "git")
    blocking.start()
    yield blocking
    blocking.stop()


@pytest.fixture
def repositories(tmp_path: Path, blocking: Blocking) -> Iterator[Callable[..., GitRepositories]]:
    """Makes rooms, all in one directory unless told otherwise; ends them with the test."""
    made: list[GitRepositories] = []

    def make(clock: Any = reactor, **options: Any) -> GitRepositories:
        options = {"cache_seconds": 3600, "directory": tmp_path / "repos", **options}
        made.append(GitRepositories(clock, blocking, options.pop("directory"), **options))
        made[-1].startService()
        return made[-1]

    yield make
    for room in made:
        pytest_twisted.blockon(room.stopService())


@pytest.fixture
def source(repositories: Callable[..., GitRepositories]) -> GitRepositories:
    """The room with its defaults."""
    return repositories()


@pytest.fixture
def origin(tmp_path: Path) -> LocalOrigin:
    """An empty repository on this machine."""
    return LocalOrigin(tmp_path / "origins" / "demo.git")


@pytest.fixture
def http(origin: LocalOrigin) -> Iterator[HttpRemote]:
    """Git's own HTTP server in front of `origin`."""
    remote = HttpRemote(origin.directory.parent)
    yield remote
    remote.close()


@pytest.fixture
def ssh(origin: LocalOrigin, short_directory: Path) -> Iterator[SshRemote]:
    """OpenSSH's server in front of `origin`; needs to be installed."""
    if not shutil.which("sshd", path=SshRemote.SEARCHED):
        absent = "sshd is not installed: apt-get install openssh-server"
        if os.environ.get("PLOINKY_REQUIRE_ENGINES") == "1":
            pytest.fail(absent)
        pytest.skip(absent)
    remote = SshRemote(short_directory)
    yield remote
    remote.close()
