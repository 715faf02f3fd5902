"""One connection that carries frames: many tasks at once to one instance.

Exchanges enter; what the agent says goes straight to their answers.  Whatever an
agent sends that it may not send costs it the connection.  This module knows
neither instances nor how a connection is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ploinky.errors import AgentBroken, AgentCutShort, AgentLeft, AgentUnreachable, CallFailed
from ploinky.interfaces import IOutlet
from ploinky.tasks import frames
from ploinky.tasks.frame_exchange import FrameExchange
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
    FrameReader,
)

Attach = Callable[[Any, Callable[[bytes], None], Callable[[], None]], IOutlet]

_MOST_UNCONFIRMED = 1024
"""Cancelled tasks that an agent may leave open: one that never ends them is stuck."""

_MOST_QUEUED = 8 * 1024 * 1024
"""Bytes that an agent may leave unread."""

_MOST_AT_ONCE = 8
"""Tasks that are sent together: the agent works on them while this process reads the next."""

_LAST_NUMBER = 2**32 - 1


class FrameConnection(Protocol):
    """See the module.

    Args:
        attach: Lets what a transport reads go to a function; gives its sending half, and calls
            another function when something of what was queued there has gone.
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
        attach: Attach,
        lost: Callable[[FrameConnection], None],
        hello_seconds: float,
    ) -> None:
        self._clock = clock
        self._attach = attach
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
        exchange.carrier = self
        tasks = self._tasks
        tasks[number] = exchange
        self.unsent.append(exchange)
        if number == _LAST_NUMBER:
            self.retire()
        if self._greeted:
            if len(tasks) == 1 or len(self.unsent) >= _MOST_AT_ONCE:
                self._flush()
            elif not self._flushing:
                self._flushing = True
                self._clock.callLater(0, self._flush)

    def cancel(self, exchange: FrameExchange) -> None:
        """Abort a task inside the agent; one that was not sent yet never is."""
        if exchange in self.unsent:
            self.unsent.remove(exchange)
            del self._tasks[exchange.number]
            return
        self._unconfirmed += 1
        self._outlet.send(frames.cancel_frame(exchange.number))
        if self._unconfirmed > _MOST_UNCONFIRMED or self._outlet.queued > _MOST_QUEUED:
            self.give_up(AgentBroken("the agent has not taken anything for a long time"))

    def allow(self, exchange: FrameExchange, size: int) -> None:
        """Let the agent send so many bytes more of an answer."""
        self._outlet.send(frames.credit_frame(exchange.number, size))

    def retire(self) -> None:
        """Take no more tasks, and close once nothing is in hand."""
        self.takes_tasks = False
        if not self._tasks:
            self.give_up(AgentUnreachable("the connection was closed"))

    def give_up(self, error: CallFailed) -> None:
        """Close at once; what is in hand, sent or not, fails with ``error``."""
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
        self._outlet = self._attach(self.transport, self.dataReceived, _nothing)
        self._hello = self._clock.callLater(self._hello_seconds, self._not_greeted)
        self._outlet.send(PREFACE)

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        try:
            for kind, number, payload in self._reader.feed(data):
                self._take(kind, number, payload)
        except CallFailed as error:
            self.give_up(error)
        if not self.takes_tasks and not self._tasks:
            self.retire()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._finish(
            AgentLeft("the agent closed the connection without an answer"),
            AgentCutShort("the agent closed the connection amid its answer"),
        )

    def not_connected(self, why: str) -> None:
        """Fail what waits for a connection that cannot be made."""
        self.give_up(AgentUnreachable(f"no connection to the agent: {why}", got_nothing=True))

    # --- frames to exchanges

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        exchange = self._tasks.get(number)
        if exchange is None:
            self._take_news(kind, number, payload)
            return
        was_wanted = exchange.answer is not None
        try:
            if kind == RESULT:
                exchange.result(payload)
            elif kind == DATA:
                exchange.data(payload)
                return
            elif kind == BEGIN:
                exchange.begin(payload)
                return
            elif kind == ERROR:
                exchange.error(payload)
            elif kind in (END, FAIL) and not payload:
                exchange.ended(kind == END)
            else:
                raise AgentBroken(f"the agent sent a frame of type {kind} where none can be")
        except CallFailed:
            raise
        except Exception:
            # One caller's bug must not cost all others the connection.
            self._log.failure("A caller could not take the outcome of its task")
            if kind in (BEGIN, DATA):
                exchange.cancel()
                return
        self._tasks.pop(number, None)
        if not was_wanted:
            self._unconfirmed -= 1

    def _take_news(self, kind: int, number: int, payload: bytes) -> None:
        """Take what is about no task."""
        if number == 0 and kind == HELLO and not self._greeted:
            self.largest_payload = frames.read_hello(payload)
            self._greeted = True
            assert self._hello is not None
            self._hello.cancel()
            self._flush()
        elif number == 0 and kind == GOAWAY and self._greeted:
            self.retire()
        else:
            raise AgentBroken(f"the agent sent a frame of type {kind} for a task it does not have")

    # --- within

    def _flush(self) -> None:
        self._flushing = False
        opened = self.unsent
        if self._over or not opened:
            return
        self.unsent = []
        outlet = self._outlet
        was_queued = outlet.queued
        outlet.send(b"".join([frames.open_frame(each.number, each.call) for each in opened]))
        if outlet.queued:
            if outlet.broken and not was_queued:
                self.takes_tasks = False
                self.unsent = opened
            elif outlet.queued > _MOST_QUEUED:
                self.give_up(AgentBroken("the agent does not take its tasks"))

    def _not_greeted(self) -> None:
        why = "the agent did not answer on its socket"
        self.give_up(AgentUnreachable(why, got_nothing=True))  # tasks wait for its greeting

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
            exchange.carrier = None
            exchange.fail(answered if exchange.begun else unanswered)


def _nothing() -> None:
    """What has gone out is of no interest."""
