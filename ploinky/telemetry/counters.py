"""Workers' counts, added up in the leader.

What a worker's access log drains enters, as lines of JSON (`AccessLog.drain`,
one entry a line) under the report's number; totals leave, and batches of what is not on disk yet.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from attrs import frozen
from twisted.logger import Logger

from ploinky.latencies import merged
from ploinky.measures import CountBatch, Counts, KeptCounts, Label, Sums, added

MOST_COMMANDS = 100
"""Kept apart for one deployment; a service that answers with many is a stranger's loop."""

OTHER_COMMANDS = "*"

_UNAUTHORIZED = (401, 403)


class _Entry(msgspec.Struct, rename="camel"):
    deployment: str
    command: str
    status: int
    failed_at: str
    count: int
    microseconds: int
    bytes_in: int
    bytes_out: int
    queued_microseconds: int
    buckets: list[tuple[int, int]]


@frozen
class Count:
    """Calls of one deployment, or of all.

    Attributes:
        errors: Answered with 5xx.
        unauthorized: Answered with 401 or 403.
        seconds: That they took together.
    """

    requests: int = 0
    errors: int = 0
    unauthorized: int = 0
    seconds: float = 0.0


def count_of(counts: Counts) -> Count:
    """Sum up what was counted by label."""
    return Count(
        requests=sum(sums.count for sums in counts.values()),
        errors=sum(sums.count for label, sums in counts.items() if label.status >= 500),
        unauthorized=sum(
            sums.count for label, sums in counts.items() if label.status in _UNAUTHORIZED
        ),
        seconds=sum(sums.microseconds for sums in counts.values()) / 1_000_000,
    )


class _Growing:
    """Sums that are added to, as reports come for each of many deployments each second."""

    __slots__ = ("_buckets", "_bytes_in", "_bytes_out", "_count", "_microseconds", "_queued")

    def __init__(self) -> None:
        self._count = self._microseconds = self._bytes_in = self._bytes_out = self._queued = 0
        self._buckets: dict[int, int] = {}

    def add(self, entry: _Entry) -> None:
        """Add what was reported."""
        self._count += entry.count
        self._microseconds += entry.microseconds
        self._bytes_in += entry.bytes_in
        self._bytes_out += entry.bytes_out
        self._queued += entry.queued_microseconds
        buckets = self._buckets
        for index, count in entry.buckets:
            buckets[index] = buckets.get(index, 0) + count

    def sums(self) -> Sums:
        """Give what they have grown to."""
        return Sums(
            self._count,
            self._microseconds,
            self._bytes_in,
            self._bytes_out,
            self._queued,
            merged([self._buckets]),
        )


class Counters:
    """Adds up.  What was not for a deployment (management, unknown paths) is left out.

    Args:
        kept: What an earlier leader had on disk.
    """

    _log = Logger()
    _entries = msgspec.json.Decoder(_Entry)

    def __init__(self, kept: KeptCounts) -> None:
        self._taken = dict(kept.totals)  # on disk, or in a batch
        self._numbers = dict(kept.numbers)
        self._commands: dict[str, set[str]] = {}
        for label in kept.totals:
            self._commands.setdefault(label.deployment, set()).add(label.command)
        self._fresh: dict[tuple[str, str, int, str], _Growing] = {}  # by what is a `Label`'s
        self._again: Counts = {}  # of those taken, what could not be written
        self._reported: set[str] = set()

    def add(self, reporter: str, number: int, lines: bytes) -> None:
        """Take one report; one that was taken before changes nothing.

        A line that cannot be read is logged and left out.
        """
        self._reported.add(reporter)
        if number <= self._numbers.get(reporter, 0):
            return
        self._numbers[reporter] = number
        for line in lines.splitlines():
            try:
                entry = self._entries.decode(line)
            except msgspec.MsgspecError as error:
                self._log.warn("A worker reported counts that cannot be read: {error}", error=error)
                continue
            if entry.deployment:
                self._count(entry)

    def _count(self, entry: _Entry) -> None:
        what = entry.deployment, self._command(entry), entry.status, entry.failed_at
        growing = self._fresh.get(what)
        if growing is None:
            growing = self._fresh[what] = _Growing()
        growing.add(entry)

    def _command(self, entry: _Entry) -> str:
        known = self._commands.setdefault(entry.deployment, set())
        if entry.command not in known:
            if len(known) >= MOST_COMMANDS:
                return OTHER_COMMANDS
            known.add(entry.command)
        return entry.command

    def totals(self) -> Counts:
        """Give the sums of all time."""
        return added(self._taken, self._untaken())

    def fresh(self) -> Counts:
        """Give what no batch has taken yet, or could not be written."""
        return added(self._again, self._untaken())

    def batch(self, time: float) -> CountBatch:
        """Take what is not on disk yet; `restore` it if it could not be written.

        It names every reporter that was heard since the last batch, also those that said nothing
        new: they did not hear the last acknowledgement.
        """
        numbers = {reporter: self._numbers.get(reporter, 0) for reporter in self._reported}
        untaken, again = self._untaken(), self._again
        for label, sums in untaken.items():
            before = self._taken.get(label)
            self._taken[label] = sums if before is None else before.plus(sums)
        self._fresh, self._again, self._reported = {}, {}, set()
        return CountBatch(time, added(again, untaken) if again else untaken, numbers)

    def restore(self, batch: CountBatch) -> None:
        """Put a batch back that could not be written."""
        self._again = added(batch.counts, self._again)
        self._reported |= set(batch.numbers)

    def replace_totals(self, totals: Counts) -> None:
        """Take totals as they are on disk now, while no batch is under way."""
        self._taken = added(totals, self._again)

    def _untaken(self) -> Counts:
        return {Label(*what): growing.sums() for what, growing in self._fresh.items()}


def by_deployment(counts: Counts) -> Mapping[str, Counts]:
    """Sort counts by deployment id."""
    sorted_counts: dict[str, dict[Label, Sums]] = {}
    for label, sums in counts.items():
        sorted_counts.setdefault(label.deployment, {})[label] = sums
    return sorted_counts
