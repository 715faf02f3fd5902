"""Work that is waited for, cancelled once, and taken in turn."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogPublisher

from ploinky.deployment.jobs import Job, Jobs, Turns, together
from tests.deployment.neighbours import only


class Place:
    """Somewhere to wait."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.gates: dict[str, Deferred[None]] = {}

    async def wait(self, name: str) -> str:
        self.events.append(f"{name} waits")
        self.gates[name] = Deferred()
        try:
            await self.gates[name]
        except CancelledError:
            self.events.append(f"{name} cancelled")
            await self.cleaned(name)
            raise
        self.events.append(f"{name} done")
        return name

    async def cleaned(self, name: str) -> None:
        self.gates[f"{name} cleaning"] = Deferred()
        await self.gates[f"{name} cleaning"]
        self.events.append(f"{name} clean")

    def open(self, name: str) -> None:
        self.gates[name].callback(None)


def begin(work: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(work)


def test_whoever_gives_up_the_wait_does_not_cut_short_the_cleaning() -> None:
    place, jobs = Place(), Jobs()
    asked = begin(jobs.run(lambda job: place.wait("a")))

    asked.cancel()
    with pytest.raises(CancelledError):
        only(asked)
    closing = begin(jobs.close())

    assert place.events == ["a waits", "a cancelled"]
    assert not closing.called
    place.open("a cleaning")
    only(closing)
    assert place.events[-1] == "a clean"


def test_work_past_its_point_of_no_return_is_waited_for_and_not_cancelled() -> None:
    place, jobs = Place(), Jobs()

    async def work(job: Job) -> str:
        job.commit()
        return await place.wait("a")

    asked = begin(jobs.run(work))
    asked.cancel()
    closing = begin(jobs.close())
    assert not closing.called
    place.open("a")

    only(closing)
    with pytest.raises(CancelledError):
        only(asked)
    assert place.events == ["a waits", "a done"]


def test_work_that_was_cancelled_does_not_get_past_its_point_of_no_return() -> None:
    job = Job()
    job.cancel()
    with pytest.raises(CancelledError):
        job.commit()


def test_a_failure_in_the_background_is_logged_once() -> None:
    jobs, events = Jobs(), []
    gc.collect()  # what earlier tests left is logged now
    globalLogPublisher.addObserver(events.append)

    async def fails(job: Job) -> None:
        raise ValueError("told")

    try:
        jobs.start(fails)
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [str(one["log_failure"].value) for one in events if "log_failure" in one] == ["told"]


def test_things_done_together_come_back_in_order() -> None:
    place = Place()
    done = begin(together(place.wait(name) for name in "abc"))
    for name in "cab":
        place.open(name)

    assert only(done) == ["a", "b", "c"]
    assert only(begin(together([]))) == []


def test_one_failure_cancels_the_others_and_waits_for_them() -> None:
    place = Place()
    done = begin(together(place.wait(name) for name in "ab"))

    place.gates["a"].errback(ValueError("broken"))

    assert not done.called
    place.open("b cleaning")
    with pytest.raises(ValueError, match="broken"):
        only(done)
    assert place.events == ["a waits", "b waits", "b cancelled", "b clean"]


def test_a_failure_at_once_begins_no_more() -> None:
    place = Place()

    async def fails() -> str:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        only(begin(together([fails(), place.wait("b")])))
    assert place.events == []


def test_cancelling_cancels_all_and_waits_for_them() -> None:
    place = Place()
    done = begin(together(place.wait(name) for name in "ab"))
    ends: list[Any] = []
    done.addBoth(ends.append)
    done.cancel()

    place.open("b cleaning")
    assert ends == []
    place.open("a cleaning")
    assert [end.type for end in ends] == [CancelledError]


def test_turns_are_taken_per_key_in_the_order_of_asking() -> None:
    place, turns = Place(), Turns[str]()

    async def work(key: str, name: str) -> None:
        async with turns.of(key):
            await place.wait(name)

    begin(work("x", "first"))
    second = begin(work("x", "second"))
    begin(work("x", "third"))
    begin(work("y", "other"))
    assert place.events == ["first waits", "other waits"]

    second.addErrback(lambda failure: failure.trap(CancelledError))
    second.cancel()
    place.open("first")
    assert place.events[2:] == ["first done", "third waits"]
    place.open("third")
    place.open("other")
    assert turns._locks == {}
