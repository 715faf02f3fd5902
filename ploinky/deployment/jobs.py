"""Work that may outlive whoever asked for it, and is waited for before the server stops.

Coroutines enter, results leave.  Knows nothing of deployments.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Work = Coroutine[Deferred[Any], Any, T]


class Job:
    """One piece of work.  It can be cancelled until it says `commit`, and once only.

    A second cancel would cut short the cleaning up that the first one began.
    """

    def __init__(self) -> None:
        self._done: Deferred[None] | None = None
        self._committed = False
        self._cancelled = False
        self._why: Exception | None = None

    def commit(self) -> None:
        """Say that from here on the work goes to its end.

        Raises:
            CancelledError: It was cancelled before.
        """
        if self._cancelled:
            raise CancelledError()
        self._committed = True

    def clean_up(self) -> None:
        """Say that the work has failed or was cancelled, and that its cleaning goes to its end."""
        self._committed = True

    def cancel(self, why: Exception | None = None) -> None:
        """Stop it where it waits, unless it is past its point of no return.

        Args:
            why: What whoever waits for it gets; None: ``CancelledError``.
        """
        if self._committed or self._cancelled:
            return
        self._cancelled = True
        self._why = why
        if self._done is not None:
            self._done.cancel()


class Jobs:
    """All work in progress."""

    log = Logger()

    def __init__(self) -> None:
        self._running: dict[Job, Deferred[None]] = {}
        self._closed = False

    async def run(self, work: Callable[[Job], Work[T]]) -> T:
        """Do ``work`` and give its result.

        Cancelling cancels the job as far as it still can be, and gives up the wait at once;
        what is left of it goes on here.
        """
        outcome: Deferred[T] = Deferred(lambda _: job.cancel())
        job = self._begin(work, outcome)
        return await outcome

    def start(self, work: Callable[[Job], Work[T]]) -> None:
        """Do ``work`` in the background; if it fails, that is logged."""
        self._begin(work, None)

    def _begin(self, work: Callable[[Job], Work[T]], outcome: Deferred[T] | None) -> Job:
        job = Job()
        if self._closed:
            job.cancel()
        done = Deferred.fromCoroutine(self._perform(job, work, outcome))
        job._done = done
        if not done.called:
            self._running[job] = done
            done.addBoth(lambda _: self._forget(job))
        return job

    def _forget(self, job: Job) -> None:
        del self._running[job]

    async def _perform(
        self, job: Job, work: Callable[[Job], Work[T]], outcome: Deferred[T] | None
    ) -> None:
        try:
            if self._closed:
                raise CancelledError()
            result = await work(job)
        except Exception:  # whoever waits gets it; where nobody does, the log
            failure = Failure()
            if outcome is not None and not outcome.called:
                was_told_why = job._why is not None and failure.check(CancelledError)
                outcome.errback(Failure(job._why) if was_told_why else failure)
            elif not failure.check(CancelledError):
                self.log.failure("work in the background failed", failure)
        else:
            if outcome is not None and not outcome.called:
                outcome.callback(result)

    async def settled(self) -> None:
        """Wait until nothing runs any more."""
        while self._running:
            await _over(list(self._running.values()))

    async def close(self) -> None:
        """Cancel what can be cancelled, take nothing more, and wait for the rest."""
        self._closed = True
        for job in list(self._running):
            job.cancel()
        await self.settled()


def _over(works: Sequence[Deferred[Any]]) -> Deferred[None]:
    """Give a Deferred that fires when all of these have; cancelling it leaves them alone."""
    over: Deferred[None] = Deferred()
    left = len(works)

    def ended(result: Any) -> Any:
        nonlocal left
        left -= 1
        if not left and not over.called:
            over.callback(None)
        return result

    for work in works:
        work.addBoth(ended)
    return over


class Turns(Generic[K]):
    """One piece of work per key at a time, in the order in which it was asked for."""

    def __init__(self) -> None:
        self._locks: dict[K, DeferredLock] = {}

    def of(self, key: K) -> Turn[K]:
        """Give an async context manager that waits for this key's turn."""
        return Turn(self._locks, key)


class Turn(Generic[K]):
    """See `Turns.of`."""

    def __init__(self, locks: dict[K, DeferredLock], key: K) -> None:
        self._locks = locks
        self._key = key
        self._lock = locks.setdefault(key, DeferredLock())

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *error: object) -> None:
        self._lock.release()
        if not self._lock.locked and self._locks.get(self._key) is self._lock:
            del self._locks[self._key]


async def together(works: Iterable[Work[T]]) -> list[T]:
    """Do several things at once and give their results in order.

    Where one fails the others are cancelled, and the first failure is raised once all have
    ended.  Cancelling does the same.
    """
    results: dict[int, T] = {}
    failures: list[Failure] = []
    begun: dict[int, Deferred[None]] = {}
    ended: set[int] = set()

    def fail() -> None:
        failures.append(Failure())
        if len(failures) == 1:
            for other in list(begun.values()):
                other.cancel()

    async def one(index: int, work: Work[T]) -> None:
        try:
            results[index] = await work
        except Exception:  # raised again below, once all have ended
            fail()
        ended.add(index)

    for index, work in enumerate(works):
        if failures:
            work.close()
        else:
            begun[index] = Deferred.fromCoroutine(one(index, work))
    while waiting := [done for index, done in begun.items() if index not in ended]:
        try:
            await _over(waiting)
        except CancelledError:
            fail()
    if failures:
        failures[0].raiseException()
    return [results[index] for index in sorted(results)]
