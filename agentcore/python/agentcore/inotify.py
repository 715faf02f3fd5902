"""Hears of changes in a directory (inotify(7)), through the C library.

A directory enters, the names of what was made, moved or removed leave.
"""

from __future__ import annotations

import os
import struct
from typing import Iterator, Optional

_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")


class Watch:
    """The changes of one directory; its descriptor is for the loop to read from."""

    def __init__(self, directory: str) -> None:
        """Begin to watch.

        Raises:
            OSError: Where there is no inotify, or no room for one more.
        """
        try:
            import ctypes

            library = ctypes.CDLL(None, use_errno=True)
            begin, add = library.inotify_init1, library.inotify_add_watch
        except (ImportError, AttributeError) as error:
            raise OSError("there is no inotify here") from error
        self.descriptor: int = begin(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = ctypes.c_uint32(_MOVED_FROM | _MOVED_TO | _CREATE | _DELETE)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if add(self.descriptor, os.fsencode(directory), mask) < 0:
            error_number = ctypes.get_errno()
            os.close(self.descriptor)
            raise OSError(error_number, "inotify_add_watch")

    def names(self) -> Iterator[Optional[str]]:
        """Give the names that changed; None where some were lost."""
        try:
            events = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return
        start = 0
        while start < len(events):
            _, mask, _, length = _EVENT.unpack_from(events, start)
            start += _EVENT.size
            name = events[start : start + length].rstrip(b"\0")
            start += length
            yield None if mask & _OVERFLOW else os.fsdecode(name)
