"""What became of instances stays, after they are gone, and not for ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from zope.interface.verify import verifyObject

from ploinky.instance_values import InstanceSpec
from ploinky.leader_interfaces import IInstanceHistory
from ploinky.observations import LAST_WORDS_BYTES, InstanceDeath
from ploinky.telemetry.history import MOST_DEATHS, MOST_OUTPUTS, InstanceHistory, Starts
from ploinky.threads import Blocking
from ploinky.values import DeploymentKey, Kind


def spec(instance: str) -> InstanceSpec:
    key = DeploymentKey("localhost", "/demo")
    return InstanceSpec(instance, "d1", 1, "c", key, "demo", Kind.TASK, "busybox", "/q")


@pytest.fixture
def history(tmp_path: Path) -> Iterator[InstanceHistory]:
    blocking = Blocking(reactor, 1, "files")
    blocking.start()
    yield InstanceHistory(blocking, tmp_path / "instances")
    blocking.stop()


@pytest_twisted.ensureDeferred
async def test_output_is_kept_by_release(history: InstanceHistory, tmp_path: Path) -> None:
    """Of several lives together; a leader that comes later reads it."""
    assert verifyObject(IInstanceHistory, history)
    history.parted("d1", 1, "one", "a\nb\n")
    history.parted("d1", 1, "one", "c\n")
    history.parted("d1", 2, "two", "other\n")
    await history.stopService()
    assert await history.outputs("d1", 1, 2) == [("one", "b\nc\n")]
    assert await history.outputs("d1", 3, 2) == []
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.glob("instances/*/*/*")}
    assert modes == {0o600}


@pytest_twisted.ensureDeferred
async def test_output_is_bounded(history: InstanceHistory) -> None:
    """In size, and in the number of instances of one release."""
    for number in range(MOST_OUTPUTS + 5):
        history.parted("d1", 1, f"i{number:03}", "x\n")
    history.parted("d1", 1, "large", "y" * (LAST_WORDS_BYTES + 100))
    await history.stopService()
    kept = await history.outputs("d1", 1, 10)
    assert len(kept) == MOST_OUTPUTS
    assert len(dict(kept)["large"]) == LAST_WORDS_BYTES


@pytest_twisted.ensureDeferred
async def test_deaths_are_told_and_kept(history: InstanceHistory) -> None:
    """The last ones of each release, newest first."""
    told: list[InstanceDeath] = []
    history.listen(lambda spec, seconds: None, told.append)
    for number in range(MOST_DEATHS + 1):
        history.died(InstanceDeath("one", "d1", 1, float(number), "It ended", "agent", 3))
    await history.stopService()
    deaths = await history.deaths("d1", 1)
    assert len(deaths) == MOST_DEATHS
    assert deaths[0] == told[-1]
    assert history.last_death("d1") == told[-1]
    assert history.last_death("d2") is None


def test_starts_add_up(history: InstanceHistory) -> None:
    """By deployment: how many, and how long they took."""
    history.started(spec("one"), 0.5)
    history.started(spec("two"), 0.25)
    assert history.starts() == {"d1": Starts(2, 0.75)}


@pytest_twisted.ensureDeferred
async def test_what_is_old_goes(history: InstanceHistory, tmp_path: Path) -> None:
    """And the directories that are empty then."""
    history.parted("d1", 1, "old", "a\n")
    history.parted("d1", 2, "new", "b\n")
    await history.stopService()
    os.utime(tmp_path / "instances/d1/1/old.log", (1000, 1000))
    await history.prune(2000.0)
    assert [path.name for path in sorted(tmp_path.glob("instances/d1/*"))] == ["2"]
    assert await history.outputs("d1", 2, 10) == [("new", "b\n")]
