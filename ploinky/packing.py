"""A directory as one tar, and back: bounded memory, and nothing outside of it is read or written.

Who writes in the directory may be hostile and at it right now, and so may who made the tar.  All
members lie below one name, `TOP`; the first is the directory itself, with its owner and mode.

    python -m ploinky.packing pack DIRECTORY > TAR
    python -m ploinky.packing unpack DIRECTORY < TAR

does the same as a program, for where that takes another user namespace than ours.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ploinky.errors import BackupInvalid

TOP = "tree"
PIECE_BYTES = 1024 * 1024

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_LONGEST_READ = 2 * 1024 * 1024
_SPOILT = (tarfile.TarError, EOFError, OverflowError, ValueError)
_NO_FOLLOWING = os.O_NOFOLLOW | os.O_CLOEXEC

Read = Callable[[int], bytes]
"""Gives at most so many bytes; fewer only at the end."""


# --- from a directory -------------------------------------------------------


def pack(directory: Path) -> Iterator[bytes]:
    """Give a directory as a tar, in pieces of about `PIECE_BYTES`.  Blocks.

    Files, directories and symbolic links, with owner (by number), mode and time; sockets, pipes
    and devices are left out, and so is what vanishes meanwhile.  A file that changes while it is
    read is as it was when each part of it was.

    Raises:
        OSError: Something cannot be read.
    """
    piece = bytearray()
    for part in _parts(directory):
        piece += part
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece) + _END


def _parts(directory: Path) -> Iterator[bytes]:
    linked: dict[tuple[int, int], str] = {}
    walk = os.fwalk(directory, onerror=_unless_gone, follow_symlinks=False)
    for place, directories, files, descriptor in walk:
        directories.sort()
        relative = os.path.relpath(place, directory)
        name = TOP if relative == os.curdir else f"{TOP}/{relative}"
        yield _head(name, os.fstat(descriptor))
        for each in sorted((*directories, *files)):
            try:
                yield from _entry(f"{name}/{each}", each, descriptor, linked)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise OSError(error.errno, error.strerror, f"{place}/{each}") from error


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _entry(
    name: str, each: str, parent: int, linked: dict[tuple[int, int], str]
) -> Iterator[bytes]:
    """Give what is no directory; those have their own turn."""
    found = os.stat(each, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        yield _head(name, found, tarfile.SYMTYPE, os.readlink(each, dir_fd=parent))
    elif stat.S_ISREG(found.st_mode):
        flags = os.O_RDONLY | os.O_NONBLOCK | _NO_FOLLOWING
        with open(os.open(each, flags, dir_fd=parent), "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return  # replaced since we looked
            if found.st_nlink > 1:
                first = linked.setdefault((found.st_dev, found.st_ino), name)
                if first != name:
                    yield _head(name, found, tarfile.LNKTYPE, first)
                    return
            yield _head(name, found, tarfile.REGTYPE)
            yield from _content(file, found.st_size)


def _content(file: Any, size: int) -> Iterator[bytes]:
    """Give exactly as many bytes as the head has promised, whatever became of the file."""
    left = size
    while left:
        data = file.read(min(left, PIECE_BYTES)) or bytes(min(left, PIECE_BYTES))
        left -= len(data)
        yield data
    yield bytes(-size % _BLOCK)


def _head(name: str, found: os.stat_result, kind: bytes = tarfile.DIRTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = stat.S_IMODE(found.st_mode)
    info.uid, info.gid = found.st_uid, found.st_gid
    info.mtime = int(found.st_mtime)
    info.size = found.st_size if kind == tarfile.REGTYPE else 0
    info.linkname = link
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


# --- to a directory ---------------------------------------------------------


def check(read: Read) -> None:
    """Read a tar to its end, and see that it could be unpacked.  Blocks.

    Raises:
        BackupInvalid: It could not.
    """
    for _ in _members(read):
        pass


def unpack(read: Read, directory: Path, ours: tuple[int, int] | None = None) -> None:
    """Write what `pack` gave into an empty directory.  Blocks.

    Nothing is written through a link or over what is there; files lose their set-user-id bits.
    Owners are restored where we may (as root).

    Args:
        ours: The owner that stands for whoever unpacks: files of theirs become ours.

    Raises:
        BackupInvalid: It is no such tar, or one that would write elsewhere.
        OSError: It cannot be written.
    """
    directories = []
    try:
        for info, file, names in _members(read):
            place = directory.joinpath(*names)
            if info.isdir():
                directories.append((place, info))
                if names:
                    place.mkdir(mode=0o700)
            else:
                _make(place, info, file, directory)
                _describe(place, info, ours)
        for place, info in reversed(directories):
            _describe(place, info, ours)
    except FileExistsError as error:
        raise BackupInvalid(f"a tree in it has {error.filename} twice") from error
    except _SPOILT as error:
        raise BackupInvalid(f"a tree in it is damaged: {error}") from error


def _make(place: Path, info: tarfile.TarInfo, file: IO[bytes] | None, directory: Path) -> None:
    """Make what is no directory, readable by nobody else yet."""
    if info.issym():
        place.symlink_to(info.linkname)
    elif info.isfifo():
        os.mkfifo(place, 0o600)
    elif file is None:
        target = directory.joinpath(*_names(info.linkname))
        if not stat.S_ISREG(target.lstat().st_mode):
            raise BackupInvalid(f"{info.name[:100]!r} is a link to something that is no file")
        os.link(target, place, follow_symlinks=False)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOWING
        with open(os.open(place, flags, 0o600), "wb") as copy:
            shutil.copyfileobj(file, copy, PIECE_BYTES)


def _describe(place: Path, info: tarfile.TarInfo, ours: tuple[int, int] | None) -> None:
    """Give what was made its owner, mode and time."""
    if os.geteuid() == 0:
        uid = os.getuid() if ours and info.uid == ours[0] else info.uid
        gid = os.getgid() if ours and info.gid == ours[1] else info.gid
        os.chown(place, uid, gid, follow_symlinks=False)
    if not info.issym():
        place.chmod(info.mode & (0o3777 if info.isdir() else 0o777))
        os.utime(place, (info.mtime, info.mtime))


def _members(read: Read) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None, tuple[str, ...]]]:
    """Give each member that may be unpacked, its content, and its names below `TOP`."""
    source = _Forward(read)
    known: set[tuple[str, ...]] = set()
    try:
        tar = tarfile.TarFile(fileobj=source)  # type: ignore[arg-type]
        while (info := tar.next()) is not None:
            names = _names(info.name)
            _see(info, names, known)
            yield info, tar.extractfile(info) if info.isreg() else None, names
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
    except _SPOILT as error:
        raise BackupInvalid(f"a tree in it is damaged: {error}") from error
    if source.last != bytes(_BLOCK):  # ``tarfile`` takes anything for the end
        raise BackupInvalid("a tree in it is damaged or cut off")
    source.drain()
    if () not in known:
        raise BackupInvalid("a tree in it is empty")


def _names(name: str) -> tuple[str, ...]:
    """Give the parts of a member's name below `TOP`."""
    top, *names = PurePosixPath(name).parts or ("",)
    if top != TOP or ".." in names or "\0" in name:
        raise BackupInvalid(f"a tree in it has a name that leads out: {name[:100]!r}")
    return tuple(names)


