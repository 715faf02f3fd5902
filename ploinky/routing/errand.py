"""The short way of a task: a call of a command sent to AgentCore, and its result, which came whole.

A body enters, and leaves as a `TaskCall`; its result goes to the client.  Any wire may carry it.
An `Errand` is the answer's receiver too, for as long as its tasks end as tasks should; what is
not a result (an error, an answer in pieces) it passes on to the call that it unfolds to.  See
`ploinky.routing.short`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from zope.interface import implementer

from ploinky.errors import CallFailed
from ploinky.interfaces import IAnswer, IExchange
from ploinky.routing.call import Call
from ploinky.routing.headers import REQUEST_ID, answer_head
from ploinky.routing.short import ShortWay
from ploinky.values import Kind, TaskCall

if TYPE_CHECKING:
    from ploinky.routing.gateway import Gateway
    from ploinky.routing.memo import Memo
    from ploinky.routing.repeats import RepeatingProtocol

_OK = 200

_REMEMBERED_BYTES = 512
"""Of a call that may come again: an idle connection must stay small."""


@implementer(IAnswer)
class Errand(ShortWay):
    """See the module."""

    __slots__ = (
        "_body",
        "_call",
        "_command",
        "_exchange",
        "_fields",
        "_form",
        "_front",
        "_in_hand",
        "_params",
        "_timeout_seconds",
        "_until",
        "_user",
    )

    def __init__(self, gateway: Gateway, connection: RepeatingProtocol, memo: Memo) -> None:
        super().__init__(gateway, connection, memo)
        assert memo.plan.form is not None
        self._form = memo.plan.form
        self._user = memo.plan.principal.id
        self._timeout_seconds = memo.plan.route.timeout_seconds
        self._body = self._params = b""
        self._call: Call | None = None
        self._exchange: IExchange | None = None
        self._command = ""
        self._fields: Sequence[tuple[bytes, bytes]] = ()
        self._front = b""
        self._until = -inf
        self._in_hand = False

    def is_busy(self) -> bool:
        """See `ShortWay.is_busy`."""
        return self._in_hand

    # --- there: the connection calls these

    def take(self, forwarded: bytes, body: bytes, size: int) -> bool:
        """Send a task; False where it is none, or is to be durable, or where no place is free."""
        if (body != self._body or not body) and not self._read(body):
            return False
        if not self._claim():
            return False
        command, params = self._command, self._params
        self._in_hand = True
        gateway = self._gateway
        lease = self._lease
        name = f"{gateway.id_text}{self._begin(size)}"
        deadline_ms = int((gateway.wall_seconds() + self._timeout_seconds) * 1000)
        task = TaskCall(name, command, params, self._user, deadline_ms, name)
        exchange = gateway.transports[lease.target.wire].send(lease, task, self)
        if self._in_hand:
            self._exchange = exchange
        elif self._call is not None:
            self._call.handed_over(exchange)
        return True

    def unfold(self) -> None:
        """See `ShortWay.unfold`; what the agent says from now on goes to the call."""
        if not self._in_hand:
            return
        self._in_hand = False
        self._connection.leave_short_way()
        self._call = call = self._as_call(b"", self._body)
        call.command, call.params = self._command, self._params
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            call.handed_over(exchange)

    # --- back: the transport calls these

    def complete(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Take a whole answer; see `IAnswer.complete`."""
        if status != _OK or not body or not self._in_hand or not self._connection.is_ordinary:
            self._general().complete(status, fields, body)
            return
        now = self._gateway.seconds()
        if now >= self._until or fields is not self._fields:
            self._write_front(fields, now)
        self._in_hand = False
        self._exchange = None
        if len(self._body) > _REMEMBERED_BYTES:
            self._body = self._params = b""
        answer = b"%b%d\r\nContent-Length: %d%b%b" % (
            self._front,
            self._number,
            len(body),
            self._tail,
            body,
        )
        self._finish(answer, now)

    def started(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> None:
        """See `IAnswer.started`."""
        self._general().started(status, fields, length)

    def data(self, chunk: bytes) -> None:
        """See `IAnswer.data`."""
        self._general().data(chunk)

    def ended(self) -> None:
        """See `IAnswer.ended`."""
        self._general().ended()

    def failed(self, error: CallFailed) -> None:
        """See `IAnswer.failed`."""
        self._general().failed(error)

    # --- within

    def _read(self, body: bytes) -> bool:
        """Read another call than the last one; False where that has to be said, or is a wish."""
        try:
            command, params, wish = self._form.read(body)
        except CallFailed:
            return False  # the general way meets the same, and says so
        if wish is not None:
            return False
        if command != self._command:
            self._command = command
            self._count_as(command, _OK)
        self._body, self._params = body, params
        return True

    def _general(self) -> Call:
        """Give the call that it unfolds to."""
        self.unfold()
        assert self._call is not None
        return self._call

    def _write_front(self, fields: Sequence[tuple[bytes, bytes]], now: float) -> None:
        """Make what an answer begins with, which has the date in it."""
        gateway = self._gateway
        head = answer_head(Kind.TASK, _OK, fields, gateway.dates.at(now))
        self._fields = fields
        self._front = head + REQUEST_ID + gateway.id_prefix
        self._until = gateway.dates.until
