"""Durations counted in buckets: what workers count by, and what is read out of the counts.

Bounds are 25 to a decade, so each is 1.0965 times the one before: whatever is in a bucket lies
within 4.8 % of its middle.  Counts of any two times, workers or deployments can be added up, which
percentiles cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil

_PER_DECADE = 25
_LOWEST, _HIGHEST = -5, 4

BOUNDS_SECONDS = tuple(
    float(f"{10 ** (_LOWEST + step / _PER_DECADE):.4g}")
    for step in range(_PER_DECADE * (_HIGHEST - _LOWEST) + 1)
)
"""Upper bounds of the buckets, from 10 microseconds to 10,000 s; one more bucket holds the rest."""

Buckets = Mapping[int, int]
"""How many durations fell into each bucket, by its index; buckets without any are left out."""


def middle(index: int) -> float:
    """Give the duration that stands for a bucket: at most 4.8 % off any that fell into it.

    The first and the last bucket are open to one side; their bound stands for them.
    """
    if index <= 0:
        return BOUNDS_SECONDS[0]
    if index >= len(BOUNDS_SECONDS):
        return BOUNDS_SECONDS[-1]
    return float((BOUNDS_SECONDS[index - 1] * BOUNDS_SECONDS[index]) ** 0.5)


def quantile(buckets: Buckets, share: float) -> float | None:
    """Give the duration that this share of all (0 to 1) does not exceed; None where there are none.

    That is the nearest rank: of 100 durations, 0.99 asks for the 99th.
    """
    total = sum(buckets.values())
    if not total:
        return None
    rank = max(1, ceil(share * total))
    seen = 0
    for index in sorted(buckets):
        seen += buckets[index]
        if seen >= rank:
            return middle(index)
    raise AssertionError("the ranks add up to the total")


def extremes(buckets: Buckets) -> tuple[float, float] | None:
    """Give the shortest and the longest duration; None where there are none."""
    return (middle(min(buckets)), middle(max(buckets))) if buckets else None


def merged(parts: Iterable[Buckets]) -> dict[int, int]:
    """Add counts up."""
    total: dict[int, int] = {}
    for part in parts:
        for index, count in part.items():
            total[index] = total.get(index, 0) + count
    return total
