"""What is in flight and what waits now, over all workers.

Each worker says so once a second; who has not for a while has nothing in hand any more.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

STALE_SECONDS = 5.0


@frozen
class Load:
    """Calls of one deployment.

    Attributes:
        in_flight: At its instances.
        waiting: For an instance with a free place.
    """

    in_flight: int = 0
    waiting: int = 0


class Loads:
    """Adds up what workers say of themselves.

    Args:
        clock: Tells which words are too old.
    """

    _log = Logger()
    _words = msgspec.json.Decoder(dict[str, tuple[int, int]])

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._said: dict[int, tuple[float, dict[str, tuple[int, int]]]] = {}

    def take(self, pid: int, line: bytes) -> None:
        """Take one worker's word; it replaces the one before."""
        try:
            self._said[pid] = (self._clock.seconds(), self._words.decode(line))
        except msgspec.MsgspecError as error:
            self._log.warn("A worker reported a load that cannot be read: {error}", error=error)

    def by_deployment(self) -> Mapping[str, Load]:
        """Give the sums by deployment id; those without either are left out."""
        oldest = self._clock.seconds() - STALE_SECONDS
        self._said = {pid: said for pid, said in self._said.items() if said[0] >= oldest}
        sums: dict[str, Load] = {}
        for _, loads in self._said.values():
            for deployment, (in_flight, waiting) in loads.items():
                before = sums.get(deployment, Load())
                sums[deployment] = Load(before.in_flight + in_flight, before.waiting + waiting)
        return sums
