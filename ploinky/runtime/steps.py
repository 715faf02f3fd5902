"""The steps of one instance's life: brought up, kept well, brought back, taken away.

A life says which step begins, and hears what came of it.  At most one is in hand at a time, and one
that is given up says nothing more.  Which step follows which is not decided here, but in `life`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ploinky.deploy_errors import EngineError, ProbeFailed
from ploinky.errors import PloinkyError
from ploinky.instance_values import InstanceSpec, InstanceStatus
from ploinky.interfaces import IRuntime
from ploinky.runtime import places
from ploinky.runtime.chronicle import Chronicle
from ploinky.runtime.endings import OUTPUT_LINES
from ploinky.runtime.probes import Prober, Readiness, said_failure
from ploinky.runtime.waiting import uncut
from ploinky.threads import Blocking

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
STEADY_SECONDS = 30.0
"""An instance that was ready for so long starts over with its back-off."""
RESTART_GRACE_SECONDS = 5.0
LOOKS_FOR_A_CAUSE = 2
"""An engine tells that one runs again before it tells how it ended; so many looks wait for that."""

Said = Callable[[], None]
Step = Callable[[], Coroutine[Deferred[Any], Any, Said]]


class Listener(Protocol):
    """The life that the steps are taken in: it hears what came of each."""

    def came_up(self, readiness: Readiness) -> None:
        """It answers its probe."""

    def failed(self, error: Exception) -> None:
        """The step in hand did: the engine refused, or it was not ready in time."""

    def died(self, reason: str) -> None:
        """Its process ended, its container is gone, or it is unwell."""

    def retry(self) -> None:
        """The back-off is over."""

    def gone(self) -> None:
        """It is removed."""


@dataclass
class Core:
    """One instance as its life works with it, and the step in hand.

    Attributes:
        chronicle: Told what becomes of it.
        removing: Threads for its queue's removal: an agent may have put any number of files there.
        changed: Told (instance, healthy) after the first time that it was ready.
        over: Told once it is gone.
        first: Fires once with the outcome of its first start, or of its adoption.
        readiness: While it is ready, else None.
        present: Whether the engine has it, as far as we know.
        era: Grows whenever that changes; what was seen in another era is not about this one.
        restarts: As the engine last counted them.
        attempts: Starts again since it last led a steady life.
        puzzled: How many looks in a row the engine has started it again, and does not say why.
        enders: Who waits until it is gone.
    """

    clock: IReactorTime
    runtime: IRuntime
    prober: Prober
    spec: InstanceSpec
    chronicle: Chronicle
    removing: Blocking
    changed: Callable[[str, bool], None]
    over: Callable[[str], None]
    first: Deferred[Readiness] = field(default_factory=Deferred)
    readiness: Readiness | None = None
    present: bool = False
    era: int = 0
    restarts: int = 0
    attempts: int = 0
    puzzled: int = 0
    ready_at: float = 0.0
    failure: Exception | None = None
    enders: list[Deferred[None]] = field(default_factory=list)
    _work: Deferred[None] | None = None
    _turn: object = None
    _probing: Deferred[Readiness] | None = None
    _cause: str = ""
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

    def may_be_explained(self, status: InstanceStatus) -> bool:
        """Tell whether the engine may say at a next look how one ended that it started again.

        It tells that later than that it runs; which part failed follows from the exit code.
        """
        unexplained = status.exit_code is None and self.puzzled < LOOKS_FOR_A_CAUSE
        self.puzzled = self.puzzled + 1 if unexplained else 0
        return unexplained

    # --- at most one step at a time; the next waits until the last has let go

    def begin(self, life: Listener, step: Step) -> None:
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

    async def bring_up(self, life: Listener, status: InstanceStatus | None) -> Said:
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

    async def take_back(self, life: Listener, status: InstanceStatus) -> Said:
        """Tell how it died, though its container lives on, and wait until it is ready."""
        self.chronicle.tell_death(await self._last_output())
        return await self.bring_up(life, status)

    async def bring_back(self, life: Listener) -> Said:
        """Remove what is left of it and start it afresh."""
        try:
            self.chronicle.parted(await self.runtime.remove(self.instance, RESTART_GRACE_SECONDS))
        except EngineError as error:
            return partial(life.failed, error)
        self._is_present(False)
        return await self.bring_up(life, None)

    async def back_off(self, life: Listener) -> Said:
        """Wait: not at all the first time, then ever longer.  Its last words do not wait."""
        if printed := await self._last_output():
            self.chronicle.tell_death(printed)
        seconds = 0.0
        if self.attempts:
            seconds = min(
                LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** (self.attempts - 1)
            )
        self.attempts += 1
        await deferLater(self.clock, seconds)
        return life.retry

    async def stay_well(self, life: Listener) -> Said:
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

    async def take_away(self, life: Listener, grace_seconds: float) -> Said:
        """Stop and remove it, and its queue."""
        try:
            self.chronicle.parted(await self.runtime.remove(self.instance, grace_seconds))
        except EngineError as error:
            return partial(life.failed, error)
        self._is_present(False)
        await uncut(self.removing.run(places.remove_queue, self.spec.queue_directory))
        return life.gone

    async def _started(self) -> InstanceStatus:
        places.prepare_queue(self.spec)
        self.chronicle.begins()
        status: InstanceStatus = await self.runtime.start(self.spec)
        self._is_present(True)
        return status

    async def _ready(self, status: InstanceStatus) -> Readiness:
        """Wait until it is ready.

        Raises:
            ProbeFailed: It is not, or is dead, with what it printed last.
        """
        self.restarts, self.puzzled, self._cause = status.restarts, 0, ""
        probing = Deferred.fromCoroutine(self.prober.when_ready(self.spec, status))
        self._probing = probing
        try:
            return await probing
        except CancelledError:
            if not self._cause:
                raise
            error = said_failure(self.spec) or ProbeFailed(
                f"{self._cause}.", failed_at=self.chronicle.part_that_failed()
            )
        except ProbeFailed as failed:
            error = failed
        finally:
            self._probing = None
        raise ProbeFailed(
            error.message,
            output=await self._last_output(),
            details={**self.chronicle.how_it_was_seen(), **(error.details or {})},
            failed_at=error.failed_at,
        )

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
        self.chronicle.is_ready()

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
