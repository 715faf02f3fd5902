"""One connection that carries frames: many tasks at once to one instance.

Exchanges enter; what the agent says goes straight to their answers.  Whatever an
agent sends that it may not send costs it the connection.  This module knows
neither instances nor how a connection is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.errors import AgentBroken, AgentUnreachable, CallFailed
from ploinky.interfaces import IAnswer, IExchange, IOutlet
from ploinky.tasks import frames
from ploinky.tasks.frames import (
    BEGIN,
    DATA,
    END,
    ERROR,
    FAIL,
    GOAWAY,
    HELLO,
    LEAST_PAYLOAD,
    PREFACE,
    RESULT,
    WINDOW,
    FrameReader,
)
from ploinky.tasks.messages import EVENTS_FIELD, JSON_FIELD
from ploinky.values import TaskCall

MakeOutlet = Callable[[Any, Callable[[], None]], IOutlet]

_CREDIT_STEP = WINDOW // 4
"""Bytes taken of an answer after which as many more are allowed."""

_MOST_UNCONFIRMED = 1024
"""Cancelled tasks that an agent may leave open: one that never ends them is stuck."""

_MOST_QUEUED = 8 * 1024 * 1024
"""Bytes that an agent may leave unread."""

_LAST_NUMBER = 2**32 - 1


@implementer(IExchange)
class FrameExchange:
    """One task on its way.

    Attributes:
        answer: None once it is over, or was cancelled.
        repeated: It has been taken back from a connection once.
        allowed: Bytes that the agent may still send, once it has begun.
        left: Bytes that are to come, where that is known.
        taken: Bytes that came and have not been allowed again.
    """

    __slots__ = (
        "allowed",
        "answer",
        "begun",
        "call",
        "connection",
        "left",
        "number",
        "paused",
        "repeated",
        "taken",
    )
    allowed: int
    left: int | None
    taken: int

    def __init__(self, call: TaskCall, answer: IAnswer) -> None:
        self.call = call
        self.answer: IAnswer | None = answer
        self.connection: FrameConnection | None = None
        self.number = 0
        self.begun = False
        self.paused = False
        self.repeated = False

    def write(self, chunk: bytes) -> None:
        """A task travels whole."""

    def finish(self) -> None:
        """A task travels whole."""

    def cancel(self) -> None:
        if self.answer is not None:
            self.answer = None
            if self.connection is not None:
                self.connection.cancel(self)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        if self.begun and self.answer is not None and self.connection is not None:
            self.connection.allow(self)

    def fail(self, error: CallFailed) -> None:
        """End without a whole answer."""
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.failed(error)


class FrameConnection(Protocol):
    """See the module.

    Args:
        make_outlet: Gives the sending half of a transport.
        lost: Called once with this connection, when it is of no use any more; then what it
            had not sent is in `unsent`.
        hello_seconds: For the agent to greet.

    Attributes:
        takes_tasks: Whether `open` may be called; also before it is connected.
        used: Set by each task; whoever looks for idle connections resets it.
        largest_payload: What the agent takes, as far as it is known.
        unsent: Tasks of which no byte has left.
    """

    transport: Any
    _log = Logger()
    _outlet: IOutlet

    def __init__(
        self,
        clock: IReactorTime,
        make_outlet: MakeOutlet,
        lost: Callable[[FrameConnection], None],
        hello_seconds: float,
    ) -> None:
        self._clock = clock
        self._make_outlet = make_outlet
        self._told_lost = lost
        self._hello_seconds = hello_seconds
        self._hello: IDelayedCall | None = None
        self._reader = FrameReader()
        self._tasks: dict[int, FrameExchange] = {}
        self._last = 0
        self._unconfirmed = 0
        self._greeted = False
        self._over = False
        self._flushing = False
        self.unsent: list[FrameExchange] = []
        self.takes_tasks = True
        self.used = True
        self.largest_payload = LEAST_PAYLOAD

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand."""
        return not self._tasks

    # --- what exchanges and the transport call

    def open(self, exchange: FrameExchange) -> None:
        """Send a task: at once where nothing else is under way, else with others of this turn."""
        self.used = True
        self._last = number = self._last + 1
        exchange.number = number
        exchange.connection = self
        tasks = self._tasks
        tasks[number] = exchange
        self.unsent.append(exchange)
        if number == _LAST_NUMBER:
            self.retire()
        if self._greeted and not self._flushing:
            if len(tasks) == 1:
                self._flush()
            else:
                self._flushing = True
                self._clock.callLater(0, self._flush)

    def cancel(self, exchange: FrameExchange) -> None:
        """Abort a task inside the agent."""
        if exchange in self.unsent:
            self.unsent.remove(exchange)
            self._end(exchange)
            return
        self._unconfirmed += 1
        self._outlet.send(frames.cancel_frame(exchange.number))
        if self._unconfirmed > _MOST_UNCONFIRMED or self._outlet.queued > _MOST_QUEUED:
            self.give_up(AgentBroken("the agent has not taken anything for a long time"))

    def allow(self, exchange: FrameExchange) -> None:
        """Let the agent send as much as was taken of an answer."""
        if exchange.taken >= _CREDIT_STEP:
            exchange.allowed += exchange.taken
            self._outlet.send(frames.credit_frame(exchange.number, exchange.taken))
            exchange.taken = 0

    def retire(self) -> None:
        """Take no more tasks, and close once nothing is in hand."""
        self.takes_tasks = False
        if not self._tasks:
            self.give_up(AgentUnreachable("the connection was closed"))

    def give_up(self, error: CallFailed) -> None:
        """Close at once; what is in hand, sent or not, fails with `error`."""
        if not self._over:
            self.unsent.clear()
            self._finish(error, error)
            if self.transport is not None:
                self.transport.abortConnection()

    # --- what Twisted calls

    def connectionMade(self) -> None:
        if self._over:
            self.transport.abortConnection()
            return
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._outlet = self._make_outlet(self.transport, _nothing)
        self._hello = self._clock.callLater(self._hello_seconds, self._not_greeted)
        self._outlet.send(PREFACE)
        self.transport.protocol = self  # without the endpoint's wrapper: one call less a read

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        try:
            for kind, number, payload in self._reader.feed(data):
                if kind == RESULT:
                    self._result(number, payload)
                else:
                    self._take(kind, number, payload)
        except CallFailed as error:
            self.give_up(error)
        if not self.takes_tasks and not self._tasks:
            self.retire()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._finish(
            AgentUnreachable("the agent closed the connection without an answer"),
            AgentBroken("the agent closed the connection amid its answer"),
        )

    def not_connected(self, why: str) -> None:
        """Fail what waits for a connection that cannot be made."""
        self.give_up(AgentUnreachable(f"no connection to the agent: {why}"))

    # --- frames to answers

    def _result(self, number: int, payload: bytes) -> None:
        exchange = self._tasks.get(number)
        if exchange is None or exchange.begun or not payload:
            raise AgentBroken(f"the agent sent a result that fits no task: {number}")
        self._end(exchange)
        self._whole(exchange, 200, _json_fields(exchange.call.command), payload)

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind in (HELLO, GOAWAY):
            self._take_news(kind, number, payload)
            return
        exchange = self._tasks.get(number)
        if exchange is None:
            raise AgentBroken(f"the agent answered a task that it was not given: {number}")
        if kind == DATA and exchange.begun:
            self._data(exchange, payload)
        elif kind == BEGIN and not exchange.begun:
            self._begin(exchange, payload)
        elif kind == ERROR and not exchange.begun:
            status, body = frames.read_error(payload)
            self._end(exchange)
            self._whole(exchange, status, _error_fields(exchange.call.command, status), body)
        elif kind in (END, FAIL) and (exchange.begun or exchange.answer is None) and not payload:
            self._ended(exchange, kind == END)
        else:
            raise AgentBroken(f"the agent sent a frame of type {kind} where none can be")

    def _take_news(self, kind: int, number: int, payload: bytes) -> None:
        if number != 0 or self._greeted is (kind == HELLO):
            raise AgentBroken(f"the agent sent a frame of type {kind} where none can be")
        if kind == GOAWAY:
            self.retire()
            return
        self.largest_payload = frames.read_hello(payload)
        self._greeted = True
        assert self._hello is not None
        self._hello.cancel()
        self._flush()

    def _whole(
        self,
        exchange: FrameExchange,
        status: int,
        fields: Sequence[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        answer, exchange.answer = exchange.answer, None
        if answer is None:
            self._unconfirmed -= 1
            return
        try:
            answer.started(status, fields, len(body))
            answer.data(body)
            answer.ended()
        except Exception:
            self._log.failure("A caller could not take the outcome of its task")

    def _begin(self, exchange: FrameExchange, payload: bytes) -> None:
        to_events, length = frames.read_begin(payload)
        if to_events is not exchange.call.to_events:
            raise AgentBroken("the agent began an answer of the other kind")
        exchange.begun = True
        exchange.left = length
        exchange.allowed = WINDOW
        exchange.taken = 0
        fields = _event_fields if to_events else _json_fields
        if exchange.answer is not None:
            exchange.answer.started(200, fields(exchange.call.command), length)

    def _data(self, exchange: FrameExchange, payload: bytes) -> None:
        size = len(payload)
        exchange.allowed -= size
        if exchange.allowed < 0:
            raise AgentBroken("the agent sent more than it was allowed to")
        if exchange.left is not None:
            exchange.left -= size
            if exchange.left < 0:
                raise AgentBroken("the agent's answer is longer than it said")
        if exchange.answer is not None:
            exchange.answer.data(payload)
            exchange.taken += size
            if exchange.answer is not None and not exchange.paused:
                self.allow(exchange)

    def _ended(self, exchange: FrameExchange, whole: bool) -> None:
        self._end(exchange)
        answer = exchange.answer
        if answer is None:
            self._unconfirmed -= 1
        elif whole and not exchange.left:
            exchange.answer = None
            answer.ended()
        else:
            exchange.fail(AgentBroken("the handler failed amid its answer"))

    # --- within

    def _flush(self) -> None:
        self._flushing = False
        opened, self.unsent = self.unsent, []
        if self._over or not opened:
            self.unsent = opened
            return
        outlet = self._outlet
        behind_others = outlet.queued
        outlet.send(b"".join([frames.open_frame(each.number, each.call) for each in opened]))
        if outlet.queued:
            if outlet.broken and not behind_others:
                self.takes_tasks = False
                self.unsent = opened
            elif outlet.queued > _MOST_QUEUED:
                self.give_up(AgentBroken("the agent does not take its tasks"))

    def _not_greeted(self) -> None:
        self.give_up(AgentUnreachable("the agent did not answer on its socket"))

    def _end(self, exchange: FrameExchange) -> None:
        del self._tasks[exchange.number]

    def _finish(self, unanswered: CallFailed, answered: CallFailed) -> None:
        if self._over:
            return
        self._over = True
        self.takes_tasks = False
        if self._hello is not None and self._hello.active():
            self._hello.cancel()
        tasks, self._tasks = self._tasks, {}
        for exchange in self.unsent:
            del tasks[exchange.number]
        self._told_lost(self)
        for exchange in tasks.values():
            exchange.connection = None
            exchange.fail(answered if exchange.begun else unanswered)


def _nothing() -> None:
    """What has gone out is of no interest."""


@lru_cache(maxsize=4096)
def _json_fields(command: str) -> tuple[tuple[bytes, bytes], ...]:
    return (JSON_FIELD, (b"X-Ploinky-Command", command.encode()))


def _event_fields(command: str) -> tuple[tuple[bytes, bytes], ...]:
    return (EVENTS_FIELD, (b"X-Ploinky-Command", command.encode()))


def _error_fields(command: str, status: int) -> tuple[tuple[bytes, bytes], ...]:
    fields = _json_fields(command)
    return (*fields, (b"Retry-After", b"1")) if status == 503 else fields
