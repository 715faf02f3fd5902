"""Replacing the master key, and what a server finds that was killed in the middle of it."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.errors import AlreadyRunning, SettingsInvalid, StateUnusable
from ploinky.maintenance import rotate_key, verify_audit
from ploinky.processgroup import LeaderLock
from ploinky.security.secrets import SecretBox, fingerprint, write_key
from ploinky.source_values import GitCredential, Repository
from ploinky.state import DATABASE, open_box
from ploinky.store.database import Database
from ploinky.store.deployments import SqliteDeploymentStore
from ploinky.store.hooks import SqliteHookStore
from ploinky.store.repositories import SqliteRepositoryStore
from ploinky.store.resealing import reseal
from ploinky.store.tables import METADATA
from ploinky.testing.contracts.store import DEMO, release
from ploinky.threads import Blocking

PRIVATE = Repository("private", "https://git.example/x.git", credential=GitCredential("u", "t"))


class Opened:
    """A data directory's database, as a server that starts opens it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._blocking = Blocking(reactor, 1, "test")
        self.database = Database(data / DATABASE, self._blocking)

    async def __aenter__(self) -> Opened:
        self._blocking.start()
        await self.database.open()
        try:
            self.box = await open_box(self.data, self.database)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.database.close()
        self._blocking.stop()

    async def fill(self) -> None:
        """Keep a secret of each kind."""
        deployments = SqliteDeploymentStore(self.database, self.box)
        await deployments.save_deployment(DEMO)
        await deployments.save_release(release(1))
        await SqliteRepositoryStore(self.database, self.box).add_repository(PRIVATE)
        await SqliteHookStore(self.database, self.box).save_hook_secret(DEMO.id, "hook")

    async def is_readable(self) -> bool:
        """Whether all of it is there."""
        deployments = SqliteDeploymentStore(self.database, self.box)
        repositories = SqliteRepositoryStore(self.database, self.box)
        return (
            await deployments.releases(DEMO.id) == [release(1)]
            and await repositories.repositories() == [PRIVATE]
            and await SqliteHookStore(self.database, self.box).hook_secret(DEMO.id) == "hook"
        )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory on which no server runs."""
    (tmp_path / "run").mkdir()
    return tmp_path


async def filled(data: Path) -> bytes:
    """Fill it; gives what the key's file holds."""
    async with Opened(data) as opened:
        await opened.fill()
    return (data / "master.key").read_bytes()


@pytest_twisted.ensureDeferred
async def test_every_secret_opens_with_the_new_key_and_none_with_the_old(data):
    """The file holds the new one, 0600; the old one is gone from the disk."""
    old = await filled(data)
    assert await rotate_key(reactor, data) == {"secrets": 4, "key": "master.key"}
    assert (data / "master.key").read_bytes() != old
    assert stat.S_IMODE((data / "master.key").stat().st_mode) == 0o600
    assert not (data / "master.key.next").exists()
    async with Opened(data) as opened:
        assert await opened.is_readable()
    (data / "master.key").write_bytes(old)
    with pytest.raises(SettingsInvalid, match="another master key"):
        async with Opened(data):
            pass
    (data / "master.key").unlink()
    with pytest.raises(SettingsInvalid, match="the master key is missing"):
        async with Opened(data):
            pass
    assert not (data / "master.key").exists()


def test_no_sealed_column_is_forgotten():
    """One that is added must be resealed as well: these are those that are."""
    sealed = {f"{t.name}.{c.name}" for t in METADATA.tables.values() for c in t.columns}
    assert {name for name in sealed if name.endswith("_sealed")} == {
        "releases.environment_sealed",
        "releases.request_environment_sealed",
        "repositories.credential_sealed",
        "hooks.secret_sealed",
    }


