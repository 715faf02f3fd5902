"""A client's end of an upgraded connection: its two halves, and how long nothing may move.

The bytes themselves pass as those of a request's body and of its answer do.  This module knows
no agent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ITCPTransport

from ploinky.routing.http import Limits
from ploinky.routing.streams import Outlet

if TYPE_CHECKING:
    from ploinky.routing.call import Call


class Tunnel:
    """What a `Connection` has from an agent's 101 on.

    Args:
        call: Counts the bytes.
        transport: The client's.
        outlet: Sends to it.

    Attributes:
        agent_has_ended: It sends nothing more.
    """

    def __init__(self, call: Call, transport: Any, outlet: Outlet, limits: Limits) -> None:
        self._call = call
        self._transport = transport
        self._outlet = outlet
        self._limits = limits
        self._half = False
        self._told = False
        self.agent_has_ended = False
        self._seen = -1
        if ITCPTransport.providedBy(transport):
            transport.setTcpKeepAlive(True)

    def seconds(self) -> float:
        """Tell for how long nothing may move from now on."""
        self._seen = self._moved()
        return self._limits.half_tunnel_seconds if self._half else self._limits.tunnel_seconds

    def is_idle(self) -> bool:
        """Tell whether nothing has moved since `seconds` was asked."""
        return self._moved() == self._seen

    def client_ended(self) -> None:
        """The client sends nothing more: so the agent is told."""
        self._half = True
        self._call.body_ended()

    def agent_ended(self) -> None:
        """The agent sends nothing more: the client is told once it has all of it."""
        self._half = self.agent_has_ended = True
        self.drained()

    def drained(self) -> None:
        """The client has taken what there was."""
        if self.agent_has_ended and not self._told and not self._outlet.queued:
            self._told = True
            self._transport.loseWriteConnection()

    def _moved(self) -> int:
        return self._call.bytes_in + self._call.bytes_out
