"""Why an instance went away: known at once, a moment later, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ploinky.observations import InstanceDeath
from ploinky.telemetry.deaths import PATIENCE_SECONDS, Deaths
from ploinky.telemetry.history import InstanceHistory
from ploinky.threads import Blocking

NOW = 1_800_000_000.0
DEATH = InstanceDeath("one", "id", 1, NOW, "It ended", "memory", 137, True, output="words")


@pytest.fixture
def clock() -> Clock:
    """It stands at `NOW`."""
    clock = Clock()
    clock.advance(NOW)
    return clock


@pytest.fixture
def history(tmp_path: Path) -> Iterator[InstanceHistory]:
    """It writes in threads."""
    blocking = Blocking(reactor, 1, "files")
    blocking.start()
    history = InstanceHistory(blocking, tmp_path)
    yield history
    pytest_twisted.blockon(history.stopService())
    blocking.stop()


@pytest.fixture
def deaths(clock: Clock, history: InstanceHistory) -> Deaths:
    """All that the history tells."""
    return Deaths(clock, history)


def asked(deaths: Deaths, since: float = NOW - 1) -> Deferred[InstanceDeath | None]:
    """Ask why `one` went away."""
    return Deferred.fromCoroutine(deaths.cause("one", since))


async def test_what_is_known_is_given_at_once(deaths: Deaths, history: InstanceHistory) -> None:
    """The newest; never one of an earlier life."""
    history.died(attrs.evolve(DEATH, at=NOW - 10))
    history.died(attrs.evolve(DEATH, instance="two"))
    early = asked(deaths)
    assert not early.called
    history.died(DEATH)
    assert early.result is DEATH
    assert asked(deaths).result is DEATH


async def test_it_is_waited_for_a_moment(deaths: Deaths, clock: Clock) -> None:
    """And no longer."""
    waiting = asked(deaths)
    clock.advance(PATIENCE_SECONDS - 0.01)
    assert not waiting.called
    clock.advance(0.01)
    assert waiting.result is None


async def test_the_cause_does_not_wait_for_the_last_words(
    deaths: Deaths, history: InstanceHistory, clock: Clock
) -> None:
    """An engine may take long to remove a container; why it ended is known by then."""
    fell = attrs.evolve(DEATH, output="")
    waiting = asked(deaths)
    history.fell(fell)
    assert not waiting.called
    clock.advance(PATIENCE_SECONDS)
    assert waiting.result is fell


async def test_whoever_gives_up_is_forgotten(deaths: Deaths, history: InstanceHistory) -> None:
    """A call that ends meanwhile leaves nothing behind."""
    waiting = asked(deaths)
    waiting.addErrback(lambda failure: None)
    waiting.cancel()
    history.died(DEATH)
