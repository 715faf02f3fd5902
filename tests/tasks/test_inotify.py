"""inotify in the reactor: who is told what."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from ploinky.tasks.inotify import IN_DELETE, IN_MOVED_TO, Inotify


@pytest.fixture
def reactor() -> MemoryReactorClock:
    return MemoryReactorClock()


@pytest.fixture
def inotify(reactor: MemoryReactorClock) -> Iterator[Inotify]:
    inotify = Inotify(reactor)
    inotify.start(lambda: None)
    yield inotify
    inotify.stop()


def move_in(directory: Path, name: str) -> None:
    (directory / ".new").touch()
    (directory / ".new").rename(directory / name)


def test_each_is_told_of_its_own_directory(inotify: Inotify, tmp_path: Path) -> None:
    """Names of any length come whole, in order, to whoever watches that directory."""
    told: dict[str, list[str]] = {"a": [], "b": []}
    for name, names in told.items():
        (tmp_path / name).mkdir()
        inotify.watch(str(tmp_path / name), IN_MOVED_TO, names.append)
    move_in(tmp_path / "a", "x")
    move_in(tmp_path / "b", "y" * 255)
    move_in(tmp_path / "a", "sixteen-letters-")
    inotify.doRead()
    assert told == {"a": ["x", "sixteen-letters-"], "b": ["y" * 255]}


def test_only_what_was_asked_for_is_told(inotify: Inotify, tmp_path: Path) -> None:
    """Who watches for deletions hears nothing of what comes."""
    told: list[str] = []
    inotify.watch(str(tmp_path), IN_DELETE, told.append)
    move_in(tmp_path, "x")
    (tmp_path / "x").unlink()
    inotify.doRead()
    assert told == ["x"]


def test_who_was_forgotten_hears_no_more(inotify: Inotify, tmp_path: Path) -> None:
    """Not even of what happened before and was not read yet."""
    told: list[str] = []
    watch = inotify.watch(str(tmp_path), IN_MOVED_TO, told.append)
    move_in(tmp_path, "x")
    inotify.forget(watch)
    inotify.forget(watch)
    inotify.doRead()
    assert told == []


def test_a_watcher_may_end_everything(inotify: Inotify, tmp_path: Path) -> None:
    """Stopping amid a batch tells nobody any more, and is safe."""
    told: list[str] = []

    def stop(name: str) -> None:
        told.append(name)
        inotify.stop()

    inotify.watch(str(tmp_path), IN_MOVED_TO, stop)
    move_in(tmp_path, "x")
    move_in(tmp_path, "y")
    inotify.doRead()
    assert told == ["x"]


def test_nothing_to_read_is_no_error(inotify: Inotify) -> None:
    """A descriptor that the reactor reads in vain neither blocks nor raises."""
    inotify.doRead()


@pytest.mark.parametrize("what", ["absent", "file"])
def test_only_directories_are_watched(inotify: Inotify, tmp_path: Path, what: str) -> None:
    """What is not there, or is a file, is refused at once and by name."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=what):
        inotify.watch(str(tmp_path / what), IN_MOVED_TO, lambda name: None)


def test_the_descriptor_is_given_back(
    inotify: Inotify, reactor: MemoryReactorClock, tmp_path: Path
) -> None:
    """Whether its owner stops it or the reactor ends."""
    descriptor = inotify.fileno()
    assert reactor.getReaders() == [inotify]
    inotify.connectionLost(Failure(ConnectionError()))
    assert reactor.getReaders() == []
    assert inotify.fileno() == -1
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)
