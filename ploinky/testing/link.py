"""What stands behind the link in tests: a corridor in memory, and both ends without a socket."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from ploinky.link import ICorridor, ITally, IWorkerSlots
from ploinky.values import RouteChange, RouteSnapshot


@implementer(ICorridor)
class MemoryCorridor:
    """`ICorridor` that serves nobody.

    Attributes:
        snapshot: By which it would serve; None before the first.
        descriptor: Of its listening socket; None where it has none.
        gate: Where it is set, `drained` waits for it.
        in_hand: What `drained` gives.
        refusal: Where it is set, `adopt` and `amend` fail with it.
        stopped: How often it was told to stop.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.snapshot: RouteSnapshot | None = None
        self.descriptor = descriptor
        self.gate: Deferred[None] | None = None
        self.in_hand = 0
        self.refusal: Exception | None = None
        self.stopped = 0
        self.asked: list[frozenset[str]] = []

    @property
    def generation(self) -> int:
        """See `ICorridor`."""
        return self.snapshot.generation if self.snapshot else 0

    def adopt(self, snapshot: RouteSnapshot) -> None:
        """See `ICorridor`."""
        if self.refusal is not None:
            raise self.refusal
        if snapshot.generation > self.generation:
            self.snapshot = snapshot

    def amend(self, change: RouteChange) -> None:
        """See `ICorridor`."""
        if self.refusal is not None:
            raise self.refusal
        before = self.snapshot
        assert before is not None
        assert before.generation == change.base
        routes = {route.key: route for route in before.routes}
        principals = {principal.token_hash: principal for principal in before.principals}
        for key in change.gone:
            del routes[key]
        for token_hash in change.revoked:
            del principals[token_hash]
        routes |= {route.key: route for route in change.routes}
        principals |= {principal.token_hash: principal for principal in change.principals}
        self.snapshot = RouteSnapshot(
            change.generation, tuple(routes.values()), tuple(principals.values())
        )

    async def drained(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """See `ICorridor`."""
        self.asked.append(instances)
        if self.gate is not None:
            await self.gate
        return self.in_hand

    def listening(self) -> int | None:
        """See `ICorridor`."""
        return self.descriptor

    def stop(self) -> None:
        """See `ICorridor`."""
        self.stopped += 1


@implementer(ITally)
class RecordedTally:
    """`ITally` that remembers what it was given.

    Attributes:
        reports: As (reporter, number, lines), in order.
        written: How many of them were there when it last wrote.
        gate: Where it is set, `write` waits for it.
    """

    def __init__(self) -> None:
        self.reports: list[tuple[str, int, bytes]] = []
        self.written = 0
        self.gate: Deferred[None] | None = None

    def take(self, reporter: str, number: int, lines: bytes) -> None:
        """See `ITally`."""
        self.reports.append((reporter, number, lines))

    async def write(self) -> None:
        """See `ITally`."""
        if self.gate is not None:
            await self.gate
        self.written = len(self.reports)


@implementer(IWorkerSlots)
class RecordedSlots:
    """`IWorkerSlots` that remembers what it heard, and ends nobody.

    Attributes:
        heard: Words such as ``("joined", 41)``, in order.
    """

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []
        self.links: dict[int, Any] = {}

    def joined(self, link: Any) -> None:
        """See `IWorkerSlots`."""
        self.links[link.pid] = link
        self.heard.append(("joined", link.pid))

    def serving(self, pid: int) -> None:
        """See `IWorkerSlots`."""
        self.heard.append(("serving", pid))

    def stalled(self, pid: int) -> None:
        """See `IWorkerSlots`."""
        self.heard.append(("stalled", pid))

    def left(self, pid: int) -> None:
        """See `IWorkerSlots`."""
        self.heard.append(("left", pid))

    def describe(self) -> list[dict[str, Any]]:
        """See `IWorkerSlots`."""
        return [
            {"slot": slot, "pid": pid, "state": "serving", "restarts": 0}
            for slot, pid in enumerate(self.links)
        ]
