"""Messages between the I/O process and the handlers' process.

A frame is four bytes of length, a line of JSON (a list; its first item says what it
is) and, after the line, bytes that are passed on unread.

To the worker: `["run", sequence, file, command, id, user, requestId, deadline]` + the
task's JSON; `["abort", sequence, reason]`; `["taken", sequence, bytes of items]`.  From it: `["loaded", functions]`,
`["broken", message]`, `["ending", what, sequence]`, `["done", sequence, failure]` +
the result's JSON, `["item", sequence]` + an item's, `["end", sequence]` after the last.
"""

from __future__ import annotations

import struct
from json import dumps, loads  # by name: whatever handlers put in their place
from typing import Any, Iterator, List, Tuple

_LENGTH = struct.Struct("!I")

Frame = Tuple[List[Any], bytes]


def encode(message: List[Any], body: bytes = b"") -> bytes:
    """Write one frame."""
    line = dumps(message).encode()
    return b"".join((_LENGTH.pack(len(line) + 1 + len(body)), line, b"\n", body))


class Decoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Take what was received and give the frames that it completes."""
        buffer = self._buffer
        buffer += chunk
        start = 0
        while len(buffer) - start >= 4:
            (length,) = _LENGTH.unpack_from(buffer, start)
            end = start + 4 + length
            if len(buffer) < end:
                break
            line = buffer.index(b"\n", start + 4)
            yield loads(buffer[start + 4 : line]), bytes(buffer[line + 1 : end])
            start = end
        del buffer[:start]
