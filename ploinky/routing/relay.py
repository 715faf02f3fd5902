"""The short way: a whole request that says what the one before said, passed on and answered.

Most requests are such.  A `Relay` is a `Call` at its client's side and an `Exchange` at
its agent's, one object in two steps: `Gateway.relay` sends it off, `Call.complete` takes
an answer that came in one piece.  Whatever else happens to it (an answer in pieces, a
slow client, a stale connection, a time-out) goes the general way of those two, which it
has not left.  This module knows nothing that they do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ploinky.routing.call import Call
from ploinky.routing.exchange import Exchange
from ploinky.routing.plan import Plan
from ploinky.values import Address, Route

if TYPE_CHECKING:
    from ploinky.interfaces import ILease
    from ploinky.routing.connection import Connection
    from ploinky.routing.gateway import Gateway
    from ploinky.routing.memo import Memo


class Relay(Call, Exchange):
    """See the module.

    Args:
        body: All of it.
        size: Of the request as it came, in bytes.
    """

    whole = True
    is_simple = True
    _in_chunks = False

    address: Address
    request: bytes
    body: bytes
    plan: Plan
    route: Route
    _lease: ILease

    def __init__(
        self, gateway: Gateway, connection: Connection, memo: Memo, body: bytes, size: int
    ) -> None:
        # All that `Call` and `Exchange` would set, once.
        self._gateway = gateway
        self._connection = connection
        self.began = gateway.clock.seconds()
        self.head = head = memo.head
        self.id = head.request_id or gateway.next_id()
        self.body = body
        self.bytes_in = size
        self.plan = plan = memo.plan
        self.route = plan.route
        self.principal = plan.principal

    def bound(self, lease: ILease, forwarded: bytes) -> Relay:
        """Give itself, with its place, and what is sent there."""
        self._lease = lease
        self._exchange = self
        self.address = lease.target.address
        self.request = b"%b%b\r\n\r\n" % (forwarded, self.id)
        return self

    @property
    def answer(self) -> Any:
        """Where the agent's words go: here."""
        return self
