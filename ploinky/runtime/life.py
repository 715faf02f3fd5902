"""One instance's life, as a machine.

What the engine says of it enters (`observe`), and what its owner wants; which of its `steps` is
taken next leaves.

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

from collections.abc import Callable
from functools import partial
from typing import Protocol

from automat import TypeMachineBuilder

from ploinky.deploy_errors import StartFailed
from ploinky.instance_values import InstanceStatus
from ploinky.runtime.endings import how_it_ended
from ploinky.runtime.probes import Readiness
from ploinky.runtime.steps import Core, Listener


class Life(Listener, Protocol):
    """What may happen to an instance, besides what comes of its steps."""

    def launch(self) -> None:
        """It is wanted for the first time."""

    def adopt(self, status: InstanceStatus) -> None:
        """An earlier leader started it, and it runs."""

    def was_restarted(self, status: InstanceStatus) -> None:
        """The engine started it again by itself, after a steady life."""

    def end(self, grace_seconds: float) -> None:
        """It is wanted no more."""

    def leave(self) -> None:
        """The leader stops; what is ready lives on."""


def observe(life: Life, core: Core, status: InstanceStatus | None) -> None:
    """Tell a life what the engine says of it.

    Args:
        status: None: the engine has no such instance.
    """
    if not core.present:
        return
    restarted = status is not None and status.restarts > core.restarts
    if status is not None and restarted and core.may_be_explained(status):
        return
    ended = status is not None and (not status.running or restarted)
    core.chronicle.was_seen(status, ended=ended)
    if status is None:
        life.died("It was removed by somebody else")
    elif not status.running:
        life.died(how_it_ended(status))
    elif restarted:
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
        core.chronicle.fell_with(error)
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
        core.chronicle.fell(reason)
        core.begin(life, partial(core.back_off, life))

    @ready.upon(Life.failed).to(waiting)
    @reviving.upon(Life.failed).to(waiting)
    def try_again(life: Life, core: Core, error: Exception) -> None:
        core.is_down(str(error))
        core.chronicle.fell_with(error)
        core.log.warn(
            "instance {instance} does not come back: {reason}",
            instance=core.instance,
            reason=str(error),
        )
        core.begin(life, partial(core.back_off, life))

    @ready.upon(Life.was_restarted).to(reviving)
    def rejoin(life: Life, core: Core, status: InstanceStatus) -> None:
        core.is_down("it ended, and the engine started it again")
        core.chronicle.fell(f"{how_it_ended(status)}, and the engine started it again")
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
