"""What goes into a backup while things go on, and what is said where something cannot."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from ploinky.backup.archive import Reader
from ploinky.backup.making import Backups, Wanted
from ploinky.deploy_errors import EngineError
from ploinky.deployment.entries import RUNNING
from ploinky.deployment.spec import Layout, Plans
from ploinky.errors import BackupInvalid, Conflict
from ploinky.instance_values import InstanceSpec
from ploinky.leader_interfaces import IRuntimeVolumes, IVolumeCopy
from ploinky.settings import Settings
from ploinky.testing.runtime import MemoryHost, MemoryRuntime
from ploinky.testing.store import MemoryDeploymentStore, MemorySnapshots
from ploinky.threads import Blocking
from ploinky.values import Deployment, DeploymentKey, DeployRequest, Release, ReleaseState

PASSPHRASE = "correct horse battery staple"
KEY = "needle of a master key"


@implementer(IVolumeCopy)
class Copy:
    """A volume in three pieces, the last of which may fail."""

    def __init__(self, failure: str) -> None:
        self.pieces = [b"a tar", b" of a", b" volume"]
        self.failure = failure
        self.closed = False

    async def read(self) -> bytes:
        if self.failure and len(self.pieces) == 1:
            raise EngineError(self.failure)
        return self.pieces.pop(0) if self.pieces else b""

    async def close(self) -> None:
        self.closed = True


@implementer(IRuntimeVolumes)
class Engine(MemoryRuntime):
    """A runtime that keeps one volume, `data`."""

    failure = ""
    copies: list[Copy] = []

    async def open_volume(self, spec: InstanceSpec, name: str) -> Copy | None:
        if name != "data":
            return None
        self.copies.append(Copy(self.failure))
        return self.copies[-1]


class World:
    """A server's data, and backups of it."""

    def __init__(self, directory: Path, blocking: Blocking) -> None:
        self.settings = Settings(directory)
        self.settings.run_directory.mkdir(parents=True)
        self.layout = Layout(self.settings.data_directory)
        self.store = MemoryDeploymentStore()
        self.snapshots = MemorySnapshots()
        self.engine = Engine(Clock(), MemoryHost())
        self.engine.copies = []
        key_file = self.settings.data_directory / "master.key"
        key_file.write_text(KEY)
        self.backups = Backups(
            Clock(),
            blocking,
            self.snapshots,
            self.store,
            self.engine,
            Plans("cluster", self.layout, self.settings),
            key_file,
        )

    async def deploy(self, name: str, commit: str = "c0ffee", **settings: object) -> None:
        """Deploy something that runs; code, where there is any, is one file."""
        key = DeploymentKey("localhost", f"/{name[0]}")
        deployment = Deployment(name, key, "app", wanted=RUNNING)
        await self.store.save_deployment(deployment)
        release = Release(
            name, 1, ReleaseState.ACTIVE, DeployRequest(key, "app"), commit=commit, settings=settings
        )  # fmt: skip
        await self.store.save_release(release)
        await self.store.activate(deployment, 1)
        if commit:
            code = self.layout.code(name, 1)
            code.mkdir(parents=True)
            (code / "agent.py").write_text(f"# of {name}\n")

    async def made(self, **wanted: Any) -> bytes:
        """Make a backup."""
        pieces: list[bytes] = []

        async def write(piece: bytes) -> None:
            pieces.append(piece)

        try:
            await self.backups.write(Wanted(**wanted), write)
        finally:
            self.written = b"".join(pieces)
        return self.written


def names(data: bytes, passphrase: str = "") -> tuple[list[str], Reader]:
    """The members of an archive."""
    reader = Reader(io.BytesIO(data), passphrase)
    found = []
    while member := reader.member():
        found.append(member.name)
    return found, reader


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A server with nothing deployed."""
    blocking = Blocking(reactor, 2, "copying")
    blocking.start()
    yield World(tmp_path, blocking)
    blocking.stop()


A, B, C = "a" * 12, "b" * 12, "c" * 12
SERVICE = {"image": "redis", "kind": "service", "port": 6379, "volumes": [{"name": "data", "path": "/data"}]}  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_state_code_and_volumes_are_in_it(world):
    """An image-only deployment has no code; a task agent's volume is a directory of ours."""
    await world.deploy(A, volumes=[{"name": "notes", "path": "/notes"}])
    (world.layout.deployment(A) / "volumes" / "notes").mkdir(parents=True)
    await world.deploy(B, commit="", **SERVICE)
    (world.settings.data_directory / "config.json").write_text("{}")
    found, reader = names(await world.made())
    assert found == [
        f"releases/{A}/1.tar/000000",
        f"volumes/{A}/notes.tar/000000",
        f"engine-volumes/{B}/data.tar/000000",
        "database.sqlite/000000",
        "config.json",
    ]
    assert reader.manifest["problems"] == []
    assert [one["path"] for one in reader.manifest["deployments"]] == ["/a", "/b"]
    assert all(copy.closed for copy in world.engine.copies)
    assert not list(world.settings.run_directory.iterdir())


