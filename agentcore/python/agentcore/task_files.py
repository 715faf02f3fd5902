"""The files of the tasks in a queue directory, and the order in which they come and go.

Ids, tasks and answers enter and leave; which task runs when is `file_wire`'s business.
The lock is made first and removed last, and an answer is in place before its task
goes: killed between any two calls, an engine loses no task and has none run twice.

Making, emptying and removing files is what is dear on a disk, so the file of a task
that is done is kept in `tmp/`, open, and written over for a later answer; the server
does so with answers it has read.  So a lock is made as a further name for one file: as
exclusive as a directory, with which it may share `locks/`, at a tenth of the cost and less.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Callable, Dict, List, Optional

# Kept for writing over, at most; more than are usually in flight.
SPARE_FILES = 64
READ_BYTES = 65536
# A longer file is not cut but filled up with blanks, which mean nothing in JSON.
MAX_BLANKS = 1024
# What lies there need not be a file: opening a pipe must not wait for its other end.
_SAFELY = os.O_CLOEXEC | os.O_NONBLOCK


class _Spare:
    """A task's file, open, and its name once the task is done."""

    __slots__ = ("descriptor", "name", "size")

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self.size = 0

    def overwrite(self, content: bytes) -> None:
        length = len(content)
        is_longer = self.size > length + MAX_BLANKS
        filled = content if is_longer else content.ljust(self.size)
        if os.pwrite(self.descriptor, filled, 0) < length:
            raise OSError("The disk is full.")
        if is_longer:
            os.ftruncate(self.descriptor, length)

    def discard(self) -> None:
        os.close(self.descriptor)
        is_there(os.unlink, self.name)


class TaskFiles:
    """The files in one queue directory."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._read: Dict[str, _Spare] = {}
        self._spare: List[_Spare] = []
        self._room = SPARE_FILES
        self._mode = os.O_RDWR
        # Never an earlier engine's, whose locks would look as young as these.
        self._key = f"{root}/tmp/lock-{os.getpid()}-{time.time_ns()}"
        self._links = True

    def names(self) -> List[str]:
        """List what lies in `tasks/`, ids or not."""
        return os.listdir(f"{self._root}/tasks")

    def is_queued(self, name: str) -> bool:
        """Whether the task is there."""
        return os.path.exists(f"{self._root}/tasks/{name}")

    def is_answered(self, name: str) -> bool:
        """Whether an answer to the task is there."""
        outcomes = (f"{self._root}/{place}/{name}" for place in ("results", "errors"))
        return any(os.path.exists(outcome) for outcome in outcomes)

    def lock(self, name: str) -> bool:
        """Lock the task; False where somebody has it already."""
        path = f"{self._root}/locks/{name}"
        try:
            if not self._link(path):
                os.mkdir(path)
        except FileExistsError:
            return False
        return True

    def locked_at(self, name: str) -> float:
        """When the lock was made, in Unix ms."""
        return os.stat(f"{self._root}/locks/{name}").st_mtime * 1000

    def unlock(self, name: str) -> None:
        """Remove the lock; one that is gone is no error."""
        self._forget(name)
        path = f"{self._root}/locks/{name}"
        try:
            is_there(os.unlink, path)
        except OSError:
            is_there(os.rmdir, path)

    def read(self, name: str) -> Optional[bytes]:
        """Give a task's bytes, None where it is gone."""
        try:
            descriptor = self._open(f"{self._root}/tasks/{name}")
        except FileNotFoundError:
            return None
        self._forget(name)
        spare = self._read[name] = _Spare(f"{self._root}/tmp/{name}.spare", descriptor)
        raw = os.read(descriptor, READ_BYTES)
        if len(raw) == READ_BYTES:
            with open(descriptor, "rb", closefd=False) as rest:
                raw += rest.read()
        spare.size = len(raw)
        return raw

    def answer(self, name: str, place: str, content: bytes) -> None:
        """Put an answer into place and take the task out; do nothing where it was taken back."""
        target = f"{self._root}/{place}/{name}"
        try:
            if not self.is_queued(name):
                return
            if not self._reuse(content, target):
                _write(f"{self._root}/tmp/{name}.answer", content, target)
            self.remove(name)
        finally:
            self._forget(name)

    def remove(self, name: str) -> None:
        """Take a task out, if it is there."""
        path = f"{self._root}/tasks/{name}"
        spare = self._read.get(name)
        if (
            spare is None
            or self._mode == os.O_RDONLY
            or spare.size >= READ_BYTES
            or len(self._spare) >= self._room
        ):
            is_there(os.unlink, path)
            return
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, spare.name)
            self._spare.append(self._read.pop(name))

    def rest(self) -> None:
        """Let go of what is spare, for a while in which nothing runs."""
        while self._spare:
            self._spare.pop().discard()
        is_there(os.unlink, self._key)

    def close(self) -> None:
        """Let go of what is spare, and keep nothing more."""
        self._room = 0
        self.rest()

    def _link(self, path: str) -> bool:
        """Make a lock as a further name; False where the file system has no such thing."""
        if not self._links:
            return False
        # The time of the lock that was made last is that of all: none looks older than it is.
        if not is_there(os.utime, self._key):
            os.close(os.open(self._key, os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            os.link(self._key, path)
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError:
            self._links = False
        return self._links

    def _open(self, path: str) -> int:
        try:
            return os.open(path, self._mode | _SAFELY)
        except PermissionError:
            # The server is another user: its files are not for writing over.
            self._mode = os.O_RDONLY
            return os.open(path, self._mode | _SAFELY)

    def _forget(self, name: str) -> None:
        spare = self._read.pop(name, None)
        if spare:
            os.close(spare.descriptor)

    def _reuse(self, content: bytes, target: str) -> bool:
        """Put content into place in a spare file; False where there is none that will do."""
        if not self._spare:
            return False
        spare = self._spare.pop()
        try:
            spare.overwrite(content)
            os.rename(spare.name, target)
        except OSError:
            spare.discard()  # swept, or the disk is full
            return False
        os.close(spare.descriptor)
        return True


def _write(fresh: str, content: bytes, target: str) -> None:
    try:
        with open(fresh, "wb") as file:
            file.write(content)
        os.rename(fresh, target)
    except OSError:
        is_there(os.unlink, fresh)
        raise


def is_there(do: Callable[[str], None], path: str) -> bool:
    """Do something with a file; False where there is none."""
    try:
        do(path)
    except FileNotFoundError:
        return False
    return True
