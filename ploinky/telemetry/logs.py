"""The server's logs: lines of JSON, one file a day, written by leader and workers alike.

Events of ``twisted.logger`` and access lines enter; files leave.  Every process appends whole lines
to the same file (O_APPEND), so a worker that outlives its leader goes on logging.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
)
from zope.interface import implementer

from ploinky.telemetry.events import as_entry
from ploinky.telemetry.redaction import Redactor

SERVER = "server"
"""Events of leader and workers."""

ACCESS = "access"
"""One line a request."""

SUFFIX = ".jsonl"


class DailyFile:
    """Appends text to the file of the day (UTC): ``<name>-YYYY-MM-DD.jsonl``, mode 0600.

    A full disk must not take the server down: what cannot be written is lost.  A line that was
    cut there ends before the next one begins.

    Args:
        wall_clock: Unix seconds.
        directory: Exists.
        name: `SERVER` or `ACCESS`.
    """

    def __init__(self, wall_clock: Callable[[], float], directory: Path, name: str) -> None:
        self._wall_clock = wall_clock
        self._directory = directory
        self._name = name
        self._ends_at = 0.0
        self._descriptor = -1
        self._is_torn = False

    def append(self, lines: str) -> None:
        """Write whole lines, each ending in a line feed."""
        with suppress(OSError):
            now = self._wall_clock()
            if now >= self._ends_at:
                self._turn_to(now)
            data = lines.encode("utf-8", "backslashreplace")
            if self._is_torn:
                data = b"\n" + data
            written = os.write(self._descriptor, data)
            self._is_torn = written < len(data)

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        descriptor, self._descriptor, self._ends_at = self._descriptor, -1, 0.0
        if descriptor >= 0:
            os.close(descriptor)

    def _turn_to(self, now: float) -> None:
        self.close()
        day = _day(now)
        path = self._directory / f"{self._name}-{day.date().isoformat()}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self._ends_at = (day + timedelta(days=1)).timestamp()


@implementer(ILogObserver)
class JsonLog:
    """Writes events as lines of JSON; see `as_entry`.

    Args:
        file: Where they go; the caller closes it.
        process: Name for the field `process`, such as `leader` or ``worker-0``.
        redactor: Masks secrets; without one, what has the form of a key or a URL's password.
    """

    def __init__(self, file: DailyFile, process: str, redactor: Redactor | None = None) -> None:
        self._file = file
        self._process = process
        self._redactor = redactor or Redactor()

    def __call__(self, event: LogEvent) -> None:
        """Write one line."""
        entry = as_entry(event, self._process, self._redactor)
        self._file.append(json.dumps(entry, ensure_ascii=False) + "\n")


def at_level(observer: ILogObserver, level: str) -> ILogObserver:
    """Pass on only what is at least ``level`` (debug, info, warn, error)."""
    least = LogLevelFilterPredicate(LogLevel.levelWithName(level))
    # They would tell of each attempt to connect, for as long as a leader is away.
    for wordy in ("twisted.application._client_service", "twisted.protocols.amp"):
        least.setLogLevelForNamespace(wordy, LogLevel.warn)
    return FilteringLogObserver(observer, [least])


def prune(directory: Path, days: int, now: float) -> None:
    """Delete the files of days that are more than ``days`` ago.  Blocks."""
    oldest = (_day(now) - timedelta(days=days)).date().isoformat()
    for name in (SERVER, ACCESS):
        for path in directory.glob(f"{name}-*{SUFFIX}"):
            if path.stem.removeprefix(f"{name}-") < oldest:
                path.unlink(missing_ok=True)


def _day(now: float) -> datetime:
    moment = datetime.fromtimestamp(now, timezone.utc)
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
