"""One worker's place: what it is doing, and what becomes of whoever holds it.

What really happens to it:

- The worker boots, says hello, acknowledges a snapshot: it serves.
- It could not boot (exit status 78), or died three times before it ever served: the slot is
  over, and whoever started it is told why.
- It dies later, by itself or by a signal: another is started; at once after a long service,
  after ever longer waits where one dies soon after the other.
- It boots for too long, does not acknowledge, or loses its link: it is killed, and so dies.
- It comes from an earlier leader and serves already when this one meets it.
- Stop comes while it boots, serves, waits, has stopped, or comes twice: SIGTERM, 30 s to
  finish what is in hand, SIGKILL.  Dying while stopping is what was asked for.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Protocol

from attrs import Factory, define, field
from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.errors import WorkerCouldNotBoot
from ploinky.processgroup.processes import COULD_NOT_BOOT, Exit, Exited, IWorkerProcess

BOOT_SECONDS = 30.0
"""From start to service."""

DRAIN_SECONDS = 30.0
"""From SIGTERM to SIGKILL."""

STEADY_SECONDS = 10.0
"""A worker that served for so long did not die of how it was started."""

LONGEST_WAIT_SECONDS = 30.0
"""Before another attempt."""

ATTEMPTS = 3
"""Deaths before a slot that never served is given up."""

_log = Logger()

Launch = Callable[[Exited], Any]
"""Starts a process and gives its `IWorkerProcess`."""


def wait_seconds(failures: int) -> float:
    """Tell how long to wait after so many deaths in a row: 0, 0.1, 0.3, 0.7 ... 30 s."""
    return float(min(0.1 * (2 ** min(failures - 1, 10) - 1), LONGEST_WAIT_SECONDS))


@implementer(IWorkerProcess)
class _NoProcess:
    """Stands where none could be started."""

    pid = 0

    def signal(self, number: int) -> None:
        """There is nobody to take it."""


@define
class _Core:
    """What the states share.

    Attributes:
        process: The one that holds the place; it may have ended while waiting or stopped.
        failures: Deaths in a row, none of them after a steady service.
        served: Whether any process served here.
        since: When the present one began to serve.
    """

    clock: IReactorTime
    number: int
    launch: Launch
    exited: Exited = field(init=False)
    process: Any = None
    failures: int = 0
    restarts: int = 0
    served: bool = False
    since: float = 0.0
    until_serving: list[Deferred[None]] = Factory(list)
    until_stopped: list[Deferred[None]] = Factory(list)
    news: list[tuple[Deferred[None], WorkerCouldNotBoot | None]] = Factory(list)

    def kill(self) -> None:
        self.process.signal(signal.SIGKILL)

    def start(self) -> None:
        try:
            self.process = self.launch(self.exited)
        except OSError as error:  # no memory, no more processes: as if it had died at once
            self.process = _NoProcess()
            self.clock.callLater(0, self.exited, Exit(output=f"cannot start: {error.strerror}"))

    def tell_serving(self, failure: WorkerCouldNotBoot | None = None) -> None:
        told, self.until_serving = self.until_serving, []
        self.news += [(waiter, failure) for waiter in told]

    def tell_stopped(self) -> None:
        told, self.until_stopped = self.until_stopped, []
        self.news += [(waiter, None) for waiter in told]

    def deliver_news(self) -> None:
        """Tell those who wait; outside of any transition, as they may ask for the next one."""
        while self.news:
            waiter, failure = self.news.pop(0)
            if failure is None:
                waiter.callback(None)
            else:
                waiter.errback(failure)

    def wait_for_stop(self) -> Deferred[None]:
        self.until_stopped.append(Deferred())
        return self.until_stopped[-1]


class _Inputs(Protocol):
    def start(self) -> None:
        """Start a process."""

    def adopt(self, process: Any) -> None:
        """Take one that serves already."""

    def serves(self) -> None:
        """The process has acknowledged a snapshot."""

    def unfit(self) -> None:
        """The process must not go on: it hangs, or its table cannot be trusted."""

    def died(self, exit: Exit) -> None:
        """The process has ended."""

    def could_not_boot(self, exit: Exit) -> None:
        """The process has ended, and another would do the same."""

    def stop(self) -> Deferred[None]:
        """End the process; fires when it has ended."""

    def state(self) -> str:
        """Name the state."""

    def _retry(self) -> None:
        """The wait is over."""


def _build() -> Callable[[_Core], _Inputs]:
    machine = TypeMachineBuilder(_Inputs, _Core)

    def boot(slot: _Inputs, core: _Core) -> IDelayedCall:
        core.start()
        _log.info("worker {slot} starts: {pid}", slot=core.number, pid=core.process.pid)
        return core.clock.callLater(BOOT_SECONDS, core.kill)

    def wait(slot: _Inputs, core: _Core, exit: Exit) -> IDelayedCall:
        core.restarts += 1
        if core.since and core.clock.seconds() - core.since >= STEADY_SECONDS:
            core.failures = 0
        core.failures += 1
        core.since = 0.0
        delay = wait_seconds(core.failures)
        _log.error(
            "worker {slot} died, another starts in {delay:.1f} s: {exit}",
            slot=core.number,
            delay=delay,
            exit=exit,
        )
        return core.clock.callLater(delay, slot._retry)

    def terminate(slot: _Inputs, core: _Core) -> IDelayedCall:
        core.process.signal(signal.SIGTERM)
        return core.clock.callLater(DRAIN_SECONDS, core.kill)

    idle = machine.state("idle")
    starting = machine.state("starting", boot)
    serving = machine.state("serving")
    waiting = machine.state("waiting", wait)
    stopping = machine.state("stopping", terminate)
    stopped = machine.state("stopped")

    idle.upon(_Inputs.start).to(starting).returns(None)
    waiting.upon(_Inputs._retry).to(starting).returns(None)
    serving.upon(_Inputs.serves).loop().returns(None)
    serving.upon(_Inputs.died).to(waiting).returns(None)
    everywhere: tuple[Any, ...] = (idle, starting, serving, waiting, stopping, stopped)
    for state in everywhere:
        state.upon(_Inputs.state).loop().returns(state.name)
    # News of a process that this slot has done with, or asked to end.
    for state in everywhere[3:]:
        state.upon(_Inputs.serves).loop().returns(None)
        state.upon(_Inputs.unfit).loop().returns(None)

    @idle.upon(_Inputs.adopt).to(serving)
    def adopted(slot: _Inputs, core: _Core, process: Any) -> None:
        core.process = process
        core.served = True
        core.since = core.clock.seconds()

    @starting.upon(_Inputs.serves).to(serving)
    def booted(slot: _Inputs, core: _Core, limit: IDelayedCall) -> None:
        limit.cancel()
        core.served = True
        core.since = core.clock.seconds()
        _log.info("worker {slot} serves", slot=core.number)
        core.tell_serving()

    @starting.upon(_Inputs.unfit).loop()
    def unfit_at_boot(slot: _Inputs, core: _Core, limit: IDelayedCall) -> None:
        core.kill()

    @serving.upon(_Inputs.unfit).loop()
    def unfit(slot: _Inputs, core: _Core) -> None:
        core.kill()

    @starting.upon(_Inputs.died).to(waiting)
    def died_at_boot(slot: _Inputs, core: _Core, limit: IDelayedCall, exit: Exit) -> None:
        if limit.active():
            limit.cancel()

    @starting.upon(_Inputs.could_not_boot).to(stopped)
    def give_up(slot: _Inputs, core: _Core, limit: IDelayedCall, exit: Exit) -> None:
        if limit.active():
            limit.cancel()
        core.tell_serving(
            WorkerCouldNotBoot(
                f"worker {core.number} could not boot: {exit} (the log in logs/ may say more)"
            )
        )

    @idle.upon(_Inputs.stop).to(stopped)
    @stopped.upon(_Inputs.stop).loop()
    def stop_at_rest(slot: _Inputs, core: _Core) -> Deferred[None]:
        return succeed(None)

    @waiting.upon(_Inputs.stop).to(stopped)
    def stop_waiting(slot: _Inputs, core: _Core, retry: IDelayedCall) -> Deferred[None]:
        retry.cancel()
        core.tell_serving(_stopped_first(core))
        return succeed(None)

    @starting.upon(_Inputs.stop).to(stopping)
    def stop_booting(slot: _Inputs, core: _Core, limit: IDelayedCall) -> Deferred[None]:
        if limit.active():
            limit.cancel()
        core.tell_serving(_stopped_first(core))
        return core.wait_for_stop()

    @serving.upon(_Inputs.stop).to(stopping)
    def stop_serving(slot: _Inputs, core: _Core) -> Deferred[None]:
        return core.wait_for_stop()

    @stopping.upon(_Inputs.stop, nodata=True).loop()
    def stop_again(slot: _Inputs, core: _Core) -> Deferred[None]:
        return core.wait_for_stop()

    @stopping.upon(_Inputs.could_not_boot).to(stopped)
    @stopping.upon(_Inputs.died).to(stopped)
    def ended(slot: _Inputs, core: _Core, limit: IDelayedCall, exit: Exit) -> None:
        if limit.active():
            limit.cancel()
        _log.info("worker {slot} stopped: {exit}", slot=core.number, exit=exit)
        core.tell_stopped()

    return machine.build()


def _stopped_first(core: _Core) -> WorkerCouldNotBoot:
    return WorkerCouldNotBoot(f"worker {core.number} was stopped before it served")


_machine = _build()


class Slot:
    """One worker's place.

    Args:
        clock: For time limits and waits.
        number: 0 to N-1.
        launch: Starts a process for it.
    """

    def __init__(self, clock: IReactorTime, number: int, launch: Launch) -> None:
        self.number = number
        self._core = _Core(clock, number, launch)
        self._core.exited = self.exited
        self._machine = _machine(self._core)

    @property
    def pid(self) -> int:
        """Of the process that holds it or held it last; 0 before the first."""
        process = self._core.process
        return process.pid if process else 0

    @property
    def state(self) -> str:
        """``idle``, ``starting``, `serving`, `waiting`, ``stopping`` or ``stopped``."""
        return self._machine.state()

    def start(self) -> Deferred[None]:
        """Start a process; fires when it serves.

        Raises:
            WorkerCouldNotBoot: It never will; the slot has stopped.
        """
        serving: Deferred[None] = Deferred()
        self._core.until_serving.append(serving)
        self._machine.start()
        return serving

    def adopt(self, process: Any) -> None:
        """Take an `IWorkerProcess` that serves already; its end goes to `exited`."""
        self._machine.adopt(process)

    def serves(self) -> None:
        """Its process has acknowledged a snapshot."""
        self._machine.serves()
        self._core.deliver_news()

    def unfit(self) -> None:
        """Its process must not go on; it is killed and another started."""
        self._machine.unfit()

    def stop(self) -> Deferred[None]:
        """End the process: SIGTERM now, SIGKILL after `DRAIN_SECONDS`; fires when it has ended."""
        stopped = self._machine.stop()
        self._core.deliver_news()
        return stopped

    def exited(self, exit: Exit) -> None:
        """Its process has ended."""
        core = self._core
        last = exit.status == COULD_NOT_BOOT or core.failures + 1 >= ATTEMPTS
        if last and not core.served:
            self._machine.could_not_boot(exit)
        else:
            self._machine.died(exit)
        core.deliver_news()

    def describe(self) -> dict[str, Any]:
        """Give ``{slot, pid, state, restarts}``."""
        return {
            "slot": self.number,
            "pid": self.pid,
            "state": self.state,
            "restarts": self._core.restarts,
        }
