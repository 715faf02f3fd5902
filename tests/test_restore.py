"""A data directory out of a backup: all of it, or nothing has changed."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.backup.archive import Writer, part_name
from ploinky.errors import (
    AlreadyRunning,
    BackupInvalid,
    Conflict,
    PloinkyError,
    SettingsInvalid,
    StateUnusable,
)
from ploinky.maintenance import backup
from ploinky.packing import pack
from ploinky.processgroup import LeaderLock
from ploinky.restore import Options, check, restore
from ploinky.store.audit import SqliteAuditTrail
from ploinky.store.deployments import SqliteDeploymentStore
from ploinky.store.tasks import SqliteTaskStore
from ploinky.task_values import TaskState
from ploinky.testing.contracts.call_store import a_task
from ploinky.testing.contracts.store import DEMO, release
from ploinky.values import ReleaseState
from tests.test_maintenance import Opened

PASSPHRASE = "correct horse battery staple"
CODE = Path("deployments") / DEMO.id / "releases" / "1"
VOLUME = Path("deployments") / DEMO.id / "volumes" / "notes"


@pytest.fixture(autouse=True)
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is asked; no key comes from outside."""
    monkeypatch.setenv("PLOINKY_RUNTIME", "process")
    monkeypatch.delenv("PLOINKY_MASTER_KEY", raising=False)


@pytest_twisted.async_yield_fixture
async def data(tmp_path: Path) -> AsyncIterator[Path]:
    """A server's data: secrets of each kind, code, a volume, a task in hand, settings."""
    place = tmp_path / "old" / ".ploinky-cloud"
    (place / "run").mkdir(parents=True)
    (place / "cluster-id").write_text("oldoldoldold\n")
    (place / "config.json").write_text('{"taskTimeout": 1234}')
    (place / CODE).mkdir(parents=True)
    (place / CODE / "agent.py").write_text("# code\n")
    (place / VOLUME).mkdir(parents=True)
    (place / VOLUME / "note").write_text("kept")
    async with Opened(place) as opened:
        await opened.fill()
        settings = {"kind": "task", "volumes": [{"name": "notes", "path": "/notes"}]}
        store = SqliteDeploymentStore(opened.database, opened.box)
        await store.save_release(attrs.evolve(release(1), settings=settings))
        await store.activate(DEMO, 1)
        task = a_task(
            "t-1",
            state=TaskState.RUNNING,
            instance="i1",
            queue_directory=str(place / "run/i/i1"),
        )
        await SqliteTaskStore(reactor, opened.database).add(task)
    yield place


async def backed_up(data: Path, passphrase: str = PASSPHRASE) -> str:
    """Make a backup without a server; gives its file."""
    file = data.parent.parent / "server.backup"
    how = {"file": str(file), "passphrase": passphrase, "volumes": True}
    await backup(reactor, data, json.dumps(how))
    return str(file)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Where nothing is yet."""
    return tmp_path / "new" / ".ploinky-cloud"


async def restored(file: str, place: Path, **how: Any) -> dict[str, Any]:
    """Restore a sealed backup."""
    return await restore(reactor, place, Options(file=file, passphrase=PASSPHRASE, **how))


def files(place: Path) -> dict[str, bytes]:
    """All that is in a directory."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


@pytest_twisted.ensureDeferred
async def test_what_was_kept_is_there_again(data, fresh):
    """With its passphrase alone; and what came of it is on record, in a chain that holds."""
    file = await backed_up(data)
    told = check(file, PASSPHRASE)
    assert [one["path"] for one in told["deployments"]] == [DEMO.key.path]
    shutil.rmtree(data)
    found = await restored(file, fresh)
    assert (found["deployments"], found["problems"]) == (told["deployments"], [])
    assert (fresh / CODE / "agent.py").read_text() == "# code\n"
    assert (fresh / VOLUME / "note").read_text() == "kept"
    assert (fresh / "config.json").read_text() == '{"taskTimeout": 1234}'
    assert {stat.S_IMODE((fresh / n).stat().st_mode) for n in ("master.key", "ploinky.sqlite")} == {0o600}  # fmt: skip
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    assert [each.name for each in fresh.parent.iterdir()] == [fresh.name]
    async with Opened(fresh) as opened:
        releases = await SqliteDeploymentStore(opened.database, opened.box).releases(DEMO.id)
        assert releases[0].environment == release(1).environment
        assert releases[0].state is ReleaseState.ACTIVE
        trail = SqliteAuditTrail(opened.database)
        assert [e.action for e in (await trail.entries(0, 1))[1]] == ["restore"]
        assert not (await trail.verify("")).problem


@pytest_twisted.ensureDeferred
async def test_no_task_leads_to_the_old_servers_queues(data, fresh):
    """That one may be alive, and run what is in them."""
    await restored(await backed_up(data), fresh)
    async with Opened(fresh) as opened:
        task = await SqliteTaskStore(reactor, opened.database).task("t-1")
    assert task.queue_directory == str(fresh / "run/i/i1")


