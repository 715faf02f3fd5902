"""The short way to an agent's own server: a request passed on, and an answer that came in one piece.

A head and a body enter and go to a connection that is idle; what it answers goes to the client.
`Relay.take` and `Relay.complete` are the two steps of most requests.  See `ploinky.routing.short`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ploinky.routing.exchange import Exchange
from ploinky.routing.headers import REQUEST_ID, answer_head
from ploinky.routing.short import ShortWay
from ploinky.routing.upstream import NO_ANSWER, NO_POOL, AgentConnection, LastAnswer, Pool

if TYPE_CHECKING:
    from ploinky.routing.gateway import Gateway
    from ploinky.routing.memo import Memo
    from ploinky.routing.repeats import RepeatingProtocol

_NOTHING = (b"", b"")


class Relay(ShortWay):
    """See the module.

    Attributes:
        agent: The connection that carries the request in hand; None where there is none.
    """

    __slots__ = ("_kind", "_last", "_pool", "_said", "agent")

    def __init__(self, gateway: Gateway, connection: RepeatingProtocol, memo: Memo) -> None:
        super().__init__(gateway, connection, memo)
        self._kind = memo.plan.route.kind
        self._pool: Pool = NO_POOL
        self._said = _NOTHING
        self._last = NO_ANSWER
        self.agent: AgentConnection | None = None

    def is_busy(self) -> bool:
        """See `ShortWay.is_busy`."""
        return self.agent is not None

    def take(self, forwarded: bytes, body: bytes, size: int) -> bool:
        """Send a request; False where there is no free place."""
        if not self._claim():
            return False
        idle = self._pool.idle
        if self._standing is None or not idle:
            idle = self._idle()
        number = self._begin(size)
        if not idle:
            self._connect(forwarded, body)
            return True
        self._said = forwarded, body
        self.agent = agent = idle.pop()
        agent.relay = self
        prefix = self._gateway.id_prefix
        if agent.outlet.send(b"%b%b%d\r\n\r\n%b" % (forwarded, prefix, number, body)):
            self.unfold()
        return True

    def complete(self, data: bytes) -> bool:
        """Pass on an answer that is whole, and as long as the one before, which began like it.

        Args:
            data: All that the agent has sent.

        Returns:
            False where it is another one, or where more than that is to be done; nothing has
            happened then.
        """
        last = self._pool.last
        if (
            len(data) != last.size
            or not data.startswith(last.raw)
            or not self._connection.is_ordinary
        ):
            return False
        now = self._gateway.seconds()
        if now >= last.until or last.kind is not self._kind:
            self._write_front(last, now)
        if last is not self._last:
            self._last = last
            self._count_as("", last.head.status)
        agent: Any = self.agent
        self.agent = None
        agent.rest(now)
        self._said = _NOTHING
        body = data[last.head_size :]
        self._finish(b"%b%d%b%b" % (last.front, self._number, self._tail, body), now)
        return True

    def unfold(self) -> None:
        """See `ShortWay.unfold`; the agent's connection goes on with an `Exchange`."""
        agent = self.agent
        if agent is None:
            return
        self.agent = agent.relay = None
        forwarded, body = self._said
        self._said = _NOTHING
        call = self._as_call(forwarded, body)
        exchange = Exchange(agent.address, b"%b%b\r\n\r\n" % (forwarded, call.id), body, call)
        agent.carry(exchange)
        call.handed_over(exchange)

    def _connect(self, forwarded: bytes, body: bytes) -> None:
        """Go the general way to the instance that is claimed, which has no idle connection."""
        call = self._as_call(forwarded, body)
        head = b"%b%b\r\n\r\n" % (forwarded, call.id)
        call.handed_over(
            self._gateway.upstream.exchange(self._lease.target.address, head, body, call)
        )

    def _idle(self) -> list[AgentConnection]:
        """Turn to the claimed instance, and give its idle connections."""
        address = self._lease.target.address
        self._pool = self._gateway.upstream.pool(address) or NO_POOL
        return self._pool.idle

    def _write_front(self, last: LastAnswer, now: float) -> None:
        """Make what an answer begins with for a client, which has the date in it."""
        gateway = self._gateway
        head = last.head
        last.kind = self._kind
        front = answer_head(last.kind, head.status, head.fields, gateway.dates.at(now))
        length = b"\r\nContent-Length: %d" % (head.length or 0)
        last.front = front + length + REQUEST_ID + gateway.id_prefix
        last.until = gateway.dates.until
