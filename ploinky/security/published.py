"""Keys and sessions, the same in the store, in this process and in every worker."""

from __future__ import annotations

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ploinky.interfaces import IKeyStore, IWorkerGroup
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
        self._publishing = DeferredLock()

    async def load(self) -> None:
        """Read the store and tell the workers; call it once, before anything else."""
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
        await self._store.add_principal(principal)
        await self._learn(principal)

    async def remove_principal(self, token_hash: str) -> None:
        """See `IKeyStore`.  It is refused here at once, also where the store then fails."""
        self._known.pop(token_hash, None)
        await self._store.remove_principal(token_hash)
        await self._publish()

    async def add_first_key(self, principal: Principal) -> bool:
        """See `IKeyStore`."""
        if not await self._store.add_first_key(principal):
            return False
        await self._learn(principal)
        return True

    async def _learn(self, principal: Principal) -> None:
        self._known[principal.token_hash] = principal
        await self._publish()

    async def _publish(self) -> None:
        """Tell the workers.  One at a time, so that the last they hear is the newest."""
        async with self._publishing:
            valid = await self.principals()
            self._known = {principal.token_hash: principal for principal in valid}
            await self._workers.publish_principals(valid)
