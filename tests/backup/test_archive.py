"""The form of a backup: what was damaged, cut off or put in is found, and told in words."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from ploinky.backup.archive import PART_BYTES, Parts, Reader, Writer, part_name
from ploinky.backup.envelope import Seal
from ploinky.errors import BackupInvalid

HEAD = {"version": "1.2.3", "cluster": "c"}
LONG = os.urandom(PART_BYTES + 10)
PASSPHRASE = "correct horse battery staple"


def archive(seal: Seal | None = None) -> bytes:
    """A small file and one in two parts."""
    writer = Writer(seal)
    pieces = [
        writer.begin(HEAD),
        writer.add("small", b"content"),
        writer.add(part_name("long", 0), LONG[:PART_BYTES]),
        writer.add(part_name("long", 1), LONG[PART_BYTES:]),
        writer.end({"trees": []}),
    ]
    return b"".join(pieces)


def read(data: bytes, passphrase: str = "") -> dict[str, bytes]:
    """Read all of it, members by name."""
    reader = Reader(io.BytesIO(data), passphrase)
    found = {}
    while member := reader.member():
        found[member.name] = member.content
    return found


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_what_was_written_is_read(passphrase: str) -> None:
    """With its head and manifest; what was long is one stream again."""
    data = archive(Seal(passphrase, os.urandom) if passphrase else None)
    reader = Reader(io.BytesIO(data), passphrase)
    assert reader.is_sealed is bool(passphrase)
    assert reader.head == {"format": 1, **HEAD}
    small = reader.member()
    assert small is not None
    assert small.content == b"content"
    long = Parts(reader, "long")
    assert long.read(3) + long.read(PART_BYTES) + long.read(100) == LONG
    assert long.read(1) == b""
    assert reader.member() is None
    assert reader.manifest["trees"] == []


def test_anybodys_tar_lists_it() -> None:
    """A plain one needs no program of ours to be looked into."""
    with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
        assert tar.getnames() == ["backup.json", "small", "long/000000", "long/000001", "manifest.json"]  # fmt: skip


def test_a_backup_that_failed_says_why() -> None:
    """In the words of the server that made it."""
    writer = Writer(None)
    data = writer.begin(HEAD) + writer.fail("the engine is away")
    with pytest.raises(BackupInvalid, match="not whole: the engine is away"):
        read(data)
    with pytest.raises(BackupInvalid, match="not whole: no database"):
        read(Writer(Seal(PASSPHRASE, os.urandom)).fail("no database"), PASSPHRASE)


def tarred(*members: tuple[str, bytes], **more: Any) -> bytes:
    """A tar by hand, with a manifest of what is in it."""
    seen = {n: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in members}
    manifest = json.dumps({"members": seen} | more).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (*members, ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def with_link() -> bytes:
    """One with a symbolic link among its members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.USTAR_FORMAT) as tar:
        head = tarfile.TarInfo("backup.json")
        head.size = len(FIRST)
        tar.addfile(head, io.BytesIO(FIRST))
        link = tarfile.TarInfo("config.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return out.getvalue()


FIRST = b'{"format": 1}'
SPOILT: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut off": (lambda: archive()[:-2000], "cut off"),
    "a bit of it": (lambda: _flipped(archive()), "damaged"),
    "no manifest": (lambda: gzip.compress(gzip.decompress(archive())[:1024] + bytes(1024)), "manifest"),
    "another member than the manifest names": (
        lambda: tarred(("backup.json", FIRST), members={}),
        "not those of its manifest",
    ),
    "something behind its end": (
        lambda: gzip.compress(gzip.decompress(archive()) + b"more"),
        "behind its end",
    ),
    "a link": (with_link, "no plain file"),
    "a member twice": (lambda: tarred(("backup.json", FIRST), ("a", b""), ("a", b"")), "twice"),
    "a large member": (lambda: tarred(("backup.json", FIRST), ("a", LONG)), "larger"),
    "a newer form": (lambda: tarred(("backup.json", b'{"format": 2, "version": "9"}')), "version '9'"),
    "a head that is no JSON": (lambda: tarred(("backup.json", b"[" * 100_000)), "JSON"),
    "another tar": (lambda: tarred(("README", b"hello")), "no backup"),
    "no gzip": (lambda: b"hello, I am no backup at all", "damaged"),
    "nothing": (lambda: b"", "cut off"),
}  # fmt: skip


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_spoilt_is_refused(what: str) -> None:
    """Before its end is reached, or at it."""
    make, words = SPOILT[what]
    with pytest.raises(BackupInvalid, match=words):
        read(make())
