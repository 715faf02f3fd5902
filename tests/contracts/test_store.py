"""The store's contract, held by the memory stores and by SQLite alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ploinky.interfaces import IDeploymentStore, IKeyStore, IMetricsStore, IRepositoryStore
from ploinky.security.secrets import SecretBox
from ploinky.store.database import Database
from ploinky.store.deployments import SqliteDeploymentStore
from ploinky.store.keys import SqliteKeyStore
from ploinky.store.metrics import SqliteMetricsStore
from ploinky.store.repositories import SqliteRepositoryStore
from ploinky.testing.contracts.store import (
    DeploymentStoreContract,
    KeyStoreContract,
    MetricsStoreContract,
    RepositoryStoreContract,
)
from ploinky.testing.store import (
    MemoryDeploymentStore,
    MemoryKeyStore,
    MemoryMetricsStore,
    MemoryRepositoryStore,
)
from ploinky.threads import Blocking

BOX = SecretBox(b"k" * 32, os.urandom)


@pytest.fixture
def clock() -> Clock:
    """The clock that expiry is told by."""
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A new database, open."""
    blocking = Blocking(reactor, 1, "store")
    blocking.start()
    opened = Database(tmp_path / "ploinky.sqlite", blocking)
    pytest_twisted.blockon(Deferred.fromCoroutine(opened.open()))
    yield opened
    pytest_twisted.blockon(Deferred.fromCoroutine(opened.close()))
    blocking.stop()


class TestMemoryDeploymentStore(DeploymentStoreContract):
    """The one that tests and plugin authors use."""

    @pytest.fixture
    def deployment_store(self) -> IDeploymentStore:
        return MemoryDeploymentStore()


class TestSqliteDeploymentStore(DeploymentStoreContract):
    """The one that the server uses."""

    @pytest.fixture
    def deployment_store(self, database: Database) -> IDeploymentStore:
        return SqliteDeploymentStore(database, BOX)


class TestMemoryRepositoryStore(RepositoryStoreContract):
    """The one that tests and plugin authors use."""

    @pytest.fixture
    def repository_store(self) -> IRepositoryStore:
        return MemoryRepositoryStore()


class TestSqliteRepositoryStore(RepositoryStoreContract):
    """The one that the server uses."""

    @pytest.fixture
    def repository_store(self, database: Database) -> IRepositoryStore:
        return SqliteRepositoryStore(database, BOX)


class TestMemoryKeyStore(KeyStoreContract):
    """The one that tests and plugin authors use."""

    @pytest.fixture
    def key_store(self, clock: Clock) -> IKeyStore:
        return MemoryKeyStore(clock)


class TestSqliteKeyStore(KeyStoreContract):
    """The one that the server uses."""

    @pytest.fixture
    def key_store(self, database: Database, clock: Clock) -> IKeyStore:
        return SqliteKeyStore(clock, database)


class TestMemoryMetricsStore(MetricsStoreContract):
    """The one that tests and plugin authors use."""

    @pytest.fixture
    def metrics_store(self) -> IMetricsStore:
        return MemoryMetricsStore()


class TestSqliteMetricsStore(MetricsStoreContract):
    """The one that the server uses."""

    @pytest.fixture
    def metrics_store(self, database: Database) -> IMetricsStore:
        return SqliteMetricsStore(database)
