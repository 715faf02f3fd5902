"""Everything that a server is, written into one archive while the server goes on.

Code and volumes come first and the database last: whatever was deployed meanwhile is added until a
copy of the database names nothing that is not in the archive.  What is deleted meanwhile does no
harm: it is in the archive, or the database does not name it any more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attrs import Factory, define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ploinky.backup.archive import PART_BYTES, Writer, part_name
from ploinky.backup.envelope import Seal
from ploinky.deployment.entries import RUNNING
from ploinky.deployment.manifest import Manifest
from ploinky.deployment.spec import Plans, kind_of
from ploinky.errors import Conflict, ManifestInvalid, PloinkyError, StateUnusable
from ploinky.instance_values import Volume
from ploinky.interfaces import IRuntime
from ploinky.leader_interfaces import IRuntimeVolumes, IVolumeCopy
from ploinky.packing import pack
from ploinky.runtime.places import volume_place
from ploinky.settings import config_path
from ploinky.store_interfaces import IDeploymentStore, ISnapshots
from ploinky.threads import Blocking
from ploinky.values import Deployment, Kind, Release, ReleaseState

DATABASE = "database.sqlite"
CONFIGURATION = "config.json"
MASTER_KEY = "master.key"

_SCRATCH = "backup.sqlite"
_ROUNDS = 10
_WHOLE = (ReleaseState.ACTIVE, ReleaseState.RETIRED)

Write = Callable[[bytes], Awaitable[None]]
"""Takes the next bytes; fires when there is room for more."""


@frozen
class Wanted:
    """What a backup is to be like.

    Attributes:
        passphrase: To seal it under; ``""``: whoever has it may read it, and the master key is
            not in it.
        volumes: Whether volumes are wanted.
    """

    passphrase: str = field(default="", repr=False)
    volumes: bool = True


@frozen
class _Packed:
    """A directory's tar, read in threads."""

    blocking: Blocking
    pieces: Iterator[bytes]

    async def read(self) -> bytes:
        try:
            return await self.blocking.run(next, self.pieces, b"")
        except FileNotFoundError:  # deleted before it was begun
            return b""
        except OSError as error:
            raise StateUnusable(f"{error.filename} cannot be read: {error.strerror}") from error
        except RecursionError as error:
            raise StateUnusable("a directory has too many others in one another") from error


