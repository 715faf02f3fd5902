"""One record a request, and what the records add up to.

Facts about answered requests enter; lines of JSON go to a sink in small
batches, and increments of counters and histograms go to whoever drains them.
Little and often: a large flush is what every other request would wait for.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ploinky.errors import (
    AgentBroken,
    AgentUnreachable,
    CallFailed,
    LeaderAway,
    RequestTimeout,
    TaskTimeout,
)
from ploinky.latencies import BOUNDS_SECONDS

SERVED = "served"
"""The agent answered, whole, with a status below 500."""
FAILED = "failed"
"""The agent answered, whole, with a status of 500 or more."""
REFUSED = "refused"
"""This server answered in the agent's place, before anything was sent to it."""
GONE = "gone"
"""The client left before its answer was whole; status 499."""
TIMED_OUT = "timed-out"
"""The client or the agent took too long."""
BROKEN = "broken"
"""The agent could not be reached, or its answer was no answer or not whole."""

_KEYS_AT_ONCE = 1024
_OTHER = "*"
_bucket = partial(bisect_left, BOUNDS_SECONDS)
_PLAIN = re.compile(r"[ !#-\[\]-~]*\Z")


@frozen(eq=False)
class Subject:
    """What many records have in common; made once for all of them, by `subject`.

    Attributes:
        deployment: The deployment's id; ``""`` where there is none.
        text: Its part of a line.
    """

    deployment: str
    text: str


def subject(method: bytes, route: str | None, deployment: str, principal: str) -> Subject:
    """Say who asked for what.

    Args:
        route: ``domain/path`` of the route, or None where none was found.
        deployment: The deployment's id; ``""`` where there is none.
    """
    said = f'"method":"{method.decode()}","route":{_quoted(route)},"principal":{_quoted(principal)}'
    return Subject(deployment, said)


Record = tuple["Sums", str, "int | str", int, int, float, float]
"""One request that is over.

What it counts for; its line up to the value of its id, or to the number in that; that value or
number; bytes in; bytes out; when it began and when it ended, in the clock's seconds.
"""


class Sums:
    """What the records of one deployment, command, status and failed part add up to."""

    __slots__ = ("buckets", "bytes_in", "bytes_out", "count", "label", "queued_seconds", "seconds")

    def __init__(self, label: tuple[str, str, int, str]) -> None:
        self.label = label
        self.begin()

    def begin(self) -> None:
        """Begin anew."""
        self.count = 0
        self.seconds = 0.0
        self.queued_seconds = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.buckets: defaultdict[int, int] = defaultdict(int)


