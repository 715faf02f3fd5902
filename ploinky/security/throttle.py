"""How often one address may try to log in, whichever worker or the leader it tries at."""

from __future__ import annotations

import math

from zope.interface import implementer

from ploinky.addresses import client_of
from ploinky.errors import TooManyRequests
from ploinky.limit_interfaces import ILoginThrottle, IRates
from ploinky.values import RateLimit

ATTEMPTS = 10
REFILL_SECONDS = 6.0

LOGINS = "logins"
"""What is counted of all that can be guessed at."""

_LIMIT = RateLimit(ATTEMPTS, ATTEMPTS * REFILL_SECONDS)
_NEWS = RateLimit(1, 3600.0)


@implementer(ILoginThrottle)
class LoginThrottle:
    """Lets each address fail `ATTEMPTS` times in a row, then once every `REFILL_SECONDS`.

    An IPv6 network of 64 bits counts as one address.

    Args:
        rates: Where it is counted: shared by all who should count together.
        what: Is counted, apart from all else.
    """

    def __init__(self, rates: IRates, what: str = LOGINS) -> None:
        self._rates = rates
        self._what = what

    def check(self, address: str) -> None:
        """See `ILoginThrottle`."""
        _hold_up(address, self._rates.would_wait_seconds(_LIMIT, self._what, client_of(address)))

    def attempt(self, address: str) -> None:
        """See `ILoginThrottle`."""
        _hold_up(address, self._rates.wait_seconds(_LIMIT, self._what, client_of(address)))

    def succeeded(self, address: str) -> None:
        """See `ILoginThrottle`."""
        self._rates.forget(_LIMIT, self._what, client_of(address))

    def is_news(self, address: str) -> bool:
        """See `ILoginThrottle`."""
        return not self._rates.wait_seconds(_NEWS, self._what, client_of(address))


def _hold_up(address: str, wait_seconds: float) -> None:
    if wait_seconds:
        seconds = math.ceil(wait_seconds)
        raise TooManyRequests(
            f"too many attempts to log in from {address}; try again in {seconds} s",
            retry_after_seconds=seconds,
        )