@define
class _Archive:
    """One archive that is being written.

    Attributes:
        seen: Trees that were looked for.
        trees: Those that are in it, whole.
        problems: What somebody who restores it should know.
    """

    blocking: Blocking
    writer: Writer
    write: Write
    seen: set[str] = Factory(set)
    trees: list[str] = Factory(list)
    problems: list[str] = Factory(list)

    async def put(self, work: Callable[..., bytes], *args: Any) -> None:
        if data := await self.blocking.run(work, *args):
            await self.write(data)

    async def stream(self, name: str, read: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        """Add what `read` gives until that is nothing."""
        number, waiting, more = 0, bytearray(), True
        while more:
            data = await read()
            more = bool(data)
            waiting += data
            while len(waiting) >= PART_BYTES or (waiting and not more):
                part = bytes(waiting[:PART_BYTES])
                del waiting[:PART_BYTES]
                await self.put(self.writer.add, part_name(name, number), part)
                number += 1


class Backups:
    """Writes backups, one at a time.

    Args:
        clock: Its seconds are Unix time.
        blocking: For all that takes long: a pool of its own.
        key_file: The master key's; None where the key is not on this server's disk.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        blocking: Blocking,
        snapshots: ISnapshots,
        store: IDeploymentStore,
        runtime: IRuntime,
        plans: Plans,
        key_file: Path | None,
    ) -> None:
        self._clock = clock
        self._blocking = blocking
        self._snapshots = snapshots
        self._store = store
        self._runtime = runtime
        self._volumes: IRuntimeVolumes | None = IRuntimeVolumes(runtime, None)
        self._plans = plans
        self._key_file = key_file
        self._layout = plans.layout
        self._scratch = plans.layout.data_directory / "run" / _SCRATCH
        self._busy = False

    def see_free(self) -> None:
        """See that none is being written.

        Raises:
            Conflict: One is.
        """
        if self._busy:
            raise Conflict("another backup is being made; wait until it is done")

    async def write(self, wanted: Wanted, write: Write) -> Sequence[str]:
        """Write a backup.  Cancelling leaves it without an end, which whoever reads it notices.

        Returns:
            What somebody who restores it should know, one line each.

        Raises:
            Conflict: Another is being written.
            PloinkyError: Something cannot be copied; what was written ends with the reason.
        """
        self.see_free()
        self._busy = True
        try:
            seal = None
            if wanted.passphrase:
                seal = await self._blocking.run(Seal, wanted.passphrase, os.urandom)
            archive = _Archive(self._blocking, Writer(seal), write)
            try:
                await self._fill(archive, wanted)
            except PloinkyError as error:
                await archive.put(archive.writer.fail, error.message)
                raise
            return archive.problems
        finally:
            self._busy = False
            self._scratch.unlink(missing_ok=True)

    async def _fill(self, archive: _Archive, wanted: Wanted) -> None:
        await archive.put(archive.writer.begin, await self._head(archive.writer.is_sealed))
        await self._settled(archive, wanted)
        await archive.stream(DATABASE, _Packed(self._blocking, _file(self._scratch)).read)
        await self._small(archive, CONFIGURATION, config_path(self._plans.settings.directory))
        if archive.writer.is_sealed and self._key_file is not None:
            await self._small(archive, MASTER_KEY, self._key_file)
        deployments = [
            {"id": one.id, "domain": one.key.domain, "path": one.key.path}
            for one in await self._store.deployments()
        ]
        manifest = {
            "deployments": deployments,
            "trees": archive.trees,
            "problems": archive.problems,
        }
        await archive.put(archive.writer.end, manifest)
        self._log.info(
            "a backup of {count} deployments was made, {sealed}",
            count=len(deployments),
            sealed="sealed" if archive.writer.is_sealed else "without the master key",
        )

    async def _head(self, is_sealed: bool) -> dict[str, Any]:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock.seconds()))
        fingerprint = await self._snapshots.sealed_with()
        return {
            "version": version("ploinky"),
            "createdAt": now,
            "cluster": self._plans.cluster,
            "owner": [os.getuid(), os.getgid()],
            "masterKey": {
                "fingerprint": fingerprint,
                "included": is_sealed and self._key_file is not None,
            },
        }

    async def _settled(self, archive: _Archive, wanted: Wanted) -> None:
        """Copy trees, and the database, until it names none that was not copied."""
        before = -1
        for _ in range(_ROUNDS):
            for deployment in await self._store.deployments():
                await self._deployment(archive, deployment, wanted)
            if len(archive.seen) == before:
                return
            before = len(archive.seen)
            self._scratch.unlink(missing_ok=True)
            await self._snapshots.snapshot(str(self._scratch))
        raise Conflict("deployments change faster than they can be copied; try again later")

    async def _deployment(self, archive: _Archive, deployment: Deployment, wanted: Wanted) -> None:
        known = await self._store.releases(deployment.id)
        releases = [one for one in known if one.state in _WHOLE]
        for release in releases:
            await self._code(archive, deployment, release)
        if wanted.volumes:
            for release, volume in _volumes(releases):
                await self._volume(archive, deployment, release, volume)

    async def _code(self, archive: _Archive, deployment: Deployment, release: Release) -> None:
        directory = self._layout.code(release.deployment, release.number)
        name = f"releases/{release.deployment}/{release.number}.tar"
        if not release.commit or name in archive.seen:
            return
        archive.seen.add(name)
        found = await self._directory(archive, name, directory)
        if not found and release.number == deployment.active_release:
            archive.problems.append(f"{deployment.key}: its code is not in {directory}")

    async def _volume(
        self, archive: _Archive, deployment: Deployment, release: Release, volume: Volume
    ) -> None:
        place = f"{deployment.id}/{volume.name}.tar"
        if f"volumes/{place}" in archive.seen:
            return
        archive.seen.add(f"volumes/{place}")
        directory = volume_place(self._layout.deployments, deployment.id, volume.name)
        found = await self._directory(archive, f"volumes/{place}", directory)
        if kind_of(release) is not Kind.TASK and self._volumes is not None:
            spec = self._plans.spec(release, deployment.key, instance="")
            copy = await self._volumes.open_volume(spec, volume.name)
            if copy is not None:
                found = True
                await self._engines(archive, f"engine-volumes/{place}", copy)
        if not found and deployment.wanted == RUNNING:
            archive.problems.append(
                f"{deployment.key}: there is no volume {volume.name} on {self._runtime.name}"
            )

    async def _engines(self, archive: _Archive, name: str, copy: IVolumeCopy) -> None:
        """Copy a volume that the engine keeps."""
        try:
            await archive.stream(name, copy.read)
        finally:
            await copy.close()
        archive.trees.append(name)

    async def _directory(self, archive: _Archive, name: str, directory: Path) -> bool:
        """Copy a directory of ours; tell whether it was there from begin to end."""
        if not await self._blocking.run(directory.is_dir):
            return False
        await archive.stream(name, _Packed(self._blocking, pack(directory)).read)
        if not await self._blocking.run(directory.is_dir):
            return False  # it was deleted, and what was copied may be a part
        archive.trees.append(name)
        return True

    async def _small(self, archive: _Archive, name: str, path: Path) -> None:
        try:
            content = await self._blocking.run(path.read_bytes)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateUnusable(f"{path} cannot be read: {error.strerror}") from error
        await archive.put(archive.writer.add, name, content)


def _volumes(releases: Sequence[Release]) -> Iterator[tuple[Release, Volume]]:
    """Give each volume once, with the newest release that has it."""
    seen = set()
    for release in releases:
        try:
            volumes = Manifest.of(release.settings).volumes
        except ManifestInvalid:  # written by another version; it does not run, either
            continue
        for volume in volumes:
            if volume.name not in seen:
                seen.add(volume.name)
                yield release, volume


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PART_BYTES):
            yield piece