@pytest_twisted.ensureDeferred
async def test_a_restored_server_has_an_id_of_its_own_unless_it_is_to_take_over(data, fresh):
    """Else it would end the containers of the one that it was copied from."""
    file = await backed_up(data)
    found = await restored(file, fresh)
    assert found["serverId"] != "oldoldoldold"
    assert (fresh / "cluster-id").read_text().strip() == found["serverId"]
    other = fresh.parent.parent / "other" / ".ploinky-cloud"
    assert (await restored(file, other, take_over=True))["serverId"] == "oldoldoldold"
    assert (await restored(file, data, replace=True))["serverId"] == "oldoldoldold"


@pytest_twisted.ensureDeferred
async def test_a_drill_may_start_nothing(data, fresh):
    """Tasks and schedules of a server that is alive would run a second time."""
    await restored(await backed_up(data), fresh, stopped=True)
    async with Opened(fresh) as opened:
        (found,) = await SqliteDeploymentStore(opened.database, opened.box).deployments()
    assert found.wanted == "stopped"


@pytest_twisted.ensureDeferred
async def test_what_is_there_is_moved_aside_and_only_if_that_is_asked_for(data):
    """Nothing of it is lost."""
    file = await backed_up(data)
    (data / VOLUME / "note").write_text("newer")
    with pytest.raises(Conflict, match="--replace"):
        await restored(file, data)
    found = await restored(file, data, replace=True)
    assert (data / VOLUME / "note").read_text() == "kept"
    assert (Path(found["movedTo"]) / VOLUME / "note").read_text() == "newer"


@pytest_twisted.ensureDeferred
async def test_nothing_is_restored_under_a_server_that_runs(data):
    """Not even with `--replace`."""
    file = await backed_up(data)
    lock = LeaderLock(str(data / "run" / "leader.lock"))
    lock.take()
    try:
        with pytest.raises(AlreadyRunning):
            await restored(file, data, replace=True)
    finally:
        lock.release()


@pytest_twisted.ensureDeferred
async def test_a_plain_backup_takes_the_key_that_it_lacks(data, fresh, monkeypatch, tmp_path):
    """From a file, or from the variable, which then is needed at every start; no other will do."""
    file = await backed_up(data, passphrase="")
    key = (data / "master.key").read_bytes()
    assert key.strip() not in Path(file).read_bytes()
    with pytest.raises(SettingsInvalid, match="--key-file"):
        await restored(file, fresh)
    wrong = tmp_path / "wrong.key"
    wrong.write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
    wrong.chmod(0o600)
    with pytest.raises(SettingsInvalid, match="another master key"):
        await restored(file, fresh, key_file=str(wrong))
    assert not fresh.exists()
    await restored(file, fresh, key_file=str(data / "master.key"))
    assert (fresh / "master.key").read_bytes() == key
    monkeypatch.setenv("PLOINKY_MASTER_KEY", key.decode().strip())
    other = tmp_path / "other" / ".ploinky-cloud"
    await restored(file, other)
    assert not (other / "master.key").exists()


@pytest_twisted.ensureDeferred
async def test_a_key_that_is_kept_off_the_disk_stays_out_of_backups(data, fresh, monkeypatch):
    """Sealed or not: whoever keeps them apart does so by intention."""
    key = (data / "master.key").read_text().strip()
    monkeypatch.setenv("PLOINKY_MASTER_KEY", key)
    (data / "master.key").unlink()
    file = await backed_up(data)
    monkeypatch.delenv("PLOINKY_MASTER_KEY")
    assert not check(file, PASSPHRASE)["masterKey"]
    with pytest.raises(SettingsInvalid, match="PLOINKY_MASTER_KEY"):
        await restored(file, fresh)


@pytest.mark.parametrize("kept", [0.001, 0.5, 0.999])
@pytest_twisted.ensureDeferred
async def test_a_file_that_is_cut_off_changes_nothing(data, kept):
    """What is there stays, and nothing is left beside it."""
    file = await backed_up(data)
    whole = Path(file).read_bytes()
    Path(file).write_bytes(whole[: int(len(whole) * kept)])
    before = files(data)
    with pytest.raises(BackupInvalid):
        await restored(file, data, replace=True)
    assert files(data) == before | {"run/leader.lock": files(data)["run/leader.lock"]}
    assert [each.name for each in data.parent.iterdir()] == [data.name]


def made_of(*members: tuple[str, bytes], trees: tuple[str, ...] = (), owner: Any = (0, 0)) -> bytes:
    """An archive with these members, whole by all that it says."""
    writer = Writer(None)
    fingerprint = {"fingerprint": "", "included": False}
    pieces = [writer.begin({"cluster": "c", "owner": owner, "masterKey": fingerprint})]
    pieces += [writer.add(name, content) for name, content in members]
    return b"".join([*pieces, writer.end({"trees": list(trees)})])


