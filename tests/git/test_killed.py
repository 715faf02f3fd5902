"""What is left, and what goes on, when git or the server ends in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread

from ploinky.deploy_errors import RepositoryUnreachable
from ploinky.git.bounds import Limits
from ploinky.source_values import GitSource
from ploinky.testing.git import LocalOrigin

SERVER = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from ploinky.git.source import GitRepositories
from ploinky.source_values import GitSource
from ploinky.threads import Blocking

directory, url = sys.argv[1:]
blocking = Blocking(reactor, 2, "git")
blocking.start()
source = GitRepositories(reactor, blocking, Path(directory), cache_seconds=0)
source.startService()
reactor.callWhenRunning(lambda: ensureDeferred(source.resolve(GitSource(url), True)))
reactor.run()
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pids: Iterable[int]) -> bool:
    """Whether none of these processes runs, or all were killed and are about to end."""
    limit = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < limit:
        await deferLater(reactor, 0.01)
    return not any(alive(pid) for pid in pids)


class Stuck:
    """A git whose fetch starts a child and never ends.

    Args:
        only: Of URLs that have this in them.
    """

    def __init__(self, tmp_path: Path, only: str = "") -> None:
        self._said = tmp_path / "said"
        os.mkfifo(self._said)
        self.program = str(tmp_path / "stuck-git")
        Path(self.program).write_text(
            f'#!/bin/sh\ncase "$*" in *\' fetch \'*{only}*) ;; *) exec git "$@";; esac\n'
            f'sleep 1000 & echo "$$ $!" > {self._said}\nwait\n'
        )
        Path(self.program).chmod(0o755)

    async def pids(self) -> list[int]:
        """Wait until it is stuck; give the ids of it and its child."""
        return [int(pid) for pid in (await deferToThread(self._said.read_text)).split()]


@pytest.fixture
def stuck(tmp_path: Path) -> Stuck:
    """See `Stuck`."""
    return Stuck(tmp_path)


@pytest_twisted.ensureDeferred
async def test_a_fetch_over_the_time_limit_is_ended_with_all_it_started(
    repositories, origin, stuck, tmp_path
):
    """The one who waits is told the limit; no process and no half mirror stays."""
    clock = Clock()
    source = repositories(clock, program=stuck.program, limits=Limits(seconds=30))
    origin.commit({"a": "1"})
    waiting = ensureDeferred(source.resolve(GitSource(origin.url, any_file_url=True), False))
    pids = await stuck.pids()
    clock.advance(31)
    with pytest.raises(RepositoryUnreachable, match="within 30 seconds"):
        await waiting
    assert await gone(pids)
    assert list((tmp_path / "repos").glob("*.git*")) == []


@pytest_twisted.ensureDeferred
async def test_a_fetch_ends_when_the_last_who_waits_for_it_leaves(repositories, origin, stuck):
    """Not when the first of two does."""
    source = repositories(Clock(), program=stuck.program)  # no time limit comes to help
    origin.commit({"a": "1"})
    place = GitSource(origin.url, any_file_url=True)
    first, second = (ensureDeferred(source.resolve(place, False)) for _ in range(2))
    pids = await stuck.pids()
    first.cancel()
    with pytest.raises(CancelledError):
        await first
    assert all(alive(pid) for pid in pids)
    second.cancel()
    with pytest.raises(CancelledError):
        await second
    # Waits for its turn, and so for the end of the fetch.
    await ensureDeferred(source.forget(origin.url)).addTimeout(20, reactor)
    assert await gone(pids)


@pytest_twisted.ensureDeferred
async def test_slow_remotes_do_not_hold_up_checkouts(repositories, origin, tmp_path):
    """However many of them are asked, one thread is left for what is here already."""
    stuck = Stuck(tmp_path, only="/slow-")
    source = repositories(program=stuck.program, fetches_at_once=3)
    commit = origin.commit({"a": "1"})
    place = GitSource(origin.url, any_file_url=True)
    await source.resolve(place, False)
    waiting = []
    for name in ("slow-a", "slow-b", "slow-c", "slow-d", "slow-e"):
        LocalOrigin(tmp_path / name)
        slow = GitSource(f"file://{tmp_path / name}", any_file_url=True)
        waiting.append(ensureDeferred(source.resolve(slow, False)))
    await stuck.pids()
    checkout = ensureDeferred(source.checkout(place, commit, "", str(tmp_path / "release")))
    await checkout.addTimeout(20, reactor)
    assert not any(deferred.called for deferred in waiting)
    await source.stopService()
    for deferred in waiting:
        with pytest.raises(RepositoryUnreachable):
            await deferred


@pytest_twisted.ensureDeferred
async def test_stopping_ends_every_git(repositories, origin, stuck):
    """The server does not wait for a remote in order to stop."""
    source = repositories(program=stuck.program)
    origin.commit({"a": "1"})
    waiting = ensureDeferred(source.resolve(GitSource(origin.url, any_file_url=True), False))
    pids = await stuck.pids()
    await source.stopService()
    assert await gone(pids)
    with pytest.raises(RepositoryUnreachable, match="stopping"):
        await waiting


@pytest_twisted.ensureDeferred
async def test_a_cancelled_checkout_leaves_nothing(repositories, origin, tmp_path):
    """Cancelled while git writes: when the cancel is through, so is the clearing away."""
    said = tmp_path / "said"
    os.mkfifo(said)
    program = tmp_path / "slow-git"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *checkout-index*) ;; *) exec git "$@";; esac\n'
        f'git "$@"; echo done > {said}\nsleep 1000\n'
    )
    program.chmod(0o755)
    source = repositories(program=str(program))
    place = GitSource(origin.url, any_file_url=True)
    commit = origin.commit({"a": "1"})
    await source.resolve(place, False)
    waiting = ensureDeferred(source.checkout(place, commit, "", str(tmp_path / "here" / "release")))
    await deferToThread(said.read_text)
    assert list((tmp_path / "here").glob(".release.part-*/files/a"))
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("there_before", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_server_killed_in_a_fetch_is_followed_by_one_that_works(
    repositories, http, origin, tmp_path, there_before
):
    """With -9, half of the pack received: its git is ended, and the mirror made whole."""
    if there_before:
        origin.commit({"a": "before"})
        before = repositories()
        await before.resolve(GitSource(http.url), False)
        await before.stopService()
    commit = origin.commit({"a": os.urandom(300_000), "demo/manifest.json": "{}"})
    half, killed = threading.Event(), threading.Event()

    def hold() -> None:
        http.midway = lambda: None
        half.set()
        killed.wait(60)

    http.midway = hold
    try:
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path / "repos"), http.url])
        try:
            assert await deferToThread(half.wait, 60)
        finally:
            server.kill()
            server.wait()
        (lock,) = (tmp_path / "repos").glob("*.lock")
        orphan = int(lock.read_text())
        assert alive(orphan)
        source = repositories()
        assert await source.resolve(GitSource(http.url), True) == commit
        assert await gone([orphan])
        assert [agent.name for agent in await source.agents(GitSource(http.url))] == ["demo"]
        assert list((tmp_path / "repos").glob("*.git.*")) == []
    finally:
        killed.set()


@pytest_twisted.ensureDeferred
async def test_a_checkout_that_was_killed_is_done_again(source, origin, tmp_path):
    """What it had written is cleared away."""
    place = GitSource(origin.url, any_file_url=True)
    commit = origin.commit({"a": "1"})
    (tmp_path / ".release.part-x").mkdir()
    (tmp_path / ".release.part-x" / "index.lock").write_text("")
    await source.resolve(place, False)
    await source.checkout(place, commit, "", str(tmp_path / "release"))
    assert [p.name for p in (tmp_path / "release").iterdir()] == ["a"]
    assert not list(tmp_path.glob(".release*"))


@pytest_twisted.ensureDeferred
async def test_keys_that_a_killed_server_left_are_removed_at_start(repositories, tmp_path):
    """No private key outlives the run that needed it by more than a restart."""
    left = tmp_path / "repos" / "keys" / "tmpx"
    left.mkdir(parents=True)
    (left / "key").write_text("PRIVATE")
    repositories()
    assert list((tmp_path / "repos" / "keys").iterdir()) == []
