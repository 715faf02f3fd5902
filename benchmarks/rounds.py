"""Variants that take turns, and what is said of them afterwards: medians and ratios."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter

from benchmarks.load import Run, Void

Measure = Callable[[], Run]


class Series:
    """All runs of all variants of one comparison.

    Attributes:
        voids: What was said of runs that count for nothing.
    """

    def __init__(self) -> None:
        self._runs: dict[str, list[Run | None]] = {}
        self.voids: list[str] = []

    def add(self, variant: str, run: Run | None) -> None:
        """Keep a run; None is one that was void."""
        self._runs.setdefault(variant, []).append(run)

    def median(self, variant: str, what: str) -> float:
        """Give the median of an attribute of a variant's runs; NaN where all were void."""
        values = [_read(run, what) for run in self._runs.get(variant, ()) if run is not None]
        return statistics.median(values) if values else float("nan")

    def ratio(self, variant: str, rival: str, what: str) -> float:
        """Give the median, over the rounds, of the variant's value by the rival's of that round."""
        pairs = zip(self._runs.get(variant, ()), self._runs.get(rival, ()), strict=False)
        found = []
        for one, other in pairs:
            if one is not None and other is not None:
                with contextlib.suppress(ZeroDivisionError):
                    found.append(_read(one, what) / _read(other, what))
        return statistics.median(found) if found else float("nan")

    def others(self) -> float:
        """Give the median of how much of the machine others took."""
        values = [run.others for runs in self._runs.values() for run in runs if run is not None]
        return statistics.median(values) if values else float("nan")


def take_turns(variants: Mapping[str, Measure], rounds: int, warm_up: bool = True) -> Series:
    """Run every variant once a round, beginning with another one each time.

    Args:
        warm_up: Run each once before, for nothing.
    """
    names = list(variants)
    series = Series()
    if warm_up:
        for measure in variants.values():
            with contextlib.suppress(Void):
                measure()
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            series.add(name, _unless_void(name, variants[name], series))
    return series


def at_each(
    concurrencies: Sequence[int], variants: Mapping[str, Callable[[int], Run]], rounds: int
) -> dict[int, Series]:
    """Let the variants take turns at one concurrency after the other, warm from the first on."""
    return {
        concurrency: take_turns(
            {name: partial(measure, concurrency) for name, measure in variants.items()},
            rounds,
            warm_up=concurrency == concurrencies[0],
        )
        for concurrency in concurrencies
    }


def _unless_void(name: str, measure: Measure, series: Series) -> Run | None:
    try:
        return measure()
    except Void as why:
        series.voids.append(f"{name}: {why}")
        print(f"\n*** VOID, counts for nothing: {name}: {why}\n", flush=True)
        return None


def _read(run: Run, what: str) -> float:
    value: float = attrgetter(what)(run)
    return value
