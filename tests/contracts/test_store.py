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

from ploinky.errors import StateUnusable
from ploinky.security.secrets import SecretBox
from ploinky.store.audit import SqliteAuditTrail
from ploinky.store.database import Database
from ploinky.store.deployments import SqliteDeploymentStore
from ploinky.store.hooks import SqliteHookStore
from ploinky.store.keys import SqliteKeyStore
from ploinky.store.metrics import SqliteMetricsStore
from ploinky.store.repositories import SqliteRepositoryStore
from ploinky.store.snapshots import SqliteSnapshots
from ploinky.store.tasks import SqliteTaskStore
from ploinky.store_interfaces import (
    IAuditTrail,
    IDeploymentStore,
    IHookStore,
    IKeyStore,
    IMetricsStore,
    IRepositoryStore,
    ISnapshots,
    ITaskStore,
)
from ploinky.task_values import TaskQuery
from ploinky.testing.contracts.call_store import MetricsStoreContract, TaskStoreContract, a_task
from ploinky.testing.contracts.store import (
    DEMO,
    AuditTrailContract,
    DeploymentStoreContract,
    HookStoreContract,
    KeyStoreContract,
    RepositoryStoreContract,
    SnapshotsContract,
)
from ploinky.testing.store import (
    MemoryAuditTrail,
    MemoryDeploymentStore,
    MemoryHookStore,
    MemoryKeyStore,
    MemoryMetricsStore,
    MemoryRepositoryStore,
    MemorySnapshots,
    MemoryTaskStore,
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


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    """Where a copy goes."""
    return tmp_path / "copy"


class TestMemorySnapshots(SnapshotsContract):
    """The ones that tests use."""

    @pytest.fixture
    def snapshots(self) -> ISnapshots:
        return MemorySnapshots()


class TestSqliteSnapshots(SnapshotsContract):
    """The ones that the server uses."""

    @pytest.fixture
    def snapshots(self, database: Database) -> Iterator[ISnapshots]:
        blocking = Blocking(reactor, 1, "copying")
        blocking.start()
        yield SqliteSnapshots(database, blocking)
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


class TestMemoryTaskStore(TaskStoreContract):
    """The one that tests and plugin authors use."""

    @pytest.fixture
    def task_store(self, clock: Clock) -> ITaskStore:
        clock.advance(1_000_000)
        return MemoryTaskStore(clock)


class TestSqliteTaskStore(TaskStoreContract):
    """The one that the server uses."""

    @pytest.fixture
    def task_store(self, database: Database, clock: Clock) -> ITaskStore:
        clock.advance(1_000_000)
        return SqliteTaskStore(clock, database)

    @pytest_twisted.ensureDeferred
    async def test_writes_at_once_share_the_disk_and_fail_together(
        self, task_store: ITaskStore, database: Database
    ) -> None:
        """Each is told what became of it, in order, whether the disk took it or not."""
        names = [f"t-{number}" for number in range(20)]
        told: list[str] = []
        adding = [Deferred.fromCoroutine(task_store.add(a_task(name))) for name in names]
        for each in adding:
            each.addCallback(lambda task: told.append(task.id))
        await adding[-1]
        assert told == names
        assert (await task_store.tasks(TaskQuery())).total == 20
        await database.close()
        failing = [Deferred.fromCoroutine(task_store.add(a_task(f"x-{n}"))) for n in range(3)]
        for each in failing:
            with pytest.raises(StateUnusable):
                await each


class TestMemoryHookStore(HookStoreContract):
    """The one that tests and plugin authors use."""

    @pytest.fixture
    def hook_store(self) -> IHookStore:
        return MemoryHookStore()


class TestSqliteHookStore(HookStoreContract):
    """The one that the server uses."""

    @pytest.fixture
    def hook_store(self, database: Database) -> IHookStore:
        saving = SqliteDeploymentStore(database, BOX).save_deployment(DEMO)
        pytest_twisted.blockon(Deferred.fromCoroutine(saving))
        return SqliteHookStore(database, BOX)


class TestMemoryAuditTrail(AuditTrailContract):
    """The one that tests use."""

    @pytest.fixture
    def audit_trail(self) -> IAuditTrail:
        return MemoryAuditTrail()


class TestSqliteAuditTrail(AuditTrailContract):
    """The one that the server uses."""

    @pytest.fixture
    def audit_trail(self, database: Database) -> IAuditTrail:
        return SqliteAuditTrail(database)


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
