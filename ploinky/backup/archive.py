"""The form of a backup: a gzipped tar of plain files, each with its SHA-256 in the last of them.

What is long, and whose length nobody knows before it was read, is cut into numbered parts below
its name.  So neither side holds more than one part, and the tar needs no scratch file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from attrs import frozen

from ploinky.backup import MAGIC
from ploinky.backup.envelope import Opened, Seal
from ploinky.errors import BackupInvalid, StateUnusable

FORMAT = 1
HEAD = "backup.json"
"""First: what this is, and of which server."""
MANIFEST = "manifest.json"
"""Last: the members, and what is whole."""
FAILURE = "failure.json"
"""Last in place of the manifest: why there is no more."""
PART_BYTES = 4 * 1024 * 1024

_LEVEL = 4
_MOST_MANIFEST_BYTES = 256 * 1024 * 1024
_MOST_PADDING = 1024 * 1024
_BLOCK = tarfile.BLOCKSIZE


class Writer:
    """Makes an archive of what is added, in order; each call gives the bytes to be written.

    Args:
        seal: None: it is readable by whoever has it.

    It compresses: call it in a thread.
    """

    def __init__(self, seal: Seal | None) -> None:
        self._seal = seal
        self._start = seal.head if seal else b""
        self._gzip = zlib.compressobj(_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self._members: dict[str, dict[str, Any]] = {}

    @property
    def is_sealed(self) -> bool:
        """Whether what is added is secret to all who lack the passphrase."""
        return self._seal is not None

    def begin(self, head: Mapping[str, Any]) -> bytes:
        """Say what this is."""
        return self.add(HEAD, _json({"format": FORMAT, **head}))

    def add(self, name: str, content: bytes) -> bytes:
        """Add a file of at most `PART_BYTES`."""
        self._members[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return self._written(name, content)

    def end(self, manifest: Mapping[str, Any]) -> bytes:
        """Finish it."""
        return self._finish(MANIFEST, {**manifest, "members": self._members})

    def fail(self, message: str) -> bytes:
        """Finish it, begun or not, with the reason why it is not whole."""
        return self._finish(FAILURE, {"message": message})

    def _finish(self, name: str, document: Mapping[str, Any]) -> bytes:
        last = self._written(name, _json(document))
        last += self._sealed(self._gzip.compress(bytes(2 * _BLOCK)) + self._gzip.flush())
        return last + (self._seal.end() if self._seal else b"")

    def _written(self, name: str, content: bytes) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o600
        head = info.tobuf(tarfile.USTAR_FORMAT)
        parts = (head, content, bytes(-len(content) % _BLOCK))
        return self._sealed(b"".join(self._gzip.compress(part) for part in parts))

    def _sealed(self, data: bytes) -> bytes:
        start, self._start = self._start, b""
        return start + (self._seal.add(data) if self._seal else data)


@frozen
class Member:
    """One file of an archive."""

    name: str
    content: bytes


class Reader:
    """Reads an archive, once, from begin to end.  Blocks.

    Args:
        file: The archive; whoever gives it closes it.
        passphrase: Where it is sealed.

    Attributes:
        head: What it says of itself.

    Raises:
        BackupInvalid: At once, or from `member`: it is no archive of a form that we know, damaged,
            or cut off, or it says itself why it is not whole.
        StateUnusable: It cannot be read.
    """

    def __init__(self, file: IO[bytes], passphrase: str) -> None:
        start = file.read(len(MAGIC))
        file.seek(0)
        self.is_sealed = start == MAGIC
        plain: Any = Opened(file.read, passphrase) if self.is_sealed else file
        self._tar = gzip.GzipFile(fileobj=plain, mode="rb")
        self._seen: dict[str, dict[str, Any]] = {}
        first = self._guarded(self._next)
        if first is None or first.name not in (HEAD, FAILURE):
            raise BackupInvalid("this is no backup of Ploinky Cloud")
        self._see_whole(first)
        self.head: Mapping[str, Any] = _object(first.content)
        if self.head.get("format") != FORMAT:
            raise BackupInvalid(
                f"the backup is of form {self.head.get('format')!r}, made by version"
                f" {self.head.get('version')!r}; this version knows form {FORMAT}: restore it with"
                " that one"
            )
        self._peeked: Member | None = None
        self.manifest: Mapping[str, Any] = {}

    def member(self, peek: bool = False) -> Member | None:
        """Give the next file; None at the end, once all that was read is known to be whole.

        Args:
            peek: Give it again the next time.
        """
        if self._peeked is None:
            if self.manifest:
                return None
            self._peeked = self._guarded(self._checked)
        found = self._peeked
        if not peek:
            self._peeked = None
        return found

    def _guarded(self, work: Callable[[], Member | None]) -> Member | None:
        try:
            return work()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BackupInvalid(f"the backup is cut off or damaged: {error}") from error
        except (tarfile.TarError, UnicodeDecodeError) as error:
            raise BackupInvalid(f"the backup is damaged: {error}") from error
        except OSError as error:
            raise StateUnusable(f"the backup cannot be read: {error.strerror}") from error

    def _checked(self) -> Member | None:
        member = self._next()
        if member is None:
            raise BackupInvalid("the backup is cut off: it has no manifest")
        self._see_whole(member)
        if member.name != MANIFEST:
            return member
        self.manifest = _object(member.content)
        if self._next() is not None or any(self._tar.read(_MOST_PADDING)) or self._tar.read(1):
            raise BackupInvalid("the backup goes on behind its end")
        if self.manifest.get("members") != self._seen:
            raise BackupInvalid("the backup is damaged: its files are not those of its manifest")
        return None

    def _see_whole(self, member: Member) -> None:
        if member.name == FAILURE:
            why = _object(member.content).get("message")
            raise BackupInvalid(f"the backup is not whole: {why}")

    def _next(self) -> Member | None:
        block = self._exactly(_BLOCK)
        if not any(block):
            if any(self._exactly(_BLOCK)):
                raise BackupInvalid("the backup is damaged")
            return None
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        if info.type != tarfile.REGTYPE:
            raise BackupInvalid(f"the backup holds {info.name!r}, which is no plain file")
        most = _MOST_MANIFEST_BYTES if info.name == MANIFEST else PART_BYTES
        if not 0 <= info.size <= most or info.name in self._seen:
            raise BackupInvalid(f"the backup holds {info.name!r} twice, or larger than it may be")
        content = self._exactly(info.size)
        self._exactly(-info.size % _BLOCK)
        if info.name != MANIFEST:
            digest = hashlib.sha256(content).hexdigest()
            self._seen[info.name] = {"size": info.size, "sha256": digest}
        return Member(info.name, content)

    def _exactly(self, size: int) -> bytes:
        data = self._tar.read(size)
        if len(data) < size:
            raise EOFError("it ends too early")
        return data


class Parts:
    """What was cut into parts, as one stream again.

    Args:
        reader: Stands at the first part, or before what follows if there is none.
        name: Of the whole.
    """

    def __init__(self, reader: Reader, name: str) -> None:
        self._reader = reader
        self._name = name
        self._number = 0
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Give so many bytes; fewer only at the end."""
        found = []
        while size:
            if not self._rest and not self._another():
                break
            piece = self._rest[:size]
            self._rest = self._rest[size:]
            size -= len(piece)
            found.append(piece)
        return b"".join(found)

    def _another(self) -> bool:
        following = self._reader.member(peek=True)
        if following is None or following.name != part_name(self._name, self._number):
            return False
        self._reader.member()
        self._number += 1
        self._rest = memoryview(following.content)
        return True


def part_name(name: str, number: int) -> str:
    """Name a part; parts are counted from 0."""
    return f"{name}/{number:06d}"


def open_archive(path: Path) -> IO[bytes]:
    """Open a backup's file.

    Raises:
        StateUnusable: It cannot be read.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise StateUnusable(f"{path} cannot be read: {error.strerror}") from error


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BackupInvalid("the backup is damaged: one of its documents is no JSON object")
    return document
