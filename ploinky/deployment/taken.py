"""How many instances all deployments take together, kept up without looking at each of them.

Entries enter when work on them begins; sums leave.  No I/O.
"""

from __future__ import annotations

from ploinky.deployment.entries import Entry


class Taken:
    """Places of entries, counted again only where work may have changed them."""

    def __init__(self) -> None:
        self._places: dict[Entry, int] = {}
        self._sum = 0
        self._changing: set[Entry] = set()

    def look_at(self, entry: Entry) -> None:
        """Count this one when it is asked for next, and on until no work on it goes on."""
        self._changing.add(entry)

    def strike(self, entry: Entry) -> None:
        """Count this one no more."""
        self._changing.discard(entry)
        self._sum -= self._places.pop(entry, 0)

    def but(self, entry: Entry) -> int:
        """Give how many places all others take."""
        for changing in list(self._changing):
            places = changing.places()
            self._sum += places - self._places.get(changing, 0)
            self._places[changing] = places
            if changing.job is None:
                self._changing.discard(changing)
        return self._sum - self._places.get(entry, 0)
