"""One request to an agent and its answer, from the upstream's side.

A request enters whole, or its body piece by piece; what the agent says goes to an
`IAnswer`.  It outlives its connection where that turns out to be stale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.errors import AgentLeft, AgentUnreachable, CallFailed
from ploinky.interfaces import IExchange
from ploinky.routing.patience import why_not_connected
from ploinky.routing.streams import FULL_BYTES
from ploinky.values import Address

if TYPE_CHECKING:
    from ploinky.routing.upstream import AgentConnection

_CHUNKED = b"\r\nTransfer-Encoding: chunked\r\n"


@implementer(IExchange)
class Exchange:
    """One request and its answer, on one connection or, once stale, on a second."""

    agent: AgentConnection | None = None
    connecting: Deferred[Any] | None = None
    over = False
    paused = False
    is_repeated = False
    """Whether it was sent before, on a connection that the agent then closed."""
    got_nothing = True
    """Whether it is sure that no agent has read any of it."""
    _body_held = False
    _early: bytearray | None = None

    def __init__(self, address: Address, head: bytes, body: bytes | None, answer: Any) -> None:
        self.address = address
        self.request = head
        self.body = body
        self.answer = answer
        self.whole = body is not None
        self.is_simple = self.whole and not head.startswith(b"HEAD ")
        """Whether an answer that comes in one piece may go on in one step."""
        self._in_chunks = body is None and _CHUNKED in head

    def write(self, chunk: bytes) -> None:
        """Send body bytes; see `IExchange.write`."""
        if chunk:
            self._put(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._in_chunks else chunk)

    def finish(self) -> None:
        """End the body; see `IExchange.finish`."""
        self.whole = True
        if self._in_chunks:
            self._put(b"0\r\n\r\n")

    def cancel(self) -> None:
        """Close the connection; see `IExchange.cancel`."""
        if self.over:
            return
        self.over = True
        if self.agent is not None:
            self.agent.drop()
        elif self.connecting is not None:
            self.connecting.cancel()

    def pause(self) -> None:
        """Read no further; see `IExchange.pause`."""
        if not self.paused and not self.over:
            self.paused = True
            if self.agent is not None:
                self.agent.hold()

    def resume(self) -> None:
        """Go on after `pause`."""
        if self.paused and not self.over:
            self.paused = False
            if self.agent is not None:
                self.agent.go_on()

    def connected(self, connection: AgentConnection) -> None:
        """Begin on the connection that was made for it."""
        self.connecting = None
        if self.over:
            connection.drop()
            return
        connection.begin(self)

    def not_connected(self, failure: Failure) -> None:
        """Say that there is no connection, unless that was the wish."""
        self.connecting = None
        if failure.check(CancelledError) is not None and self.over:
            return
        error = why_not_connected(failure)
        if self.is_repeated and isinstance(error, AgentUnreachable):
            error = AgentLeft(error.message)
        error.got_nothing = self.got_nothing
        self.fail(error)

    def fail(self, error: CallFailed) -> None:
        """End without a whole answer."""
        if not self.over:
            self.over = True
            self.answer.failed(error)

    def hold_body(self) -> None:
        """Let the body wait with who has it: nobody takes it yet."""
        if self.body is None and not self._body_held and IPushProducer.providedBy(self.answer):
            self._body_held = True
            self.answer.pauseProducing()

    def early_body(self) -> bytes:
        """Give up what was written before there was a connection."""
        early, self._early = self._early, None
        return bytes(early or b"")

    def body_moved(self, queued: int) -> None:
        """Let the body go on once the connection has taken what there was."""
        if self._body_held and not queued and not self.over:
            self._body_held = False
            self.answer.resumeProducing()

    def _put(self, framed: bytes) -> None:
        if self.over:
            return
        if self.agent is None:
            self._early = self._early or bytearray()
            self._early += framed
            queued = len(self._early)
        else:
            queued = self.agent.send(framed)
        if queued > FULL_BYTES:
            self.hold_body()
