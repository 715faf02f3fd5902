"""What programs print: cut into lines, and never more of it kept than is of use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from ploinky.interfaces import Report
from ploinky.observations import OutputPart

OUTPUT_LIMIT_BYTES = 64 * 1024
"""How much of a throw-away command's output is kept."""
TIMED_OUT = 124
"""The exit code of a command that was ended for its time (as of coreutils' ``timeout``)."""
LINE_BYTES = 4096
"""A generous guess at a line's length, when the last lines of a file are looked for."""


class OutputTail:
    """Cuts output into lines for a report and keeps the last 64 KiB of it.  Used by one thread."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._kept: deque[bytes] = deque()
        self._size = 0
        self._line = b""

    def add(self, chunk: bytes) -> None:
        """Take output as it comes."""
        self._kept.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._kept[0]) >= OUTPUT_LIMIT_BYTES:
            self._size -= len(self._kept.popleft())
        *lines, self._line = (self._line + chunk).split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._line) > OUTPUT_LIMIT_BYTES:
            self._say(self._line)
            self._line = b""

    def end(self) -> None:
        """Report a last line that has no end."""
        if self._line:
            self._say(self._line)
            self._line = b""

    def text(self) -> str:
        """What is kept."""
        return b"".join(self._kept)[-OUTPUT_LIMIT_BYTES:].decode(errors="replace")

    def _say(self, line: bytes) -> None:
        self._report(line.decode(errors="replace").rstrip("\r"))


def last_lines(path: Path, lines: int) -> str:
    """Read the last lines of a file; ``""`` where there is none."""
    return _last_lines(path, lines).decode(errors="replace")


def _last_lines(path: Path, lines: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - lines * LINE_BYTES))
            read = file.read()
    except FileNotFoundError:
        return b""
    return b"".join(read.splitlines(keepends=True)[-lines:])


def end_of(chunks: Iterable[bytes], limit_bytes: int) -> str:
    """Give the last of some output, whole lines of it where it is cut."""
    kept: deque[bytes] = deque()
    size, cut = 0, False
    for chunk in chunks:
        kept.append(chunk)
        size += len(chunk)
        while size - len(kept[0]) >= limit_bytes:
            size -= len(kept.popleft())
            cut = True
    text = b"".join(kept)
    if len(text) > limit_bytes:
        text, cut = text[-limit_bytes:], True
    return (text[text.find(b"\n") + 1 :] if cut else text).decode(errors="replace")


def end_of_file(path: Path, limit_bytes: int) -> str:
    """Give the last of a file; ``""`` where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            # One byte more, so that a line that begins just there counts as whole.
            file.seek(max(0, size - limit_bytes - 1))
            return end_of([file.read()], limit_bytes)
    except FileNotFoundError:
        return ""


def part_of_file(path: Path, mark: str, lines: int, limit_bytes: int) -> OutputPart:
    """Give what a file has after a mark, which is a place in it.

    A file that is shorter than that was cut meanwhile, and is read from its beginning.

    Args:
        lines: Where there is no mark: at most so many of the last.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            place = int(mark) if mark else size - len(_last_lines(path, lines))
            if not 0 <= place <= size:
                place = 0
            file.seek(place)
            text = file.read(limit_bytes)
    except FileNotFoundError:
        return OutputPart("", mark)
    if b"\n" in text:  # what has no end yet may end amid a character
        text = text[: text.rfind(b"\n") + 1]
    return OutputPart(text.decode(errors="replace"), str(place + len(text)))


def trim(path: Path, limit_bytes: int) -> None:
    """Cut a file that is over the limit down to the last half of it.

    Whoever writes to it must append (``O_APPEND``); what is written meanwhile may be lost.
    """
    try:
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= limit_bytes:
                return
            file.seek(size - limit_bytes // 2)
            kept = file.read()
            file.truncate(0)
            file.seek(0)
            file.write(kept[kept.find(b"\n") + 1 :])
    except FileNotFoundError:
        return
