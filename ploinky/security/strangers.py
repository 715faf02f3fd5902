"""What strangers were refused, on its way into the audit trail, and never without end.

Lines enter from workers, which refuse whoever guesses; they leave for the trail together.  However
many strangers there are, what they do fills no disk: so much is written one by one, the rest as a
number.
"""

from __future__ import annotations

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ploinky.errors import StateUnusable, TooManyRequests
from ploinky.limit_interfaces import IRates
from ploinky.security.throttle import LoginThrottle
from ploinky.store_interfaces import IAuditTrail
from ploinky.values import NOBODY, AuditEntry, RateLimit

AT_ONCE = 1000
SECONDS_EACH = 10.0

RECORDS = "records"
"""What is counted: refusals that are written down one by one."""

_LIMIT = RateLimit(AT_ONCE, AT_ONCE * SECONDS_EACH)
_ALL = "*"  # no address has a star in it


class Strangers:
    """Lets refusals into the trail: `AT_ONCE`, then one every `SECONDS_EACH`, of all together.

    Args:
        clock: Its seconds are Unix time.
        trail: Where they are written.
        rates: Counts them.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, trail: IAuditTrail, rates: IRates) -> None:
        self._clock = clock
        self._trail = trail
        self._rates = rates
        self._waiting: list[AuditEntry] = []
        self._others = 0
        self._of_one = LoginThrottle(rates, RECORDS)

    def admits(self, address: str) -> bool:
        """Tell whether one more refusal of an address may be written down; its writer asks first."""
        try:
            self._of_one.attempt(address)
        except TooManyRequests:
            return False
        return self._is_let_in()

    def take(self, lines: bytes) -> None:
        """Take entries as lines of JSON, to be written by `write`."""
        for line in lines.splitlines():
            if self._is_let_in():
                self._waiting.append(msgspec.json.decode(line, type=AuditEntry))

    async def write(self) -> None:
        """Write down what was taken since; what cannot be written now is kept for the next time."""
        if self._others and self._has_room():
            self._waiting.append(self._as_a_number())
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            await self._trail.append(*waiting)
        except StateUnusable as error:
            self._log.warn("refusals are not in the audit trail yet: {why}", why=error.message)
            self._waiting = (waiting + self._waiting)[-AT_ONCE:]

    def _is_let_in(self) -> bool:
        """Take room for one more, or count it among the others."""
        if self._has_room():
            return True
        self._others += 1
        return False

    def _has_room(self) -> bool:
        return not self._rates.wait_seconds(_LIMIT, RECORDS, _ALL)

    def _as_a_number(self) -> AuditEntry:
        others, self._others = self._others, 0
        return AuditEntry(
            at=self._clock.seconds(),
            user=NOBODY.id,
            role="",
            address="",
            action="auth",
            subject=f"{others} more refusals; the access log has each",
            status=TooManyRequests.status,
            code=TooManyRequests.code,
        )
