"""How often somebody may do something: what counts that, as those in `ploinky.interfaces`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from ploinky.values import RateLimit


class IRates(Interface):
    """Who may call how often, counted over all workers of a server.  Synchronous."""

    def wait_seconds(limit: RateLimit, what: str, client: str) -> float:
        """Count one call, unless it comes too early.

        Args:
            what: Is called: limits of different things are counted apart.
            client: Who calls.

        Returns:
            0 where the call is within the limit; else the seconds until one would be, and
            nothing was counted.
        """

    def would_wait_seconds(limit: RateLimit, what: str, client: str) -> float:
        """Say what `wait_seconds` would, and count nothing."""

    def forget(limit: RateLimit, what: str, client: str) -> None:
        """Let a client begin anew, as if it had never called."""


class ILoginThrottle(Interface):
    """How often one address may try to log in, counted over leader and workers.  Synchronous."""

    def check(address: str) -> None:
        """See whether an attempt would be let through; nothing is counted.

        Raises:
            TooManyRequests: It would not; with ``retry_after_seconds``.
        """

    def attempt(address: str) -> None:
        """Count an attempt before it is made; `succeeded` takes it back.

        Raises:
            TooManyRequests: It comes too early; with ``retry_after_seconds``.
        """

    def succeeded(address: str) -> None:
        """Forget the failures of an address that has a valid key after all."""

    def is_news(address: str) -> bool:
        """Tell, once an hour, that an address is held up: so often it is worth a record."""