@pytest_twisted.ensureDeferred
async def test_the_master_key_is_in_none_but_a_sealed_one(world):
    """Else whoever finds the file could open every secret in it."""
    found, reader = names(await world.made())
    assert "master.key" not in found
    assert reader.head["masterKey"] == {"fingerprint": "fingerprint", "included": False}
    sealed = await world.made(passphrase=PASSPHRASE)
    assert KEY.encode() not in sealed
    found, reader = names(sealed, PASSPHRASE)
    assert "master.key" in found
    assert reader.head["masterKey"]["included"]


@pytest_twisted.ensureDeferred
async def test_what_is_deployed_meanwhile_is_in_it_too(world):
    """The database that is kept names no release whose code is not there."""
    await world.deploy(A)
    copy_before = world.snapshots.snapshot

    async def snapshot(destination: str) -> None:
        if not world.snapshots.taken:
            await world.deploy(B)
        await copy_before(destination)

    world.snapshots.snapshot = snapshot
    found, _ = names(await world.made())
    assert f"releases/{B}/1.tar/000000" in found
    assert world.snapshots.taken == 2


@pytest_twisted.ensureDeferred
async def test_what_is_deleted_meanwhile_is_not_taken_for_whole(world):
    """Half a release must not be gone back to one day."""
    await world.deploy(A)
    code = world.layout.code(A, 1)

    async def write(piece: bytes) -> None:
        pieces.append(piece)
        shutil.rmtree(code, ignore_errors=True)

    pieces: list[bytes] = []
    (code / "large").write_bytes(bytes(12 * 1024 * 1024))
    problems = await world.backups.write(Wanted(), write)
    _, reader = names(b"".join(pieces))
    assert reader.manifest["trees"] == []
    assert list(problems) == [f"localhost/a: its code is not in {code}"]


@pytest_twisted.ensureDeferred
async def test_a_volume_that_cannot_be_read_fails_it_aloud(world):
    """Whoever reads the file is told why it has no end; the copy is closed."""
    await world.deploy(A, commit="", **SERVICE)
    world.engine.failure = "the engine went away"
    with pytest.raises(EngineError):
        await world.made()
    with pytest.raises(BackupInvalid, match="the engine went away"):
        names(world.written)
    assert world.engine.copies[0].closed
    world.engine.failure = ""
    names(await world.made())


@pytest_twisted.ensureDeferred
async def test_a_missing_volume_is_told_of(world):
    """It may lie with another runtime; whoever needs it learns so today."""
    await world.deploy(A, commit="", **{**SERVICE, "volumes": [{"name": "other", "path": "/o"}]})
    _, reader = names(await world.made())
    assert reader.manifest["problems"] == ["localhost/a: there is no volume other on memory"]


@pytest_twisted.ensureDeferred
async def test_volumes_can_be_left_out(world):
    """Where they are copied by other means."""
    await world.deploy(A, commit="", **SERVICE)
    found, _ = names(await world.made(volumes=False))
    assert found == ["database.sqlite/000000"]


@pytest_twisted.ensureDeferred
async def test_one_is_made_at_a_time_and_a_cancelled_one_makes_room(world):
    """Its reader has gone."""
    await world.deploy(A)
    room: Deferred[None] = Deferred()

    async def write(piece: bytes) -> None:
        reactor.callLater(0, begun.callback, None)
        await room

    begun: Deferred[None] = Deferred()
    making = Deferred.fromCoroutine(world.backups.write(Wanted(PASSPHRASE), write))
    await begun
    with pytest.raises(Conflict):
        await world.made()
    making.cancel()
    with pytest.raises(CancelledError):
        await making
    names(await world.made())
