"""Workers' counts, added up in the leader.

What a worker's access log drains enters, as lines of JSON (`AccessLog.drain`,
one entry a line); totals leave.  In memory, since this leader started.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from attrs import frozen
from twisted.logger import Logger

_UNAUTHORIZED = (401, 403)


class _Entry(msgspec.Struct):
    deployment: str
    status: int
    count: int
    microseconds: int


@frozen
class Count:
    """Calls of one deployment, or of all.

    Attributes:
        errors: Answered with 5xx.
        unauthorized: Answered with 401 or 403.
        seconds: That they took together.
    """

    requests: int = 0
    errors: int = 0
    unauthorized: int = 0
    seconds: float = 0.0

    def plus(self, other: Count) -> Count:
        """Give the sum."""
        return Count(
            self.requests + other.requests,
            self.errors + other.errors,
            self.unauthorized + other.unauthorized,
            self.seconds + other.seconds,
        )


@frozen
class Totals:
    """All calls of agents, and by deployment id."""

    all: Count
    deployments: Mapping[str, Count]


class Counters:
    """Adds up.  What was not for a deployment (management, unknown paths) is left out."""

    _log = Logger()
    _entries = msgspec.json.Decoder(_Entry)

    def __init__(self) -> None:
        self._deployments: dict[str, Count] = {}
        self._forgotten = Count()

    def add(self, lines: bytes) -> None:
        """Take one report of one worker; a line that cannot be read is logged and left out."""
        for line in lines.splitlines():
            try:
                entry = self._entries.decode(line)
            except msgspec.MsgspecError as error:
                self._log.warn("A worker reported counts that cannot be read: {error}", error=error)
                continue
            if entry.deployment:
                before = self._deployments.get(entry.deployment, Count())
                self._deployments[entry.deployment] = before.plus(_count(entry))

    def forget(self, deployment: str) -> None:
        """Drop the entry of a deployment that was removed; its calls stay in the sum."""
        self._forgotten = self._forgotten.plus(self._deployments.pop(deployment, Count()))

    def totals(self) -> Totals:
        """Give the sums as they stand."""
        total = self._forgotten
        for count in self._deployments.values():
            total = total.plus(count)
        return Totals(total, dict(self._deployments))


def _count(entry: _Entry) -> Count:
    return Count(
        requests=entry.count,
        errors=entry.count if entry.status >= 500 else 0,
        unauthorized=entry.count if entry.status in _UNAUTHORIZED else 0,
        seconds=entry.microseconds / 1_000_000,
    )
