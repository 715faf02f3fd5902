"""An open file on its way to a client, piece by piece.

A file and a part of it enter, an answer's head and bytes leave.  This module
opens nothing and knows no request.

Files are read in the reactor's thread, one piece at a time and only while the
client takes them: a piece from the page cache takes some 20 us, less than a hop
to a thread and back, and one from a disk what a small read takes.
"""

from __future__ import annotations

import os

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.errors import AgentBroken, CallFailed
from ploinky.interfaces import IAnswer, IExchange
from ploinky.routing.beneath import Opened
from ploinky.routing.conditions import Part

PIECE_BYTES = 128 * 1024
"""Read at once; with what an outlet holds before it says so, all that a slow client costs."""


@implementer(IExchange)
class Sending:
    """One file on its way to a client."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, answer: IAnswer) -> None:
        self._clock = clock
        self._answer = answer
        self._file: Opened | None = None
        self._at = self._stop = 0
        self._turn: IDelayedCall | None = None
        self._is_paused = False

    def take(self, file: Opened) -> None:
        """Own an open file from now on."""
        self._file = file

    def say(self, status: int, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        """Answer without a body."""
        self._close()
        self._answer.started(status, fields, 0)
        self._answer.ended()

    def fail(self, error: CallFailed) -> None:
        """Answer with an error, or cut the answer off."""
        self._close()
        self._answer.failed(error)

    def begin(
        self, status: int, fields: tuple[tuple[bytes, bytes], ...], part: Part, with_body: bool
    ) -> None:
        """Answer with a part of the file."""
        self._at, self._stop = part.start, part.stop
        self._answer.started(status, fields, part.stop - part.start)
        if with_body and part.stop > part.start:
            self._go_on()
        else:
            self._end()

    def _go_on(self) -> None:
        """Send the next piece, and then let others have their turn."""
        self._turn = None
        file = self._file
        if file is None:
            return
        try:
            piece = os.pread(file.descriptor, min(PIECE_BYTES, self._stop - self._at), self._at)
        except OSError as error:
            self._break_off(file, error.strerror or "it cannot be read")
            return
        if not piece:
            self._break_off(file, "it became shorter while it was sent")
            return
        self._at += len(piece)
        self._answer.data(piece)
        if self._at == self._stop:
            self._end()
        elif not self._is_paused and self._file is not None:
            self._turn = self._clock.callLater(0, self._go_on)

    def _break_off(self, file: Opened, reason: str) -> None:
        name = file.name.decode("utf-8", "backslashreplace")
        self._log.warn("{name} was not sent to its end: {reason}", name=name, reason=reason)
        self.fail(AgentBroken(f"the file could not be read to its end: {reason}"))

    def _end(self) -> None:
        self._close()
        self._answer.ended()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file.descriptor)
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()

    def write(self, chunk: bytes) -> None:
        """A file is asked for without a body."""

    def finish(self) -> None:
        """A file is asked for without a body."""

    def cancel(self) -> None:
        """See `IExchange.cancel`."""
        self._close()

    def pause(self) -> None:
        """See `IExchange.pause`."""
        self._is_paused = True
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()

    def resume(self) -> None:
        """See `IExchange.resume`."""
        self._is_paused = False
        if self._file is not None and self._turn is None:
            self._turn = self._clock.callLater(0, self._go_on)
