"""What happens on this server, told to whoever listens: a bounded ring, and a bounded queue a listener.

Events enter from whoever has something to tell; they leave to listeners in order, each once.  One
who was away for a while goes on where it stopped, as long as the ring reaches back so far.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from ploinky.values import DeploymentKey

REMEMBERED = 1000
"""Events in the ring."""

MOST_WAITING = 256
"""Events that may wait for one listener; one that is slower than that is dropped."""

LOST = "lost"
"""Tells a listener that it has missed events, and should read anew what it shows."""


@frozen
class Event:
    """One of them.

    Attributes:
        kind: ``deployment``, ``instance``, ``task``, ``metrics``.
        data: A JSON document.
        key: The deployment that it is about; None: the server as a whole.
    """

    id: str
    kind: str
    data: str
    key: DeploymentKey | None = None


Sees = Callable[[DeploymentKey | None], bool]


class Listener:
    """One who listens; it closes itself."""

    def __init__(self, hub: Hub, sees: Sees, dropped: Callable[[], None]) -> None:
        self._hub = hub
        self._sees = sees
        self._dropped = dropped
        self._queue: deque[Event] = deque()
        self._waiting: Deferred[None] | None = None

    def hear(self, event: Event) -> None:
        """Queue an event, if it is for this listener's ears."""
        if event.kind != LOST and not self._sees(event.key):
            return
        if len(self._queue) >= MOST_WAITING:
            self.close()
            self._dropped()
            return
        self._queue.append(event)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def next(self, clock: IReactorTime, seconds: float) -> list[Event]:
        """Give what has happened, waiting for it at most so long; then nothing."""
        if not self._queue:
            self._waiting = Deferred()
            self._waiting.addTimeout(seconds, clock)
            try:
                await self._waiting
            except TimeoutError:
                return []
            finally:
                self._waiting = None
        events = list(self._queue)
        self._queue.clear()
        return events

    def close(self) -> None:
        """Listen no more."""
        self._hub.forget(self)


class Hub:
    """Hands events on.

    Args:
        era: Names this leader's life; ids of another one mean nothing here.
    """

    def __init__(self, era: str) -> None:
        self._era = era
        self._number = 0
        self._ring: deque[Event] = deque(maxlen=REMEMBERED)
        self._listeners: list[Listener] = []

    def publish(self, kind: str, data: str, key: DeploymentKey | None = None) -> None:
        """Tell everybody who may know."""
        self._number += 1
        event = Event(f"{self._era}-{self._number}", kind, data, key)
        self._ring.append(event)
        for listener in list(self._listeners):
            listener.hear(event)

    def listen(self, after: str, sees: Sees, dropped: Callable[[], None]) -> Listener:
        """Begin to listen.

        Args:
            after: The id of the last event that was heard; ``""``: from now on.
            sees: Tells whether an event about a deployment, or the server, is for its ears.
            dropped: Called if it is too slow; it is closed then.
        """
        listener = Listener(self, sees, dropped)
        for event in self._missed(after) if after else ():
            listener.hear(event)
        self._listeners.append(listener)
        return listener

    def _missed(self, after: str) -> list[Event]:
        era, _, number = after.rpartition("-")
        known = era == self._era and number.isdigit() and int(number) <= self._number
        missed = self._number - int(number) if known else REMEMBERED + 1
        if missed > min(len(self._ring), MOST_WAITING):
            return [Event(f"{self._era}-{self._number}", LOST, "{}")]
        return list(self._ring)[len(self._ring) - missed :]

    def forget(self, listener: Listener) -> None:
        """Hand nothing more to a listener."""
        if listener in self._listeners:
            self._listeners.remove(listener)
