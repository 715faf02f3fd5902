"""Time-outs of many things by one delayed call."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from ploinky.routing.wheel import NEVER, Wheel


class Thing:
    """Remembers when it expired."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.due = NEVER
        self.noted = NEVER
        self.expired_at: list[float] = []
        self.breaks = False

    def expired(self) -> None:
        self.expired_at.append(self.clock.seconds())
        if self.breaks:
            raise RuntimeError("as told")


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(1234.56)
    return clock


@pytest.fixture
def wheel(clock: Clock) -> Wheel:
    return Wheel(clock, tick_seconds=0.1)


def turn(clock: Clock, seconds: float) -> None:
    clock.pump([0.05] * round(seconds / 0.05))


def test_it_is_at_most_a_tick_late_and_never_early(clock: Clock, wheel: Wheel) -> None:
    """Whatever the time-out, and whenever it began."""
    things = []
    for step in range(60):
        thing = Thing(clock)
        due = clock.seconds() + 0.013 * step
        wheel.set(thing, due)
        things.append((thing, due))
    turn(clock, 2)
    for thing, due in things:
        assert len(thing.expired_at) == 1
        assert due <= thing.expired_at[0] <= due + 0.1 + 0.1


def test_the_last_setting_counts(clock: Clock, wheel: Wheel) -> None:
    """Later, sooner, or not at all."""
    later, sooner, never, gone = (Thing(clock) for _ in range(4))
    start = clock.seconds()
    for thing in (later, sooner, never, gone):
        wheel.set(thing, start + 1)
    wheel.set(later, start + 2)
    wheel.set(sooner, start + 0.5)
    never.due = NEVER
    wheel.forget(gone)
    turn(clock, 0.8)
    assert (len(sooner.expired_at), len(later.expired_at)) == (1, 0)
    turn(clock, 0.8)
    assert later.expired_at == []
    turn(clock, 1)
    assert (len(later.expired_at), never.expired_at, gone.expired_at) == (1, [], [])


def test_it_can_be_set_again(clock: Clock, wheel: Wheel) -> None:
    """Once expired, and once put off for ever."""
    thing = Thing(clock)
    wheel.set(thing, clock.seconds() + 1)
    turn(clock, 1.3)
    wheel.set(thing, clock.seconds() + 1)
    turn(clock, 1.3)
    assert len(thing.expired_at) == 2


def test_one_delayed_call_for_all_and_none_for_nothing(clock: Clock, wheel: Wheel) -> None:
    """Ten thousand connections cost one timer; none cost none."""
    assert clock.getDelayedCalls() == []
    things = [Thing(clock) for _ in range(10_000)]
    for thing in things:
        wheel.set(thing, clock.seconds() + 30)
    assert len(clock.getDelayedCalls()) == 1
    for thing in things:
        wheel.forget(thing)
    turn(clock, 0.2)
    assert clock.getDelayedCalls() == []


def test_what_breaks_costs_nobody_else_its_time_out(clock: Clock, wheel: Wheel) -> None:
    """An error in one of them reaches the reactor, and the others expire all the same."""
    things = [Thing(clock) for _ in range(3)]
    for thing in things:
        thing.breaks = True
        wheel.set(thing, clock.seconds() + 0.1)
    for _ in range(40):
        try:
            clock.advance(0.05)
        except RuntimeError:
            continue
    assert [len(thing.expired_at) for thing in things] == [1, 1, 1]
