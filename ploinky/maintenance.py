"""What is done to a data directory while no server runs on it: ``p-cli`` runs this as a program.

    python -m ploinky.maintenance rotate-key DIRECTORY
    python -m ploinky.maintenance verify-audit DIRECTORY [HASH]
    python -m ploinky.maintenance backup|check-backup|restore DIRECTORY -

The last three read how, passphrase and all, as one JSON object from standard input, where no other
user of this machine can see it.  One JSON document leaves on standard output, or one line of what is wrong on standard error.  A
composition root of its own, for it names the store.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from ploinky.backup.making import Backups, Wanted
from ploinky.deployment.spec import Layout, Plans
from ploinky.engines import start_runtime
from ploinky.errors import PloinkyError, SettingsInvalid
from ploinky.processgroup import LeaderLock
from ploinky.restore import Options, check, restore
from ploinky.rooms import pool
from ploinky.security.secrets import (
    KEY_BYTES,
    NEXT_NAME,
    VARIABLE,
    SecretBox,
    fingerprint,
    new_key,
    settle_key,
    write_key,
)
from ploinky.settings import DATA_DIRECTORY, read_settings
from ploinky.state import DATABASE, master_key_file, open_box, stores_of
from ploinky.store.audit import SqliteAuditTrail
from ploinky.store.database import Database
from ploinky.store.resealing import reseal
from ploinky.threads import Blocking

STANDARD_INPUT = "-"
"""The argument that is read from there."""
MISCONFIGURED = 5
BROKEN = 1
"""Exit statuses; the second also where the audit trail is not intact."""


async def rotate_key(reactor: Any, data: Path) -> dict[str, Any]:
    """Seal every secret anew with another master key.

    Killed at any moment, it leaves a server that starts: the new key lies beside the old one
    until the database, in one transaction, is sealed with it; the next start finds out which of
    the two is in force (`ploinky.state.open_box`).

    Returns:
        How many secrets there were, and where the new key is.

    Raises:
        AlreadyRunning: A server runs.
        SettingsInvalid, StateUnusable: Nothing has changed.
    """
    async with _opened(reactor, data) as database:
        old = await open_box(data, database)
        key = new_key(os.environ) if os.environ.get(VARIABLE) else secrets.token_bytes(KEY_BYTES)
        if not os.environ.get(VARIABLE):
            write_key(data / NEXT_NAME, key)
        count = await reseal(database, old, SecretBox(key, secrets.token_bytes), fingerprint(key))
        settle_key(data, key)
        kept = f"variable {VARIABLE}" if os.environ.get(VARIABLE) else "master.key"
        return {"secrets": count, "key": kept}


async def verify_audit(reactor: Any, data: Path, expected: str = "") -> dict[str, Any]:
    """Check the chain of the audit trail.

    Args:
        expected: A hash that was kept from an earlier check; ``""`` for none.
    """
    async with _opened(reactor, data) as database:
        found = await SqliteAuditTrail(database).verify(expected)
        return {
            "intact": not found.problem,
            "entries": found.entries,
            "head": found.head,
            "problem": found.problem,
        }


async def backup(reactor: Any, data: Path, raw_options: str) -> dict[str, Any]:
    """Write a backup of a server that does not run.

    Raises:
        AlreadyRunning: It does.
        PloinkyError: Something cannot be read, or ``file`` not be written.
    """
    options = json.loads(raw_options)
    settings = read_settings(data.parent, os.environ, {})
    async with _opened(reactor, data) as database, AsyncExitStack() as rooms:
        box = await open_box(data, database)
        copying = pool(reactor, 2, "copying", rooms)
        stores = stores_of(reactor, database, box, copying)
        is_used = bool(await stores.deployments.deployments())
        runtime = await start_runtime(reactor, settings, rooms, is_used=is_used)
        cluster = (data / "cluster-id").read_text(encoding="ascii").strip()
        backups = Backups(
            reactor,
            copying,
            stores.snapshots,
            stores.deployments,
            runtime,
            Plans(cluster, Layout(data), settings),
            master_key_file(data),
        )
        with Path(options["file"]).open("wb") as file:

            async def write(piece: bytes) -> None:
                file.write(piece)

            await backups.write(Wanted(options["passphrase"], options["volumes"]), write)
        return {}


async def check_backup(reactor: Any, data: Path, raw_options: str) -> dict[str, Any]:
    """See that a backup is whole and could be restored; see `ploinky.restore.check`."""
    return check(**json.loads(raw_options))


async def restore_backup(reactor: Any, data: Path, raw_options: str) -> dict[str, Any]:
    """Make a data directory of a backup; see `ploinky.restore.restore`."""
    return await restore(reactor, data, Options(**json.loads(raw_options)))


@asynccontextmanager
async def _opened(reactor: Any, data: Path) -> AsyncIterator[Database]:
    if not (data / DATABASE).exists():
        raise SettingsInvalid([f"{data} holds no server's data; name its directory with --dir"])
    lock = LeaderLock(str(data / "run" / "leader.lock"))
    lock.take()
    blocking = Blocking(reactor, 1, "database")
    blocking.start()
    database = Database(data / DATABASE, blocking)
    try:
        await database.open()
        yield database
    finally:
        await database.close()
        blocking.stop()
        lock.release()


WORKS: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "rotate-key": rotate_key,
    "verify-audit": verify_audit,
    "backup": backup,
    "check-backup": check_backup,
    "restore": restore_backup,
}


async def _run(reactor: Any, work: str, directory: str, *more: str) -> None:
    more = tuple(sys.stdin.read() if each == STANDARD_INPUT else each for each in more)
    try:
        found = await WORKS[work](reactor, Path(os.path.abspath(directory)) / DATA_DIRECTORY, *more)
    except PloinkyError as error:
        print(error.message, file=sys.stderr)
        raise SystemExit(MISCONFIGURED if isinstance(error, SettingsInvalid) else BROKEN) from None
    print(json.dumps(found))
    if not found.get("intact", True):
        raise SystemExit(BROKEN)


if __name__ == "__main__":
    react(lambda reactor, *argv: Deferred.fromCoroutine(_run(reactor, *argv)), sys.argv[1:])
