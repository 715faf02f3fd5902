"""Timeouts for very many connections with one delayed call.

A connection says when it is due; moving that moment later, which every request
does, is an assignment and nothing else.  The wheel looks at a connection when
the earliest moment that it knew of has come, and puts it back if it is not due
after all.  It knows nothing of HTTP.
"""

from __future__ import annotations

from math import inf
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

NEVER = inf


class Timed(Protocol):
    """What the wheel watches.

    Attributes:
        due: When it expires, in the clock's seconds; ``NEVER`` for not at all.  A moment
            that is not before `noted` may be assigned; any other goes through `Wheel.set`.
        noted: When the wheel looks at it next; the wheel's own, ``NEVER`` at first.
    """

    due: float
    noted: float

    def expired(self) -> None:
        """Time is up; `due` is ``NEVER`` again."""


class Wheel:
    """Coarse timeouts: up to one tick late, never early.

    Args:
        clock: Whose seconds are meant.  One delayed call is pending while anything is
            watched, none otherwise, so a wheel needs neither start nor stop.
        tick_seconds: How coarse.
    """

    def __init__(self, clock: IReactorTime, tick_seconds: float = 0.1) -> None:
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._slots: dict[float, set[Timed]] = {}
        self._turning = False

    def set(self, timed: Timed, due: float) -> None:
        """Let it expire at `due`, in place of whenever it was due before."""
        timed.due = due
        if due < timed.noted:
            self._note(timed, due)

    def forget(self, timed: Timed) -> None:
        """Watch it no more; it holds no reference afterwards."""
        timed.due = NEVER
        self._take_out(timed)

    def _note(self, timed: Timed, due: float) -> None:
        self._take_out(timed)
        timed.noted = slot = (due // self._tick_seconds + 1) * self._tick_seconds
        self._slots.setdefault(slot, set()).add(timed)
        if not self._turning:
            self._turning = True
            self._clock.callLater(self._tick_seconds, self._turn)

    def _take_out(self, timed: Timed) -> None:
        watched = self._slots.get(timed.noted)
        if watched is not None:
            watched.discard(timed)
            if not watched:
                del self._slots[timed.noted]
        timed.noted = NEVER

    def _turn(self) -> None:
        self._turning = bool(self._slots)
        if not self._turning:
            return
        self._clock.callLater(self._tick_seconds, self._turn)
        now = self._clock.seconds()
        for slot in sorted(slot for slot in self._slots if slot <= now):
            # Taken out one by one: what raises costs its own turn and nobody else's.
            while slot in self._slots:
                timed = next(iter(self._slots[slot]))
                self._take_out(timed)
                self._look_at(timed, now)

    def _look_at(self, timed: Timed, now: float) -> None:
        if timed.due > now:
            if timed.due != NEVER:
                self._note(timed, timed.due)
            return
        timed.due = NEVER
        timed.expired()
