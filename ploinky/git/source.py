"""The Git room's door: `ISource`.

A `GitSource` enters; commits, checkouts and listings leave.  All that blocks runs
in the injected pool; here are only decisions: is the mirror fresh, has this
credential opened it, is a second try worth it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from attrs import astuple
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.deploy_errors import RepositoryUnreachable, SourceError
from ploinky.git import problems
from ploinky.git.agents import list_agents
from ploinky.git.bounds import Abandoned, Bounds, Limits, OutOfTime
from ploinky.git.checkouts import FILES, Checkout, new_part, remove_parts
from ploinky.git.commits import NotInMirror, find_commit
from ploinky.git.fetches import Fetches, Wish
from ploinky.git.mirrors import Fetched, Mirrors
from ploinky.git.problems import MirrorBroken
from ploinky.git.program import GitFailed, GitMissing, GitProgram
from ploinky.git.urls import Remote, admit, check_ref, followed, parse
from ploinky.leader_interfaces import ISource
from ploinky.source_values import AgentListing, GitCredential, GitSource
from ploinky.threads import Blocking

T = TypeVar("T")


@implementer(ISource)
class GitRepositories(Service):
    """Mirrors and checkouts with the machine's git.

    Start it before the first call, while ``blocking`` runs.  Stopping it ends every
    git in hand; calls that wait for one fail.

    A mirror is shared by all who name its URL, but nobody reads it whose own
    credential (or none) has not opened the remote since the server started.

    Args:
        clock: For ``cache_seconds`` and time limits; read in threads too.
        blocking: Where git runs.  Its owner stops it after this.
        directory: For mirrors; private to this.
        cache_seconds: How long a mirror counts as fresh.
        file_roots: Directories that file URLs may point below.
        fetches_at_once: Fewer than ``blocking`` has threads, so that remotes that are
            slow do not keep others from reading what is here.
        program: Which git.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        blocking: Blocking,
        directory: Path,
        *,
        cache_seconds: float,
        file_roots: tuple[str, ...] = (),
        limits: Limits = Limits(),  # noqa: B008  # a frozen value
        fetches_at_once: int = 3,
        program: str = "git",
    ) -> None:
        self._clock = clock
        self._blocking = blocking
        self._cache_seconds = cache_seconds
        self._file_roots = file_roots
        self._limits = limits
        self._git = GitProgram(directory, program)
        self._mirrors = Mirrors(directory, self._git, limits)
        self._fetches = Fetches(self._fetch, self._bounds, fetches_at_once)
        self._opened: dict[tuple[str, str], float] = {}
        self._running: dict[Deferred[Any], Bounds] = {}

    def startService(self) -> None:
        """Make the directory ready and clear away what a killed server left."""
        self._mirrors.prepare()
        super().startService()  # type: ignore[no-untyped-call]

    async def _stopped(self) -> None:
        for bounds in self._running.values():
            bounds.abandon()
        await DeferredList(list(self._running))
        await self._fetches.stop()

    def stopService(self) -> Deferred[None]:
        """End every git in hand; fires when they are gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stopped())

    async def resolve(self, source: GitSource, fresh: bool) -> str:
        """See `ISource`."""
        check_ref(source.ref)
        remote = await self._remote(source)
        read = partial(find_commit, self._git, self._mirrors.path(remote), remote, source.ref)
        return await self._read(source, remote, 0.0 if fresh else self._cache_seconds, read)

    async def checkout(
        self, source: GitSource, commit: str, sub_path: str, destination: str
    ) -> None:
        """See `ISource`."""
        if os.path.lexists(destination):
            raise FileExistsError(destination)
        remote = await self._remote(source)
        target = Path(destination)
        work = Checkout(self._mirrors.path(remote), remote, commit, sub_path)
        try:
            part = new_part(target)
            read = partial(work.write, self._git, part, self._limits)
            # A commit never changes, so that the mirror's age does not matter.
            await self._read(source, remote, float("inf"), read)
            # No await before this: a cancel comes earlier, or finds the checkout complete.
            (part / FILES).rename(target)
        except OSError as error:
            raise _unwritten(error) from error
        finally:
            await self._blocking.run(remove_parts, target)

    async def agents(self, source: GitSource) -> list[AgentListing]:
        """See `ISource`."""
        check_ref(source.ref)
        remote = await self._remote(source)
        mirror = self._mirrors.path(remote)

        def read(bounds: Bounds) -> list[AgentListing]:
            commit = find_commit(self._git, mirror, remote, source.ref, bounds)
            return list_agents(self._git, mirror, remote, commit, self._limits, bounds)

        return await self._read(source, remote, self._cache_seconds, read)

    async def forget(self, url: str) -> None:
        """See `ISource`."""
        remote = await self._blocking.run(followed, parse(url))
        await self._fetches.alone(
            remote, lambda: self._in_thread(remote, None, partial(self._mirrors.forget, remote))
        )
        for key in [key for key in self._opened if key[0] == remote.id]:
            del self._opened[key]

    async def _remote(self, source: GitSource) -> Remote:
        remote = parse(source.url)
        if remote.scheme != "file":
            return remote
        return await self._blocking.run(admit, remote, self._file_roots, source.any_file_url)

    async def _read(
        self, source: GitSource, remote: Remote, max_age: float, read: Callable[[Bounds], T]
    ) -> T:
        """Read from a mirror of at most this age.

        What it lacks is fetched, and damage is repaired, once.
        """
        credential = source.credential
        opened_at = self._opened.get((remote.id, _fingerprint(credential)))
        fetched = opened_at is None or self._clock.seconds() - opened_at >= max_age
        if fetched:
            await self._fetches.join(Wish(remote, credential), newer=max_age == 0)
        try:
            return await self._in_thread(remote, credential, read)
        except NotInMirror:
            if fetched:
                raise
            await self._fetches.join(Wish(remote, credential), newer=True)
        except MirrorBroken as error:
            self._log.warn("the mirror of {url} is damaged: {why}", url=remote.url, why=str(error))
            await self._fetches.join(Wish(remote, credential, rebuild=True), newer=False)
        try:
            return await self._in_thread(remote, credential, read)
        except MirrorBroken as error:
            raise RepositoryUnreachable(
                f"{remote.url} cannot be read, also after it was fetched again: {error}"
            ) from error

    async def _fetch(self, wish: Wish, bounds: Bounds) -> None:
        remote, credential = wish.remote, wish.credential
        began = self._clock.seconds()

        def fetch(bounds: Bounds) -> Fetched:
            return self._mirrors.fetch(remote, credential, bounds, wish.rebuild)

        fetched = await self._in_thread(remote, credential, fetch, bounds)
        # Fresh as of the question, not of the answer: a push in between is not in it.
        self._opened[remote.id, _fingerprint(credential)] = began
        self._log.info(
            "{how} {url} in {seconds:.1f} s",
            how=fetched.how,
            url=remote.url,
            seconds=self._clock.seconds() - began,
            reason=fetched.reason,
        )

    async def _in_thread(
        self,
        remote: Remote,
        credential: GitCredential | None,
        work: Callable[[Bounds], T],
        bounds: Bounds | None = None,
    ) -> T:
        """Do work in the pool; when cancelled, stop it and wait until it has stopped.

        Raises:
            SourceError: In place of git's and the system's own errors.
        """
        within = bounds or self._bounds()
        running = Deferred.fromCoroutine(self._blocking.run(_bounded, work, within))
        outcome: Deferred[T] = Deferred()  # cancelling it leaves `running` alone
        running.chainDeferred(outcome)
        self._running[running] = within
        try:
            return await outcome
        except CancelledError:
            within.abandon()
            await running
            raise
        except Abandoned as error:
            raise RepositoryUnreachable("The server is stopping") from error
        except (GitFailed, GitMissing, OutOfTime) as error:
            raise problems.explained(error, remote, credential, self._limits) from error
        except OSError as error:
            raise _unwritten(error) from error
        finally:
            del self._running[running]

    def _bounds(self) -> Bounds:
        return Bounds(self._clock.seconds, self._limits.seconds)


def _bounded(work: Callable[[Bounds], T], bounds: Bounds) -> T:
    bounds.begin()
    return work(bounds)


def _unwritten(error: OSError) -> SourceError:
    return SourceError(f"{error.filename}: {error.strerror}")


def _fingerprint(credential: GitCredential | None) -> str:
    """Tell credentials apart without keeping them."""
    if credential is None:
        return ""
    return sha256("\0".join(astuple(credential)).encode()).hexdigest()
