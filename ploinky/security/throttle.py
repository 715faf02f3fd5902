"""How often one address may try to log in."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict

from twisted.internet.interfaces import IReactorTime

from ploinky.errors import TooManyRequests

ATTEMPTS = 10
REFILL_SECONDS = 6.0
MOST_ADDRESSES = 10_000


class LoginThrottle:
    """Lets each address fail `ATTEMPTS` times in a row, then once every `REFILL_SECONDS`.

    It remembers the last `MOST_ADDRESSES` addresses; an IPv6 network of 64 bits counts as one.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._emptied: OrderedDict[str, float] = OrderedDict()
        """Address to the time at which its failures are forgotten; the most recent last."""

    def attempt(self, address: str) -> None:
        """Count an attempt before it is made; `succeeded` takes it back.

        Raises:
            TooManyRequests: With ``retry_after_seconds``.
        """
        now = self._clock.seconds()
        whose = _whose(address)
        emptied = max(self._emptied.get(whose, now), now) + REFILL_SECONDS
        wait = emptied - now - ATTEMPTS * REFILL_SECONDS
        if wait > 0:
            seconds = math.ceil(wait)
            raise TooManyRequests(
                f"too many attempts to log in from {address}; try again in {seconds} s",
                retry_after_seconds=seconds,
            )
        self._emptied[whose] = emptied
        self._emptied.move_to_end(whose)
        while len(self._emptied) > MOST_ADDRESSES:
            self._emptied.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address that has a valid key after all."""
        self._emptied.pop(_whose(address), None)


def _whose(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
