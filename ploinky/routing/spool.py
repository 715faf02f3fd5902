"""Files that were uploaded: kept here until they are whole, then shown to one instance.

Bytes enter, a directory in an instance's queue leaves, and is removed when its
task is over.  This module knows no HTTP and no task.

All of it lies in one file system, below the run directory, so that handing an
upload over is a rename: a client may take an hour to send it, while releases
come and go, and an instance only ever sees it whole.

Chunks are written in the reactor's thread, as they come from the socket: each
is a copy into the page cache, which takes less than a hop to a thread and back.
Deleting is another matter, as an agent may have put a whole tree there: what is
over is renamed back to where no agent can reach it, and deleted in a thread.

An agent can write in its queue and is not trusted: that is walked by descriptors,
links are never followed, and names are this server's own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ploinky.errors import AgentBroken, CallFailed, InsufficientStorage, UploadFailed
from ploinky.threads import Blocking

UPLOADS = "uploads"
"""In the run directory, and in an instance's queue."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Spool:
    """One worker's uploads: ``run/uploads/<worker>/<task>/``.

    Its directory is locked for as long as the process lives, so that whoever can lock one knows
    that its worker is dead, however it ended, and deletes what that left.

    Args:
        blocking: Deletes; it stays its owner's.
        run_directory: Holds ``i/``, the instances' queues, too.
        worker: What every task id of this worker begins with, and no other's.
    """

    _log = Logger()

    def __init__(self, blocking: Blocking, run_directory: str, worker: str) -> None:
        self._blocking = blocking
        self._worker = worker
        self._spools = Path(run_directory, UPLOADS)
        self._queues = Path(run_directory, "i")
        self._place = self._spools / worker
        self._lock = -1

    def open(self) -> None:
        """Begin to take files, and delete what dead workers left.  Blocks, for as long as that takes.

        Raises:
            OSError: The run directory cannot be written.
        """
        while self._lock < 0:
            self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Until it is locked, another worker, which sweeps, takes it for a dead one's.
            with contextlib.suppress(FileNotFoundError):
                lock = os.open(self._place, _LISTED)
                if _locked(lock) and _is_still(self._place, lock):
                    self._lock = lock
                else:
                    os.close(lock)
        for other in self._spools.iterdir():
            if other.name != self._worker:
                self._sweep(other)

    def close(self) -> None:
        """Delete what is left, and be as dead.  Blocks."""
        if self._lock >= 0:
            shutil.rmtree(self._place, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def batch(self, task: str, expected_bytes: int) -> Batch:
        """Begin an upload; whoever asked calls `Batch.remove`.

        Args:
            expected_bytes: How much will come; 0 where that is not known.

        Raises:
            InsufficientStorage: It will not fit.
            UploadFailed: The disk cannot be written.
        """
        with translated():
            room = os.fstatvfs(self._lock)
            if room.f_bavail * room.f_frsize < expected_bytes:
                raise InsufficientStorage(
                    f"this server's disk has no room for {expected_bytes} bytes"
                )
            os.mkdir(task, 0o700, dir_fd=self._lock)
            return Batch(self, task, self._lock)

    def delete(self, task: str) -> None:
        """Delete what lies in this worker's directory under this name, some time soon."""
        deleting = Deferred.fromCoroutine(self._blocking.run(_delete, self._place / task))
        deleting.addErrback(lambda failure: self._log.failure("cannot delete an upload", failure))

    def _sweep(self, other: Path) -> None:
        """Delete what a worker left, here and in queues, if it is dead."""
        try:
            lock = os.open(other, _LISTED)
        except OSError:
            return
        try:
            if _locked(lock):
                for queue in self._queues.iterdir() if self._queues.is_dir() else ():
                    self._sweep_queue(queue, other.name)
                _delete(other)
        finally:
            os.close(lock)

    def _sweep_queue(self, queue: Path, worker: str) -> None:
        with contextlib.suppress(OSError), _uploads_of(str(queue), _LISTED) as uploads:
            for task in os.listdir(uploads):
                if task.startswith(f"{worker}-"):
                    os.rename(task, task, src_dir_fd=uploads, dst_dir_fd=self._lock)
                    _delete(self._place / task)


class Batch:
    """The files of one upload.

    Args:
        spool: Deletes it in the end.
        task: Its directory's name.
        place: Descriptor of the spool's directory, which stays the spool's.
    """

    def __init__(self, spool: Spool, task: str, place: int) -> None:
        self._spool = spool
        self._task = task
        self._place = place
        self._queue = ""
        self._count = 0
        self._file = -1
        self._removed = False
        self._directory = os.open(task, _DIRECTORY, dir_fd=place)

    def begin_file(self) -> str:
        """Begin the next file; give its path below the queue.

        Raises:
            InsufficientStorage, UploadFailed
        """
        self._count += 1
        name = f"file-{self._count}"
        with translated():
            self._file = os.open(name, _NEW_FILE, 0o600, dir_fd=self._directory)
        return f"{UPLOADS}/{self._task}/{name}"

    def write(self, chunk: bytes) -> None:
        """Add to the file.

        Raises:
            InsufficientStorage, UploadFailed
        """
        left = memoryview(chunk)
        with translated():
            while left:
                left = left[os.write(self._file, left) :]

    def end_file(self) -> None:
        """The file is whole."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def hand_to(self, queue_directory: str) -> None:
        """Show all of it to the instance that has this queue.

        Raises:
            AgentBroken: The queue takes none: it is gone, or the agent made something else of it.
        """
        try:
            with _uploads_of(queue_directory, _DIRECTORY) as uploads:
                if os.fstat(uploads).st_uid != os.geteuid():
                    self._open_to_others()
                os.rename(self._task, self._task, src_dir_fd=self._place, dst_dir_fd=uploads)
        except OSError as error:
            raise AgentBroken(f"the agent's queue takes no upload: {error.strerror}") from error
        self._queue = queue_directory

    def _open_to_others(self) -> None:
        """Let an agent with another uid than ours read it."""
        os.chmod(f"/proc/self/fd/{self._directory}", 0o755)  # noqa: S103 - nobody else reaches it
        for number in range(1, self._count + 1):
            os.chmod(f"file-{number}", 0o644, dir_fd=self._directory)

    def remove(self) -> None:
        """Take it away from whoever has it; a second call does nothing."""
        if self._removed:
            return
        self._removed = True
        self.end_file()
        os.close(self._directory)
        if self._queue:
            # An instance that is gone took it along; what its agent hid elsewhere goes with its queue.
            with contextlib.suppress(OSError), _uploads_of(self._queue, _DIRECTORY) as uploads:
                os.rename(self._task, self._task, src_dir_fd=uploads, dst_dir_fd=self._place)
        self._spool.delete(self._task)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Say of an error of the disk what it means for an upload."""
    try:
        yield
    except CallFailed:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise InsufficientStorage("this server's disk is full") from error
        raise UploadFailed(f"the upload cannot be kept: {error.strerror}") from error


@contextlib.contextmanager
def _uploads_of(queue_directory: str, flags: int) -> Iterator[int]:
    """Open the directory for uploads in a queue, and make it where an older server did not."""
    queue = os.open(queue_directory, _DIRECTORY)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(UPLOADS, 0o700, dir_fd=queue)
        uploads = os.open(UPLOADS, flags, dir_fd=queue)
    finally:
        os.close(queue)
    try:
        yield uploads
    finally:
        os.close(uploads)


def _locked(directory: int) -> bool:
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_still(path: Path, directory: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_ino == os.fstat(directory).st_ino
    return False


def _delete(path: Path) -> None:
    """Delete what an agent left in place of a directory, whatever that is."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)
