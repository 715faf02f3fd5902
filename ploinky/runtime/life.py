"""One instance's life, as a machine.

What really happens to an instance, and has its place below:

- it dies while starting (a handler raises on load), once or again and again, because the
  engine's own restart policy brings it back each time;
- it never becomes ready, or says itself that it cannot;
- it is ended while it starts, or twice, or while it waits to be started again;
- it dies later, or hangs and answers no probe, or somebody removes or pauses its container;
- the engine has started it again by itself before we even looked: then it is only asked
  whether it is ready, unless that keeps happening (Podman restarts 39 times in 6 s);
- the engine is away: that says nothing about the instance, whose own probes decide;
- what a step that was given up still says comes too late, and is not heard;
- the leader stops: instances live on and are adopted by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

from attrs import evolve
from automat import TypeMachineBuilder
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ploinky.deploy_errors import DeployFailed, EngineError, ProbeFailed, StartFailed
from ploinky.errors import GATEWAY, INSTANCE, PloinkyError
from ploinky.instance_values import InstanceSpec, InstanceStatus
from ploinky.interfaces import IRuntime
from ploinky.observations import InstanceDeath
from ploinky.runtime import places
from ploinky.runtime.endings import (
    OUTPUT_LINES,
    how_it_ended,
    how_it_was_seen,
    last_words,
    part_that_failed,
)
from ploinky.runtime.probes import Prober, Readiness, said_failure

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
STEADY_SECONDS = 30.0
"""An instance that was ready for so long starts over with its back-off."""
RESTART_GRACE_SECONDS = 5.0

Said = Callable[[], None]
Step = Callable[[], Coroutine[Deferred[Any], Any, Said]]


class Life(Protocol):
    """What may happen to an instance."""

    def launch(self) -> None:
        """It is wanted for the first time."""

    def adopt(self, status: InstanceStatus) -> None:
        """An earlier leader started it, and it runs."""

    def came_up(self, readiness: Readiness) -> None:
        """It answers its probe."""

    def failed(self, error: Exception) -> None:
        """The step in hand did: the engine refused, or it was not ready in time."""

    def died(self, reason: str) -> None:
        """Its process ended, its container is gone, or it is unwell."""

    def was_restarted(self, status: InstanceStatus) -> None:
        """The engine started it again by itself, after a steady life."""

    def retry(self) -> None:
        """The back-off is over."""

    def end(self, grace_seconds: float) -> None:
        """It is wanted no more."""

    def gone(self) -> None:
        """It is removed."""

    def leave(self) -> None:
        """The leader stops; what is ready lives on."""


@dataclass
class Core:
    """What the machine works with.

    Attributes:
        history: Provides `IInstanceHistory`.
        changed: Told (instance, healthy) after the first time that it was ready.
        over: Told once it is gone.
        first: Fires once with the outcome of `launch` or `adopt`.
        readiness: While it is ready, else None.
        present: Whether the engine has it, as far as we know.
        era: Grows whenever that changes; what was seen in another era is not about this one.
        restarts: As the engine last counted them.
        seen: What the engine said when it was last seen dead.
        vanished: Whether the engine has it no more, and we did not remove it.
        attempts: Starts again since it last led a steady life.
        enders: Who waits until it is gone.
    """

    clock: IReactorTime
    runtime: IRuntime
    prober: Prober
    spec: InstanceSpec
    history: Any
    changed: Callable[[str, bool], None]
    over: Callable[[str], None]
    first: Deferred[Readiness] = field(default_factory=Deferred)
    readiness: Readiness | None = None
    present: bool = False
    era: int = 0
    restarts: int = 0
    seen: InstanceStatus | None = None
    vanished: bool = False
    attempts: int = 0
    ready_at: float = 0.0
    failure: Exception | None = None
    enders: list[Deferred[None]] = field(default_factory=list)
    _work: Deferred[None] | None = None
    _turn: object = None
    _probing: Deferred[Readiness] | None = None
    _cause: str = ""
    _began_at: float | None = None
    _death: InstanceDeath | None = None
    log: ClassVar[Logger] = Logger()

    @property
    def instance(self) -> str:
        """Its id."""
        return self.spec.instance

    @property
    def starting(self) -> bool:
        """Whether it runs and is waited for."""
        return self._probing is not None

    def steady(self) -> bool:
        """Tell whether it has been ready for long enough to be trusted again."""
        ready = self.readiness is not None
        return ready and self.clock.seconds() - self.ready_at >= STEADY_SECONDS

    # --- at most one step at a time; the next waits until the last has let go

    def begin(self, life: Life, step: Step) -> None:
        """Give up the step in hand and begin another; what it returns is said at its end."""
        previous, turn = self._work, object()
        self._turn = turn

        async def run() -> Said:
            if previous is not None:
                previous.cancel()
                await previous
            if self._turn is not turn:
                raise CancelledError
            return await step()

        def broke(failure: Failure) -> None:
            if not failure.check(CancelledError):
                self.log.failure("a step of {instance} broke", failure, instance=self.instance)
                life.failed(failure.value)  # type: ignore[arg-type]

        working = Deferred.fromCoroutine(run())
        # Known before it is listened to: what it says may begin the next step at once.
        self._work = working  # type: ignore[assignment]
        working.addCallbacks(lambda said: said(), broke)

    def drop(self) -> None:
        """Give up the step in hand."""
        self._turn = None
        if self._work is not None:
            self._work.cancel()

    async def settled(self) -> None:
        """Wait until no step is in hand."""
        work = None
        while self._work is not work:
            work = self._work
            if work is not None:
                await work

    def cut_short(self, cause: str) -> None:
        """Let the wait for readiness fail: it died."""
        if self._probing is not None:
            self._cause = cause
            self._probing.cancel()

    # --- steps

    async def bring_up(self, life: Life, status: InstanceStatus | None) -> Said:
        """Start it (unless it runs: `status`) and wait until it is ready."""
        try:
            if status is None:
                status = await self._started()
            else:
                self._is_present(True)
            readiness = await self._ready(status)
        except (PloinkyError, OSError) as error:
            return partial(life.failed, error)
        return partial(life.came_up, readiness)

    async def take_back(self, life: Life, status: InstanceStatus) -> Said:
        """Tell how it died, though its container lives on, and wait until it is ready."""
        self.tell_death(await self._last_output())
        return await self.bring_up(life, status)

    async def bring_back(self, life: Life) -> Said:
        """Remove what is left of it and start it afresh."""
        try:
            self._parted(await self.runtime.remove(self.instance, RESTART_GRACE_SECONDS))
        except EngineError as error:
            return partial(life.failed, error)
        self._is_present(False)
        return await self.bring_up(life, None)

    async def back_off(self, life: Life) -> Said:
        """Wait: not at all the first time, then ever longer.  Its last words do not wait."""
        if printed := await self._last_output():
            self.tell_death(printed)
        seconds = 0.0
        if self.attempts:
            seconds = min(
                LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** (self.attempts - 1)
            )
        self.attempts += 1
        await deferLater(self.clock, seconds)
        return life.retry

    async def stay_well(self, life: Life) -> Said:
        """Ask it how it is until it has been unwell too often in a row."""
        assert self.readiness is not None
        health = self.spec.health
        failures = 0
        while True:
            await deferLater(self.clock, health.interval_seconds)
            problem = await self.prober.health(self.spec, self.readiness)
            failures = failures + 1 if problem else 0
            if failures >= health.retries:
                return partial(life.died, f"{failures} probes in a row failed: {problem}")

    async def take_away(self, life: Life, grace_seconds: float) -> Said:
        """Stop and remove it, and its queue."""
        try:
            self._parted(await self.runtime.remove(self.instance, grace_seconds))
        except EngineError as error:
            return partial(life.failed, error)
        self._is_present(False)
        places.remove_queue(self.spec.queue_directory)
        return life.gone

    async def _started(self) -> InstanceStatus:
        places.prepare_queue(self.spec)
        self._began_at, self.seen = self.clock.seconds(), None
        self.vanished = False
        status: InstanceStatus = await self.runtime.start(self.spec)
        self._is_present(True)
        return status

    async def _ready(self, status: InstanceStatus) -> Readiness:
        """Wait until it is ready.

        Raises:
            ProbeFailed: It is not, or is dead, with what it printed last.
        """
        self.restarts, self._cause = status.restarts, ""
        probing = Deferred.fromCoroutine(self.prober.when_ready(self.spec, status))
        self._probing = probing
        try:
            return await probing
        except CancelledError:
            if not self._cause:
                raise
            error = said_failure(self.spec) or ProbeFailed(
                f"{self._cause}.", failed_at=self._part_that_failed()
            )
        except ProbeFailed as failed:
            error = failed
        finally:
            self._probing = None
        raise ProbeFailed(
            error.message,
            output=await self._last_output(),
            details={**how_it_was_seen(self.seen), **(error.details or {})},
            failed_at=error.failed_at,
        )

    def _part_that_failed(self) -> str:
        return INSTANCE if self.vanished else part_that_failed(self.seen)

    def _is_present(self, present: bool) -> None:
        self.present = present
        self.era += 1

    async def _last_output(self) -> str:
        try:
            return str(await self.runtime.output(self.instance, OUTPUT_LINES))
        except EngineError:
            return ""

    # --- what is told

    def is_ready(self, readiness: Readiness) -> None:
        """Keep where it is reached."""
        self.readiness = readiness
        self.ready_at = self.clock.seconds()
        began_at, self._began_at = self._began_at, None
        if began_at is not None:
            self.history.started(self.spec, self.ready_at - began_at)

    def is_down(self, reason: str) -> None:
        """Tell once that it cannot be called."""
        if self.steady():
            self.attempts = 0
        if self.readiness is not None:
            self.readiness = None
            self.log.warn(
                "instance {instance} is down: {reason}", instance=self.instance, reason=reason
            )
            self.changed(self.instance, False)

    def fell(self, reason: str, failed_at: str = "", probe: str = "") -> None:
        """Say how it ended; it is told again with its last words, once its container is removed."""
        self._death = InstanceDeath(
            instance=self.instance,
            deployment=self.spec.deployment,
            release=self.spec.release,
            at=self.clock.seconds(),
            reason=reason,
            failed_at=failed_at or self._part_that_failed(),
            exit_code=self.seen.exit_code if self.seen else None,
            out_of_memory=bool(self.seen and self.seen.out_of_memory),
            probe=probe,
        )
        self.history.fell(self._death)

    def fell_with(self, error: Exception) -> None:
        """Note that it ended as an error says."""
        if isinstance(error, DeployFailed):
            probe = (error.details or {}).get("probe", "")
            self.fell(error.message, error.failed_at, probe)
        elif self._death is None:
            self.fell(str(error), getattr(error, "failed_at", GATEWAY))

    def tell_death(self, printed: str = "") -> None:
        """Tell of its death, if it was not told before."""
        death, self._death = self._death, None
        if death is not None:
            self.history.died(evolve(death, output=last_words(printed)))

    def _parted(self, printed: str) -> None:
        if printed:
            spec = self.spec
            self.history.parted(spec.deployment, spec.release, spec.instance, printed)
        self.tell_death(printed)

    def launch_failed(self, error: Exception) -> None:
        """Tell who launched it, once."""
        if not self.first.called:
            self.first.errback(error)

    def tell_enders(self, error: Exception | None) -> None:
        """Tell who waits for its end."""
        enders, self.enders = self.enders, []
        for each in enders:
            if error is None:
                each.callback(None)
            else:
                each.errback(error)


def observe(life: Life, core: Core, status: InstanceStatus | None) -> None:
    """Tell a life what the engine says of it.

    Args:
        status: None: the engine has no such instance.
    """
    if not core.present:
        return
    if status is not None and (not status.running or status.restarts > core.restarts):
        core.seen = status
    core.vanished = status is None
    if status is None:
        life.died("It was removed by somebody else")
    elif not status.running:
        life.died(how_it_ended(status))
    elif status.restarts > core.restarts:
        core.restarts = status.restarts
        if core.steady():
            life.was_restarted(status)
        else:
            times = f"{status.restarts} times by now"
            life.died(f"{how_it_ended(status)}, and the engine started it again ({times})")


def _build() -> Callable[[Core], Life]:
    builder = TypeMachineBuilder(Life, Core)
    new = builder.state("new")
    coming_up = builder.state("coming up")
    ready = builder.state("ready")
    waiting = builder.state("waiting to be started again")
    reviving = builder.state("reviving")
    failing = builder.state("failing")
    ending = builder.state("ending")
    lingering = builder.state("lingering")
    gone = builder.state("gone")
    left = builder.state("left")

    @new.upon(Life.launch).to(coming_up)
    def launch(life: Life, core: Core) -> None:
        core.begin(life, partial(core.bring_up, life, None))

    @new.upon(Life.adopt).to(coming_up)
    def adopt(life: Life, core: Core, status: InstanceStatus) -> None:
        core.begin(life, partial(core.bring_up, life, status))

    @coming_up.upon(Life.came_up).to(ready)
    def first_ready(life: Life, core: Core, readiness: Readiness) -> None:
        core.is_ready(readiness)
        core.begin(life, partial(core.stay_well, life))
        if not core.first.called:
            core.first.callback(readiness)

    @coming_up.upon(Life.failed).to(failing)
    def clean_up(life: Life, core: Core, error: Exception) -> None:
        core.failure = error
        core.fell_with(error)
        core.begin(life, partial(core.take_away, life, 0.0))

    @failing.upon(Life.gone).to(gone)
    def failed_cleanly(life: Life, core: Core) -> None:
        core.over(core.instance)
        core.launch_failed(core.failure or StartFailed("It did not start."))

    @failing.upon(Life.failed).to(lingering)
    def failed_twice(life: Life, core: Core, error: Exception) -> None:
        core.log.error(
            "{instance} could not be removed: {error}", instance=core.instance, error=error
        )
        core.launch_failed(core.failure or error)

    @coming_up.upon(Life.died).loop()
    @reviving.upon(Life.died).loop()
    def died_on_the_way(life: Life, core: Core, reason: str) -> None:
        core.cut_short(reason)

    @ready.upon(Life.died).to(waiting)
    def went_down(life: Life, core: Core, reason: str) -> None:
        core.is_down(reason)
        core.fell(reason)
        core.begin(life, partial(core.back_off, life))

    @ready.upon(Life.failed).to(waiting)
    @reviving.upon(Life.failed).to(waiting)
    def try_again(life: Life, core: Core, error: Exception) -> None:
        core.is_down(str(error))
        core.fell_with(error)
        core.log.warn(
            "instance {instance} does not come back: {reason}",
            instance=core.instance,
            reason=str(error),
        )
        core.begin(life, partial(core.back_off, life))

    @ready.upon(Life.was_restarted).to(reviving)
    def rejoin(life: Life, core: Core, status: InstanceStatus) -> None:
        core.is_down("it ended, and the engine started it again")
        core.fell(f"{how_it_ended(status)}, and the engine started it again")
        core.begin(life, partial(core.take_back, life, status))

    @waiting.upon(Life.retry).to(reviving)
    def revive(life: Life, core: Core) -> None:
        core.begin(life, partial(core.bring_back, life))

    @reviving.upon(Life.came_up).to(ready)
    def ready_again(life: Life, core: Core, readiness: Readiness) -> None:
        core.is_ready(readiness)
        core.log.info("instance {instance} is back", instance=core.instance)
        core.begin(life, partial(core.stay_well, life))
        core.changed(core.instance, True)

    @coming_up.upon(Life.end).to(ending)
    @failing.upon(Life.end).to(ending)
    @ready.upon(Life.end).to(ending)
    @waiting.upon(Life.end).to(ending)
    @reviving.upon(Life.end).to(ending)
    @lingering.upon(Life.end).to(ending)
    def take_away(life: Life, core: Core, grace_seconds: float) -> None:
        core.readiness = None
        core.begin(life, partial(core.take_away, life, grace_seconds))
        core.launch_failed(core.failure or StartFailed("It was ended while it was starting."))

    @ending.upon(Life.gone).to(gone)
    def is_gone(life: Life, core: Core) -> None:
        core.over(core.instance)
        core.tell_enders(None)

    @ending.upon(Life.failed).to(lingering)
    def would_not_go(life: Life, core: Core, error: Exception) -> None:
        core.tell_enders(error)

    @gone.upon(Life.end).loop()
    @left.upon(Life.end).loop()
    def nothing_to_end(life: Life, core: Core, grace_seconds: float) -> None:
        core.tell_enders(None)

    @coming_up.upon(Life.leave).to(ending)
    def leave_nothing_half_done(life: Life, core: Core) -> None:
        take_away(life, core, 0.0)

    @ready.upon(Life.leave).to(left)
    @waiting.upon(Life.leave).to(left)
    @reviving.upon(Life.leave).to(left)
    @lingering.upon(Life.leave).to(left)
    def leave(life: Life, core: Core) -> None:
        core.drop()

    ending.upon(Life.end).loop().returns(None)
    for settled in (waiting, failing, ending, lingering, gone, left):
        settled.upon(Life.died).loop().returns(None)
    for leaving in (failing, ending, gone, left):
        leaving.upon(Life.leave).loop().returns(None)
    for deaf in (gone, left):
        deaf.upon(Life.failed).loop().returns(None)
    return builder.build()


new_life = _build()
"""Make the machine of one life around its `Core`."""
