"""Which engine serves a queue: told by what each one puts there before it takes a file.

A queue's path enters; what tells its engine from the one before leaves.
"""

from __future__ import annotations

import json
import os

from attrs import frozen

_SOCKET, _READY = "agent.sock", "ready"
SIGNS = (_SOCKET, _READY)
"""The names in a queue whose coming may mean that another engine serves it."""


@frozen
class Engine:
    """What tells an engine from the one before it.

    Attributes:
        inode: Of its sign.
        came_ns: When it put that there, in Unix time; it takes files after that alone.
    """

    inode: int
    came_ns: int


def engine_of(path: str) -> Engine | None:
    """Tell which engine serves a queue now; None where that cannot be told."""
    try:
        found = os.stat(f"{path}/{_SOCKET}", follow_symlinks=False)
    except OSError:
        if not _serves_files_alone(path):
            return None
        try:
            found = os.stat(f"{path}/{_READY}", follow_symlinks=False)
        except OSError:
            return None
    return Engine(found.st_ino, found.st_ctime_ns)


def _serves_files_alone(path: str) -> bool:
    """Tell whether what is said to be ready is an engine without HTTP."""
    try:
        # The agent can write here: what it puts there must not hold us up.
        descriptor = os.open(f"{path}/{_READY}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return "http" not in json.loads(os.read(descriptor, 4096))["transports"]
        finally:
            os.close(descriptor)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
