"""The codec of the frame wire, the server's side (docs/protocols.md, section 7).

A `TaskCall` enters and the bytes of a frame leave; what an agent sent enters and
frames leave.  What cannot be a frame is refused before any of it is kept.  No I/O
here.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from ploinky.errors import AgentBroken
from ploinky.tasks.messages import field_text
from ploinky.values import TaskCall

PREFACE = b"ploinky-frames/1\n"
"""What either side says first.  No HTTP method begins like it, not even in its first byte."""

LARGEST_PAYLOAD = 65536
"""Bytes, of any frame."""

LEAST_PAYLOAD = 16384
"""Bytes of payload that every agent takes."""

WINDOW = 262144
"""Bytes of one answer that an agent may send before it is given credit."""

OPEN, CANCEL, CREDIT = 1, 2, 3
HELLO, RESULT, ERROR, BEGIN, DATA, END, FAIL, GOAWAY = range(16, 24)

TO_EVENTS = 1

Frame = tuple[int, int, bytes]
"""Type, id, payload."""

_HEADER = Struct(">IIB")
_OPEN = Struct(">IIBBQ")
_CREDIT = Struct(">IIBI")
_BEGIN = Struct(">BQ")
_HEADER_BYTES = _HEADER.size
_ABOUT_BYTES = _OPEN.size - _HEADER.size


def open_frame(number: int, call: TaskCall) -> bytes:
    """Give the frame that begins a task."""
    names = _names(call.command, call.user)
    about = f"{call.task}\n{names}\n{call.request_id}\n".encode("ascii")
    params = call.params
    length = _ABOUT_BYTES + len(about) + len(params)
    flags = TO_EVENTS if call.to_events else 0
    return _OPEN.pack(length, number, OPEN, flags, call.deadline_ms) + about + params


@lru_cache(maxsize=1024)
def _names(command: str, user: str) -> str:
    """Write what may hold any character; ids hold none that would have to be written otherwise."""
    return f"{field_text(command)}\n{field_text(user)}"


def fits(call: TaskCall, largest_payload: int) -> bool:
    """Tell whether a task can travel as one frame."""
    names = len(call.task) + len(call.command) + len(call.user) + len(call.request_id)
    # A character is at most twelve bytes of percent-encoded UTF-8.
    return len(call.params) + 12 * names + 64 <= largest_payload


def cancel_frame(number: int) -> bytes:
    """Give the frame that aborts a task."""
    return _HEADER.pack(0, number, CANCEL)


def credit_frame(number: int, size: int) -> bytes:
    """Give the frame that lets an agent send `size` more bytes of an answer."""
    return _CREDIT.pack(4, number, CREDIT, size)


def read_hello(payload: bytes) -> int:
    """Give the largest payload that the agent takes; what a later version adds to that is let be.

    Raises:
        AgentBroken: It is no HELLO, or takes less than every agent must.
    """
    largest = int.from_bytes(payload[:4], "big")
    if len(payload) < 4 or largest < LEAST_PAYLOAD:
        raise AgentBroken("the agent's HELLO is too short, or promises too little")
    return min(largest, LARGEST_PAYLOAD)


def read_begin(payload: bytes) -> tuple[bool, int | None]:
    """Tell whether events follow, and how many bytes, where that is known.

    Raises:
        AgentBroken: It is no BEGIN.
    """
    if len(payload) != _BEGIN.size:
        raise AgentBroken("the agent's BEGIN is not 9 bytes long")
    kind, length = _BEGIN.unpack(payload)
    if kind not in (0, TO_EVENTS):
        raise AgentBroken(f"the agent began an answer of kind {kind}")
    return kind == TO_EVENTS, length or None


def read_error(payload: bytes) -> tuple[int, bytes]:
    """Give status and body of an error.

    Raises:
        AgentBroken: It is no error.
    """
    status = int.from_bytes(payload[:2], "big")
    if len(payload) < 4 or not 400 <= status <= 599:
        raise AgentBroken(f"the agent gave status {status} for an error; 400 to 599 can be")
    return status, payload[2:]


class FrameReader:
    """Cuts what an agent sends into frames, and keeps at most one that is not whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._greeted = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take what was received; give the frames that it completes.

        Raises:
            AgentBroken: It does not begin with the preface, or a frame is too long.
        """
        if self._rest:
            data = self._rest + data
        at = 0
        if not self._greeted:
            if not data.startswith(PREFACE):
                if not PREFACE.startswith(data):
                    raise AgentBroken("the agent does not speak frames, though it said so")
                self._rest = data
                return []
            self._greeted = True
            at = len(PREFACE)
        frames: list[Frame] = []
        size = len(data)
        while size - at >= _HEADER_BYTES:
            length, number, kind = _HEADER.unpack_from(data, at)
            if length > LARGEST_PAYLOAD:
                raise AgentBroken(f"the agent sent a frame of {length} bytes")
            start = at + _HEADER_BYTES
            if start + length > size:
                break
            at = start + length
            frames.append((kind, number, data[start:at]))
        self._rest = data[at:] if at else data
        return frames
