"""Where a message's body ends, for requests and answers alike (RFC 9112, section 6).

Bytes enter as they come; body bytes leave, and what follows the body.  This
module knows no connection and no head.  Chunked framing is read here and not by
llhttp, whose Python binding does not tell where a message ended, so that what
follows could not be told from it; tests hold it against llhttp.
"""

from __future__ import annotations

import re
from typing import Protocol

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*"'
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:;%b(?:=(?:%b|%b))?)*\Z" % (_TOKEN, _TOKEN, _QUOTED)
)
_TRAILER = re.compile(rb"(%b):[\t\x20-\x7e\x80-\xff]*\Z" % _TOKEN)
_FRAMING = (b"content-length", b"transfer-encoding")
_LINE_BYTES = 1024
_TRAILER_BYTES = 8192


class BadFraming(ValueError):
    """The body's framing can be read in more than one way, or in none."""


class Body(Protocol):
    """One body on its way in."""

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take bytes of the connection.

        Returns:
            The body bytes in them, and what follows the body, or None while it goes on.

        Raises:
            BadFraming: It is not valid; the connection is of no more use.
        """


class LengthBody:
    """A body with ``Content-Length``."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """See `Body.feed`."""
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return data, None
        self._left = 0
        return data[:left], data[left:]


class UntilCloseBody:
    """A body that ends with its connection."""

    __slots__ = ()

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """See `Body.feed`."""
        return data, None


class ChunkedBody:
    """A body in chunks; extensions and trailers are checked and dropped.

    Stricter than the grammar where recipients are known to differ: line ends are CRLF,
    no space stands around a size or in an extension, lines and trailers are short, and no
    trailer is one that frames.
    """

    __slots__ = ("_held", "_left", "_trailer_bytes")

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        """Bytes of the chunk in hand with its CRLF; 0 before a size, -1 in the trailers."""
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """See `Body.feed`."""
        data = self._held + data
        at = 0
        parts: list[bytes] = []
        while True:
            if self._left > 0:
                at, ended = self._read_chunk(data, at, parts)
                if not ended:
                    break
            line_end = data.find(b"\n", at, at + _LINE_BYTES)
            if line_end < 0:
                if len(data) - at >= _LINE_BYTES:
                    raise BadFraming("a chunk's line is too long")
                break
            line = self._line(data, at, line_end)
            at = line_end + 1
            if self._left == 0:
                self._begin_chunk(line)
            elif self._is_last_line(line):
                return b"".join(parts), data[at:]
        self._held = data[at:]
        return b"".join(parts), None

    def _read_chunk(self, data: bytes, at: int, parts: list[bytes]) -> tuple[int, bool]:
        """Take what there is of the chunk in hand; tell where it ends and whether it did."""
        there = len(data) - at
        body_left = self._left - 2
        if there < self._left:
            taken = min(there, body_left)
            if there > body_left and data[at + body_left] != 13:
                raise BadFraming("a chunk is longer than its size")
            parts.append(data[at : at + taken])
            self._left -= taken
            return at + taken, False
        end = at + body_left
        if data[end : end + 2] != b"\r\n":
            raise BadFraming("a chunk is longer than its size")
        parts.append(data[at:end])
        self._left = 0
        return end + 2, True

    @staticmethod
    def _line(data: bytes, at: int, line_end: int) -> bytes:
        if line_end == at or data[line_end - 1] != 13:
            raise BadFraming("a line of the chunked framing does not end in CRLF")
        return data[at : line_end - 1]

    def _begin_chunk(self, line: bytes) -> None:
        found = _CHUNK_LINE.match(line)
        if found is None:
            raise BadFraming("a chunk's size is not a hexadecimal number")
        size = int(found.group(1), 16)
        self._left = size + 2 if size else -1

    def _is_last_line(self, line: bytes) -> bool:
        if not line:
            return True
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > _TRAILER_BYTES:
            raise BadFraming("the trailers are too long")
        found = _TRAILER.match(line)
        if found is None or found.group(1).lower() in _FRAMING:
            raise BadFraming("a trailer is not a field, or would frame the body anew")
        return False
