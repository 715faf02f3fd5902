"""The answer of one task as its bytes: a result, or the items of a streaming handler.

Items and outcomes enter; pieces of a JSON array, or Server-Sent Events, leave to an
outlet.  The same for every wire that can stream; knows neither HTTP nor frames.
"""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Dict, Optional

from .tasks import Failure, Task, dump

KEEP_ALIVE_SECONDS = 15.0
_BLANKS = bytes.maketrans(b"\r\n", b"  ")


class Outlet:
    """What a wire gives for one answer."""

    def result(self, raw: bytes) -> None:
        """Answer with a result."""
        raise NotImplementedError

    def refuse(self, failed: Failure) -> None:
        """Answer with an error."""
        raise NotImplementedError

    def begin(self, to_events: bool) -> None:
        """Begin an answer that comes in pieces."""
        raise NotImplementedError

    def write(self, piece: bytes, taken: Callable[[], None]) -> None:
        """Send a piece; `taken` is called once it has left."""
        raise NotImplementedError

    def end(self) -> None:
        """The answer is whole."""
        raise NotImplementedError

    def fail(self) -> None:
        """Cut the answer off: it cannot be finished."""
        raise NotImplementedError


class Items:
    """One answer.

    Args:
        task: Is told by `taken` how much of its items has left.
        to_events: Whether the caller reads events; else it gets an array.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, task: Task, to_events: bool, outlet: Outlet
    ) -> None:
        self._loop = loop
        self._task = task
        self._to_events = to_events
        self._outlet = outlet
        self._count = 0
        self._begun = False
        self._timer: Optional[asyncio.TimerHandle] = None

    def item(self, raw: bytes) -> None:
        """Take the JSON of the next item."""
        self._begin()
        piece = event(raw) if self._to_events else (b"," if self._count else b"[") + raw
        self._count += 1
        self._outlet.write(piece, lambda: self._task.taken(len(raw)))

    def done(self, raw: Optional[bytes], failed: Optional[Failure]) -> None:
        """Take the outcome, like the executor's `done`."""
        if not self._begun and failed:
            self._outlet.refuse(failed)
            return
        if not self._begun and raw is not None and not self._to_events:
            self._outlet.result(raw)
            return
        self._begin()
        self.close()
        if failed and not self._to_events:
            self._outlet.fail()
            return
        rest = b"" if raw is None else event(raw)
        if failed:
            rest += event(error_body(failed, self._task.request_id), b"error")
        elif self._to_events:
            rest += event(b"null", b"end")
        else:
            rest += b"]" if self._count else b"[]"
        self._outlet.write(rest, _nothing)
        self._outlet.end()

    def close(self) -> None:
        """Nobody reads it any more."""
        if self._timer:
            self._timer.cancel()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._outlet.begin(self._to_events)
            if self._to_events:
                self._timer = self._loop.call_later(KEEP_ALIVE_SECONDS, self._keep_alive)

    def _keep_alive(self) -> None:
        self._outlet.write(b":\n\n", _nothing)
        self._timer = self._loop.call_later(KEEP_ALIVE_SECONDS, self._keep_alive)


def event(raw: bytes, name: bytes = b"") -> bytes:
    """Write one Server-Sent Event; line ends in JSON text are blanks."""
    data = b"data: %b\n\n" % raw.translate(_BLANKS)
    return b"event: %b\n%b" % (name, data) if name else data


def error_body(failed: Failure, request_id: Optional[str]) -> bytes:
    """Give the JSON that tells a caller what failed."""
    body: Dict[str, Any] = {"error": True, **failed.fields()}
    del body["status"]
    if request_id is not None:
        body["requestId"] = request_id
    return dump(body)


def _nothing() -> None:
    """Nobody waits for this piece to leave."""