def _see(info: tarfile.TarInfo, names: tuple[str, ...], known: set[tuple[str, ...]]) -> None:
    """See that a member is of a kind that we write, in a directory that we made."""
    if not (info.isfile() or info.isdir() or info.issym() or info.islnk() or info.isfifo()):
        raise BackupInvalid(f"{info.name[:100]!r} is a device, or of another kind that is not kept")
    if info.sparse is not None:
        raise BackupInvalid(f"{info.name[:100]!r} is stored as a sparse file")
    if names and names[:-1] not in known:
        raise BackupInvalid(f"{info.name[:100]!r} lies in a directory that is not there")
    if info.islnk():
        _names(info.linkname)
    if info.isdir():
        known.add(names)


class _Forward:
    """A stream with as much of a file's manners as ``tarfile`` needs; no read of it is long.

    A head may claim that a name of gigabytes follows: that would be read in one piece.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._position = 0
        self.last = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        while position > self._position:
            if not self.read(min(position - self._position, PIECE_BYTES)):
                raise EOFError("it is cut off")
        if position < self._position:
            raise ValueError("its parts overlap")

    def read(self, size: int) -> bytes:
        if size > _LONGEST_READ:
            raise ValueError("a head in it is too long")
        data = self._read(size)
        self._position += len(data)
        self.last = data
        return data

    def drain(self) -> None:
        while self.read(PIECE_BYTES):
            pass


def _main(work: str, directory: str) -> None:
    if work == "pack":
        for piece in pack(Path(directory)):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    else:
        unpack(sys.stdin.buffer.read, Path(directory))


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except (OSError, BackupInvalid) as error:
        raise SystemExit(str(error)) from None
