"""How Compose and Kubernetes write amounts."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ploinky.cli.imports.amounts import quantity, size_bytes, span_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("1h", 3600.0),
        ("1.5s", 1.5),
        ("10us", 1e-05),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert span_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1m 30s", "1d"])
def test_what_is_no_duration(text: str) -> None:
    assert span_seconds(text) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("50M", 50 * 2**20), ("1.5gb", 3 * 2**29), ("1024", 1024), ("2kib", 2048), ("7b", 7)],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("256Mi", 256 * 2**20),
        ("128M", 128 * 10**6),
        ("500m", Decimal("0.5")),
        ("0.5", Decimal("0.5")),
        (".25", Decimal("0.25")),
        ("1e3", 1000),
        ("2E", 2 * 10**18),
        ("1Ki", 1024),
    ],
)
def test_quantities(text: str, value: Decimal | int) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "Mi", "1 Gi", "1KB", "five", "1mm"])
def test_what_is_no_quantity(text: str) -> None:
    assert quantity(text) is None
