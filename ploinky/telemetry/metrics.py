"""Counts of calls from workers' reports to what people ask for: totals, windows, series.

Reports enter as they come; every ten seconds they are written in one transaction, and from then on
workers need not keep them.  Old points are deleted here.  No SQL: that is `IMetricsStore`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ploinky.errors import StateUnusable
from ploinky.measures import Counts, KeptCounts, Label, Sums, added
from ploinky.recurring import recurring
from ploinky.store_interfaces import IDeploymentStore, IMetricsStore
from ploinky.telemetry.counters import Count, Counters, by_deployment, count_of

WRITE_SECONDS = 10.0
PRUNE_SECONDS = 3600.0
KEPT_SECONDS = {10: 2 * 3600.0, 60: 2 * 86_400.0}
"""How long points of the finer resolutions are kept; the coarsest one's time is a setting."""

REPORTERS_KEPT_SECONDS = 2 * 86_400.0
"""After which a silent worker process is taken to be gone.  It reports again, if at all, as soon as
it meets a leader."""

RANGES = {"1h": (3600.0, 10), "24h": (86_400.0, 60), "7d": (7 * 86_400.0, 3600)}
"""What can be asked for: seconds, and the resolution that answers it."""


@frozen
class Window:
    """What was counted in one of `RANGES`, up to now.

    Attributes:
        since: Unix seconds at which its first stretch began.
        resolution: Seconds of one stretch.
        series: By the time at which a stretch began; stretches without a call are left out.
    """

    since: int
    resolution: int
    series: Mapping[int, Counts]

    def counts(self) -> Counts:
        """Give the sums over the whole window."""
        return added(*self.series.values())


@frozen
class Totals:
    """All calls of agents, and by deployment id."""

    all: Count
    deployments: Mapping[str, Count]


class Metrics(Service):
    """Keeps counts.  `load` comes before the first report and before the service is started.

    Args:
        clock: Its seconds are Unix time.
        acknowledge: Told, by reporter, which reports are on disk.
        deployments: Tells which there are; others' totals are added up.
        retention_days: How long points of the coarsest resolution are kept.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: IMetricsStore,
        acknowledge: Callable[[Mapping[str, int]], None],
        deployments: IDeploymentStore,
        retention_days: int,
    ) -> None:
        self._clock = clock
        self._store = store
        self._acknowledge = acknowledge
        self._deployments = deployments
        self._retention_seconds = retention_days * 86_400.0
        self._counters = Counters(KeptCounts({}, {}))
        self._in_turn = DeferredLock()
        self._failing = False
        self._loops = [
            (recurring(clock, "writing metrics", self.write), WRITE_SECONDS),
            (recurring(clock, "pruning metrics", self.prune), PRUNE_SECONDS),
        ]
        self._running: list[Deferred[LoopingCall]] = []
        self._listeners: list[Callable[[Counts], None]] = []

    # --- service

    async def load(self) -> None:
        """Go on from where an earlier leader stopped.

        Raises:
            StateUnusable: The database cannot be read.
        """
        self._counters = Counters(await self._store.kept())

    def startService(self) -> None:
        """Begin to write and to delete."""
        super().startService()  # type: ignore[no-untyped-call]
        self._running = [loop.start(seconds, now=False) for loop, seconds in self._loops]

    def stopService(self) -> Deferred[None]:
        """Write what there is; fires when that is done.  Workers have reported for the last time."""
        super().stopService()  # type: ignore[no-untyped-call]
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()

        async def end() -> None:
            for loop in self._running:
                await loop
            await self.write()

        return Deferred.fromCoroutine(end())

    # --- what comes in

    def take(self, reporter: str, number: int, lines: bytes) -> None:
        """Take a worker's report; see `Counters.add`."""
        self._counters.add(reporter, number, lines)

    def listen(self, written: Callable[[Counts], None]) -> None:
        """Call ``written(counts)`` with what was counted since the call before, every ten seconds."""
        self._listeners.append(written)

    async def write(self) -> None:
        """Write what was counted; what cannot be written is kept for the next time."""
        async with self._in_turn:
            now = self._clock.seconds()
            # Most of it was counted before the stretch that has just begun.
            batch = self._counters.batch(now - WRITE_SECONDS / 2)
            if not batch.numbers:
                return
            written = False
            try:
                await self._store.add(batch)
                written = True
            except StateUnusable as error:
                self._complain(error)
            finally:
                if not written:
                    self._counters.restore(batch)
        if not written:
            return
        self._failing = False
        self._acknowledge(batch.numbers)
        for tell in self._listeners:
            tell(batch.counts)

    def _complain(self, error: StateUnusable) -> None:
        if not self._failing:
            self._log.error("metrics cannot be written, and wait: {error}", error=error.message)
        self._failing = True

    async def prune(self) -> None:
        """Delete old points, and add removed deployments' totals up."""
        now = self._clock.seconds()
        oldest = {resolution: now - seconds for resolution, seconds in KEPT_SECONDS.items()}
        oldest[3600] = now - self._retention_seconds
        try:
            async with self._in_turn:
                await self._store.prune(oldest, now - REPORTERS_KEPT_SECONDS)
                alive = [one.id for one in await self._deployments.deployments()]
                totals = await self._store.forget_all_but(alive)
                self._counters.replace_totals(totals)
        except StateUnusable:
            self._log.failure("old metrics could not be deleted")

    # --- what is asked for

    def counts(self) -> Counts:
        """Give the totals of all time, by label."""
        return self._counters.totals()

    def totals(self) -> Totals:
        """Give the sums of all time."""
        counts = self.counts()
        return Totals(
            count_of(counts),
            {one: count_of(parts) for one, parts in by_deployment(counts).items() if one},
        )

    async def window(self, name: str) -> Window:
        """Give what was counted in one of `RANGES`, with what is not on disk yet.

        Raises:
            StateUnusable: The database cannot be read.
        """
        seconds, resolution = RANGES[name]
        async with self._in_turn:
            now = self._clock.seconds()
            since = int((now - seconds) // resolution * resolution)
            points = await self._store.points(resolution, since)
            fresh = self._counters.fresh()
        series: dict[int, dict[Label, Sums]] = {}
        for point in points:
            series.setdefault(point.time, {})[point.label] = point.sums
        if fresh:
            latest = int(now // resolution * resolution)
            series[latest] = added(series.get(latest, {}), fresh)
        return Window(since, resolution, dict(sorted(series.items())))
