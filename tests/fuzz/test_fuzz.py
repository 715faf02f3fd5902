"""A few hundred trials of the fuzzer, always the same ones: it runs, and nothing gives way."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from tests.fuzz import trial


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_nothing_gives_way(tmp_path: Path, first: int) -> None:
    """No error, no endless exchange, no growth; and llhttp reads requests as we do."""
    gc.collect()  # what earlier tests left is logged now
    for number in range(first, first + 100):
        outcome = trial.run(number, tmp_path)
        assert outcome.held <= trial.HELD_BYTES
