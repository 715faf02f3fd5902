"""Directories as tars: what comes back is what was there, and a hostile tar writes nowhere else."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ploinky.errors import BackupInvalid
from ploinky.packing import check, pack, unpack


def packed(directory: Path) -> io.BytesIO:
    """A directory's tar."""
    return io.BytesIO(b"".join(pack(directory)))


def shape(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a directory: mode, and content or where it leads."""
    found = {}
    for path in sorted(directory.rglob("*")):
        content = b""
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(directory))] = (stat.S_IMODE(path.lstat().st_mode), content)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with what agents keep."""
    place = tmp_path / "source"
    (place / "deep" / "er").mkdir(parents=True)
    (place / "deep" / "er" / "run.sh").write_text("#!/bin/sh\n")
    (place / "deep" / "er" / "run.sh").chmod(0o755)
    (place / "empty").mkdir(mode=0o700)
    (place / "large").write_bytes(os.urandom(3 * 1024 * 1024 + 5))
    (place / ("n" * 200)).write_text("a long name")
    Path(os.fsdecode(os.fsencode(place) + b"/\xff")).write_text("no UTF-8")
    (place / "inside").symlink_to("deep/er")
    (place / "outside").symlink_to("/etc/passwd")
    os.link(place / "large", place / "twin")
    (place / "deep").chmod(0o500)
    return place


def test_what_was_packed_comes_back(source: Path, tmp_path: Path) -> None:
    """Files, modes, links of both kinds, names of any length or bytes; directories' times, too."""
    os.utime(source / "empty", (1e9, 1e9))
    copy = tmp_path / "copy"
    copy.mkdir()
    unpack(packed(source).read, copy)
    assert shape(copy) == shape(source)
    assert (copy / "twin").samefile(copy / "large")
    assert (copy / "empty").stat().st_mtime == 1e9
    check(packed(source).read)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_owners_come_back_and_ours_become_whoevers_it_is_now(source: Path, tmp_path: Path) -> None:
    """By number; the server's own user may have another number on another machine."""
    os.chown(source / "large", 70, 71)
    os.chown(source / "empty", 1234, 1234)
    copy = tmp_path / "copy"
    copy.mkdir()
    unpack(packed(source).read, copy, ours=(1234, 1234))
    large, empty = (copy / "large").stat(), (copy / "empty").stat()
    assert (large.st_uid, large.st_gid) == (70, 71)
    assert (empty.st_uid, empty.st_gid) == (os.getuid(), os.getgid())


def test_sockets_and_pipes_are_left_out(source: Path, tmp_path: Path) -> None:
    """They hold nothing; a pipe does not hold up the backup until somebody writes."""
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(source / "socket"))
        names = tarfile.TarFile(fileobj=packed(source)).getnames()
    assert "tree/large" in names
    assert not {"tree/pipe", "tree/socket"} & set(names)


def test_what_changes_while_it_is_read_spoils_nothing_else(source: Path, tmp_path: Path) -> None:
    """A file that shrinks is filled up, one that vanishes is left out."""
    pieces = pack(source)
    first = next(pieces)
    os.truncate(source / "large", 10)
    (source / ("n" * 200)).unlink()
    (source / "twin").unlink()
    copy = tmp_path / "copy"
    copy.mkdir()
    unpack(io.BytesIO(first + b"".join(pieces)).read, copy)
    assert (copy / "large").stat().st_size == 3 * 1024 * 1024 + 5
    assert (copy / "outside").is_symlink()


def test_a_link_put_in_place_of_a_file_is_not_followed(source: Path, tmp_path: Path) -> None:
    """Whoever writes in the directory cannot have the server read another's file into a backup."""
    secret = tmp_path / "secret"
    secret.write_text("needle")
    (source / "deep").chmod(0o700)

    pieces = pack(source)
    data = next(pieces)
    os.rename(source / "deep", tmp_path / "moved")
    (source / "deep").symlink_to(tmp_path)
    data += b"".join(pieces)
    assert b"needle" not in data


def test_what_cannot_be_read_is_an_error_that_names_it(source: Path) -> None:
    """A backup that lacks something silently is none."""
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    (source / "large").chmod(0)
    with pytest.raises(OSError, match="large"):
        packed(source)


Member = Callable[[], tarfile.TarInfo]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A head."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    return info


TREE = member("tree", tarfile.DIRTYPE)
HOSTILE = {
    "a name that leads up": [TREE, member("tree/../escaped")],
    "an absolute name": [TREE, member("/tmp/escaped")],
    "a name beside the tree": [TREE, member("escaped")],
    "through a link": [
        TREE,
        member("tree/link", tarfile.SYMTYPE, ".."),
        member("tree/link/escaped"),
    ],
    "over a link": [TREE, member("tree/link", tarfile.SYMTYPE, "../escaped"), member("tree/link")],
    "a directory over a link": [
        TREE,
        member("tree/link", tarfile.SYMTYPE, ".."),
        member("tree/link", tarfile.DIRTYPE),
        member("tree/link/escaped"),
    ],
    "a hard link that leads out": [TREE, member("tree/hard", tarfile.LNKTYPE, "/etc/passwd")],
    "a hard link to a link": [
        TREE,
        member("tree/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("tree/hard", tarfile.LNKTYPE, "tree/link"),
    ],
    "a device": [TREE, member("tree/disk", tarfile.BLKTYPE)],
    "a file twice": [TREE, member("tree/one"), member("tree/one")],
    "no tree": [],
    "a file instead of a tree": [member("tree")],
}


def written(heads: list[tarfile.TarInfo]) -> bytes:
    """A tar of these."""
    return b"".join(info.tobuf(tarfile.PAX_FORMAT) for info in heads) + bytes(1024)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Where it is unpacked; nothing around it may change."""
    place = tmp_path / "around" / "target"
    place.mkdir(parents=True)
    yield place
    assert [each.name for each in place.parent.iterdir()] == ["target"]
    assert not Path("/tmp/escaped").exists()


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_tar_is_refused(what: str, target: Path) -> None:
    """And has written nothing outside."""
    with pytest.raises(BackupInvalid):
        unpack(io.BytesIO(written(HOSTILE[what])).read, target)


def test_a_head_that_claims_gigabytes_is_not_believed(target: Path) -> None:
    """It would be read into memory in one piece."""
    long = member("long", tarfile.GNUTYPE_LONGNAME)
    long.size = 2**33
    asked: list[int] = []
    source = io.BytesIO(written([TREE])[:512] + long.tobuf(tarfile.GNU_FORMAT))

    def read(size: int) -> bytes:
        asked.append(size)
        return source.read(size)

    with pytest.raises(BackupInvalid, match="too long"):
        unpack(read, target)
    assert max(asked) <= 2 * 1024 * 1024


@pytest.mark.parametrize("left", [1, 511, 513, 1024 * 1024])
def test_a_tar_that_is_cut_off_is_refused(left: int, source: Path, target: Path) -> None:
    """Wherever that was."""
    with pytest.raises(BackupInvalid):
        unpack(io.BytesIO(packed(source).getvalue()[:left]).read, target)


def test_set_user_id_does_not_come_back(source: Path, target: Path) -> None:
    """Whoever made the archive does not decide about that here."""
    (source / "large").chmod(0o4755)
    unpack(packed(source).read, target)
    assert stat.S_IMODE((target / "large").stat().st_mode) == 0o755
