"""How a container ended that the engine has started again, as far as its events tell."""

from __future__ import annotations

import pytest

from ploinky.runtime.events import ContainerEvent
from ploinky.runtime.last_ends import LastEnd, LastEnds


@pytest.fixture
def ends() -> LastEnds:
    """Nothing was heard yet."""
    return LastEnds()


def died(at: int, exit_code: int, container: str = "one") -> ContainerEvent:
    """An end, as both engines tell it."""
    return ContainerEvent("instance", container, "die", at, exit_code)


def test_the_end_that_was_asked_for(ends: LastEnds) -> None:
    """It is told a moment after the container ended."""
    ends.hear(died(105, 137))
    assert ends.of("one", 100) == LastEnd(137)


def test_an_earlier_end_explains_nothing(ends: LastEnds) -> None:
    """That of the life before: the event of the last one is still to come."""
    ends.hear(died(105, 0))
    assert ends.of("one", 200) == LastEnd()
    ends.hear(died(205, 137))
    assert ends.of("one", 200) == LastEnd(137)


def test_another_container_explains_nothing(ends: LastEnds) -> None:
    """One of the same instance that was stopped in order to start it afresh ended with 0."""
    ends.hear(died(205, 0, "the one before"))
    assert ends.of("one", 200) == LastEnd()


def test_want_of_memory_comes_before_the_end(ends: LastEnds) -> None:
    """And is that end's alone."""
    ends.hear(ContainerEvent("instance", "one", "oom", 99))
    ends.hear(died(105, 137))
    assert ends.of("one", 100) == LastEnd(137, out_of_memory=True)
    ends.hear(died(205, 1))
    assert ends.of("one", 200) == LastEnd(1)


@pytest.mark.parametrize("action", ["destroy", "remove"])
def test_what_is_removed_is_forgotten(ends: LastEnds, action: str) -> None:
    """Containers come and go for as long as the server runs."""
    ends.hear(died(105, 137))
    ends.hear(ContainerEvent("instance", "one", action, 106))
    assert ends.of("one", 100) == LastEnd()
    assert ends._ends == {}
