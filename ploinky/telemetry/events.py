"""Events of ``twisted.logger`` as JSON objects, and as lines for people at a terminal.

Events enter, texts leave, whatever the events hold: nothing here raises, and
secrets are masked on the way.
"""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, TextIO

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
)
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str
from zope.interface import implementer

from ploinky.telemetry.redaction import Redactor

_DEEPEST = 4
_OF_THE_OLD_KIND = frozenset({"isError", "system", "format", "why"})
"""What ``twisted.python.log`` adds to events for its own observers."""


def as_entry(event: LogEvent, process: str, redactor: Redactor) -> dict[str, Any]:
    """Give an event as what JSON can hold.

    ``time``, ``level``, `process`, ``namespace``, ``message``, then the event's own fields; ``error`` and
    ``traceback`` where it has a failure.
    """
    level = event.get("log_level")
    moment = datetime.fromtimestamp(event.get("log_time", 0.0), timezone.utc)
    entry: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds"),
        "level": level.name if level else "info",
        "process": process,
        "namespace": event.get("log_namespace", ""),
        "message": redactor(formatEvent(event)),
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        entry["error"] = redactor(safe_str(failure.value))
        entry["traceback"] = redactor(failure.getTraceback())
    for name, value in event.items():
        if not name.startswith("log_") and name not in entry and name not in _OF_THE_OLD_KIND:
            entry[name] = _plain(value, redactor, _DEEPEST)
    return entry


def _plain(value: Any, redactor: Redactor, depth: int) -> Any:
    """Give what JSON can hold as it is, anything else as its text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if depth and isinstance(value, Mapping):
        return {
            redactor(safe_str(name)): _plain(one, redactor, depth - 1)
            for name, one in value.items()
        }
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one, redactor, depth - 1) for one in value]
    return redactor(value if isinstance(value, str) else safe_str(value))


def in_one_piece(text: str) -> str:
    """Give a text that may be anybody's as it can stand in a line of a log that people read.

    Further lines of it are indented, so that none passes for an event of its own; and control
    characters, which a terminal would obey, are shown as such.
    """
    shown = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return shown.rstrip("\n").replace("\n", "\n    ")


@implementer(ILogObserver)
class TerminalLog:
    """Writes events as lines that people read: time, level, message; a traceback below.

    Args:
        stream: Written to and flushed; never closed here.
        redactor: Masks secrets.
        terse: Leave out what is not ours and not worth a warning: a framework's chatter.
    """

    def __init__(self, stream: TextIO, redactor: Redactor, *, terse: bool = False) -> None:
        self._stream = stream
        self._redactor = redactor
        self._terse = terse

    def __call__(self, event: LogEvent) -> None:
        """Write an event."""
        level = event.get("log_level") or LogLevel.info
        ours = str(event.get("log_namespace", "")).startswith("ploinky.")
        if self._terse and not ours and level < LogLevel.warn:
            return
        at = time.strftime("%H:%M:%S", time.localtime(event.get("log_time", 0.0)))
        text = f"{at} {level.name:<8} {in_one_piece(formatEvent(event))}\n"
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            text += f"    {in_one_piece(failure.getTraceback())}\n"
        # The terminal may have been closed, or may not know a character.
        with suppress(OSError, ValueError):
            self._stream.write(self._redactor(text))
            self._stream.flush()


@implementer(ILogObserver)
class NoLog:
    """Keeps nothing."""

    def __call__(self, event: LogEvent) -> None:
        """Let an event go by."""


def to_terminal() -> ILogObserver:
    """Give what twistd shows a person: our own events, and whatever is worth a warning.

    A factory as twistd's ``--logger`` wants it; ``p-cli cloud start --foreground`` names it.
    """
    return TerminalLog(sys.__stdout__ or io.StringIO(), Redactor(), terse=True)


def to_nowhere() -> ILogObserver:
    """Give what a server in the background is started with: its log is in its own files."""
    return NoLog()
