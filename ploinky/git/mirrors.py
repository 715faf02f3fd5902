"""One bare mirror per URL, on disk: made whole or not at all, fetched, healed, forgotten.

A `Remote` and a credential enter; a repository that git can read offline is
there afterwards.  Freshness and who may share a fetch are not known here.

What can happen to a mirror: the server is killed while it is made, or while it
is fetched (git may live on for a while); the disk loses a part of it; the
remote rewrites its history, renames its default branch or has none; it grows
past the limit; it is forgotten while others read it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from ploinky.deploy_errors import SourceTooLarge
from ploinky.git import problems
from ploinky.git.bounds import Bounds, Limits, OutOfTime
from ploinky.git.credentials import Credentials
from ploinky.git.program import Access, GitFailed, GitProgram
from ploinky.git.urls import Remote
from ploinky.source_values import GitCredential

HEAD = "refs/ploinky/head"
"""Where a mirror keeps the commit of the remote's default branch."""

_BRANCHES_AND_TAGS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


@frozen
class Fetched:
    """What became of a fetch.

    Attributes:
        how: ``cloned``, ``fetched``, or ``rebuilt`` where the mirror was damaged.
        reason: Git's words on the damage; ``""`` otherwise.
    """

    how: str
    reason: str = ""


class Mirrors:
    """The mirrors below one directory, which belongs to this room alone.

    Args:
        directory: Made, private, by `prepare`.
        git: Runs git.
        limits: Hold for each mirror.
    """

    def __init__(self, directory: Path, git: GitProgram, limits: Limits) -> None:
        self._directory = directory
        self._git = git
        self._limits = limits
        self._credentials = Credentials(directory)

    def prepare(self) -> None:
        """Make the directory ready.  Before anything else, once."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        self._credentials.prepare()
        self._git.prepare()

    def path(self, remote: Remote) -> Path:
        """Where a mirror is, or would be.  One that stands there was whole when it was made."""
        return self._directory / f"{remote.id}.git"

    def fetch(
        self, remote: Remote, credential: GitCredential | None, bounds: Bounds, rebuild: bool
    ) -> Fetched:
        """Bring the mirror up to the remote's branches and tags.

        Args:
            rebuild: Clone it again, as it is damaged; it stays until the new one is whole.

        Raises:
            GitFailed, GitMissing, OutOfTime, Abandoned: What was there before is there still.
            SourceTooLarge: As above; a mirror that has outgrown the limit is removed.
            RepositoryUnreachable: The credential cannot be used with git.
        """
        mirror = self.path(remote)
        with (
            self._credentials.lend(credential, remote) as access,
            self._alone(remote, bounds) as lock,
        ):
            run = _Run(self._git, lock, remote, credential, self._limits, bounds)
            if mirror.is_dir() and not rebuild:
                _sweep(mirror)
                return self._fetch_or_rebuild(run, mirror, access)
            was_there = mirror.exists()
            self._clone(run, mirror, access)
            return Fetched("rebuilt" if was_there else "cloned")

    def forget(self, remote: Remote, bounds: Bounds) -> None:
        """Remove a mirror and all that belongs to it; none is no error."""
        with self._alone(remote, bounds) as lock:
            for path in (self.path(remote), self._new(remote), self._old(remote)):
                shutil.rmtree(path, ignore_errors=True)
            lock.path.unlink(missing_ok=True)

    def _new(self, remote: Remote) -> Path:
        return self._directory / f"{remote.id}.git.new"

    def _old(self, remote: Remote) -> Path:
        return self._directory / f"{remote.id}.git.old"

    @contextmanager
    def _alone(self, remote: Remote, bounds: Bounds) -> Iterator[_Lock]:
        lock = _Lock(self._directory / f"{remote.id}.lock")
        try:
            lock.acquire(bounds)
            yield lock
        finally:
            lock.close()

    def _fetch_or_rebuild(self, run: _Run, mirror: Path, access: Access) -> Fetched:
        try:
            run.fetch_into(mirror, access)
        except SourceTooLarge:
            if _size(mirror) > self._limits.mirror_bytes:
                shutil.rmtree(mirror)
            raise
        except GitFailed as error:
            if problems.of_remote(error, run.remote, run.credential, run.limits):
                raise
            # Not the remote's fault by git's words, so perhaps the mirror's.
            self._clone(run, mirror, access)
            return Fetched("rebuilt", problems.words(error, run.credential))
        run.tidy(mirror)
        return Fetched("fetched")

    def _clone(self, run: _Run, mirror: Path, access: Access) -> None:
        new, old = self._new(run.remote), self._old(run.remote)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        try:
            run.init(new)
            run.fetch_into(new, access)
            if mirror.exists():
                mirror.rename(old)
            new.rename(mirror)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


@frozen
class _Run:
    """The commands of one `Mirrors.fetch`, with what they have in common."""

    git: GitProgram
    lock: _Lock
    remote: Remote
    credential: GitCredential | None
    limits: Limits
    bounds: Bounds

    def init(self, mirror: Path) -> None:
        """Make an empty repository that says whose mirror it is."""
        self.git.run(
            [
                "init",
                "--quiet",
                "--bare",
                "--template=",
                "--initial-branch=main",
                "--",
                str(mirror),
            ],
            self.bounds,
        )
        (mirror / "description").write_text(f"{self.remote.url}\n")

    def fetch_into(self, mirror: Path, access: Access) -> None:
        """Fetch branches, tags and the default branch's commit; what the remote lost is pruned."""
        try:
            self._fetch(mirror, access, (f"+HEAD:{HEAD}", *_BRANCHES_AND_TAGS))
        except GitFailed as error:
            # A remote may have no default branch, or no commit at all.
            if "find remote ref HEAD" not in error.said:
                raise
            self._fetch(mirror, access, _BRANCHES_AND_TAGS)
            self.git.run([f"--git-dir={mirror}", "update-ref", "-d", HEAD], self.bounds)

    def _fetch(self, mirror: Path, access: Access, refspecs: tuple[str, ...]) -> None:
        def watch() -> None:
            if _size(mirror) > self.limits.mirror_bytes:
                raise SourceTooLarge(
                    f"{self.remote.url} is larger than the limit of "
                    f"{self.limits.mirror_bytes:,} bytes: deploy from a smaller repository",
                    details={"limitBytes": self.limits.mirror_bytes},
                )

        arguments = [
            f"--git-dir={mirror}",
            "fetch",
            "--no-progress",
            "--prune",
            "--force",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-auto-gc",
            "--no-write-fetch-head",
            "--",
            self.remote.url,
            *refspecs,
        ]
        with self.lock.lent_to(access) as lent:
            self.git.run(
                arguments, self.bounds, access=lent, watch=watch, started=self.lock.held_by
            )
        watch()

    def tidy(self, mirror: Path) -> None:
        """Let git join packs where many have come together; that it cannot is no failure."""
        with suppress(GitFailed, OutOfTime), self.lock.lent_to(Access()) as lent:
            self.git.run(
                [f"--git-dir={mirror}", "gc", "--auto", "--quiet"],
                self.bounds,
                access=lent,
                started=self.lock.held_by,
            )


