"""Buckets of durations: small enough to trust, and right when they are added up."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ploinky.latencies import BOUNDS_SECONDS, extremes, merged, middle, quantile

DURATIONS = st.floats(min_value=1e-5, max_value=1e4)


def counted(durations: list[float]) -> dict[int, int]:
    """Count as a worker does."""
    return merged({bisect_left(BOUNDS_SECONDS, one): 1} for one in durations)


def test_bounds_grow_by_less_than_a_tenth() -> None:
    """From ten microseconds to hours, with whole decades among them."""
    steps = [b / a for a, b in pairwise(BOUNDS_SECONDS)]
    assert max(steps) < 1.1
    assert min(steps) > 1.09
    assert {1e-5, 0.001, 0.01, 0.1, 1.0, 10.0, 10000.0} <= set(BOUNDS_SECONDS)


@given(DURATIONS)
def test_a_buckets_middle_is_close_to_whatever_fell_into_it(seconds: float) -> None:
    """At most 5 % off."""
    assert middle(bisect_left(BOUNDS_SECONDS, seconds)) == pytest.approx(seconds, rel=0.05)


@given(st.lists(DURATIONS, min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_close_to_the_true_one(durations: list[float], share: float) -> None:
    """By nearest rank, at most 5 % off, however few there are."""
    rank = max(1, ceil(share * len(durations)))
    assert quantile(counted(durations), share) == pytest.approx(
        sorted(durations)[rank - 1], rel=0.05
    )


def test_workers_add_up_to_what_one_would_have_counted() -> None:
    """Percentiles of a sum are those of all together."""
    parts = [counted([0.001] * 98), counted([5.0, 7.0])]
    together = merged(parts)
    assert quantile(together, 0.98) == pytest.approx(0.001, rel=0.05)
    assert quantile(together, 0.99) == pytest.approx(5.0, rel=0.05)
    assert extremes(together) == (
        pytest.approx(0.001, rel=0.05),
        pytest.approx(7.0, rel=0.05),
    )


def test_nothing_has_no_percentile() -> None:
    """Nor a shortest."""
    assert quantile({}, 0.5) is None
    assert extremes({}) is None


def test_what_is_beyond_the_bounds_is_counted_at_them() -> None:
    """A call of four hours is not lost."""
    assert quantile(counted([20_000.0]), 1.0) == 10_000.0
    assert quantile(counted([0.0]), 1.0) == 1e-5
