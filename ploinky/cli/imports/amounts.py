"""Durations, sizes and quantities, as Compose and Kubernetes write them.  Pure."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(us|ms|s|m|h)")
_SPANS = re.compile(rf"(?:{_SPAN.pattern})+")
_SECONDS = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([bkmgtp]?)(?:i?b)?", re.IGNORECASE)
_QUANTITY = re.compile(r"([+-]?\d{1,18}(?:\.\d{1,9})?|\.\d{1,9})([eE][+-]?\d{1,2}|[A-Za-z]{0,2})")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def span_seconds(text: str) -> float | None:
    """Read a duration of Compose, such as ``1m30s`` or ``500ms``; None where it is none."""
    if not _SPANS.fullmatch(text):
        return None
    return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in _SPAN.findall(text)))


def size_bytes(text: str) -> int | None:
    """Read a size of Compose, such as ``256m`` or ``1.5gb`` (powers of 1024)."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        return None
    power = " kmgtp".index(found[2].lower()) if found[2].lower() not in ("", "b") else 0
    return int(Decimal(found[1]) * Decimal(1024) ** power)


def quantity(text: str) -> Decimal | None:
    """Read a quantity of Kubernetes, such as ``256Mi``, ``500m`` or ``1e3``.

    Source: Kubernetes API reference, ``resource.Quantity``.
    """
    found = _QUANTITY.fullmatch(text)
    if not found:
        return None
    number, unit = found.groups()
    try:
        if unit in _BINARY:
            return Decimal(number) * Decimal(1024) ** (1 + _BINARY.index(unit))
        if unit in _DECIMAL:
            return Decimal(number).scaleb(_DECIMAL[unit])
        return Decimal(number + unit)
    except InvalidOperation:
        return None
