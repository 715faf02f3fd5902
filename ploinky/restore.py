"""A server made of a backup: a data directory that is not there until all of it is.

A composition root beside `ploinky.maintenance`, which runs it.  What was in the directory before
is moved aside, never deleted; whatever fails, nothing has changed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ploinky.backup.archive import Reader, open_archive
from ploinky.backup.making import DATABASE as DATABASE_MEMBER
from ploinky.backup.making import MASTER_KEY
from ploinky.backup.restoring import DataDirectory, Nowhere, read_through
from ploinky.deployment.entries import RUNNING, STOPPED
from ploinky.deployment.spec import Layout
from ploinky.errors import BackupInvalid, Conflict, SettingsInvalid, StateUnusable
from ploinky.processgroup import LeaderLock
from ploinky.rooms import new_id, write
from ploinky.security.secrets import (
    FILE_NAME,
    VARIABLE,
    fingerprint,
    master_keys,
    read_key,
    write_key,
)
from ploinky.state import DATABASE, open_box
from ploinky.store.audit import SqliteAuditTrail
from ploinky.store.database import Database
from ploinky.store.snapshots import check_intact, move_queues, stop_all
from ploinky.threads import Blocking
from ploinky.values import AuditEntry

_SCRATCH = ".restoring-"


@frozen(kw_only=True)
class Options:
    """How to restore.

    Attributes:
        file: The backup.
        key_file: Holds the master key, where the backup does not.
        replace: Whether a server's data that is there is moved aside.
        take_over: Whether the restored server is to know the containers of the server that the
            backup was made of as its own: that one is gone, and this is its machine.
        stopped: Whether the first start is to start no deployment.
    """

    file: str
    passphrase: str = field(default="", repr=False)
    key_file: str = ""
    replace: bool = False
    take_over: bool = False
    stopped: bool = False


def check(file: str, passphrase: str) -> dict[str, Any]:
    """Read a backup to its end, and see that it is whole and could be restored.  Blocks.

    Returns:
        What it says of itself.

    Raises:
        BackupInvalid: It is not.
        StateUnusable: It cannot be read.
    """
    with open_archive(Path(file)) as archive:
        reader = Reader(archive, passphrase)
        read_through(reader, Nowhere())
        return _described(reader)


async def restore(reactor: Any, data: Path, options: Options) -> dict[str, Any]:
    """Make a data directory of a backup.

    Args:
        data: The directory that is to be there afterwards.

    Returns:
        What the backup says of itself, and where things are.

    Raises:
        AlreadyRunning: A server runs there.
        Conflict: There is data, which is not to be replaced.
        BackupInvalid: The backup is not whole.
        SettingsInvalid: The master key is missing, or another one.
        StateUnusable: Something cannot be read or written.
    """
    with _held(data, options.replace) as replaced, open_archive(Path(options.file)) as archive:
        reader = Reader(archive, options.passphrase)
        key = _key(reader.head, options)
        cluster = _cluster(reader.head, data, options, replaced)
        with _scratch(data) as fresh:
            target = DataDirectory(fresh, new_id(), _owner(reader.head))
            read_through(reader, target)
            target.keep_only(list(reader.manifest.get("trees") or ()))
            _settle_key(target, key)
            target.path(DATABASE_MEMBER).rename(fresh / DATABASE)
            write(fresh / "cluster-id", f"{cluster}\n")
            await _settle_database(reactor, fresh, data, reader, options.stopped)
            os.sync()
            aside = _put_in_place(fresh, data, replaced)
        found = _described(reader)
        return {**found, "directory": str(data), "movedTo": aside, "serverId": cluster}


@contextmanager
def _held(data: Path, replace: bool) -> Iterator[bool]:
    """See that we may write there, and that no server starts there meanwhile.

    Gives whether there is anything to be replaced.
    """
    if not _has_content(data):
        yield False
        return
    if not replace:
        raise Conflict(
            f"{data} holds a server's data: restore into another directory with --dir, or in place"
            " of it with --replace (it is moved aside, not deleted)"
        )
    (data / "run").mkdir(mode=0o700, exist_ok=True)
    lock = LeaderLock(str(data / "run" / "leader.lock"))
    lock.take()
    try:
        yield True
    finally:
        lock.release()


def _has_content(data: Path) -> bool:
    try:
        return any(data.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StateUnusable(f"{data} cannot be used: {error.strerror}") from error


@contextmanager
def _scratch(data: Path) -> Iterator[Path]:
    """Make a directory beside the one that is wanted; what a killed restore left there goes."""
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        for left in data.parent.glob(f"{data.name}{_SCRATCH}*"):
            _remove_unless_held(left)
        fresh = Path(tempfile.mkdtemp(prefix=f"{data.name}{_SCRATCH}", dir=data.parent))
    except OSError as error:
        raise StateUnusable(f"{data.parent} cannot be written to: {error.strerror}") from error
    held = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield fresh
    finally:
        os.close(held)
        shutil.rmtree(fresh, ignore_errors=True)


def _remove_unless_held(left: Path) -> None:
    held = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(left, ignore_errors=True)
    except BlockingIOError:
        pass  # another restore is at it
    finally:
        os.close(held)


def _key(head: Mapping[str, Any], options: Options) -> bytes | None:
    """Find the master key; None: it will come out of the backup.

    Raises:
        SettingsInvalid: There is none, or it is another.
    """
    noted = _noted_key(head)
    if options.key_file:
        source, key = options.key_file, read_key(Path(options.key_file))
    elif os.environ.get(VARIABLE):
        source, key = (
            f"variable {VARIABLE}",
            master_keys(Path(), os.environ, secrets.token_bytes)[0],
        )
    elif noted.get("included"):
        return None
    else:
        raise SettingsInvalid(
            [
                "the backup does not hold the master key, without which its secrets stay sealed:"
                f" name the file with --key-file (it was {FILE_NAME} in the server's data"
                f" directory), or set {VARIABLE}"
            ]
        )
    if noted.get("fingerprint") and fingerprint(key) != noted["fingerprint"]:
        raise SettingsInvalid(
            [f"{source} holds another master key than the backup's secrets were sealed with"]
        )
    return key


def _settle_key(target: DataDirectory, key: bytes | None) -> None:
    """Leave the key where the next start looks for it: in a file, or in the variable alone."""
    path = target.path(MASTER_KEY)
    if key is None and not path.exists():
        raise BackupInvalid("the backup says that it holds the master key, and does not")
    if os.environ.get(VARIABLE):
        path.unlink(missing_ok=True)
    elif key is not None:
        path.unlink(missing_ok=True)
        write_key(path, key)


def _cluster(head: Mapping[str, Any], data: Path, options: Options, replaced: bool) -> str:
    """Choose by which id the restored server knows containers as its own."""
    if options.take_over:
        found = str(head.get("cluster"))
        if not re.fullmatch(r"[a-z0-9]{12}", found):
            raise BackupInvalid("the backup does not say which server it was made of")
        return found
    if replaced:
        with suppress(OSError):
            if kept := (data / "cluster-id").read_text(encoding="ascii").strip():
                return kept
    return new_id()


def _noted_key(head: Mapping[str, Any]) -> Mapping[str, Any]:
    noted = head.get("masterKey")
    return noted if isinstance(noted, dict) else {}


def _owner(head: Mapping[str, Any]) -> tuple[int, int]:
    owner = head.get("owner")
    if not (isinstance(owner, list) and [type(part) for part in owner] == [int, int]):
        raise BackupInvalid("the backup does not say whose files it holds")
    return (owner[0], owner[1])


async def _settle_database(
    reactor: Any, fresh: Path, data: Path, reader: Reader, stopped: bool
) -> None:
    """See that the database can be used here, fit it to its place, and put on record what was done."""
    check_intact(fresh / DATABASE)
    blocking = Blocking(reactor, 1, "database")
    blocking.start()
    database = Database(fresh / DATABASE, blocking)
    try:
        await database.open()
        await open_box(fresh, database)
        await move_queues(database, Layout(data).queues)
        if stopped:
            await stop_all(database, RUNNING, STOPPED)
        entry = AuditEntry(
            at=time.time(),
            user=f"uid {os.getuid()}",
            role="",
            address="",
            action="restore",
            subject=f"backup of {reader.head.get('createdAt')}"[:300],
            status=200,
        )
        await SqliteAuditTrail(database).append(entry)
    finally:
        await database.close()
        blocking.stop()


def _put_in_place(fresh: Path, data: Path, replaced: bool) -> str:
    """Rename; gives where what was there before is now, or ``""``."""
    aside = Path()
    try:
        if replaced:
            now = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            aside = data.with_name(f"{data.name}.before-{now}")
            data.rename(aside)
        fresh.rename(data)
    except OSError as error:
        if replaced and aside.exists() and not data.exists():
            aside.rename(data)
        raise StateUnusable(f"{data} cannot be put in place: {error.strerror}") from error
    return str(aside) if replaced else ""


def _described(reader: Reader) -> dict[str, Any]:
    head, manifest = reader.head, reader.manifest
    deployments = [one for one in manifest.get("deployments") or () if isinstance(one, dict)]
    return {
        "createdAt": head.get("createdAt"),
        "version": head.get("version"),
        "sealed": reader.is_sealed,
        "masterKey": bool(_noted_key(head).get("included")),
        "deployments": [
            {name: str(one.get(name, "")) for name in ("id", "domain", "path")}
            for one in deployments
        ],
        "problems": manifest.get("problems") or [],
    }
