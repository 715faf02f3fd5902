"""What a piece of the Git room's work may cost, and how it is told to stop.

Limits come from the composition root, `Bounds` are made for each piece of work
by `source`; all that blocks checks them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from attrs import Factory, define, field, frozen

_TICK_SECONDS = 0.1


class Abandoned(Exception):
    """Nobody waits for this work any more."""


class OutOfTime(Exception):
    """The work ran past its time limit."""


@frozen
class Limits:
    """What one repository may cost.

    Attributes:
        seconds: For one piece of work: a fetch, a checkout, a listing.
        mirror_bytes: Of a mirror on disk.
        checkout_bytes: Of the files of one checkout.
        entries: Files in one checkout or listing.
    """

    seconds: float = 600.0
    mirror_bytes: int = 2 * 1024**3
    checkout_bytes: int = 1024**3
    entries: int = 200_000


@define(eq=False)
class Bounds:
    """How long a piece of work may go on: until a time, or until nobody waits for it.

    `begin` and `check` belong to the thread that works; `abandon` may come from any.

    Attributes:
        now: Gives seconds; may be called in any thread.
    """

    now: Callable[[], float]
    seconds: float
    _abandoned: threading.Event = field(factory=threading.Event, init=False)
    _until: float = field(default=Factory(lambda self: self.now() + self.seconds, takes_self=True))

    def begin(self) -> None:
        """Start to count: what waited for a thread has lost nothing."""
        self._until = self.now() + self.seconds

    def abandon(self) -> None:
        """Make the next `check` fail."""
        self._abandoned.set()

    def check(self) -> None:
        """Go on, or not.

        Raises:
            Abandoned: Nobody waits any more.
            OutOfTime: The limit is reached.
        """
        if self._abandoned.is_set():
            raise Abandoned
        if self.now() > self._until:
            raise OutOfTime

    def pause(self) -> None:
        """Wait for a moment, then `check`."""
        self._abandoned.wait(_TICK_SECONDS)
        self.check()
