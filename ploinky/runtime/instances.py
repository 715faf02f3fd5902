"""The lives of all instances of this server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import evolve, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.deploy_errors import EngineError, StartFailed
from ploinky.errors import PloinkyError
from ploinky.instance_values import InstanceSpec, InstanceStatus
from ploinky.interfaces import IRuntime, Report
from ploinky.leader_interfaces import IInstanceHistory, IInstances, IRuntimeEvents
from ploinky.runtime import places
from ploinky.runtime.chronicle import Chronicle
from ploinky.runtime.endings import death_of
from ploinky.runtime.life import Life, new_life, observe
from ploinky.runtime.probes import Prober, Readiness
from ploinky.runtime.steps import Core
from ploinky.runtime.waiting import uncut
from ploinky.threads import Blocking
from ploinky.values import Target

SWEEP_SECONDS = 0.5
"""Between looks at the engine while something is starting, or has ended ..."""
CALM_SWEEPS = 4
"""... and so many times that otherwise."""
LISTENING_SWEEPS = 20
"""The same where the runtime tells by itself that something ended."""


@frozen
class _Entry:
    life: Life
    core: Core


@implementer(IInstances)
class Instances(Service):
    """Starts, probes, restarts and ends instances, whichever runtime runs them.

    The runtime is asked for all of them at once, seldom or often as the constants above say;
    besides that, each is probed by itself.  Stopping this service leaves those that are ready running.

    Args:
        clock: For all waits.
        run_directory: Holds ``i/<instance>``, the queues.
        cluster: Only what carries this id is looked at.
        history: Keeps what became of them.
        removing: Threads in which queues are removed; they stay their owner's.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        runtime: IRuntime,
        prober: Prober,
        run_directory: Path,
        cluster: str,
        history: IInstanceHistory,
        removing: Blocking,
    ) -> None:
        self._clock = clock
        self._history = history
        self._removing = removing
        self._runtime = runtime
        self._prober = prober
        self._queues = run_directory / "i"
        self._cluster = cluster
        self._entries: dict[str, _Entry] = {}
        self._watchers: list[Callable[[str, bool], None]] = []
        self._calm = 0
        self._calm_sweeps = CALM_SWEEPS
        if IRuntimeEvents.providedBy(runtime):
            runtime.listen(self._look_soon)
            self._calm_sweeps = LISTENING_SWEEPS
        self._away = False
        self._sweeps = LoopingCall(self._sweep)
        self._sweeps.clock = clock
        self._sweeping: Deferred[None] | None = None

    # --- service

    def startService(self) -> None:
        """Begin to look at the engine."""
        super().startService()  # type: ignore[no-untyped-call]
        self._sweeps.start(SWEEP_SECONDS, now=False)

    def stopService(self) -> Deferred[None]:
        """Leave what is ready running; fires when nothing of ours is under way."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._sweeps.running:
            self._sweeps.stop()
        return Deferred.fromCoroutine(self._leave())

    async def _leave(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await self._sweeping
        for entry in list(self._entries.values()):
            entry.life.leave()
            await entry.core.settled()

    # --- IInstances

    async def launch(self, spec: InstanceSpec, report: Report) -> Target:
        """See `IInstances`."""
        report(f"starting instance {spec.instance}, waiting until it is ready")
        return (await self._first(self._enter(spec), None)).target

    async def adopt(self, spec: InstanceSpec) -> Target | None:
        """See `IInstances`."""
        statuses = {each.instance: each for each in await self.discover()}
        status = statuses.get(spec.instance)
        if status is None or not status.running:
            await self.end(spec.instance, 0.0)
            return None
        patience = spec.health.timeout_seconds * spec.health.retries
        soon = evolve(spec.health, start_period_seconds=patience)
        entry = self._enter(evolve(spec, health=soon))
        try:
            return (await self._first(entry, status)).target
        except PloinkyError as error:
            self._log.info(
                "instance {instance} is not taken over: {error}",
                instance=spec.instance,
                error=error.message,
            )
            return None

    async def end(self, instance: str, grace_seconds: float) -> None:
        """See `IInstances`.  Cancelling gives up the wait; it is ended all the same."""
        entry = self._entries.get(instance)
        if entry is None:
            await self._remove_stranger(instance, grace_seconds)
            return
        ended: Deferred[None] = Deferred()
        entry.core.enders.append(ended)
        entry.life.end(grace_seconds)
        await ended

    async def _remove_stranger(self, instance: str, grace_seconds: float) -> None:
        """Remove one that an earlier leader started; what it left is kept all the same."""
        known = {each.instance: each for each in await self.discover()}
        printed = await self._runtime.remove(instance, grace_seconds)
        status = known.get(instance)
        if printed and status is not None:
            self._history.parted(status.deployment, status.release, instance, printed)
        if status is not None and status.exit_code:  # while no leader was there to see it
            self._history.died(death_of(status, self._clock.seconds(), printed))
        await uncut(self._removing.run(places.remove_queue, str(self._queues / instance)))

    def target(self, instance: str) -> Target | None:
        """See `IInstances`."""
        entry = self._entries.get(instance)
        readiness = entry.core.readiness if entry is not None else None
        return readiness.target if readiness is not None else None

    async def discover(self) -> list[InstanceStatus]:
        """See `IInstances`."""
        found: list[InstanceStatus] = await self._runtime.instances(self._cluster)
        return found

    def watch(self, changed: Callable[[str, bool], None]) -> None:
        """See `IInstances`."""
        self._watchers.append(changed)

    # --- lives

    def _enter(self, spec: InstanceSpec) -> _Entry:
        if spec.instance in self._entries:
            raise StartFailed(f"Instance {spec.instance} was started before.")
        core = Core(
            clock=self._clock,
            runtime=self._runtime,
            prober=self._prober,
            spec=spec,
            chronicle=Chronicle(self._clock, spec, self._history),
            removing=self._removing,
            changed=self._tell,
            over=self._forget,
        )
        entry = _Entry(new_life(core), core)
        self._entries[spec.instance] = entry
        return entry

    async def _first(self, entry: _Entry, status: InstanceStatus | None) -> Readiness:
        """Wait for the outcome of the first start; where that is given up, it is ended again."""
        first = entry.core.first
        if status is None:
            entry.life.launch()
        else:
            entry.life.adopt(status)
        try:
            return await first
        except CancelledError:
            try:
                await uncut(self.end(entry.core.instance, 0.0))
            except EngineError as error:
                self._log.error("{error}", error=error.message)
            raise

    def _forget(self, instance: str) -> None:
        self._entries.pop(instance, None)

    def _tell(self, instance: str, healthy: bool) -> None:
        for changed in self._watchers:
            changed(instance, healthy)

    # --- looking at the engine

    def _look_soon(self, instance: str) -> None:
        if instance in self._entries:
            self._calm = -1

    def _sweep(self) -> Deferred[None] | None:
        unsettled = any(each.core.starting or each.core.puzzled for each in self._entries.values())
        self._calm = 0 if unsettled else (self._calm + 1) % self._calm_sweeps
        if not self._entries or self._calm:
            return None
        sweeping = Deferred.fromCoroutine(self._look())
        sweeping.addErrback(self._broke)
        self._sweeping = sweeping
        return sweeping

    def _broke(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("a look at the runtime broke", failure)

    async def _look(self) -> None:
        """Tell each life what the engine says of it."""
        # Only those that the engine had before it was asked can be missing from its answer.
        seen = [(each, each.core.era) for each in self._entries.values()]
        try:
            found = await self.discover()
        except EngineError as error:
            if not self._away:
                self._log.warn("the runtime does not answer: {error}", error=error.message)
            self._away = True
            return
        if self._away:
            self._away = False
            self._log.info("the runtime answers again")
        statuses = {each.instance: each for each in found}
        for entry, era in seen:
            if entry.core.era == era:
                observe(entry.life, entry.core, statuses.get(entry.core.instance))
