"""What programs print: cut into lines, and never more of it kept than is of use."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from ploinky.interfaces import Report

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
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - lines * LINE_BYTES))
            read = file.read()
    except FileNotFoundError:
        return ""
    return b"".join(read.splitlines(keepends=True)[-lines:]).decode(errors="replace")


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
