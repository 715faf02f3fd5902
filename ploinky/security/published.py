"""Keys and sessions, the same in the store, in this process and in every worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ploinky.leader_interfaces import IWorkerGroup
from ploinky.store_interfaces import IKeyStore
from ploinky.values import Principal


@implementer(IKeyStore)
class PublishedKeys:
    """A key store before another one, whose every change reaches the workers.

    A change has happened when its Deferred fires: from then on each worker knows it.  Reads
    come from memory.

    Args:
        clock: Tells what has expired; its seconds are Unix time.
        store: Where principals are kept.
        workers: Who else must know.
    """

    def __init__(self, clock: IReactorTime, store: IKeyStore, workers: IWorkerGroup) -> None:
        self._clock = clock
        self._store = store
        self._workers = workers
        self._known: dict[str, Principal] = {}
        self._used: dict[str, float] = {}
        self._changing = DeferredLock()
        self._listeners: list[Callable[[Set[str]], None]] = []

    def listen(self, gone: Callable[[Set[str]], None]) -> None:
        """Call this with the hashes of whatever is taken back, at once and together."""
        self._listeners.append(gone)

    async def load(self) -> None:
        """Read the store and tell the workers; call it once, before anything else."""
        async with self._changing:
            self._known = {kept.token_hash: kept for kept in await self._store.principals()}
            await self._publish()

    async def principals(self) -> list[Principal]:
        """See `IKeyStore`."""
        now = self._clock.seconds()
        return [
            known
            for known in self._known.values()
            if known.expires_at is None or known.expires_at > now
        ]

    async def add_principal(self, principal: Principal) -> None:
        """See `IKeyStore`."""
        async with self._changing:
            await self._store.add_principal(principal)
            self._known[principal.token_hash] = principal
            await self._publish()

    async def remove_principal(self, token_hash: str) -> None:
        """See `IKeyStore`.  It is refused here at once, also where the store then fails."""
        self._forget(token_hash)
        async with self._changing:
            # A login that was under way may have been let in meanwhile.
            self._forget(token_hash)
            await self._store.remove_principal(token_hash)
            await self._publish()

    async def add_first_key(self, principal: Principal) -> bool:
        """See `IKeyStore`."""
        async with self._changing:
            if not await self._store.add_first_key(principal):
                return False
            self._known[principal.token_hash] = principal
            await self._publish()
            return True

    async def used(self, moments: Mapping[str, float]) -> None:
        """See `IKeyStore`.  It is kept in memory until `flush`."""
        self._used |= moments

    async def last_used(self) -> Mapping[str, float]:
        """See `IKeyStore`."""
        return {**await self._store.last_used(), **self._used}

    async def flush(self) -> None:
        """Write down what `used` was told since: one transaction, however much it is."""
        moments, self._used = self._used, {}
        if moments:
            await self._store.used(moments)

    def _forget(self, token_hash: str) -> None:
        """Forget a principal, and those that end with it."""
        gone = {token_hash}
        while more := {h for h, known in self._known.items() if known.parent in gone} - gone:
            gone |= more
        self._known = {h: known for h, known in self._known.items() if h not in gone}
        for listener in self._listeners:
            listener(gone)

    async def _publish(self) -> None:
        """Tell the workers, within `_changing`: so the last that they hear is the newest."""
        valid = await self.principals()
        self._known = {principal.token_hash: principal for principal in valid}
        await self._workers.publish_principals(valid)
