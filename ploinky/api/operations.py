"""Changes that outlive the request that asked for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ploinky.errors import Draining, PloinkyError

T = TypeVar("T")

REMEMBERED = 50


@frozen
class Operation:
    """One change, for logs and the list of recent activity.

    Attributes:
        action: What is done, as the route's name says it.
        subject: What it is done to, in words.
        user: Id of the principal who asked for it.
    """

    action: str
    subject: str
    user: str
    request_id: str


@frozen
class Finished:
    """How an operation ended; `error` is ``""`` where it did what it should."""

    operation: Operation
    ended_at: float
    error: str = ""


class Operations(Service):
    """Owns every change in progress: it goes on if the client leaves, and ends with the server.

    Stopping the service cancels what is in progress and waits until all of it has ended.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._in_progress: set[Deferred[None]] = set()
        self._finished: deque[Finished] = deque(maxlen=REMEMBERED)

    def begin(self, operation: Operation | None, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Start a change.

        Args:
            operation: What to call it; None: it is neither logged nor remembered.

        Returns:
            A Deferred with its outcome.  Cancelling it gives up the wait; the change goes on.

        Raises:
            Draining: The server is not up yet, or going down.
        """
        if not self.running:
            work.close()
            raise Draining("this server is shutting down", retry_after_seconds=5)
        outcome: Deferred[T] = Deferred()
        change = Deferred.fromCoroutine(self._carry_out(operation, work, outcome))
        self._in_progress.add(change)
        change.addBoth(lambda _: self._in_progress.discard(change))
        return outcome

    async def _carry_out(
        self, operation: Operation | None, work: Coroutine[Any, Any, T], outcome: Deferred[T]
    ) -> None:
        try:
            result = await work
        except (Exception, CancelledError):
            failure = Failure()
            self._note(operation, failure)
            outcome.errback(failure)
        else:
            self._note(operation, None)
            outcome.callback(result)

    def _note(self, operation: Operation | None, failure: Failure | None) -> None:
        if operation is None:
            return
        said = ""
        if failure is None:
            self._log.info("{operation.action}: {operation.subject}", operation=operation)
        elif failure.check(CancelledError):
            said = "stopped with the server"
            self._log.warn("{operation.action} cut short", operation=operation)
        elif isinstance(failure.value, PloinkyError):
            said = failure.value.message
            self._log.warn(
                "{operation.action} failed: {operation.subject}: {code}: {said}",
                operation=operation,
                code=failure.value.code,
                said=said,
            )
        else:
            said = "internal error"
            self._log.failure("{operation.action} broke", failure, operation=operation)
        self._finished.appendleft(Finished(operation, self._clock.seconds(), said))

    def recent(self) -> list[Finished]:
        """Give the last ones that ended, newest first."""
        return list(self._finished)

    def stopService(self) -> Deferred[None]:
        """Cancel what is in progress; fires when all of it has ended."""
        super().stopService()  # type: ignore[no-untyped-call]
        ended = DeferredList(list(self._in_progress))
        for change in list(self._in_progress):
            change.cancel()
        return ended.addCallback(lambda _: None)
