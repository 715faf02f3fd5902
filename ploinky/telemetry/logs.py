"""The server's log: JSON lines, one file a day, written by leader and workers alike.

Events of `twisted.logger` enter; lines leave.  Every process appends whole lines to the same file
(O_APPEND), so a worker that outlives its leader goes on logging.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)
from zope.interface import implementer

PREFIX = "server-"
SUFFIX = ".jsonl"


@implementer(ILogObserver)
class DailyLog:
    """Appends each event to the file of its day (UTC).

    Args:
        directory: Exists; files are `server-YYYY-MM-DD.jsonl`, mode 0600.
        process: Name for the field `process`, such as `leader` or `worker-0`.
    """

    def __init__(self, directory: Path, process: str) -> None:
        self._directory = directory
        self._process = process
        self._day = ""
        self._descriptor = -1

    def __call__(self, event: LogEvent) -> None:
        """Write one line.  A full disk must not take the server down: what cannot be written is lost."""
        moment = datetime.fromtimestamp(event["log_time"], timezone.utc)
        line = json.dumps(_entry(event, moment, self._process), default=repr) + "\n"
        try:
            self._turn_to(moment.date().isoformat())
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))
        except OSError:
            return

    def close(self) -> None:
        """Close the file; a later event opens it again."""
        descriptor, self._descriptor, self._day = self._descriptor, -1, ""
        if descriptor >= 0:
            os.close(descriptor)

    def _turn_to(self, day: str) -> None:
        if day == self._day:
            return
        self.close()
        path = self._directory / f"{PREFIX}{day}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self._day = day


def at_level(observer: ILogObserver, level: str) -> ILogObserver:
    """Pass on only what is at least `level` (debug, info, warn, error)."""
    least = LogLevelFilterPredicate(LogLevel.levelWithName(level))
    # They would tell of each attempt to connect, for as long as a leader is away.
    for wordy in ("twisted.application._client_service", "twisted.protocols.amp"):
        least.setLogLevelForNamespace(wordy, LogLevel.warn)
    return FilteringLogObserver(observer, [least])


def prune(directory: Path, days: int, now: float) -> None:
    """Delete the files of days that are more than `days` ago."""
    oldest = (datetime.fromtimestamp(now, timezone.utc) - timedelta(days=days)).date()
    for path in directory.glob(f"{PREFIX}*{SUFFIX}"):
        if path.name[len(PREFIX) : -len(SUFFIX)] < oldest.isoformat():
            path.unlink(missing_ok=True)


def _entry(event: LogEvent, moment: datetime, process: str) -> dict[str, Any]:
    level = event.get("log_level")
    entry: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds"),
        "level": level.name if level else "info",
        "process": process,
        "room": event.get("log_namespace", ""),
        "message": formatEvent(event),
    }
    for name, value in event.items():
        if not name.startswith("log_") and isinstance(value, (str, int, float)):
            entry.setdefault(name, value)
    if failure := event.get("log_failure"):
        entry["traceback"] = failure.getTraceback()
    return entry
