"""What both short ways have in common: a request that is all there, with nothing unusual in it.

What follows from a head is looked up once, as it mostly comes again.  Then a `ShortWay` carries
one request of its connection at a time, and makes nothing but bytes on the way there and back.
Whatever is not ordinary unfolds it: a `Call` is made of it, as if it had gone the general way from
the beginning.  `Relay` leads to an agent's own server, `Errand` to AgentCore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ploinky.errors import CallFailed
from ploinky.interfaces import ILease, IStanding
from ploinky.routing.access import SERVED, Sums, line_of
from ploinky.routing.headers import persistence
from ploinky.routing.stages import ANSWER, IDLE

if TYPE_CHECKING:
    from ploinky.routing.call import Call
    from ploinky.routing.gateway import Gateway
    from ploinky.routing.memo import Memo
    from ploinky.routing.repeats import RepeatingProtocol


class ShortWay:
    """The short way of one client's connection, for as long as a memo holds."""

    __slots__ = (
        "_began",
        "_closes",
        "_connection",
        "_gateway",
        "_lease",
        "_line",
        "_memo",
        "_number",
        "_patience_seconds",
        "_size",
        "_standing",
        "_sums",
        "_tail",
    )
    _began: float
    _lease: ILease
    _line: str
    _number: int
    _size: int
    _sums: Sums

    def __init__(self, gateway: Gateway, connection: RepeatingProtocol, memo: Memo) -> None:
        route = memo.plan.route
        self._gateway = gateway
        self._connection = connection
        self._memo = memo
        self._closes = closes = not memo.head.keep_alive
        self._tail = b"%b\r\n\r\n" % persistence(memo.head.http_11, closes)
        self._standing: IStanding | None = gateway.orchestrator.standing(route)
        self._patience_seconds = min(route.timeout_seconds, gateway.limits.idle_seconds)

    def is_busy(self) -> bool:
        """Tell whether it has a request in hand."""
        raise NotImplementedError

    def take(self, forwarded: bytes, body: bytes, size: int) -> bool:
        """Send a request to an agent.

        Args:
            forwarded: The head that an agent's own server gets, up to its request id.
            size: Of the request as it came, in bytes.

        Returns:
            False where that cannot be done at once; nothing has happened then.
        """
        raise NotImplementedError

    def unfold(self) -> None:
        """Let the request in hand, if there is one, go on the general way."""
        raise NotImplementedError

    def _claim(self) -> bool:
        """Claim a place, if one is free."""
        standing = self._standing
        if standing is not None:
            if not standing.take():
                return False
            self._lease = standing
            return True
        try:
            lease = self._gateway.orchestrator.claim(self._memo.plan.route)
        except CallFailed:
            return False  # the general way meets the same, and says so
        if lease is None:
            return False
        self._lease = lease
        return True

    def _begin(self, size: int) -> int:
        """Let the time for a request run, whose place is claimed; give its number."""
        gateway = self._gateway
        connection = self._connection
        self._size = size
        self._number = number = next(gateway.numbers)
        self._began = began = gateway.seconds()
        connection.stage = ANSWER
        connection.due = due = began + self._patience_seconds
        if due < connection.noted:
            gateway.wheel.set(connection, due)
        return number

    def _finish(self, answer: bytes, now: float) -> None:
        """Send the whole answer, and have done with the request."""
        gateway = self._gateway
        connection = self._connection
        queued = connection.outlet.send(answer)
        self._lease.release()
        connection.stage = IDLE
        connection.due = now + gateway.limits.idle_seconds
        gateway.access_log.add(
            (self._sums, self._line, self._number, self._size, len(answer), self._began, now)
        )
        if self._closes:
            connection.end()
        elif queued:
            connection.await_client()

    def _count_as(self, command: str, status: int) -> None:
        """Look up what such answers are counted in."""
        log, subject = self._gateway.access_log, self._memo.plan.subject
        self._sums = log.sums(subject, command, status)
        self._line = line_of(subject, command, status, SERVED) + self._gateway.id_prefix.decode()

    def _as_call(self, forwarded: bytes, body: bytes) -> Call:
        """Make a call of the request in hand; as for `take`."""
        memo = self._memo
        call = self._connection.new_call(memo.head, body, self._size)
        call.began = self._began
        call.id = b"%b%d" % (self._gateway.id_prefix, self._number)
        call.follow(memo.plan, forwarded)
        self._connection.take_in_hand(call, memo.plan)
        call.claimed(self._lease if self._standing is None else self._standing.lease())
        return call
