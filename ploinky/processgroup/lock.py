"""One leader per data directory."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable

from ploinky.errors import AlreadyRunning
from ploinky.pids import is_ending

_PAUSE_SECONDS = 0.05
_PATIENCE_SECONDS = 20.0


class LeaderLock:
    """Held by the leader; the kernel gives it back when the leader dies, however it dies.

    Args:
        path: Of the lock file; it holds the leader's pid and is never removed, so that two
            leaders cannot hold locks on two files of one name.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def take(self, sleep: Callable[[float], object] = time.sleep) -> None:
        """Become the leader.  Blocks, for a while, where one that was killed has not ended yet.

        Args:
            sleep: Waits so many seconds.

        Raises:
            AlreadyRunning: Another process is; the message names it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        left_seconds = _PATIENCE_SECONDS
        while not _locked(descriptor):
            pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            is_leaving = pid.isdecimal() and is_ending(int(pid))
            if not is_leaving or left_seconds <= 0:
                os.close(descriptor)
                raise AlreadyRunning(self._why(pid, is_leaving))
            sleep(_PAUSE_SECONDS)
            left_seconds -= _PAUSE_SECONDS
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _why(self, pid: str, is_leaving: bool) -> str:
        place = os.path.dirname(os.path.dirname(self._path))
        if is_leaving:
            return (
                f"the server on {place} (process {pid}) is gone, and {self._path} is still locked "
                f"after {_PATIENCE_SECONDS:.0f} s: by what is left of it, or by a server in another "
                "container; try again once that has ended"
            )
        return (
            f"a server runs on {place} already (process {pid or 'unknown'}): stop it with "
            "`p-cli cloud stop`, or give this one another directory with --dir"
        )


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
