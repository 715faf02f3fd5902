"""Where clients come in: one factory for a worker's listening sockets.

Accepted sockets enter; connections leave, all of them known, so that a worker
can be drained.  This module knows no HTTP.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from ploinky.routing.connection import Connection
from ploinky.routing.descriptors import Descriptors
from ploinky.routing.gateway import Gateway
from ploinky.routing.hangups import HangUps


class GatewayFactory(Factory):
    """Builds connections of a gateway; listen with it, or adopt a port for it.

    Args:
        descriptors: Says how many connections there may be; by default any number.

    Attributes:
        connections: All that are open.
        busy: How many of them have a request in hand that is not on its short way: each of those
            is counted by the connection to an agent that it has.
        draining: Every answer is its connection's last.
        hang_ups: Watches those that are not read for now.
    """

    noisy = False

    def __init__(self, gateway: Gateway, descriptors: Descriptors | None = None) -> None:
        self.gateway = gateway
        self._descriptors = descriptors or Descriptors()
        self.connections = self._descriptors.clients
        self.busy = 0
        self.draining = False
        self.hang_ups = HangUps()
        self._emptied: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Connection | None:
        if not self._descriptors.admits(self.busy):
            return None
        return Connection(self, self.gateway.trusted.peer(getattr(addr, "host", None)))

    def in_hand(self) -> int:
        """Tell how many requests are being answered now."""
        return self.busy + sum(connection.on_short_way for connection in self.connections)

    def expel(self) -> None:
        """See `Gateway.expel`."""
        self.gateway.expel()

    async def drain(self, timeout_seconds: float) -> int:
        """Finish what is in hand, and end every connection.  Stop listening first.

        Answers say ``Connection: close`` from now on; an idle connection has a second for
        one more request.  What is left when the time is up is cut off.

        Returns:
            How many requests were cut off; 0 is clean.
        """
        self.draining = True
        for connection in list(self.connections):
            connection.retire()
        if self.connections:
            self._emptied = Deferred()
            timer = self.gateway.clock.callLater(timeout_seconds, self._give_up)
            try:
                await self._emptied
            finally:
                self._emptied = None
                if timer.active():
                    timer.cancel()
        left = self.in_hand()
        for connection in list(self.connections):
            connection.abort()
        return left

    def lost(self, connection: Connection) -> None:
        """Forget a connection; it calls this when it has ended."""
        self.connections.pop(connection, None)
        if not self.connections:
            self._give_up()

    def _give_up(self) -> None:
        emptied, self._emptied = self._emptied, None
        if emptied is not None:
            emptied.callback(None)
