"""Workers' counts, added up in the leader.

What a worker's access log drains enters, as lines of JSON (`AccessLog.drain`,
one entry a line) under the report's number; totals leave, and batches of what is not on disk yet.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from attrs import frozen
from twisted.logger import Logger

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


class Counters:
    """Adds up.  What was not for a deployment (management, unknown paths) is left out.

    Args:
        kept: What an earlier leader had on disk.
    """

    _log = Logger()
    _entries = msgspec.json.Decoder(_Entry)

    def __init__(self, kept: KeptCounts) -> None:
        self._totals = dict(kept.totals)
        self._numbers = dict(kept.numbers)
        self._commands: dict[str, set[str]] = {}
        for label in self._totals:
            self._commands.setdefault(label.deployment, set()).add(label.command)
        self._fresh: dict[Label, Sums] = {}
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
        label = Label(entry.deployment, self._command(entry), entry.status, entry.failed_at)
        sums = Sums(
            entry.count,
            entry.microseconds,
            entry.bytes_in,
            entry.bytes_out,
            entry.queued_microseconds,
            dict(entry.buckets),
        )
        for counts in (self._totals, self._fresh):
            before = counts.get(label)
            counts[label] = sums if before is None else before.plus(sums)

    def _command(self, entry: _Entry) -> str:
        known = self._commands.setdefault(entry.deployment, set())
        if entry.command not in known:
            if len(known) >= MOST_COMMANDS:
                return OTHER_COMMANDS
            known.add(entry.command)
        return entry.command

    def totals(self) -> Counts:
        """Give the sums of all time."""
        return dict(self._totals)

    def fresh(self) -> Counts:
        """Give what no batch has taken yet."""
        return dict(self._fresh)

    def batch(self, time: float) -> CountBatch:
        """Take what is not on disk yet; `restore` it if it could not be written.

        It names every reporter that was heard since the last batch, also those that said nothing
        new: they did not hear the last acknowledgement.
        """
        numbers = {reporter: self._numbers.get(reporter, 0) for reporter in self._reported}
        batch = CountBatch(time, self._fresh, numbers)
        self._fresh, self._reported = {}, set()
        return batch

    def restore(self, batch: CountBatch) -> None:
        """Put a batch back that could not be written."""
        self._fresh = added(batch.counts, self._fresh)
        self._reported |= set(batch.numbers)

    def replace_totals(self, totals: Counts, fresh: Counts) -> None:
        """Take totals as they are on disk now, and what is not there yet."""
        self._totals = added(totals, fresh)


def by_deployment(counts: Counts) -> Mapping[str, Counts]:
    """Sort counts by deployment id."""
    sorted_counts: dict[str, dict[Label, Sums]] = {}
    for label, sums in counts.items():
        sorted_counts.setdefault(label.deployment, {})[label] = sums
    return sorted_counts
