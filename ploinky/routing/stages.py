"""How long a client's connection may take for what it is about.

A stage enters, and what moves; the wheel gets when time is up.  What happens then is for
who knows the requests: see `Connection`.  This module knows no request.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Protocol

from ploinky.routing.pace import Pace
from ploinky.routing.streams import Outlet
from ploinky.routing.wheel import NEVER

if TYPE_CHECKING:
    from ploinky.routing.listening import GatewayFactory

RETIRE_SECONDS = 1.0
"""Between two requests while the server drains: a client that is busy gets its next answer,
with ``Connection: close``, rather than a connection closed under its request."""


class Stage(enum.Enum):
    """What a connection's time limit is about."""

    IDLE = "waits for a request"
    HEAD = "reads a head"
    BODY = "reads a body"
    ANSWER = "waits for the agent"
    STREAMING = "passes on what the agent sends, for as long as that takes"
    SENDING = "waits for the client to take its answer"
    LINGERING = "lets the client read a refusal"
    TUNNEL = "passes bytes of another protocol both ways"


IDLE = Stage.IDLE
ANSWER = Stage.ANSWER  # of a module, as members of an enumeration are slow to look up


class StagedProtocol(Protocol):
    """A connection's stage and its time, without what it does in either.

    Attributes:
        due: When time is up, in the clock's seconds: for the wheel.
        noted: When the wheel looks next: its own.
        stage: What it is about.
    """

    transport: Any
    outlet: Outlet
    _pace: Pace | None = None

    def __init__(self, factory: GatewayFactory) -> None:
        self.due = NEVER
        self.noted = NEVER
        self._factory = factory
        self._limits = factory.gateway.limits
        self._wheel = factory.gateway.wheel
        self._seconds = factory.gateway.clock.seconds
        self.stage = IDLE

    def expired(self) -> None:
        """Time is up; the wheel calls this."""
        raise NotImplementedError  # a connection knows what that means

    def await_agent(self, seconds: float | None) -> None:
        """Give the agent so long for its answer; None where it has begun and may stream."""
        if seconds is not None:
            self.stage = ANSWER
            self.due = due = self._seconds() + seconds
            if due < self.noted:
                self._wheel.set(self, due)
        elif self.stage is not Stage.SENDING:
            self._stream_on()

    def streams(self) -> None:
        """The answer has begun; what is left of the body still has its limit."""
        if self.stage is ANSWER:
            self._stream_on()

    def _allow(self, stage: Stage, seconds: float) -> None:
        self.stage = stage
        self._wheel.set(self, self._seconds() + seconds)

    def _rest(self, now: float) -> None:
        """Wait for the next request."""
        self.stage = IDLE
        seconds = RETIRE_SECONDS if self._factory.draining else self._limits.idle_seconds
        self.due = due = now + seconds
        if due < self.noted:
            self._wheel.set(self, due)

    def _stream_on(self) -> None:
        """Pass on what the agent sends, for as long as that takes."""
        self.stage = Stage.STREAMING
        self.due = NEVER

    def _await_more(self, size: int) -> None:
        """Give a body that goes on coming more time, by what came; see `Limits`."""
        now = self._seconds()
        due = now + self._limits.body_seconds
        if self.stage is Stage.BODY:
            due = min(due, self.due + size / self._limits.bytes_per_second)
        self.stage = Stage.BODY
        self._wheel.set(self, due)

    def await_client(self) -> None:
        """Wait for the client to take what is queued, at the least rate or better."""
        self._pace = Pace(self.transport, self.outlet)
        self._allow(Stage.SENDING, self._limits.sending_seconds)

    def _client_stalled(self) -> None:
        """It had so long: go on if it took enough, else let it go."""
        limits = self._limits
        least = limits.bytes_per_second * limits.sending_seconds
        if self._pace is not None and self._pace.taken_bytes() >= least:
            self._allow(Stage.SENDING, limits.sending_seconds)
        else:
            self.transport.abortConnection()
