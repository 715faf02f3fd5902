"""How many calls there were, over all workers and across restarts.

Increments from workers enter, as the lines of `AccessLog.drain`; sums leave.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import attrs
from attrs import frozen

REPORT = "counters"
"""What workers call this report on the link."""


@frozen
class CallTotals:
    """Calls of agents since the server's first start.

    Attributes:
        errors: Answered with 5xx.
        unauthorized: Answered with 401 or 403.
    """

    requests: int = 0
    errors: int = 0
    unauthorized: int = 0


class TotalsBook:
    """Adds up what workers report.

    Args:
        path: Where the sums are kept between two runs; a crash loses what came since `save`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = self.totals = self._read()

    def add(self, lines: bytes) -> None:
        """Take increments: lines of JSON with `deployment`, `status` and `count`.

        Requests to the server itself (`deployment` is `""`) are not calls of agents.
        """
        for line in lines.splitlines():
            entry = json.loads(line)
            if entry["deployment"]:
                self._add(entry["status"], entry["count"])

    def save(self) -> None:
        """Write the sums down if they changed.  Blocks for one small file."""
        if self.totals == self._saved:
            return
        fresh = self._path.with_suffix(".new")
        with suppress(OSError):  # a full disk: the next time
            fresh.write_text(json.dumps(attrs.asdict(self.totals)), encoding="ascii")
            os.replace(fresh, self._path)
            self._saved = self.totals

    def _add(self, status: int, count: int) -> None:
        was = self.totals
        self.totals = CallTotals(
            was.requests + count,
            was.errors + (count if status >= 500 else 0),
            was.unauthorized + (count if status in (401, 403) else 0),
        )

    def _read(self) -> CallTotals:
        with suppress(OSError, ValueError, TypeError):
            return CallTotals(**json.loads(self._path.read_text(encoding="ascii")))
        return CallTotals()
