"""Who waits for an answer and who has gone, where both have stopped sending.

Both look alike at first: the connection's reading half ends (RFC 9112, 9.6 lets a client do that
and still read).  A Unix socket tells at once.  Over TCP the other side's kernel does, when
it is sent something: it refuses what comes for a socket that was closed.  This module knows
no HTTP: what can be sent is the caller's to say.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IDelayedCall, IReactorTime

_PROBED_AFTER_SECONDS = 0.04
"""Most answers come sooner, and their clients never see the probe."""

_LONGEST_SECONDS = 5.0


def hung_up(transport: Any) -> bool:
    """Tell whether nothing can be sent to the other side any more, as far as is known yet."""
    if not isinstance(transport, tcp.Connection) or not transport.connected:
        return False
    poller = select.poll()
    poller.register(transport.fileno(), 0)  # hang-ups and errors are told unasked
    return bool(poller.poll(0))


class Departure:
    """Watches one client that stopped sending while its answer was due.

    Args:
        probe: Sends something that a client who waits passes over.
        gone: Called once, if it turns out that the client has gone: within 100 ms where the
            way to it is short, else as soon as a probe can have come back.
    """

    def __init__(
        self,
        clock: IReactorTime,
        transport: Any,
        probe: Callable[[], None],
        gone: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._transport = transport
        self._probe: Callable[[], None] | None = probe
        self._gone = gone
        self._seconds = _PROBED_AFTER_SECONDS
        self._next: IDelayedCall = clock.callLater(self._seconds, self._look)

    def stop(self) -> None:
        """Watch no more."""
        if self._next.active():
            self._next.cancel()

    def _look(self) -> None:
        probe, self._probe = self._probe, None
        if hung_up(self._transport):
            self._gone()
            return
        if probe is not None:
            probe()
        else:
            self._seconds = min(2 * self._seconds, _LONGEST_SECONDS)
        self._next = self._clock.callLater(self._seconds, self._look)
