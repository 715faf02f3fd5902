"""One task that travels as a frame, and how far its answer has come.

What the agent sends for it enters, in the order in which it may come or not at all;
an `IAnswer` hears of it.  Knows its connection by two verbs, and no bytes of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from zope.interface import implementer

from ploinky.errors import AgentBroken, CallFailed
from ploinky.interfaces import IAnswer, IExchange
from ploinky.tasks import frames
from ploinky.tasks.frames import WINDOW
from ploinky.tasks.messages import EVENTS_FIELD, JSON_FIELD
from ploinky.values import TaskCall

Fields = Sequence[tuple[bytes, bytes]]

_CREDIT_STEP = WINDOW // 4
"""Bytes taken of an answer after which as many more are allowed."""


class Carrier(Protocol):
    """What carries a task: a connection."""

    def cancel(self, exchange: FrameExchange) -> None:
        """Abort it inside the agent."""

    def allow(self, exchange: FrameExchange, size: int) -> None:
        """Let the agent send so many bytes more."""


@implementer(IExchange)
class FrameExchange:
    """See the module.

    Attributes:
        answer: None once it is over, or was cancelled.
        carrier: None while it has none, and once that was lost.
        number: Its id there.
        begun: Its answer comes in pieces, and the first has come.
        repeated: It has been taken back from a connection once.
    """

    __slots__ = (
        "_allowed",
        "_left",
        "_paused",
        "_taken",
        "answer",
        "begun",
        "call",
        "carrier",
        "number",
        "repeated",
    )
    _allowed: int
    _left: int | None
    _taken: int

    def __init__(self, call: TaskCall, answer: IAnswer) -> None:
        self.call = call
        self.answer: IAnswer | None = answer
        self.carrier: Carrier | None = None
        self.number = 0
        self.begun = False
        self.repeated = False
        self._paused = False

    # --- what its owner calls

    def write(self, chunk: bytes) -> None:
        """A task travels whole."""

    def finish(self) -> None:
        """A task travels whole."""

    def cancel(self) -> None:
        if self.answer is not None:
            self.answer = None
            if self.carrier is not None:
                self.carrier.cancel(self)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self.begun and self.answer is not None:
            self._allow()

    # --- what its connection calls; each raises AgentBroken for what may not come now

    def result(self, body: bytes) -> None:
        """Take the whole result."""
        if self.begun or not body:
            raise AgentBroken("the agent sent a result where none can be")
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.complete(200, _json_fields(self.call.command), body)

    def error(self, payload: bytes) -> None:
        """Take the whole error."""
        if self.begun:
            raise AgentBroken("the agent sent an error amid an answer")
        status, body = frames.read_error(payload)
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.complete(status, _error_fields(self.call.command, status), body)

    def begin(self, payload: bytes) -> None:
        """Begin an answer in pieces."""
        to_events, length = frames.read_begin(payload)
        if self.begun or to_events is not self.call.to_events:
            raise AgentBroken("the agent began an answer twice, or one of the other kind")
        self.begun = True
        self._left = length
        self._allowed = WINDOW
        self._taken = 0
        if self.answer is not None:
            fields = _event_fields if to_events else _json_fields
            self.answer.started(200, fields(self.call.command), length)

    def data(self, payload: bytes) -> None:
        """Take a piece."""
        if not self.begun:
            raise AgentBroken("the agent sent a piece of an answer that has not begun")
        size = len(payload)
        self._allowed -= size
        if self._allowed < 0:
            raise AgentBroken("the agent sent more than it was allowed to")
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise AgentBroken("the agent's answer is longer than it said")
        if self.answer is not None:
            self.answer.data(payload)
            self._taken += size
            if self.answer is not None and not self._paused:
                self._allow()

    def ended(self, is_whole: bool) -> None:
        """Take the end of an answer in pieces, or of one that nobody waits for."""
        answer, self.answer = self.answer, None
        if answer is None:
            return
        if not self.begun:
            self.answer = answer
            raise AgentBroken("the agent ended an answer that has not begun")
        if is_whole and not self._left:
            answer.ended()
        else:
            answer.failed(AgentBroken("the handler failed amid its answer"))

    def fail(self, error: CallFailed) -> None:
        """End without a whole answer."""
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.failed(error)

    # --- within

    def _allow(self) -> None:
        taken = self._taken
        if taken >= _CREDIT_STEP and self.carrier is not None:
            self._taken = 0
            self._allowed += taken
            self.carrier.allow(self, taken)


@lru_cache(maxsize=4096)
def _json_fields(command: str) -> Fields:
    """Give the same object for the same command: who gets it may remember what it made of it."""
    return (JSON_FIELD, (b"X-Ploinky-Command", command.encode()))


def _event_fields(command: str) -> Fields:
    return (EVENTS_FIELD, (b"X-Ploinky-Command", command.encode()))


def _error_fields(command: str, status: int) -> Fields:
    fields = _json_fields(command)
    return (*fields, (b"Retry-After", b"1")) if status == 503 else fields
