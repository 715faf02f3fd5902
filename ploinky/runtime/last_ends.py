"""How containers ended that the engine has started again, and forgotten how.

Podman and Docker both say only of the life that a container leads now whether it ended, and
how; what ended the one before is in their events, which come when they like.  An end is taken
for the one that was asked for if it is that container's, and not older than the moment at which
the container says that it ended last.
"""

from __future__ import annotations

from attrs import frozen

from ploinky.runtime.events import DEATHS, OUT_OF_MEMORY, ContainerEvent


@frozen
class LastEnd:
    """How a container ended; the exit code is None where nobody said so."""

    exit_code: int | None = None
    out_of_memory: bool = False


class LastEnds:
    """The last end of each container that is there, as its events told it."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[int, LastEnd]] = {}
        self._short_of_memory: set[str] = set()

    def hear(self, event: ContainerEvent) -> None:
        """Keep what an event says; of a container that is removed, nothing."""
        container = event.container
        if event.action == OUT_OF_MEMORY:  # told before the end that it leads to
            self._short_of_memory.add(container)
            return
        short = container in self._short_of_memory
        self._short_of_memory.discard(container)
        if event.action in DEATHS:
            self._ends[container] = event.at, LastEnd(event.exit_code, short)
        else:
            self._ends.pop(container, None)

    def of(self, container: str, finished_at: int) -> LastEnd:
        """Give how a container ended when it ended last.

        Args:
            finished_at: When that was, in nanoseconds since 1970, as the engine says.
        """
        told_at, end = self._ends.get(container, (0, LastEnd()))
        return end if told_at >= finished_at else LastEnd()