def hostile_tree() -> bytes:
    """A tar that leads out."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        top, link = tarfile.TarInfo("tree"), tarfile.TarInfo("tree/../../escaped")
        top.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc"
        tar.addfile(top)
        tar.addfile(link)
    return out.getvalue()


DATABASE = ("database.sqlite/000000", b"")
HOSTILE = {
    "a name that leads up": made_of(("../escaped", b"x")),
    "an absolute name": made_of(("/etc/cron.d/x", b"x")),
    "a file that is not one of ours": made_of(("run/leader.json", b"x")),
    "a deployment with a path for its id": made_of(("releases/../../../escaped/1.tar/000000", b"")),
    "a volume called ..": made_of((f"volumes/{DEMO.id}/...tar/000000", b"")),
    "a tree that leads out": made_of((f"releases/{DEMO.id}/1.tar/000000", hostile_tree())),
    "a volume that leads out": made_of((f"engine-volumes/{DEMO.id}/v.tar/000000", hostile_tree())),
    "a part out of order": made_of((f"releases/{DEMO.id}/1.tar/000001", b"")),
    "no database": made_of(("config.json", b"{}")),
    "a damaged database": made_of(("database.sqlite/000000", b"SQLite format 3\0" + bytes(5000))),
    "somebody's files": made_of(DATABASE, owner="root"),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest_twisted.ensureDeferred
async def test_a_hostile_archive_changes_nothing(what, fresh, tmp_path, monkeypatch):
    """It is refused, with nothing left of it anywhere."""
    monkeypatch.setenv("PLOINKY_MASTER_KEY", base64.urlsafe_b64encode(bytes(32)).decode())
    file = tmp_path / "hostile.tar.gz"
    file.write_bytes(HOSTILE[what])
    with pytest.raises(PloinkyError) as caught:
        await restored(str(file), fresh)
    assert isinstance(caught.value, (BackupInvalid, StateUnusable))
    assert not fresh.exists()
    assert {path.name for path in tmp_path.rglob("*")} <= {"hostile.tar.gz", "new"}


@pytest_twisted.ensureDeferred
async def test_a_volume_of_the_engines_waits_under_a_name_of_its_own(data, fresh):
    """Whatever bears its usual name may belong to the server that was copied."""
    file = await backed_up(data, passphrase="")
    volume = b"".join(pack(data / VOLUME))
    name = f"engine-volumes/{DEMO.id}/db.tar"
    extra = made_with(file, (part_name(name, 0), volume), trees=(name,))
    Path(file).write_bytes(extra)
    await restored(file, fresh, key_file=str(data / "master.key"))
    pending = fresh / "deployments" / DEMO.id / "engine" / "db"
    assert (pending / "restore.tar").read_bytes() == volume
    first = (pending / "name").read_text()
    assert first.startswith(f"ploinky-{DEMO.id}-db-")
    await restored(file, fresh, replace=True, key_file=str(data / "master.key"))
    assert (pending / "name").read_text() != first


def made_with(file: str, *members: tuple[str, bytes], trees: tuple[str, ...]) -> bytes:
    """The archive in a file, with more members."""
    with tarfile.open(file) as tar:
        said = {info.name: tar.extractfile(info).read() for info in tar}
    writer = Writer(None)
    manifest, head = json.loads(said.pop("manifest.json")), json.loads(said.pop("backup.json"))
    pieces = [writer.begin(head)]
    pieces += [writer.add(name, content) for name, content in (*said.items(), *members)]
    return b"".join([*pieces, writer.end({**manifest, "trees": [*manifest["trees"], *trees]})])


@pytest_twisted.ensureDeferred
async def test_a_tree_that_the_manifest_does_not_name_is_left_out(data, fresh):
    """It was deleted while it was copied."""
    file = await backed_up(data, passphrase="")
    half = b"".join(pack(data / CODE))
    more = (part_name(f"releases/{DEMO.id}/2.tar", 0), half)
    Path(file).write_bytes(made_with(file, more, trees=()))
    await restored(file, fresh, key_file=str(data / "master.key"))
    assert [each.name for each in (fresh / CODE).parent.iterdir()] == ["1"]


@pytest_twisted.ensureDeferred
async def test_what_a_killed_restore_left_goes_with_the_next_one(data, fresh):
    """What another one is at stays."""
    file = await backed_up(data)
    fresh.parent.mkdir()
    killed, at_work = (fresh.with_name(f"{fresh.name}.restoring-{n}") for n in ("one", "two"))
    (killed / "deployments").mkdir(parents=True)
    at_work.mkdir()
    held = os.open(at_work, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        await restored(file, fresh)
    finally:
        os.close(held)
    assert {each.name for each in fresh.parent.iterdir()} == {fresh.name, at_work.name}