class AccessLog:
    """Takes records; gives lines to a sink, and increments to whoever asks.

    Args:
        clock: Batches by it.
        wall_clock: Unix seconds, for the lines.
        sink: Gets whole lines of JSON, several at once, each ending in a line feed.
        flush_seconds: For which records are collected before they are written up.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
        sink: Callable[[str], None],
        flush_seconds: float = 0.005,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._sink = sink
        self._flush_seconds = flush_seconds
        self._records: list[Record] = []
        self._known: dict[tuple[str, str, int, str], Sums] = {}
        self._counted: list[Sums] = []

    def add(self, record: Record) -> None:
        """Keep what is known of one request once it is over."""
        records = self._records
        if not records:
            self._clock.callLater(self._flush_seconds, self.flush)
        records.append(record)

    def record(
        self,
        subject: Subject,
        id: bytes,
        command: str,
        status: int,
        bytes_in: int,
        bytes_out: int,
        began: float,
        ended: float,
        mood: str,
        failed_at: str = "",
        queued_seconds: float = 0.0,
    ) -> None:
        """Make the record of a request and keep it.

        Args:
            command: Of a task, once it was read; ``""`` otherwise.
            bytes_in: Of head and body, as they came.
            bytes_out: Of head and body, as given to the connection.
            began: When its head was whole, in the clock's seconds.
            ended: When its answer was given to the connection.
            mood: One of this module's words for how it ended.
            failed_at: The part that failed (`ploinky.errors.PARTS`); ``""`` where none did.
            queued_seconds: Of those, how long it waited for an instance with a free place.
        """
        sums = self.sums(subject, command, status, failed_at)
        sums.queued_seconds += queued_seconds
        line = line_of(subject, command, status, mood, failed_at, queued_seconds)
        self.add((sums, line, id.decode(), bytes_in, bytes_out, began, ended))

    def sums(self, subject: Subject, command: str, status: int, failed_at: str = "") -> Sums:
        """Give what a record is counted in; it may be kept, and counted in again and again."""
        # A 404's command is a name that somebody made up: it would only swell the counters.
        label = (subject.deployment, command if status != 404 else "", status, failed_at)
        sums = self._known.get(label)
        if sums is None:
            if len(self._known) >= _KEYS_AT_ONCE:
                label = (label[0], label[1] and _OTHER, status, failed_at)
            sums = self._known.get(label) or self._known.setdefault(label, Sums(label))
        return sums

    def flush(self) -> None:
        """Write up what there is; the owner calls it once more at the end."""
        records, self._records = self._records, []
        if not records:
            return
        begin = f'{{"time":{self._wall_clock():.3f},'  # one for all, as records are written up soon
        lines = []
        for sums, line, id, bytes_in, bytes_out, began, ended in records:
            seconds = ended - began
            if not sums.count:
                self._counted.append(sums)
            sums.count += 1
            sums.seconds += seconds
            sums.bytes_in += bytes_in
            sums.bytes_out += bytes_out
            sums.buckets[_bucket(seconds)] += 1
            lines.append(
                f'{begin}{line}{id}","bytesIn":{bytes_in},'
                f'"bytesOut":{bytes_out},"seconds":{seconds:.6f}}}\n'
            )
        self._sink("".join(lines))

    def drain(self) -> list[dict[str, Any]]:
        """Give what was counted since the last call, and begin anew.

        Returns:
            JSON-ready entries with the sums of each deployment, command, status and failed part;
            ``buckets`` has an index and a count for each bucket of `ploinky.latencies` that is
            not empty.
        """
        self.flush()
        counted, self._counted = self._counted, []
        if len(self._known) >= _KEYS_AT_ONCE:
            self._known = {}  # who keeps some of them counts on, and they are drained as ever
        entries = [_entry(sums) for sums in counted]
        for sums in counted:
            sums.begin()
        return entries


def line_of(
    subject: Subject,
    command: str,
    status: int,
    mood: str,
    failed_at: str = "",
    queued_seconds: float = 0.0,
) -> str:
    """Give what many lines have in common, up to the value of the id."""
    more = _more(failed_at, queued_seconds) if failed_at or queued_seconds else ""
    return f'{subject.text},"command":{_quoted(command)},"status":{status},"mood":"{mood}"{more},"id":"'


def mood_of(error: CallFailed) -> str:
    """Give the word for a request that ended with an error."""
    if isinstance(error, (TaskTimeout, RequestTimeout)):
        return TIMED_OUT
    if isinstance(error, (AgentBroken, AgentUnreachable, LeaderAway)):
        return BROKEN
    return REFUSED


def _entry(sums: Sums) -> dict[str, Any]:
    deployment, command, status, failed_at = sums.label
    return {
        "deployment": deployment,
        "command": command,
        "status": status,
        "failedAt": failed_at,
        "count": sums.count,
        "microseconds": round(sums.seconds * 1_000_000),
        "bytesIn": sums.bytes_in,
        "bytesOut": sums.bytes_out,
        "queuedMicroseconds": round(sums.queued_seconds * 1_000_000),
        "buckets": sorted(sums.buckets.items()),
    }


def _more(failed_at: str, queued_seconds: float) -> str:
    """Give the fields that only some lines have."""
    failed = f',"failedAt":"{failed_at}"' if failed_at else ""
    return f'{failed},"queued":{queued_seconds:.6f}' if queued_seconds else failed


@lru_cache(maxsize=4096)
def _quoted(text: str | None) -> str:
    """Give a text as JSON; ASCII alone, as some readers take other characters for a line end."""
    if text is not None and _PLAIN.match(text) is not None:
        return f'"{text}"'  # json.dumps takes ten times as long, where there are many texts
    return json.dumps(text)
