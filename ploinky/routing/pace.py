"""How fast a client takes what is sent to it, told by its own kernel.

What a kernel accepts says little: it may hold megabytes for a client that reads nothing.  This
module knows no HTTP.
"""

from __future__ import annotations

import fcntl
import termios
from array import array
from typing import Any

from twisted.internet import tcp

from ploinky.routing.streams import Outlet


class Pace:
    """Measures one client between two looks.

    Args:
        outlet: All that is sent goes through it; something is queued there the whole time.
    """

    def __init__(self, transport: Any, outlet: Outlet) -> None:
        self._transport = transport
        self._outlet = outlet
        self._before = self._untaken()

    def taken_bytes(self) -> int:
        """Tell how much the client has taken since the last look."""
        before, self._before = self._before, self._untaken()
        return before - self._before

    def _untaken(self) -> int:
        """What the kernel holds that the client has not taken (``SIOCOUTQ``), less what it got."""
        if not isinstance(self._transport, tcp.Connection):
            return -self._outlet.handed_over
        count = array("i", [0])
        fcntl.ioctl(self._transport.fileno(), termios.TIOCOUTQ, count)
        return count[0] - self._outlet.handed_over
