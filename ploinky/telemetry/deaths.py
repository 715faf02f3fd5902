"""How instances died lately, for whoever lost a call to one of them and asks why.

Deaths enter as they are told; one leaves, at once or a moment later.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from ploinky.observations import InstanceDeath
from ploinky.telemetry.history import InstanceHistory

REMEMBERED = 1000
"""Deaths."""

PATIENCE_SECONDS = 1.0
"""For which one who asks waits: engines tell a little later than connections break."""

_ROUNDING_SECONDS = 0.05


class Deaths:
    """Remembers the last ones.

    Args:
        clock: By which deaths are dated.
        history: Tells of each.
    """

    def __init__(self, clock: IReactorTime, history: InstanceHistory) -> None:
        self._clock = clock
        self._last: deque[InstanceDeath] = deque(maxlen=REMEMBERED)
        self._fallen: deque[InstanceDeath] = deque(maxlen=REMEMBERED)
        self._waiting: dict[Deferred[InstanceDeath], str] = {}
        history.listen(lambda spec, seconds: None, self._died)
        history.listen_to_falls(self._fallen.append)

    def _died(self, death: InstanceDeath) -> None:
        self._last.append(death)
        for waiter, instance in list(self._waiting.items()):
            if instance == death.instance:
                waiter.callback(death)

    async def cause(self, instance: str, since: float) -> InstanceDeath | None:
        """Give how an instance died, or None where that is not known within a second.

        What it printed is not in it where that takes longer.

        Args:
            since: Unix seconds; an earlier death is of an earlier life.
        """
        known = _newest(self._last, instance, since)
        if known is not None:
            return known
        waiter: Deferred[InstanceDeath] = Deferred()
        self._waiting[waiter] = instance
        waiter.addTimeout(PATIENCE_SECONDS, self._clock)
        try:
            return await waiter
        except TimeoutError:
            return _newest(self._fallen, instance, since)
        finally:
            del self._waiting[waiter]


def _newest(deaths: deque[InstanceDeath], instance: str, since: float) -> InstanceDeath | None:
    for death in reversed(deaths):
        if death.instance == instance and death.at >= since - _ROUNDING_SECONDS:
            return death
    return None
