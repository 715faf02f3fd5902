"""What a request wants of a file that is there: all of it, a part, nothing new, or a coding of it.

Values of fields enter, decisions leave (RFC 9110, sections 12.5.3, 13 and 14).
This module opens nothing.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from email.utils import parsedate_tz

from attrs import frozen

from ploinky.errors import PreconditionFailed, RangeNotSatisfiable

_TAG = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_RANGE = re.compile(rb"bytes=\s*(\d{0,18})-(\d{0,18})\s*\Z", re.IGNORECASE)
_QUALITY = re.compile(rb"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z", re.IGNORECASE)

CODINGS = {b"br": b".br", b"zstd": b".zst", b"gzip": b".gz"}
"""Codings, best first, and what is added to the name of a file that is coded so."""

NOTED = frozenset(
    {
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
        b"range",
        b"accept-encoding",
        b"accept",
    }
)
"""The fields that this module and its users read."""


@frozen
class Part:
    """Which bytes of a file are wanted.

    Attributes:
        stop: The byte after the last one.
    """

    start: int
    stop: int


@frozen
class Version:
    """One representation of a file.

    Attributes:
        tag: A strong entity tag, with its quotes.
        modified: Unix seconds.
    """

    tag: bytes
    modified: int
    size: int


def is_news(asked: Mapping[bytes, bytes], version: Version) -> bool:
    """Tell whether to send it, or that the client has it already (status 304).

    Args:
        asked: Fields of a GET or HEAD by name in lower case, those of `NOTED` at least.

    Raises:
        PreconditionFailed: The client wants it only as it was.
    """
    if_match, since = asked.get(b"if-match"), asked.get(b"if-unmodified-since")
    if if_match is not None:
        met = _names(if_match, version.tag, strongly=True)
    else:
        unchanged_at = _seconds(since)
        met = unchanged_at is None or version.modified <= unchanged_at
    if not met:
        raise PreconditionFailed("the file is not (any more) the one that the request names")
    if_none_match = asked.get(b"if-none-match")
    if if_none_match is not None:
        return not _names(if_none_match, version.tag, strongly=False)
    known_at = _seconds(asked.get(b"if-modified-since"))
    return known_at is None or version.modified > known_at


def part_wanted(asked: Mapping[bytes, bytes], version: Version) -> Part | None:
    """Tell which part of it a GET wants; None: all of it.

    Several ranges at once get the whole, as RFC 9110, 14.2 allows: parts in a multipart body
    are what attacks ask for, and hardly anybody else.

    Raises:
        RangeNotSatisfiable: It is not that long.
    """
    wanted = _RANGE.match(asked.get(b"range", b""))
    if wanted is None or not _is_same(asked.get(b"if-range"), version):
        return None
    first, last = wanted.groups()
    if not first and not last:
        return None
    if not first:
        start, stop = max(0, version.size - int(last)), version.size
    else:
        start, stop = int(first), min(int(last) + 1 if last else version.size, version.size)
        if last and int(last) < start:
            return None
    if start >= version.size:
        raise RangeNotSatisfiable(f"the file has {version.size} bytes", size=version.size)
    return Part(start, stop)


def accepted_codings(accept_encoding: bytes) -> tuple[bytes, ...]:
    """Give the codings of `CODINGS` that a client would rather have than none, best first."""
    if not accept_encoding:
        return ()
    qualities: dict[bytes, float] = {}
    for text in accept_encoding.lower().split(b","):
        name, *parameters = (part.strip() for part in text.split(b";"))
        found = [_QUALITY.match(parameter) for parameter in parameters]
        quality = next((float(one.group(1)) for one in found if one is not None), 1.0)
        qualities[name.removeprefix(b"x-")] = quality
    others = qualities.get(b"*", 0.0)
    plain = qualities.get(b"identity", 0.0)
    rated = [(qualities.get(coding, others), coding) for coding in CODINGS]
    wanted = [one for one in rated if one[0] > 0 and one[0] >= plain]
    return tuple(coding for _, coding in sorted(wanted, key=lambda one: -one[0]))


def _names(tags: bytes, tag: bytes, *, strongly: bool) -> bool:
    if tags.strip() == b"*":
        return True
    return any(
        found.group(2) == tag and not (strongly and found.group(1)) for found in _TAG.finditer(tags)
    )


def _is_same(if_range: bytes | None, version: Version) -> bool:
    """Tell whether what a client has a part of is still what there is."""
    if if_range is None:
        return True
    if if_range.lstrip().startswith((b'"', b"W/")):
        return _names(if_range, version.tag, strongly=True)
    return _seconds(if_range) == version.modified


def _seconds(date: bytes | None) -> int | None:
    """Read an HTTP date; one that is none does not count."""
    parsed = parsedate_tz(date.decode("latin-1")) if date else None
    try:
        return timegm(parsed[:9]) - (parsed[9] or 0) if parsed is not None else None
    except (ValueError, OverflowError):
        return None
