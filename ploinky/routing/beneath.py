"""Files beneath a directory, opened so that nothing outside of it ever is.

A directory and the segments of a path enter; an open file leaves.  This module
knows no request.

Why nothing outside can be reached, whatever happens to the tree meanwhile: the
kernel is asked for one name at a time, relative to the descriptor of a directory
that this walk opened itself, and never follows a link (``O_NOFOLLOW``).  A
symbolic link is read, and what it says is walked in its place; ``..`` in it goes
back to a descriptor of this walk and never above the first.  So links that stay
inside work, and others lead nowhere.  It is what ``openat2(2)`` does for
``RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS``, which Python cannot call, and which
seccomp profiles of older container engines refuse.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable
from types import TracebackType

from attrs import frozen

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ANYTHING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_LINKS = 16
_IS_A_LINK = (errno.ELOOP, errno.ENOTDIR)

MANIFEST = b"manifest.json"
"""At the top of a release it is the agent's own, and may say what is nobody else's business."""

_SHOWN = b".well-known"
"""The one name with a dot before it that is for everybody (RFC 8615)."""


class NotThere(Exception):
    """There is no such file, or none that may be seen."""


@frozen
class Opened:
    """An open regular file; whoever got it closes it.

    Attributes:
        name: Its last segment.
    """

    name: bytes
    descriptor: int
    size: int
    modified_ns: int
    inode: int


class Walk:
    """One way down from a directory; a context manager, which gives its descriptors back.

    Args:
        top: Absolute path of a directory that only this server can replace.

    Raises:
        NotThere: It is gone.
    """

    def __init__(self, top: str) -> None:
        try:
            self._way = [os.open(top, _DIRECTORY)]
        except OSError as error:
            raise NotThere(top) from error
        self._floor = 0
        self._links = 0

    def __enter__(self) -> Walk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._way:
            os.close(self._way.pop())

    def settle(self, segments: Iterable[bytes]) -> None:
        """Go down to a directory, and make that the one that nothing leads out of.

        Hidden names are allowed on this way, and not after it.

        Raises:
            NotThere: There is no such directory.
        """
        opened = self._walk(segments)
        if opened is not None:
            os.close(opened.descriptor)
            raise NotThere(opened.name)
        self._floor = len(self._way)

    def back(self) -> None:
        """Go back to where `settle` led."""
        while len(self._way) > self._floor:
            os.close(self._way.pop())

    def open(self, segments: Iterable[bytes]) -> Opened | None:
        """Go down from here, and open what is there.

        Returns:
            A file; None for a directory, which is "here" from now on.

        Raises:
            NotThere: There is nothing, or nothing that may be seen: a hidden or special file,
                one that this user may not read, or a link that leads out.
        """
        return self._walk(segments)

    def beside(self, name: bytes) -> Opened | None:
        """Open a file in the directory that the last one was found in; None if it is none."""
        try:
            opened = self._open(name)
        except OSError:
            return None
        if not isinstance(opened, Opened):
            os.close(opened)
            return None
        return opened

    def _walk(self, segments: Iterable[bytes]) -> Opened | None:
        ahead = deque(segments)
        try:
            while ahead:
                name = ahead.popleft()
                if name in (b"", b"."):
                    continue
                if name == b"..":
                    self._go_up()
                elif self._is_hidden(name):
                    raise NotThere(name)
                elif ahead:
                    self._go_down(name, ahead)
                else:
                    opened = self._at_the_end(name, ahead)
                    if opened is not None:
                        return opened
        except (OSError, ValueError) as error:  # ValueError: a NUL in a name
            raise NotThere(str(error)) from error
        return None

    def _go_up(self) -> None:
        if len(self._way) <= max(self._floor, 1):
            raise NotThere("a link leads out")
        os.close(self._way.pop())

    def _go_down(self, name: bytes, ahead: deque[bytes]) -> None:
        try:
            self._way.append(os.open(name, _DIRECTORY, dir_fd=self._way[-1]))
        except OSError as error:
            if error.errno not in _IS_A_LINK:
                raise
            self._follow(name, ahead)

    def _at_the_end(self, name: bytes, ahead: deque[bytes]) -> Opened | None:
        try:
            opened = self._open(name)
        except OSError as error:
            if error.errno not in _IS_A_LINK:
                raise
            self._follow(name, ahead)
            return None
        if isinstance(opened, Opened):
            return opened
        self._way.append(opened)
        return None

    def _open(self, name: bytes) -> Opened | int:
        """Open a name of the directory at hand: a file, or the descriptor of a directory.

        Raises:
            OSError: It is neither, or a link.
        """
        descriptor = os.open(name, _ANYTHING, dir_fd=self._way[-1])
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            return descriptor
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise OSError(errno.EACCES, "a special file")
        return Opened(name, descriptor, found.st_size, found.st_mtime_ns, found.st_ino)

    def _follow(self, name: bytes, ahead: deque[bytes]) -> None:
        """Walk what a link says in its place.

        Raises:
            OSError: It is no link.
        """
        leads_to = os.readlink(name, dir_fd=self._way[-1])
        self._links += 1
        if leads_to.startswith(b"/") or self._links > _MOST_LINKS:
            raise NotThere("a link leads out, or round in a circle")
        ahead.extendleft(reversed(leads_to.split(b"/")))

    def _is_hidden(self, name: bytes) -> bool:
        if not self._floor:
            return False
        if name.startswith(b"."):
            return name != _SHOWN
        return name == MANIFEST and len(self._way) == 1
