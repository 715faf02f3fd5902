"""What a worker counted, until a leader has it on disk.

Lines enter, numbered reports leave, again and again until they are acknowledged.  So a count is in
the totals once, whichever of leader, worker and link between them breaks in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import frozen

from ploinky.link.wire import lines_cut

MOST_REPORTS = 64
"""Kept at once.  Beyond that, and without a leader, what is counted stays where it is counted,
which is bounded by the number of its labels instead of by time."""


@frozen
class Numbered:
    """One report."""

    number: int
    data: bytes


class Outbox:
    """Numbers reports and keeps them until they are on disk.

    Args:
        reporter: Names this process; never used by another.
        gather: Gives what was counted since it was called before, in whole lines.
    """

    def __init__(self, reporter: str, gather: Callable[[], bytes]) -> None:
        self.reporter = reporter
        self._gather = gather
        self._kept: deque[Numbered] = deque()
        self._last = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more is reported before some of it is on disk."""
        return len(self._kept) >= MOST_REPORTS

    def fill(self) -> list[Numbered]:
        """Give new reports, if there is anything to report and room for it."""
        if self.is_full:
            return []
        fresh = []
        for piece in lines_cut(self._gather()):
            self._last += 1
            fresh.append(Numbered(self._last, piece))
        self._kept += fresh
        return fresh

    def unacknowledged(self) -> list[Numbered]:
        """Give all that may not be on disk yet, in order."""
        return list(self._kept)

    def acknowledged(self, number: int) -> None:
        """Forget the reports up to this number."""
        while self._kept and self._kept[0].number <= number:
            self._kept.popleft()
