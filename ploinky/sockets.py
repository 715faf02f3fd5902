"""Unix socket paths of any length, and connections that no link leads elsewhere.

The kernel takes at most 107 bytes for a Unix socket's path, and a data
directory may lie deeper than that.  One open descriptor of the run directory
gives every socket below it a short name, ``/proc/self/fd/N/...``.

Agents write below the run directory.  ``connect`` follows links, so that one in place
of an agent's socket would lead us to any other socket of this host.
"""

from __future__ import annotations

import os
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.error import getConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

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
        beneath = self._beneath(path)
        short = f"/proc/self/fd/{self._descriptor}/{beneath}"
        if not beneath or len(os.fsencode(short)) > LONGEST_SOCKET_PATH:
            raise ValueError(f"socket path over {LONGEST_SOCKET_PATH} bytes: {path}")
        return short

    def endpoint(self, reactor: Any, address: Address, seconds: float) -> IStreamClientEndpoint:
        """Give what connects to an address, within `seconds`.  One to a path is valid until `close`.

        Below the directory a socket is connected to, and never what a link there leads to.

        Raises:
            ValueError: As `usable` does.
        """
        if not address.path:
            return HostnameEndpoint(reactor, address.host, address.port, seconds)
        if beneath := self._beneath(address.path):
            return _UnlinkedEndpoint(reactor, self._descriptor, beneath, seconds)
        return UNIXClientEndpoint(reactor, self.usable(address.path), seconds)

    def _beneath(self, path: str) -> str:
        """Give a path from the directory on; ``""`` where it leads elsewhere."""
        beneath = os.path.relpath(path, self._directory)
        return "" if beneath.startswith("..") else beneath

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@implementer(IStreamClientEndpoint)
@frozen
class _UnlinkedEndpoint:
    """Connects to the socket that has a name now, and to nothing where that is a link.

    Attributes:
        directory: Descriptor from which the name leads on.
    """

    reactor: Any
    directory: int
    name: str
    seconds: float

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; see ``IStreamClientEndpoint.connect``."""
        try:
            found = os.open(
                self.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory
            )
        except OSError as error:
            return fail(getConnectError((error.errno, error.strerror)))
        # What is no socket, a link that was opened itself included, refuses.
        endpoint = UNIXClientEndpoint(self.reactor, f"/proc/self/fd/{found}", self.seconds)
        connecting: Deferred[IProtocol] = endpoint.connect(protocolFactory)

        def made(outcome: Any) -> Any:
            os.close(found)
            return outcome

        return connecting.addBoth(made)