class _Lock:
    """Held by whoever changes a mirror, and by the git that does it.

    Git inherits it: a git that outlives a killed server still holds it, and is
    ended by the next server.  That the lock is held proves that the process
    group written into it is still the same one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def acquire(self, bounds: Bounds) -> None:
        """Wait for the lock, ending a git that a killed server left behind."""
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._end_holder()
                bounds.pause()
            else:
                break
        os.ftruncate(self._descriptor, 0)

    def _end_holder(self) -> None:
        group = os.pread(self._descriptor, 32, 0)
        if group.isdigit():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(int(group), signal.SIGKILL)

    @contextmanager
    def lent_to(self, access: Access) -> Iterator[Access]:
        """Let one run of git inherit the lock, and forget that run's group at its end."""
        try:
            yield Access(
                options=access.options,
                environment=access.environment,
                descriptors=(*access.descriptors, self._descriptor),
            )
        finally:
            os.ftruncate(self._descriptor, 0)

    def held_by(self, group: int) -> None:
        """Write down who inherited it."""
        os.pwrite(self._descriptor, str(group).encode(), 0)

    def close(self) -> None:
        """Give it back."""
        os.close(self._descriptor)


def _sweep(mirror: Path) -> None:
    """Remove what a git that was killed left: locks would stop the next, part packs fill the disk."""
    for path in [*mirror.glob("*.lock"), *(mirror / "refs").rglob("*.lock")]:
        path.unlink(missing_ok=True)
    for path in (mirror / "objects").glob("*/tmp_*"):
        path.unlink(missing_ok=True)


def _size(directory: Path) -> int:
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
