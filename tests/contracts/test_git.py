"""The source's contract, held by the one in memory and by the machine's git alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.git.source import GitRepositories
from ploinky.leader_interfaces import ISource
from ploinky.testing.contracts.git import SourceContract
from ploinky.testing.git import FakeSource, LocalOrigin, Origin
from ploinky.threads import Blocking


class TestFakeSource(SourceContract):
    """The one that other rooms' tests use."""

    @pytest.fixture
    def source(self) -> FakeSource:
        return FakeSource()

    @pytest.fixture
    def origin(self, source: FakeSource) -> Origin:
        return source.origin("https://git.example/agents.git")


class TestGitRepositories(SourceContract):
    """The one that the server uses."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[ISource]:
        blocking = Blocking(reactor, 2, "git")
        blocking.start()
        repositories = GitRepositories(reactor, blocking, tmp_path / "repos", cache_seconds=3600)
        repositories.startService()
        yield repositories
        pytest_twisted.blockon(repositories.stopService())
        blocking.stop()

    @pytest.fixture
    def origin(self, tmp_path: Path) -> Origin:
        return LocalOrigin(tmp_path / "agents.git")
