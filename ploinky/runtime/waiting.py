"""Waits whose end can be relied on."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Shielded(Generic[T]):
    """Work that goes on to its end whatever happens to those who wait for it.

    A thread cannot be cancelled: what it was asked to create, it creates.  So whoever has to
    undo that must be able to stop waiting, and later to know that it is over.
    """

    def __init__(self, work: Coroutine[Deferred[Any], Any, T]) -> None:
        self._outcome: list[T | Failure] = []
        self._waiting: list[Deferred[None]] = []
        Deferred.fromCoroutine(work).addBoth(self._over)

    def _over(self, outcome: T | Failure) -> None:
        self._outcome.append(outcome)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def _pause(self) -> None:
        wait: Deferred[None] = Deferred()
        self._waiting.append(wait)
        try:
            await wait
        except CancelledError:
            self._waiting.remove(wait)
            raise

    async def result(self) -> T:
        """Give what the work gave, or raise what it raised.  Cancelling gives up the wait."""
        if not self._outcome:
            await self._pause()
        outcome = self._outcome[0]
        if isinstance(outcome, Failure):
            outcome.raiseException()
        return outcome

    async def ended(self) -> None:
        """Wait until it is over, well or not; cancelling raises ``CancelledError`` only then."""
        cancelled: CancelledError | None = None
        while not self._outcome:
            try:
                await self._pause()
            except CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled


async def uncut(work: Coroutine[Deferred[Any], Any, T]) -> T:
    """Await ``work`` to its end.

    Cancelling raises ``CancelledError``, but not before ``work`` has ended; its result is dropped.
    """
    shielded = Shielded(work)
    await shielded.ended()
    return await shielded.result()
