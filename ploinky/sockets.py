"""Unix socket paths of any length.

The kernel takes at most 107 bytes for a Unix socket's path, and a data
directory may lie deeper than that.  One open descriptor of the run directory
gives every socket below it a short name, ``/proc/self/fd/N/...``.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from ploinky.values import Address

LONGEST_SOCKET_PATH = 107
"""Bytes; ``sockaddr_un.sun_path`` less its final NUL (unix(7))."""


class SocketPaths:
    """Names for sockets below one directory that ``bind`` and ``connect`` accept.

    Args:
        directory: Absolute path of an existing directory.  It is held open
            until `close`, which the owner of this object calls.
    """

    def __init__(self, directory: str) -> None:
        self._directory = os.path.abspath(directory)
        self._descriptor = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def usable(self, path: str) -> str:
        """Give ``path`` itself if it is short enough, else another name for the same file.

        Valid in this process alone, until `close`.

        Raises:
            ValueError: ``path`` is too long and not below the directory.
        """
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        beneath = os.path.relpath(path, self._directory)
        short = f"/proc/self/fd/{self._descriptor}/{beneath}"
        if beneath.startswith("..") or len(os.fsencode(short)) > LONGEST_SOCKET_PATH:
            raise ValueError(f"socket path over {LONGEST_SOCKET_PATH} bytes: {path}")
        return short

    def endpoint(self, reactor: Any, address: Address, seconds: float) -> IStreamClientEndpoint:
        """Give what connects to an address, within `seconds`.  One to a path is valid until `close`.

        Raises:
            ValueError: As `usable` does.
        """
        if address.path:
            return UNIXClientEndpoint(reactor, self.usable(address.path), seconds)
        return HostnameEndpoint(reactor, address.host, address.port, seconds)

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
