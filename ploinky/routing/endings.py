"""Why an agent left amid a call: asked of the leader, which sees how instances end.

An instance's id enters; how it ended leaves, if that is known within a moment.  Only what has
failed already comes here: a call that goes well costs nothing for it.  However many calls an
instance takes with it, the leader is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import quote

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from ploinky.errors import (
    PARTS,
    AgentBroken,
    AgentLeft,
    AgentUnreachable,
    CallFailed,
    LeaderAway,
    NoSuchRoute,
)
from ploinky.interfaces import IAnswer, IExchange, IRouter, IUpstream

ENDINGS = "/internal/endings"
"""Of the control socket; outside of every built-in route."""

PATIENCE_SECONDS = 1.5
"""A little more than the leader takes to answer that it does not know."""

_MOST_BYTES = 256 * 1024


class Ending(msgspec.Struct, rename="camel"):
    """How an instance ended.

    Attributes:
        outline: In words that any caller may read.
        failed_at: One of `ploinky.errors.PARTS`.
        output: The last lines that it printed, for those who may read them.
    """

    outline: str
    failed_at: str
    exit_code: int | None = None
    out_of_memory: bool = False
    output: str = ""


_decode = msgspec.json.Decoder(Ending).decode


class Endings:
    """Asks, and lets all who wait for the same answer have it.

    Args:
        clock: Limits the wait.
        router: Knows where the leader is.
        upstream: Brings the question there.
    """

    def __init__(self, clock: IReactorTime, router: IRouter, upstream: IUpstream) -> None:
        self._clock = clock
        self._router = router
        self._upstream = upstream
        self._asked: dict[str, _Question] = {}

    def ask(self, instance: str, age_seconds: float) -> Deferred[Ending | None]:
        """Ask how an instance ended.  Cancelling gives up the wait.

        Args:
            age_seconds: How long ago the call began; what was before is no answer.

        Returns:
            A Deferred that fires with None where nobody knows, or there is no leader.
        """
        question = self._asked.get(instance)
        if question is None:
            question = self._asked[instance] = _Question(lambda: self._asked.pop(instance, None))
            waiter = question.waiter()
            self._send(question, instance, age_seconds)
            return waiter
        return question.waiter()

    def _send(self, question: _Question, instance: str, age_seconds: float) -> None:
        try:
            leader = self._router.match(b"", b"/_ploinky").targets[0]
        except NoSuchRoute:
            question.over(None)
            return
        head = (
            f"GET {ENDINGS}?instance={quote(instance, safe='')}&age={age_seconds:.3f} HTTP/1.1\r\n"
            "Host: localhost\r\n"
            "X-Ploinky-User: worker\r\n\r\n"
        ).encode("ascii")
        late = self._clock.callLater(PATIENCE_SECONDS, question.over, None)
        question.sent(self._upstream.exchange(leader.address, head, b"", question), late)


@implementer(IAnswer)
class _Question:
    """One question under way."""

    def __init__(self, forget: Callable[[], object]) -> None:
        self._forget = forget
        self._waiters: list[Deferred[Ending | None]] = []
        self._exchange: IExchange | None = None
        self._late: IDelayedCall | None = None
        self._status = 0
        self._body = b""
        self._is_over = False

    def waiter(self) -> Deferred[Ending | None]:
        """Give what fires with the answer."""
        waiter: Deferred[Ending | None] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def sent(self, exchange: IExchange, late: IDelayedCall) -> None:
        """Take what it travels by, unless it was answered at once."""
        if self._is_over:
            late.cancel()
        else:
            self._exchange, self._late = exchange, late

    def over(self, ending: Ending | None) -> None:
        """Tell all who wait."""
        if self._is_over:
            return
        self._is_over = True
        self._forget()
        if self._late is not None and self._late.active():
            self._late.cancel()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()  # where time is up; one that has ended does not mind
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(ending)

    # --- what the upstream calls

    def started(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> None:
        self._status = status

    def data(self, chunk: bytes) -> None:
        self._body += chunk
        if len(self._body) > _MOST_BYTES:
            self.over(None)

    def ended(self) -> None:
        ending = None
        if self._status == 200:
            with suppress(msgspec.MsgspecError):
                ending = _decode(self._body)
        self.over(ending if ending is not None and ending.failed_at in PARTS else None)

    def complete(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.started(status, fields, len(body))
        self.data(body)
        self.ended()

    def failed(self, error: CallFailed) -> None:
        self.over(None)


def explained(error: CallFailed, ending: Ending, *, with_output: bool) -> CallFailed:
    """Give an error that says why the agent left.

    Args:
        with_output: Whether who gets it may read what the instance printed.
    """
    details = {
        **(error.details or {}),
        "exitCode": ending.exit_code,
        "outOfMemory": ending.out_of_memory,
    }
    if with_output and ending.output:
        details["output"] = ending.output
    known = type(error)(f"{error.message}: {ending.outline}", details=details)
    known.failed_at = ending.failed_at
    return known


def without_leader(error: CallFailed) -> CallFailed:
    """Say of this server's own part what would else be said of an agent."""
    if isinstance(error, (AgentLeft, AgentBroken)):
        return LeaderAway(
            "the server's leader ended amid this request; see whether it was carried out before"
            " you repeat it",
            retry_after_seconds=2,
        )
    if isinstance(error, AgentUnreachable):
        return LeaderAway(
            "the server's leader does not run, so nothing can be managed; what is deployed goes"
            " on serving. Unless it is about to be back: p-cli cloud start",
            retry_after_seconds=2,
        )
    return error
