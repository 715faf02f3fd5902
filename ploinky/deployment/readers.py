"""Readers of settings that came from outside: raw JSON value in, checked value or `Misfit` out.

Each reader is made by a function that says what it takes.  They know no field's name: `document`
puts them together by name, collects every problem with its path, and keeps what it does not know.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from attrs import frozen

T = TypeVar("T")
Reader = Callable[[Any], T]

LONGEST_TEXT = 32 * 1024
"""Characters in any one text of a manifest."""

MOST_ENTRIES = 512
"""Entries in any one list or object of a manifest."""

_SIZE = re.compile(r"(\d{1,18})\s*(?:([kmgt])(?:i?b)?|b)?\Z", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h)?\Z")
_SPAN_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TYPES = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


class Misfit(ValueError):
    """A value does not fit.

    Attributes:
        expected: What would have, in words.
        path: Where below the reader's own value, as ``.name`` and ``[0]``.
    """

    def __init__(self, expected: str, path: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.path = path

    def below(self, step: str) -> Misfit:
        """Give the same problem as seen from one level up."""
        return Misfit(self.expected, step + self.path)


def _wrong(expected: str, raw_value: Any) -> Misfit:
    got = _TYPES.get(type(raw_value), type(raw_value).__name__)
    if isinstance(raw_value, (int, float)) and not isinstance(raw_value, bool):
        got = repr(raw_value)[:40]
    elif isinstance(raw_value, str):
        got = repr(raw_value if len(raw_value) <= 60 else raw_value[:57] + "...")
    return Misfit(f"expected {expected}, got {got}")


def text(
    expected: str = "text", *, pattern: re.Pattern[str] | None = None, longest: int = LONGEST_TEXT
) -> Reader[str]:
    """Take a string without NUL that is not empty and matches ``pattern`` as a whole."""

    def read(raw_value: Any) -> str:
        if not isinstance(raw_value, str) or not raw_value.strip() or "\0" in raw_value:
            raise _wrong(expected, raw_value)
        if len(raw_value) > longest:
            raise Misfit(f"expected at most {longest} characters, got {len(raw_value)}")
        if pattern is not None and not pattern.fullmatch(raw_value):
            raise _wrong(expected, raw_value)
        return raw_value

    return read


def one_of(*choices: str) -> Reader[str]:
    """Take one of a few words."""

    def read(raw_value: Any) -> str:
        if raw_value not in choices:
            raise _wrong(f"{', '.join(choices[:-1])} or {choices[-1]}", raw_value)
        return str(raw_value)

    return read


def flag(raw_value: Any) -> bool:
    """Take true or false."""
    if not isinstance(raw_value, bool):
        raise _wrong("true or false", raw_value)
    return raw_value


def whole(lowest: int, highest: int) -> Reader[int]:
    """Take a whole number within bounds."""

    def read(raw_value: Any) -> int:
        if type(raw_value) is not int or not lowest <= raw_value <= highest:
            raise _wrong(f"a whole number from {lowest} to {highest}", raw_value)
        return raw_value

    return read


def number(above: float, highest: float) -> Reader[float]:
    """Take a finite number over ``above`` and up to ``highest``."""

    def read(raw_value: Any) -> float:
        if type(raw_value) not in (int, float) or not above < raw_value <= highest:
            raise _wrong(f"a number over {above:g} and up to {highest:g}", raw_value)
        return float(raw_value)

    return read


def seconds(lowest: float, highest: float) -> Reader[float]:
    """Take seconds as a number, or text such as ``500ms``, ``30s``, ``5m``."""

    def read(raw_value: Any) -> float:
        found = None if isinstance(raw_value, bool) else _SPAN.match(str(raw_value))
        if found is None or not isinstance(raw_value, (int, float, str)):
            raise _wrong('seconds such as 30 or "30s"', raw_value)
        value = float(found[1]) * _SPAN_UNITS[found[2] or ""]
        if not math.isfinite(value) or not lowest <= value <= highest:
            raise _wrong(f"{lowest:g} to {highest:g} seconds", raw_value)
        return value

    return read


def size(lowest: int, highest: int) -> Reader[int]:
    """Take bytes as a number, or text such as ``256m`` or ``1g`` (powers of 1024)."""

    def read(raw_value: Any) -> int:
        found = None if isinstance(raw_value, bool) else _SIZE.match(str(raw_value))
        if found is None or not isinstance(raw_value, (int, str)):
            raise _wrong('a size such as "256m" or "1g"', raw_value)
        value = int(found[1]) * _SIZE_UNITS[(found[2] or "").lower()]
        if not lowest <= value <= highest:
            raise _wrong(f"a size from {lowest} to {highest} bytes", raw_value)
        return value

    return read


def listing(item: Reader[T], most: int = MOST_ENTRIES) -> Reader[tuple[T, ...]]:
    """Take a list of what ``item`` takes."""

    def read(raw_value: Any) -> tuple[T, ...]:
        if not isinstance(raw_value, (list, tuple)):
            raise _wrong("a list", raw_value)
        if len(raw_value) > most:
            raise Misfit(f"expected at most {most} entries, got {len(raw_value)}")
        values = []
        for index, entry in enumerate(raw_value):
            try:
                values.append(item(entry))
            except Misfit as problem:
                raise problem.below(f"[{index}]") from None
        return tuple(values)

    return read


def table(name: Reader[str], value: Reader[T]) -> Reader[dict[str, T]]:
    """Take an object whose names and values are free within what the two readers take."""

    def read(raw_value: Any) -> dict[str, T]:
        if not isinstance(raw_value, Mapping):
            raise _wrong("an object", raw_value)
        if len(raw_value) > MOST_ENTRIES:
            raise Misfit(f"expected at most {MOST_ENTRIES} entries, got {len(raw_value)}")
        values = {}
        for key, entry in raw_value.items():
            try:
                values[name(key)] = value(entry)
            except Misfit as problem:
                raise problem.below(f".{str(key)[:60]}") from None
        return values

    return read


def record(
    fields: Mapping[str, Reader[Any]], required: tuple[str, ...] = ()
) -> Reader[dict[str, Any]]:
    """Take an object with these fields and no others; null counts as not given."""

    def read(raw_value: Any) -> dict[str, Any]:
        if not isinstance(raw_value, Mapping):
            raise _wrong("an object", raw_value)
        found = document(raw_value, fields)
        if found.problems:
            path, expected = next(iter(found.problems.items()))
            raise Misfit(expected, f".{path}")
        for name in found.unknown:
            raise Misfit(f"expected one of {', '.join(fields)}", f".{name[:60]}")
        for name in required:
            if name not in found.values:
                raise Misfit("expected a value, got nothing", f".{name}")
        return found.values

    return read


@frozen
class Found:
    """What an object of named fields holds.

    Attributes:
        values: By field; fields that are absent, null or wrong are missing.
        problems: Path to what was expected.
        unknown: Names that no reader stands for.
    """

    values: dict[str, Any]
    problems: dict[str, str]
    unknown: tuple[str, ...]


def document(raw_values: Mapping[str, Any], fields: Mapping[str, Reader[Any]]) -> Found:
    """Read every field and collect all problems, rather than stop at the first."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, read in fields.items():
        if raw_values.get(name) is None:
            continue
        try:
            values[name] = read(raw_values[name])
        except Misfit as problem:
            problems[name + problem.path] = problem.expected
    return Found(values, problems, tuple(name for name in raw_values if name not in fields))


def resembling(name: str, names: Mapping[str, Any]) -> str:
    """Give ` (did you mean X?)` where a known name is close, else nothing."""
    close = difflib.get_close_matches(name[:60], names, n=1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close else ""
