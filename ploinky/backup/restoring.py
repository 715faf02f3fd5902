"""From an archive to a data directory, or to the knowledge that it would become one.

An archive may come from anywhere: of each member the name decides where it goes, and only names
of the forms below are known.  What lies in trees is `ploinky.packing`'s to refuse.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ploinky.backup.archive import Parts, Reader
from ploinky.backup.making import CONFIGURATION, DATABASE, MASTER_KEY
from ploinky.deployment.spec import Layout
from ploinky.errors import BackupInvalid, StateUnusable
from ploinky.packing import PIECE_BYTES, Read, check, unpack
from ploinky.runtime.places import RestoredVolume, volume_place

CODE, VOLUME, ENGINE_VOLUME = "releases", "volumes", "engine-volumes"

_TREE = re.compile(
    rf"(?:({CODE})/([a-z0-9]{{12}})/([1-9][0-9]{{0,8}})"
    rf"|({VOLUME}|{ENGINE_VOLUME})/([a-z0-9]{{12}})/([A-Za-z0-9][A-Za-z0-9_.-]{{0,63}}))"
    r"\.tar/000000\Z"
)
_FILES = {f"{DATABASE}/000000": DATABASE, CONFIGURATION: CONFIGURATION, MASTER_KEY: MASTER_KEY}
_LEFT_FREE_BYTES = 64 * 1024 * 1024


class Target(Protocol):
    """Where an archive goes."""

    def file(self, name: str, read: Read) -> None:
        """Take a file of ours."""

    def tree(self, kind: str, deployment: str, name: str, read: Read) -> None:
        """Take a tree: of this kind and deployment, under this name."""


def read_through(reader: Reader, target: Target) -> None:
    """Hand all of an archive on.  Blocks.

    Only when this returns is it known that the archive is whole.

    Raises:
        BackupInvalid: It is not; or it holds what does not belong there.
        StateUnusable: It cannot be read, or what it holds cannot be written.
    """
    names = set()
    while (member := reader.member(peek=True)) is not None:
        if name := _FILES.get(member.name):
            if name == DATABASE:
                target.file(name, Parts(reader, name).read)
            else:
                reader.member()
                target.file(name, _Once(member.content).read)
            names.add(name)
        elif found := _TREE.match(member.name):
            kind, deployment, name = (part for part in found.groups() if part is not None)
            whole = member.name.rpartition("/")[0]
            target.tree(kind, deployment, name, Parts(reader, whole).read)
        else:
            raise BackupInvalid(f"the backup holds {member.name!r}, which does not belong there")
    if DATABASE not in names:
        raise BackupInvalid("the backup holds no database")


class Nowhere:
    """A `Target` that only looks."""

    def file(self, name: str, read: Read) -> None:
        """See `Target`."""
        while read(PIECE_BYTES):
            pass

    def tree(self, kind: str, deployment: str, name: str, read: Read) -> None:
        """See `Target`."""
        check(read)


class DataDirectory:
    """A `Target` that becomes a server's data directory.

    Args:
        directory: Empty, and nobody else's; half of it is there where anything fails.
        restore: A name of this restore's own, for what must not meet what is there.
        owner: Whose files in the archive become ours.
    """

    def __init__(self, directory: Path, restore: str, owner: tuple[int, int]) -> None:
        self._layout = Layout(directory)
        self._restore = restore
        self._owner = owner
        self._places: dict[str, Path] = {}
        self._unwatched_bytes = 0

    def path(self, name: str) -> Path:
        """Say where a file of the archive lies now."""
        return self._layout.data_directory / name

    def file(self, name: str, read: Read) -> None:
        """See `Target`."""
        self._copied(read, self.path(name))

    def tree(self, kind: str, deployment: str, name: str, read: Read) -> None:
        """See `Target`."""
        if kind == CODE:
            place = self._layout.code(deployment, int(name))
        elif kind == VOLUME:
            place = volume_place(self._layout.deployments, deployment, name)
        else:
            place = self._pending_volume(deployment, name).directory
        if place in self._places.values():
            raise BackupInvalid(f"the backup holds {kind}/{deployment}/{name} twice")
        self._places[f"{kind}/{deployment}/{name}.tar"] = place
        try:
            place.mkdir(parents=True)
            if kind == ENGINE_VOLUME:
                self._pending(deployment, name, read)
            else:
                unpack(self._watched(read), place, self._owner)
        except OSError as error:
            raise _unwritable(error) from error

    def _pending_volume(self, deployment: str, name: str) -> RestoredVolume:
        return RestoredVolume.of(self._layout.deployments, deployment, name)

    def _pending(self, deployment: str, name: str, read: Read) -> None:
        """Lay a volume ready for the engine; its new one has a name that no other ever had."""
        pending = self._pending_volume(deployment, name)
        pending.name_file.write_text(f"ploinky-{deployment}-{name}-{self._restore}\n")
        watched = self._watched(read)
        with open(os.open(pending.tar, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:

            def copied(size: int) -> bytes:
                data = watched(size)
                file.write(data)
                return data

            check(copied)

    def keep_only(self, trees: list[str]) -> None:
        """Delete trees that are not whole: those that the manifest does not name."""
        for name, place in self._places.items():
            if name not in trees:
                shutil.rmtree(place)

    def _copied(self, read: Read, path: Path) -> None:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with open(os.open(path, flags, 0o600), "wb") as file:
                watched = self._watched(read)
                while data := watched(PIECE_BYTES):
                    file.write(data)
        except OSError as error:
            raise _unwritable(error) from error

    def _watched(self, read: Read) -> Callable[[int], bytes]:
        """Stop before the disk is full: an archive of kilobytes may hold terabytes."""

        def watched(size: int) -> bytes:
            data = read(size)
            self._unwatched_bytes += len(data)
            if self._unwatched_bytes >= _LEFT_FREE_BYTES // 4:
                self._unwatched_bytes = 0
                disk = os.statvfs(self._layout.data_directory)
                if disk.f_bavail * disk.f_frsize < _LEFT_FREE_BYTES:
                    raise StateUnusable(
                        "there is no room for what the backup holds on the disk of"
                        f" {self._layout.data_directory.parent}"
                    )
            return data

        return watched


def _unwritable(error: OSError) -> StateUnusable:
    return StateUnusable(f"{error.filename or 'a file'} cannot be written: {error.strerror}")


class _Once:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int) -> bytes:
        data, self._content = self._content[:size], self._content[size:]
        return data
