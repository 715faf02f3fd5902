"""The server's log files, read: the last lines, what comes next, whole days, one request's story.

Everything here blocks and is called in threads; nothing keeps more than one block of a file in memory.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from attrs import frozen

from ploinky.settings import LOG_LEVELS
from ploinky.telemetry.events import in_one_piece
from ploinky.telemetry.logs import ACCESS, SERVER, SUFFIX

MOST_SEARCHED_BYTES = 512 * 1024 * 1024
"""Of logs, from the end, in search of what hardly ever occurs."""

_BLOCK_BYTES = 64 * 1024
_PART_BYTES = 256 * 1024


@frozen
class Wanted:
    """Which lines are meant; ``""`` lets all pass.

    Attributes:
        level: The least.
        request: A request's id.
        deployment: A deployment's id, or ``domain/path``.
    """

    level: str = ""
    request: str = ""
    deployment: str = ""

    def admits(self, line: bytes) -> bool:
        """Tell whether a line of a log is meant."""
        for text in (self.request, self.deployment):
            if text and json.dumps(text)[1:-1].encode() not in line:
                return False
        if not (self.level or self.request or self.deployment):
            return True
        try:
            entry = json.loads(line)
        except ValueError:
            return False
        if self.level and not _is_at_least(entry.get("level", "info"), self.level):
            return False
        values = {str(value) for value in entry.values()}
        if self.request and self.request not in values:
            return False
        said = str(entry.get("message", "")).replace(",", " ").replace(":", " ").split()
        return not self.deployment or self.deployment in values or self.deployment in said


def _is_at_least(level: str, least: str) -> bool:
    known = [*LOG_LEVELS, "critical"]
    return level in known and known.index(level) >= known.index(least)


def dates(directory: Path, name: str) -> list[str]:
    """Give the days of which there is a log, newest first, as ``YYYY-MM-DD``."""
    return [path.stem.removeprefix(f"{name}-") for path in _days(directory, name)]


def tail(
    directory: Path, lines: int, name: str = SERVER, wanted: Wanted | None = None
) -> list[bytes]:
    """Give the last lines of a log that are meant, oldest first, from as many days as it takes."""
    return _last(_days(directory, name), lines, wanted or Wanted())


def _last(days: Sequence[Path], lines: int, wanted: Wanted, end: int | None = None) -> list[bytes]:
    """Give the last lines, of which none begins at ``end`` of the newest day or later."""
    found: list[bytes] = []
    searched = 0
    for path in days:
        for line in _backwards(path, end):
            searched += len(line)
            if len(found) == lines or searched > MOST_SEARCHED_BYTES:
                return found[::-1]
            if wanted.admits(line):
                found.append(line)
        end = None
    return found[::-1]


class Follower:
    """Reads what is added to a log, day after day.

    Args:
        name: `SERVER` or `ACCESS`.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._before = _days(directory, name)
        self._path = next(iter(self._before), None)
        self._place = self._begin = _end_of_lines(self._path) if self._path else 0

    def before(self, lines: int, wanted: Wanted) -> list[bytes]:
        """Give the last lines that are meant before the first that `added` ever gave or will."""
        return _last(self._before, lines, wanted, self._begin)

    def added(self) -> list[bytes]:
        """Give the next lines, of bounded size; none where nothing was added."""
        while True:
            lines = self._read() if self._path else []
            if lines:
                return lines
            later = [
                day
                for day in _days(self._directory, self._name)
                if self._path is None or day.name > self._path.name
            ]
            if not later:
                return []
            self._path, self._place = later[-1], 0

    def _read(self) -> list[bytes]:
        assert self._path is not None
        try:
            with self._path.open("rb") as file:
                file.seek(self._place)
                text = file.read(_PART_BYTES)
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1] or (text if len(text) == _PART_BYTES else b"")
        self._place += len(whole)
        return whole.splitlines()


class Compressed:
    """One day's log as gzip, block by block; whoever made it closes it.

    Raises:
        FileNotFoundError: There is none of that day.
    """

    def __init__(self, directory: Path, name: str, date: str) -> None:
        self._file: BinaryIO = (directory / f"{name}-{date}{SUFFIX}").open("rb")
        self._gzip = zlib.compressobj(wbits=31)
        self._ended = False

    def block(self) -> bytes:
        """Give the next bytes; none at the end."""
        while not self._ended:
            read = self._file.read(_PART_BYTES)
            self._ended = not read
            packed = self._gzip.compress(read) if read else self._gzip.flush()
            if packed:
                return packed
        return b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def for_people(line: bytes) -> str:
    """Give a line of either log as people read it."""
    try:
        entry = json.loads(line)
        return _event(entry) if "message" in entry else _request(entry)
    except (ValueError, KeyError, TypeError, AttributeError):
        return line.decode("utf-8", "replace")


def _event(entry: dict[str, Any]) -> str:
    said = in_one_piece(entry["message"])
    text = f"{entry['time']} {entry['level']:<5} {entry['process']}: {said}"
    return f"{text}\n    {in_one_piece(entry['traceback'])}" if "traceback" in entry else text


def _request(entry: dict[str, Any]) -> str:
    what = " ".join(str(entry[name]) for name in ("method", "route", "command") if entry[name])
    how = f"{entry['status']} {entry['mood']} in {1000 * entry['seconds']:.1f} ms"
    failed = f", failed at {entry['failedAt']}" if "failedAt" in entry else ""
    return f"{entry['time']:.3f} {entry['id']} {entry['principal']} {what}: {how}{failed}"


def _days(directory: Path, name: str) -> list[Path]:
    return sorted(directory.glob(f"{name}-*{SUFFIX}"), reverse=True)


def _end_of_lines(path: Path) -> int:
    """Give how long a file is without a last line that is still being written."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - _BLOCK_BYTES))
        end = start + file.read(size - start).rfind(b"\n") + 1
        return end if end > start else size if start else 0


def _backwards(path: Path, end: int | None) -> Iterator[bytes]:
    """Give a file's lines up to a place, or all, the last one first, without reading all of it."""
    with path.open("rb") as file:
        if end is None:
            end = file.seek(0, os.SEEK_END)
        rest = b""
        while end:
            start = max(0, end - _BLOCK_BYTES)
            file.seek(start)
            block, end = file.read(end - start) + rest, start
            rest, *whole = block.split(b"\n")
            yield from (line for line in reversed(whole) if line)
        if rest:
            yield rest


LOGS = (SERVER, ACCESS)
"""What can be asked for by name."""
