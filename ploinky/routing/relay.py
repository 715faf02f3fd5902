"""The short way: a whole request that says what the one before said, passed on and answered.

Most requests are such.  What follows from a head that comes again and again is looked up
once; then a `Relay` carries one request at a time, in two steps: `take` sends it to an agent,
`complete` passes on an answer that came in one piece.  Neither makes anything but bytes.
Whatever else happens to a request (an answer in pieces, a client that leaves, a stale
connection, a time-out) unfolds it: it becomes a `Call` and an `Exchange`, as if it had gone
the general way from the beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ploinky.errors import CallFailed
from ploinky.interfaces import ILease, IStanding
from ploinky.routing.access import SERVED, Sums, line_of
from ploinky.routing.call import Call
from ploinky.routing.exchange import Exchange
from ploinky.routing.headers import REQUEST_ID, answer_head
from ploinky.routing.stages import ANSWER, IDLE
from ploinky.routing.upstream import NO_ANSWER, NO_POOL, AgentConnection, LastAnswer, Pool

if TYPE_CHECKING:
    from ploinky.routing.connection import Connection
    from ploinky.routing.gateway import Gateway
    from ploinky.routing.memo import Memo

_NOTHING = (b"", b"")


class Relay:
    """The short way of one client's connection, for as long as a memo holds.

    Attributes:
        agent: The connection that carries the request in hand; None where there is none.
    """

    __slots__ = (
        "_began",
        "_connection",
        "_gateway",
        "_last",
        "_lease",
        "_line",
        "_memo",
        "_number",
        "_patience_seconds",
        "_pool",
        "_said",
        "_size",
        "_standing",
        "_sums",
        "agent",
    )
    _began: float
    _lease: ILease | IStanding
    _line: str
    _number: int
    _size: int
    _sums: Sums

    def __init__(self, gateway: Gateway, connection: Connection, memo: Memo) -> None:
        route = memo.plan.route
        self._gateway = gateway
        self._connection = connection
        self._memo = memo
        self._standing: IStanding | None = gateway.orchestrator.standing(route)
        self._pool: Pool = NO_POOL
        self._patience_seconds = min(route.timeout_seconds, gateway.limits.idle_seconds)
        self._said = _NOTHING
        self._last = NO_ANSWER
        self.agent: AgentConnection | None = None

    def take(self, forwarded: bytes, body: bytes, size: int) -> bool:
        """Send a request to an agent.

        Args:
            forwarded: The head that the agent gets, up to its request id.
            size: Of the request as it came, in bytes.

        Returns:
            False where there is no free place or no idle connection: then nothing has happened.
        """
        standing = self._standing
        if standing is not None and self._pool.idle:
            if not standing.take():
                return False
            self._lease = standing
        elif not self._look_again():
            return False
        gateway = self._gateway
        connection = self._connection
        self._said = forwarded, body
        self._size = size
        self._number = number = next(gateway.numbers)
        self.agent = agent = self._pool.idle.pop()
        agent.relay = self
        self._began = began = gateway.seconds()
        connection.stage = ANSWER
        connection.due = due = began + self._patience_seconds
        if due < connection.noted:
            gateway.wheel.set(connection, due)
        if agent.outlet.send(b"%b%b%d\r\n\r\n%b" % (forwarded, gateway.id_prefix, number, body)):
            self.unfold()
        return True

    def complete(self, data: bytes) -> bool:
        """Pass on an answer that is whole, and as long as the one before, which began like it.

        Args:
            data: All that the agent has sent.

        Returns:
            False where it is another, or something else is left to do: then nothing has happened.
        """
        connection = self._connection
        last = self._pool.last
        if len(data) != last.size or not data.startswith(last.raw) or not connection.relays:
            return False
        gateway = self._gateway
        now = gateway.seconds()
        if now >= last.until:
            self._write_front(last, now)
        answer = b"%b%d\r\n\r\n%b" % (last.front, self._number, data[last.head_size :])
        queued = connection.outlet.send(answer)
        agent: Any = self.agent
        self.agent = None
        agent.rest(now)
        self._lease.release()
        self._said = _NOTHING
        connection.stage = IDLE
        connection.due = now + gateway.limits.idle_seconds
        if last is not self._last:
            self._count_as(last)
        gateway.access_log.add(
            (self._sums, self._line, self._number, self._size, len(answer), self._began, now)
        )
        if queued:
            connection.await_client()
        return True

    def unfold(self) -> None:
        """Let the request in hand, if there is one, go on the general way."""
        agent = self.agent
        if agent is None:
            return
        self.agent = agent.relay = None
        memo = self._memo
        forwarded, body = self._said
        self._said = _NOTHING
        call = Call(self._gateway, self._connection, memo.head, body)
        call.began = self._began
        call.id = b"%b%d" % (self._gateway.id_prefix, self._number)
        call.bytes_in = self._size
        call.follow(memo.plan)
        self._connection.take_in_hand(call, memo.plan)
        lease = self._lease if self._standing is None else self._standing.lease()
        assert ILease.providedBy(lease)
        call.claimed(lease)
        exchange = Exchange(agent.address, b"%b%b\r\n\r\n" % (forwarded, call.id), body, call)
        agent.carry(exchange)
        call.handed_over(exchange)

    def _look_again(self) -> bool:
        """Claim a place, and turn to the connections that there are to it now."""
        gateway = self._gateway
        lease: ILease | IStanding | None = self._standing
        if self._standing is None:
            try:
                lease = gateway.orchestrator.claim(self._memo.plan.route)
            except CallFailed:
                return False  # the general way meets the same, and says so
        elif not self._standing.take():
            return False
        if lease is None:
            return False
        self._pool = gateway.upstream.pool(lease.target.address) or NO_POOL
        if not self._pool.idle:
            lease.release()
            return False
        self._lease = lease
        return True

    def _write_front(self, last: LastAnswer, now: float) -> None:
        """Make what an answer begins with for a client, which has the date in it."""
        gateway = self._gateway
        head = last.head
        front = answer_head(
            self._memo.plan.route.kind, head.status, head.fields, gateway.dates.at(now)
        )
        length = b"\r\nContent-Length: %d" % (head.length or 0)
        last.front = front + length + REQUEST_ID + gateway.id_prefix
        last.until = gateway.dates.until

    def _count_as(self, last: LastAnswer) -> None:
        """Look up what answers that begin like this one are counted in."""
        self._last = last
        subject, status = self._memo.plan.subject, last.head.status
        self._sums = self._gateway.access_log.sums(subject, "", status)
        self._line = line_of(subject, "", status, SERVED) + self._gateway.id_prefix.decode()
