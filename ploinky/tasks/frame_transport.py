"""Tasks as frames: one connection an instance, however many tasks are in flight.

A lease and a task enter; what the agent says goes straight to the caller's answer.
What is too large for a frame goes over HTTP, by the same socket.  Frames themselves
are `frame_connection`'s.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from zope.interface import implementer

from ploinky.errors import AgentLeft
from ploinky.interfaces import IAgentTransport, IAnswer, IExchange, ILease
from ploinky.sockets import SocketPaths
from ploinky.tasks.frame_connection import Attach, FrameConnection
from ploinky.tasks.frame_exchange import FrameExchange
from ploinky.tasks.frames import LEAST_PAYLOAD, fits
from ploinky.values import Address, TaskCall

CONNECT_SECONDS = 5.0
"""To connect, and again for the agent to greet."""

IDLE_SECONDS = 60.0
"""After which a connection without tasks is closed; up to twice as long."""

_SURELY_FITS = LEAST_PAYLOAD // 4


@implementer(IAgentTransport)
class FrameTransport:
    """Sends tasks as frames to the lease's address.

    Args:
        reactor: Connects, and tells the time.
        paths: Names for sockets that lie too deep.
        attach: As for `FrameConnection`.
        large: Takes what is too large for a frame.
    """

    def __init__(
        self, reactor: Any, paths: SocketPaths, attach: Attach, large: IAgentTransport
    ) -> None:
        self._reactor = reactor
        self._paths = paths
        self._attach = attach
        self._large = large
        self._connections: dict[Address, FrameConnection] = {}
        self._sweep: IDelayedCall | None = None

    def send(self, lease: ILease, request: TaskCall, answer: IAnswer) -> IExchange:
        """Begin an exchange; see `IAgentTransport`."""
        address = lease.target.address
        connection = self._connections.get(address)
        if len(request.params) > _SURELY_FITS:
            largest = connection.largest_payload if connection is not None else LEAST_PAYLOAD
            if not fits(request, largest):
                return self._large.send(lease, request, answer)
        exchange = FrameExchange(request, answer)
        if connection is not None and connection.takes_tasks:
            connection.open(exchange)
        else:
            self._connect(address, exchange)
        return exchange

    def close(self) -> None:
        """Close what is idle; connections in use end with their last task."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._connections.values()):
            connection.retire()

    def _connect(self, address: Address, first: FrameExchange) -> None:
        """Make a connection; it takes tasks at once and sends them when it can."""

        def lost(connection: FrameConnection) -> None:
            self._lost(address, connection)

        connection = FrameConnection(self._reactor, self._attach, lost, CONNECT_SECONDS)
        self._connections[address] = connection
        connection.open(first)
        if self._sweep is None:
            self._sweep = self._reactor.callLater(IDLE_SECONDS, self._close_idle)
        try:
            endpoint = self._paths.endpoint(self._reactor, address, CONNECT_SECONDS)
        except ValueError as error:
            connection.not_connected(f"the agent's socket cannot be named: {error}")
            return
        connecting = endpoint.connect(Factory.forProtocol(lambda: connection))
        connecting.addErrback(lambda failure: connection.not_connected(failure.getErrorMessage()))

    def _lost(self, address: Address, connection: FrameConnection) -> None:
        if self._connections.get(address) is connection:
            del self._connections[address]
        unsent, connection.unsent = connection.unsent, []
        for exchange in unsent:
            exchange.carrier = None
            if exchange.repeated:
                exchange.fail(AgentLeft("the agent closed the connection", got_nothing=True))
            elif exchange.answer is not None:
                exchange.repeated = True
                again = self._connections.get(address)
                if again is not None and again.takes_tasks:
                    again.open(exchange)
                else:
                    self._connect(address, exchange)

    def _close_idle(self) -> None:
        self._sweep = None
        for connection in list(self._connections.values()):
            if connection.idle and not connection.used:
                connection.retire()
            connection.used = False
        if self._connections:
            self._sweep = self._reactor.callLater(IDLE_SECONDS, self._close_idle)
