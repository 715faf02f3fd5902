"""The codec of the frame wire (docs/protocols.md, section 7): bytes to frames and back.

Does no I/O and knows nothing of tasks.
"""

from __future__ import annotations

from struct import Struct
from typing import Iterator, NamedTuple, Tuple
from urllib.parse import unquote

PREFACE = b"ploinky-frames/1\n"
# The largest payload of any frame.
MAX_PAYLOAD_BYTES = 65536
# What may be sent of one answer before the other side gives credit.
WINDOW_BYTES = 262144

OPEN, CANCEL, CREDIT = 1, 2, 3
HELLO, RESULT, ERROR, BEGIN, DATA, END, FAIL, GOAWAY = range(16, 24)

TO_EVENTS = 1

_HEADER = Struct(">IIB")
_OPEN = Struct(">BQ")
_CREDIT = Struct(">I")
_BEGIN = Struct(">BQ")
_STATUS = Struct(">H")

Frame = Tuple[int, int, bytes]


class ProtocolError(Exception):
    """What the other side sent is no frame that it may send."""


class Opened(NamedTuple):
    """A task as an OPEN brings it.

    Attributes:
        raw: JSON of its params.
        params: Never read here.
        deadline: In ms since 1970; 0 for the default.
        to_events: Whether the caller reads events.
    """

    raw: bytes
    command: str
    task_id: str
    user: str
    request_id: str
    deadline: int
    to_events: bool
    params: None = None


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = b""
        self._greeted = False

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Take what was received; give type, id and payload of the frames that it completes.

        Raises:
            ProtocolError: It does not begin with the preface, or a frame is too long.
        """
        data = self._rest + chunk if self._rest else chunk
        self._rest = b""
        at = 0
        if not self._greeted:
            if not data.startswith(PREFACE):
                if not PREFACE.startswith(data):
                    raise ProtocolError("no preface")
                self._rest = data
                return
            self._greeted = True
            at = len(PREFACE)
        while len(data) - at >= _HEADER.size:
            length, number, kind = _HEADER.unpack_from(data, at)
            if length > MAX_PAYLOAD_BYTES:
                raise ProtocolError(f"a frame of {length} bytes")
            start = at + _HEADER.size
            if start + length > len(data):
                break
            at = start + length
            yield kind, number, data[start:at]
        self._rest = data[at:]


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    """Write a frame."""
    return _HEADER.pack(len(payload), number, kind) + payload


def read_open(payload: bytes) -> Opened:
    """Read the payload of an OPEN.

    Raises:
        ProtocolError: It is none.
    """
    parts = payload[_OPEN.size :].split(b"\n", 4)
    if len(payload) < _OPEN.size or len(parts) != 5:
        raise ProtocolError("an OPEN without its four lines")
    flags, deadline = _OPEN.unpack_from(payload)
    try:
        task_id, command, user, request_id = [part.decode() for part in parts[:4]]
    except UnicodeDecodeError as error:
        raise ProtocolError("an OPEN whose lines are not UTF-8") from error
    # The server percent-encodes whatever a line cannot hold.
    return Opened(
        parts[4],
        command,
        unquote(task_id),
        unquote(user),
        unquote(request_id),
        deadline,
        bool(flags & TO_EVENTS),
    )


def read_credit(payload: bytes) -> int:
    """Read how many bytes more may be sent.

    Raises:
        ProtocolError: It is no CREDIT.
    """
    if len(payload) != _CREDIT.size:
        raise ProtocolError("a CREDIT that is not 4 bytes long")
    (size,) = _CREDIT.unpack(payload)
    return int(size)


def hello() -> bytes:
    """Write what the engine says first."""
    return PREFACE + frame(HELLO, 0, _CREDIT.pack(MAX_PAYLOAD_BYTES))


def begin(number: int, to_events: bool, length: int) -> bytes:
    """Write a BEGIN; a length of 0 is one that is not known."""
    return frame(BEGIN, number, _BEGIN.pack(TO_EVENTS if to_events else 0, length))


def error(number: int, status: int, body: bytes) -> bytes:
    """Write an ERROR."""
    return frame(ERROR, number, _STATUS.pack(status) + body)
