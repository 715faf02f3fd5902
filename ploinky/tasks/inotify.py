"""Linux's inotify(7) as one descriptor in the reactor.

Directories to watch enter; what happens to names in them leaves.  Twisted's own
``twisted.internet.inotify`` makes a ``FilePath`` of every event and calls back in a
later turn of the loop, which costs more than the rest of a file task's way.
This module knows nothing of tasks.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x0100_0000

_EVENT = struct.Struct("iIII")
_READ_BYTES = 8192
"""About 150 events: enough for a burst, and other descriptors get their turn after it."""


Told = Callable[[str], None]
"""Takes the name in a watched directory that something happened to."""


@implementer(IReadDescriptor)
class Inotify:
    """One inotify instance.  The owner calls `start` before and `stop` after everything else.

    Args:
        reactor: Where the descriptor is read.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._overflowed: Callable[[], None] | None = None
        self._told: dict[int, Told] = {}
        self._descriptor = -1
        self._libc = ctypes.CDLL(None, use_errno=True)

    def start(self, overflowed: Callable[[], None]) -> None:
        """Open the descriptor and have it read.

        Args:
            overflowed: Called when the kernel dropped events: look at every directory again.

        Raises:
            OSError: The user has too many of them (``fs.inotify.max_user_instances``).
        """
        self._descriptor = self._checked(
            self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1"
        )
        self._overflowed = overflowed
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Close the descriptor; nobody is called any more.  A second call does nothing."""
        if self._descriptor < 0:
            return
        self._reactor.removeReader(self)
        os.close(self._descriptor)
        self._descriptor = -1
        self._told.clear()

    def watch(self, directory: str, mask: int, told: Told) -> int:
        """Call ``told`` for each event of ``mask`` in ``directory`` from now on.

        Args:
            mask: `IN_MOVED_TO`: a file was renamed into it; `IN_MOVED_FROM`: out of it;
                `IN_CREATE`, `IN_DELETE`: something was made or deleted in it.

        Returns:
            What `forget` takes.

        Raises:
            OSError: There is no such directory, or the user has too many watches
                (``fs.inotify.max_user_watches``).
        """
        watch = self._checked(
            self._libc.inotify_add_watch(
                self._descriptor, os.fsencode(directory), mask | IN_ONLYDIR
            ),
            directory,
        )
        self._told[watch] = told
        return watch

    def forget(self, watch: int) -> None:
        """Stop watching; one that is gone already is no error."""
        if self._told.pop(watch, None) is not None:
            self._libc.inotify_rm_watch(self._descriptor, watch)

    def fileno(self) -> int:
        """The inotify descriptor; -1 while stopped."""
        return self._descriptor

    def doRead(self) -> None:
        """Take what the kernel has, up to one buffer, and pass it on."""
        try:
            events = os.read(self._descriptor, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        at = 0
        while at < len(events):
            watch, mask, _cookie, length = _EVENT.unpack_from(events, at)
            at += _EVENT.size + length
            if mask & IN_Q_OVERFLOW and self._overflowed is not None:
                self._overflowed()
                continue
            told = self._told.get(watch)
            if told is None:
                continue
            if mask & IN_IGNORED:  # the directory is gone, or its file system
                del self._told[watch]
            else:
                told(events[at - length : at].rstrip(b"\0").decode("latin-1"))

    def connectionLost(self, reason: Failure) -> None:
        """Stop; the reactor found the descriptor unusable or ends."""
        self.stop()

    def logPrefix(self) -> str:
        """What the reactor calls it in logs."""
        return "inotify"

    def _checked(self, result: int, what: str) -> int:
        if result < 0:
            number = ctypes.get_errno()
            advice = ""
            if number in (errno.EMFILE, errno.ENOSPC):
                advice = " (inotify's limit for this user; see /proc/sys/fs/inotify)"
            raise OSError(number, os.strerror(number) + advice, what)
        return result
