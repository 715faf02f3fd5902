"""The leader's listening sockets: one per worker, all on one port.

``SO_REUSEPORT`` lets the kernel share connections out among them.  The leader holds every one of
them open for its whole life, so that what waits before a dead worker is served by the next.
"""

from __future__ import annotations

import errno
import socket

from ploinky.errors import PortInUse, SettingsInvalid

BACKLOG = 1024
"""Connections that may wait before one worker."""


def open_listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """Listen ``count`` times on one port; the caller closes the sockets.

    Args:
        port: 0 takes a free one, the same for all.

    Raises:
        PortInUse: Another program has it, also one that would share it.
        SettingsInvalid: The host or port cannot be listened on.
    """
    family, address = resolved(host, port)
    if port:
        # With SO_REUSEPORT two servers of one user would silently share the port.
        _listening(family, address, shared=False).close()
    first = _listening(family, address, shared=True)
    try:
        return [first, *join_listeners(first, count - 1)]
    except BaseException:
        first.close()
        raise


def join_listeners(beside: socket.socket, count: int) -> list[socket.socket]:
    """Listen ``count`` more times where ``beside`` listens; the caller closes the sockets.

    Raises:
        PortInUse, SettingsInvalid: As `open_listeners`.
    """
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            opened.append(_listening(beside.family, beside.getsockname(), shared=True))
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    """Give the family and address to bind to.

    Raises:
        SettingsInvalid: The host is unknown.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
    except socket.gaierror as error:
        raise SettingsInvalid(
            [f"host: {host!r} is not an address here: {error.strerror}"]
        ) from error
    family, _, _, _, address = found[0]
    return family, address


def _listening(
    family: socket.AddressFamily, address: tuple[object, ...], *, shared: bool
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        if shared:
            listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _translated(error, *address[:2]) from error
    except BaseException:
        listener.close()
        raise
    return listener


def _translated(error: OSError, host: object, port: object) -> PortInUse | SettingsInvalid:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"port {port} on {host} is in use by another program: see which with "
            f"`lsof -i :{port}`, or take another with --port"
        )
    if error.errno == errno.EACCES:
        return SettingsInvalid(
            [f"port: this user may not listen on {port}: take one from 1024 up with --port"]
        )
    return SettingsInvalid([f"host: cannot listen on {host} port {port}: {error.strerror}"])