@pytest.mark.parametrize("switched", [False, True])
@pytest_twisted.ensureDeferred
async def test_killed_in_the_middle_it_starts_with_the_key_in_force(data, switched):
    """Before the transaction with the old one, after it with the new; the other is gone."""
    await filled(data)
    new = os.urandom(32)
    write_key(data / "master.key.next", new)
    if switched:
        async with Opened(data) as opened:
            write_key(data / "master.key.next", new)
            box = SecretBox(new, os.urandom)
            await reseal(opened.database, opened.box, box, fingerprint(new))
    async with Opened(data) as opened:
        assert await opened.is_readable()
    assert not (data / "master.key.next").exists()
    kept = base64.urlsafe_b64decode((data / "master.key").read_bytes())
    assert (kept == new) is switched


@pytest_twisted.ensureDeferred
async def test_a_secret_that_does_not_open_leaves_all_as_it_was(data):
    """All or nothing: the transaction is undone."""
    old = await filled(data)
    async with Opened(data) as opened:
        other = SecretBox(os.urandom(32), os.urandom)
        await SqliteHookStore(opened.database, other).save_hook_secret(DEMO.id, "foreign")
    with pytest.raises(StateUnusable):
        await rotate_key(reactor, data)
    assert (data / "master.key").read_bytes() == old
    async with Opened(data) as opened:
        await SqliteHookStore(opened.database, opened.box).save_hook_secret(DEMO.id, "hook")
        assert await opened.is_readable()


@pytest_twisted.ensureDeferred
async def test_a_key_from_the_environment_is_replaced_by_one_from_there(data, monkeypatch):
    """Without one nothing happens; no key is written to the disk."""
    first, second = (base64.urlsafe_b64encode(os.urandom(32)).decode() for _ in range(2))
    monkeypatch.setenv("PLOINKY_MASTER_KEY", first)
    async with Opened(data) as opened:
        await opened.fill()
    with pytest.raises(SettingsInvalid, match="PLOINKY_NEW_MASTER_KEY"):
        await rotate_key(reactor, data)
    monkeypatch.setenv("PLOINKY_NEW_MASTER_KEY", second)
    assert (await rotate_key(reactor, data))["key"] == "variable PLOINKY_MASTER_KEY"
    monkeypatch.setenv("PLOINKY_MASTER_KEY", second)
    async with Opened(data) as opened:
        assert await opened.is_readable()
    assert not list(data.glob("master.key*"))


@pytest_twisted.ensureDeferred
async def test_nothing_is_done_while_a_server_runs(data):
    """Nor where there is no data."""
    with pytest.raises(SettingsInvalid, match="--dir"):
        await rotate_key(reactor, data / "absent")
    await filled(data)
    lock = LeaderLock(str(data / "run" / "leader.lock"))
    lock.take()
    try:
        with pytest.raises(AlreadyRunning):
            await rotate_key(reactor, data)
        with pytest.raises(AlreadyRunning):
            await verify_audit(reactor, data)
    finally:
        lock.release()
    assert (await verify_audit(reactor, data))["intact"]


@pytest_twisted.ensureDeferred
async def test_killed_at_whatever_moment_it_loses_nothing(data):
    """The program itself, by kill -9, earlier and later; and then it is begun anew, and done."""
    await filled(data)
    directory = data.parent / "server"
    directory.mkdir()
    data = data.rename(directory / ".ploinky-cloud")
    program = [sys.executable, "-m", "ploinky.maintenance", "rotate-key", str(directory)]
    began = time.monotonic()
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    whole = time.monotonic() - began
    keys = {(data / "master.key").read_bytes()}
    for part in range(6):
        with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
            # Most of its time it only starts: what it does is at the end.
            with suppress(subprocess.TimeoutExpired):
                process.wait(whole * (0.55 + part * 0.08))
            process.kill()
        async with Opened(data) as opened:
            assert await opened.is_readable()
        assert not (data / "master.key.next").exists()
        keys.add((data / "master.key").read_bytes())
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    async with Opened(data) as opened:
        assert await opened.is_readable()
    assert (data / "master.key").read_bytes() not in keys
