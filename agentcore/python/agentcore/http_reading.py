"""Reads HTTP/1.1 requests (RFC 9112), strictly: what can be read in two ways is refused.

Bytes enter, heads and bodies leave.  Does no I/O.
"""

from __future__ import annotations

import re
from typing import Dict, List, Optional

from .tasks import Failure

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_HEAD_BYTES = 65536

_REQUEST = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.([01])\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*\Z")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\Z")

Headers = Dict[str, str]


class Head:
    """The start of a request: what is asked, and how its body is framed."""

    __slots__ = ("headers", "http_11", "keep_alive", "length", "method", "path")

    def __init__(self, raw: bytes) -> None:
        """Read a head.

        Raises:
            Failure: BAD_REQUEST, where it is not HTTP or can be read in two ways.
        """
        lines = raw.split(b"\r\n")
        request = _REQUEST.match(lines[0])
        if not request:
            raise _malformed("the request line")
        self.method = request.group(1).decode()
        self.path = request.group(2).split(b"?", 1)[0].decode()
        self.headers = _fields(lines[1:])
        options = self.headers.get("connection", "").lower()
        self.http_11 = request.group(3) == b"1"
        self.keep_alive = self.http_11 and "close" not in options
        #: Bytes of the body, or None where it comes in chunks.
        self.length = self._body_length()

    def _body_length(self) -> Optional[int]:
        coding = self.headers.get("transfer-encoding")
        length = self.headers.get("content-length")
        if coding is not None:
            if length is not None or coding.lower() != "chunked":
                raise _malformed("Transfer-Encoding")
            return None
        if length is None:
            return 0
        if not (length.isascii() and length.isdigit()):
            raise _malformed("Content-Length")
        return int(length) if len(length) < 18 else MAX_BODY_BYTES + 1


def _fields(lines: List[bytes]) -> Headers:
    headers: Headers = {}
    for line in lines:
        field = _FIELD.match(line)
        if not field:
            raise _malformed("a header field")
        name = field.group(1).decode().lower()
        if name in headers and name in ("content-length", "transfer-encoding"):
            raise _malformed(name)
        headers[name] = field.group(2).decode("latin-1")
    return headers


def _malformed(what: str) -> Failure:
    return Failure(400, "BAD_REQUEST", f"The request cannot be read in one way only: {what}.")


class Chunks:
    """Reads a chunked body (RFC 9112, section 7.1)."""

    def __init__(self) -> None:
        self.body = bytearray()
        self._left = -1  # bytes of the chunk that are to come; -1: its size is

    def feed(self, buffer: bytearray) -> bool:
        """Take what it can from the buffer, and tell whether the body is whole.

        Raises:
            Failure: BAD_REQUEST or BODY_TOO_LARGE.
        """
        while True:
            if self._left < 0 and not self._begin(buffer):
                return False
            if self._left == 0:
                return self._end(buffer)
            if len(buffer) < self._left + 2:
                return False
            if buffer[self._left : self._left + 2] != b"\r\n":
                raise _malformed("a chunk")
            self.body += buffer[: self._left]
            del buffer[: self._left + 2]
            self._left = -1

    def _begin(self, buffer: bytearray) -> bool:
        end = buffer.find(b"\r\n")
        if end < 0 and len(buffer) < 1024:
            return False
        size = _SIZE.match(bytes(buffer[: max(end, 0)]))
        if not size:
            raise _malformed("a chunk's size")
        self._left = int(size.group(1), 16)
        if len(self.body) + self._left > MAX_BODY_BYTES:
            raise too_large()
        del buffer[: end + 2]
        return True

    def _end(self, buffer: bytearray) -> bool:
        while True:
            end = buffer.find(b"\r\n")
            if end < 0:
                if len(buffer) > MAX_HEAD_BYTES:
                    raise _malformed("the trailer")
                return False
            del buffer[: end + 2]
            if end == 0:
                return True


def too_large() -> Failure:
    """Give the failure for a body that is over the limit."""
    return Failure(413, "BODY_TOO_LARGE", f"A task has at most {MAX_BODY_BYTES} bytes.")
