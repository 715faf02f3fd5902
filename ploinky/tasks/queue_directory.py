"""One instance's queue directory on disk (contract, section 3, *Wire, files*).

Ids and contents enter and leave; what they mean is `messages`' business.  The
files are small and lie on a local disk or tmpfs, so they are written and read
in the reactor's thread by intention: a hop to another thread would take longer.

An agent can write here and is not trusted.  The sub-directories are opened once
and used by descriptor, links are never followed, nothing is opened that could
block and nothing is read without limit, so that an agent that puts a link or a
pipe in place of a result reaches no file of the host and holds nobody up.

A result that was read is kept in ``tmp/`` and written over for a later task: making
a file takes ext4 ten times as long (it searches for an inode that was not freed in
the last minutes, and a busy queue frees thousands of them), and so does cutting one.

Killed between any two calls, a server leaves a task whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from itertools import islice

from ploinky.errors import AgentBroken
from ploinky.task_values import DURABLE_PREFIX

TASKS = "tasks"
RESULTS = "results"
ERRORS = "errors"
LOCKS = "locks"
TMP = "tmp"
SUBDIRECTORIES = (TASKS, RESULTS, ERRORS, LOCKS, TMP)

LARGEST_RESULT_BYTES = 64 * 1024 * 1024
"""Far over what AgentCore lets through (16 MiB unless it is told otherwise)."""

SPARE_FILES = 64
"""Files kept for writing over, at most; more than are usually in flight."""

MOST_SWEPT = 256
"""Names that one sweep looks at in each place, whatever number of them an agent has put there."""

_MOST_BLANKS = 1024
"""A longer file is not cut but filled up with blanks, which mean nothing in JSON."""

_READ_BYTES = 65536
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SAFE_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class QueueDirectory:
    """The files of one queue.  Its owner calls `close`.

    Args:
        path: Absolute path; its sub-directories exist.

    Raises:
        OSError: It or one of the sub-directories is not there, or is no directory.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._open: dict[str, int] = {}
        self._spare: list[str] = []
        root = os.open(path, _DIRECTORY)
        try:
            for name in SUBDIRECTORIES:
                self._open[name] = os.open(name, _DIRECTORY, dir_fd=root)
            # An agent with another uid than ours must be able to read what we write.
            self._shared = os.fstat(self._open[TASKS]).st_uid != os.geteuid()
        except OSError:
            self.close()
            raise
        finally:
            os.close(root)

    def close(self) -> None:
        """Give the descriptors back; a second call does nothing."""
        self.rest()
        while self._open:
            os.close(self._open.popitem()[1])

    def rest(self) -> None:
        """Remove the spare files, for a while in which nothing is queued."""
        while self._spare:
            self.discard(TMP, self._spare.pop())

    def check(self) -> None:
        """Look whether the opened sub-directories are still the queue's.

        Raises:
            OSError: One was removed, or another one was put in its place.
        """
        for name, descriptor in self._open.items():
            there = os.stat(f"{self.path}/{name}", follow_symlinks=False)
            if not os.path.samestat(there, os.fstat(descriptor)):
                raise OSError(errno.ESTALE, f"{name}/ was replaced")

    def watchable(self, name: str) -> str:
        """Give a path of a sub-directory that leads to the opened one, whatever its name is now."""
        return f"/proc/self/fd/{self._open[name]}"

    def put(self, task: str, content: bytes) -> None:
        """Write ``tasks/<task>``: all of it or, on failure, nothing.

        Not synced to the disk: a task that somebody waits for is void after a crash anyway.

        Raises:
            OSError: The disk is full, or the queue is gone.
        """
        name, descriptor, size = self._writable(task)
        try:
            try:
                if len(content) < size <= len(content) + _MOST_BLANKS:
                    content = content.ljust(size)
                written = os.write(descriptor, content)
                while written < len(content):
                    written += os.write(descriptor, content[written:])
                if size > written:
                    os.ftruncate(descriptor, written)
            finally:
                os.close(descriptor)
            os.rename(name, task, src_dir_fd=self._open[TMP], dst_dir_fd=self._open[TASKS])
        except OSError:
            self.discard(TMP, name)
            raise

    def _writable(self, task: str) -> tuple[str, int, int]:
        """Give name, descriptor and size of a file in ``tmp/``: a spare one, else a new one."""
        while self._spare:
            name = self._spare.pop()
            try:
                descriptor = os.open(name, _OLD_FILE, dir_fd=self._open[TMP])
            except OSError:
                continue  # swept, or the agent put something else in its place
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                return name, descriptor, found.st_size
            os.close(descriptor)
        self.discard(TMP, task)  # what one left that was killed while it queued this very task
        descriptor = os.open(task, _NEW_FILE, 0o600, dir_fd=self._open[TMP])
        if self._shared:
            os.fchmod(descriptor, 0o644)
        return task, descriptor, 0

    def take(self, place: str, task: str) -> bytes | None:
        """Read ``results/<task>`` or ``errors/<task>`` and remove it.

        Returns:
            Its content, or None if there is none.

        Raises:
            AgentBroken: It is no ordinary file, cannot be read, or is over `LARGEST_RESULT_BYTES`.
        """
        try:
            descriptor = os.open(task, _SAFE_READ, dir_fd=self._open[place])
        except FileNotFoundError:
            return None
        except OSError as error:
            self.discard(place, task)
            raise _unreadable(place, error) from error
        content = b""
        try:
            content = _read(descriptor)
        except OSError as error:
            raise _unreadable(place, error) from error
        finally:
            os.close(descriptor)
            if 0 < len(content) < _READ_BYTES and len(self._spare) < SPARE_FILES:
                self._keep(place, task)
            else:
                self.discard(place, task)
        return content

    def peek(self, place: str, task: str) -> bytes | None:
        """Read as `take` does, and leave it there."""
        try:
            descriptor = os.open(task, _SAFE_READ, dir_fd=self._open[place])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(place, error) from error
        try:
            return _read(descriptor)
        except OSError as error:
            raise _unreadable(place, error) from error
        finally:
            os.close(descriptor)

    def has(self, place: str, task: str) -> bool:
        """Tell whether something of this name lies in a sub-directory."""
        try:
            os.stat(task, dir_fd=self._open[place], follow_symlinks=False)
        except OSError:
            return False
        return True

    def names(self, place: str, most: int) -> list[str]:
        """Give at most so many names in a sub-directory: an agent may have put any number there."""
        with os.scandir(self.watchable(place)) as entries:
            return [entry.name for entry in islice(entries, most)]

    def locked_before(self, task: str, when_ns: int) -> bool:
        """Tell whether a task has a lock that was made before this Unix time."""
        try:
            found = os.stat(task, dir_fd=self._open[LOCKS], follow_symlinks=False)
        except OSError:
            return False
        return found.st_mtime_ns < when_ns

    def lock(self, task: str) -> bool:
        """Take a task's lock, as an executor would; False where somebody has it."""
        try:
            os.mkdir(task, 0o700, dir_fd=self._open[LOCKS])
        except OSError:
            return False
        return True

    def unlock(self, task: str) -> None:
        """Give a task's lock back, whoever took it; none is no error."""
        try:
            os.unlink(task, dir_fd=self._open[LOCKS])
        except OSError:  # an executor that uses `mkdir`, or the server itself, has it
            with contextlib.suppress(OSError):
                os.rmdir(task, dir_fd=self._open[LOCKS])

    def is_gone(self) -> bool:
        """Tell whether the queue was deleted since it was opened."""
        return os.fstat(self._open[TASKS]).st_nlink == 0

    def _keep(self, place: str, task: str) -> None:
        """Make a file that was read a spare one."""
        try:
            os.rename(task, task, src_dir_fd=self._open[place], dst_dir_fd=self._open[TMP])
        except OSError:
            self.discard(place, task)
        else:
            self._spare.append(task)

    def discard(self, place: str, task: str) -> None:
        """Remove a file; one that is gone, or that the agent made irremovable, is no error."""
        with contextlib.suppress(OSError):
            os.unlink(task, dir_fd=self._open[place])

    def sweep(self, before: float) -> None:
        """Remove what nobody waits for and was last written before this Unix time.

        That is answers, unfinished files, and the locks of tasks that are over.  An agent may
        have put any number of names there: one sweep looks at some, the next ones at the rest.

        What came of durable tasks is left: the leader reads it, however late.

        Raises:
            OSError: The queue is gone.
        """
        for place in (RESULTS, ERRORS, TMP):
            for name in _older(self._open[place], before):
                if place == TMP or not name.startswith(DURABLE_PREFIX):
                    self.discard(place, name)
        for name in _older(self._open[LOCKS], before):
            if not (name.startswith(DURABLE_PREFIX) or self.has(TASKS, name)):
                self.unlock(name)


def _older(directory: int, before: float) -> list[str]:
    found = []
    with os.scandir(f"/proc/self/fd/{directory}") as entries:
        for entry in islice(entries, MOST_SWEPT):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < before:
                    found.append(entry.name)
    return found


def _read(descriptor: int) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):  # a pipe or a device: reading it may do or be anything
        raise OSError(errno.EINVAL, "it is not a file")
    if found.st_size > LARGEST_RESULT_BYTES:
        raise AgentBroken(f"the agent wrote a result of over {LARGEST_RESULT_BYTES} bytes")
    content = os.read(descriptor, _READ_BYTES)
    if len(content) < _READ_BYTES:
        return content
    chunks = [content]
    left = found.st_size - len(content)
    while left > 0 and (content := os.read(descriptor, min(left, 16 * _READ_BYTES))):
        chunks.append(content)  # one that grows meanwhile is read up to where it ended
        left -= len(content)
    return b"".join(chunks)


def _unreadable(place: str, error: OSError) -> AgentBroken:
    return AgentBroken(
        f"what the agent put into {place}/ is no file that can be read: {error.strerror}"
    )
