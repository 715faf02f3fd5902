"""One leader per data directory."""

from __future__ import annotations

import fcntl
import os

from ploinky.errors import AlreadyRunning


class LeaderLock:
    """Held by the leader; the kernel gives it back when the leader dies, however it dies.

    Args:
        path: Of the lock file; it holds the leader's pid and is never removed, so that two
            leaders cannot hold locks on two files of one name.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def take(self) -> None:
        """Become the leader.

        Raises:
            AlreadyRunning: Another process is; the message names it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise AlreadyRunning(
                f"a server runs on {os.path.dirname(os.path.dirname(self._path))} already "
                f"(process {pid or 'unknown'}): stop it with `p-cli cloud stop`, or give this "
                "one another directory with --dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
