"""What is counted of calls: by what it is kept apart, and what is summed up.

Values like those in `ploinky.values`; workers' reports, the store and the API mean the same by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from ploinky.latencies import Buckets, merged

FOREVER = 0
"""The resolution of totals: one point for all time."""

RESOLUTIONS = (10, 60, 3600)
"""Seconds of one point of the series."""


@frozen
class Label:
    """What counts are kept apart by.

    Attributes:
        deployment: Its id; ``""``: all that were removed meanwhile.
        command: Of a task; ``""`` of what is no task, ``*`` where there are too many.
        failed_at: One of `ploinky.errors.PARTS`; ``""`` where nothing failed.
    """

    deployment: str
    command: str
    status: int
    failed_at: str = ""


@frozen
class Sums:
    """What calls add up to.

    Attributes:
        microseconds: That they took together.
        queued_microseconds: Of those, what they waited for an instance with a free place.
        buckets: How long they took, see `ploinky.latencies`.
    """

    count: int = 0
    microseconds: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    queued_microseconds: int = 0
    buckets: Buckets = field(factory=dict)

    def plus(self, other: Sums) -> Sums:
        """Give the sum of both."""
        return Sums(
            self.count + other.count,
            self.microseconds + other.microseconds,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
            self.queued_microseconds + other.queued_microseconds,
            merged((self.buckets, other.buckets)),
        )


Counts = Mapping[Label, Sums]


def added(*parts: Counts) -> dict[Label, Sums]:
    """Add counts up, label by label."""
    total: dict[Label, Sums] = {}
    for part in parts:
        for label, sums in part.items():
            before = total.get(label)
            total[label] = sums if before is None else before.plus(sums)
    return total


def summed(parts: Iterable[Sums]) -> Sums:
    """Add all of them up."""
    total = Sums()
    for part in parts:
        total = total.plus(part)
    return total


@frozen
class Point:
    """What was counted in one stretch of a series.

    Attributes:
        time: Unix seconds at which it began.
    """

    time: int
    label: Label
    sums: Sums


@frozen
class CountBatch:
    """What was counted since the batch before.

    Attributes:
        time: Unix seconds at which it was counted.
        numbers: By reporter, the number of its last report that is in here or was before.
    """

    time: float
    counts: Counts
    numbers: Mapping[str, int]


@frozen
class KeptCounts:
    """What an earlier leader left.

    Attributes:
        totals: Of all time.
        numbers: By reporter, the number of its last report that is in the totals.
    """

    totals: Counts
    numbers: Mapping[str, int]
