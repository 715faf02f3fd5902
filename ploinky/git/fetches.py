"""Who waits for which fetch.

Wishes for a mirror's fetch enter, Deferreds leave that fire when it is done.
One fetch of a mirror runs at a time, and serves everybody whom it can: those
with the same credential who can do with what it brings.  It ends early when
nobody waits for it any more.  What a fetch does is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, DeferredSemaphore
from twisted.python.failure import Failure

from ploinky.git.bounds import Bounds
from ploinky.git.urls import Remote
from ploinky.source_values import GitCredential

T = TypeVar("T")


@frozen
class Wish:
    """A fetch that somebody wants.

    Attributes:
        rebuild: Whether the mirror is to be cloned again.
    """

    remote: Remote
    credential: GitCredential | None
    rebuild: bool = False


@define(eq=False)
class _Fetch:
    wish: Wish
    bounds: Bounds
    started: bool = False
    waiters: list[Deferred[None]] = field(factory=list)

    def serves(self, wish: Wish, newer: bool) -> bool:
        """Tell whether whoever has this wish may wait for this fetch.

        A fetch that has started may have asked the remote before the latest push.
        """
        return (
            self.wish.credential == wish.credential
            and self.wish.rebuild >= wish.rebuild
            and not (newer and self.started)
        )


class Fetches:
    """The fetches in hand.

    Args:
        carry_out: Does one, within the bounds it is given.
        bounds: Makes bounds.
        at_once: Most fetches at the same time, of all mirrors together.
    """

    def __init__(
        self,
        carry_out: Callable[[Wish, Bounds], Coroutine[Deferred[Any], Any, None]],
        bounds: Callable[[], Bounds],
        at_once: int,
    ) -> None:
        self._carry_out = carry_out
        self._bounds = bounds
        self._slots = DeferredSemaphore(at_once)
        self._wanted: dict[str, list[_Fetch]] = {}
        self._turns: dict[str, DeferredLock] = {}
        self._running: set[Deferred[None]] = set()

    def join(self, wish: Wish, newer: bool) -> Deferred[None]:
        """Wait for a fetch that fulfils a wish, starting one where none does.

        Args:
            newer: Whether it must not have begun yet.

        Returns:
            Fires when it is done, or fails as it does.  Cancelling leaves it to
            the others who wait for it; with the last of them it is abandoned.
        """
        wanted = self._wanted.setdefault(wish.remote.id, [])
        fetch = next((fetch for fetch in wanted if fetch.serves(wish, newer)), None)
        waiter: Deferred[None] = Deferred(lambda waiter: self._leave(fetch, waiter))
        if fetch is None:
            fetch = _Fetch(wish, self._bounds(), waiters=[waiter])
            wanted.append(fetch)
            self._keep(Deferred.fromCoroutine(self._in_turn(fetch)), fetch)
        else:
            fetch.waiters.append(waiter)
        return waiter

    async def alone(
        self, remote: Remote, work: Callable[[], Coroutine[Deferred[Any], Any, T]]
    ) -> T:
        """Do something else with a mirror while it is not fetched."""
        turn = self._turns.setdefault(remote.id, DeferredLock())
        await turn.acquire()
        try:
            return await work()
        finally:
            turn.release()
            if not (turn.locked or turn.waiting):
                self._turns.pop(remote.id, None)

    async def stop(self) -> None:
        """Abandon what is in hand and wait until it has ended."""
        for fetches in self._wanted.values():
            for fetch in fetches:
                fetch.bounds.abandon()
        await DeferredList(list(self._running))

    async def _in_turn(self, fetch: _Fetch) -> None:
        async def work() -> None:
            await self._slots.acquire()
            try:
                fetch.started = True
                if fetch.waiters:
                    await self._carry_out(fetch.wish, fetch.bounds)
            finally:
                self._slots.release()

        await self.alone(fetch.wish.remote, work)

    def _keep(self, running: Deferred[None], fetch: _Fetch) -> None:
        self._running.add(running)

        def settle(result: Failure | None) -> None:
            self._running.discard(running)
            self._drop(fetch)
            for waiter in fetch.waiters:
                if isinstance(result, Failure):
                    waiter.errback(result)
                else:
                    waiter.callback(None)

        running.addBoth(settle)

    def _leave(self, fetch: _Fetch | None, waiter: Deferred[None]) -> None:
        assert fetch is not None
        fetch.waiters.remove(waiter)
        if not fetch.waiters:
            fetch.bounds.abandon()
            self._drop(fetch)

    def _drop(self, fetch: _Fetch) -> None:
        """Let nobody join it any more."""
        wanted = self._wanted.get(fetch.wish.remote.id, [])
        if fetch in wanted:
            wanted.remove(fetch)
        if not wanted:
            self._wanted.pop(fetch.wish.remote.id, None)
