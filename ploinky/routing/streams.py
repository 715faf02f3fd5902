"""Bytes into and out of a connection, in as few steps as there can be.

Stock transports queue every write and wait for epoll to say that the socket is
writable, four system calls a request.  An `Outlet` sends at once and falls back
to the transport for what is left, and takes bytes from the kernel to whoever reads
them.  This module knows nothing of HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from socket import SO_ERROR, SOL_SOCKET
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IPullProducer
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from zope.interface import Attribute, Interface, implementer

from ploinky.interfaces import IOutlet

FULL_BYTES = 256 * 1024
"""Queued bytes from which on whoever fills an outlet should pause until it is empty."""

_PIECE_BYTES = 128 * 1024
_READ_BYTES = 64 * 1024


class IPlainTransport(Interface):
    """A transport of another kind than Twisted's own that may be read and written by its socket."""

    socket = Attribute("Has ``send`` and ``recv`` as a socket that never blocks.")


def is_plain(transport: Any) -> bool:
    """Tell whether a transport's bytes are those of its socket: with TLS they are not."""
    if isinstance(transport, tcp.Connection):
        return not transport.TLS
    return IPlainTransport.providedBy(transport)


def read_no_more(transport: Any) -> None:
    """Undo what an `Outlet` did once the connection is lost, so that nothing holds it any longer."""
    vars(transport).pop("doRead", None)


class _NoSocket:
    """Stands for the socket of a connection that is not plain: what is sent goes to the transport."""

    def send(self, data: bytes) -> int:
        return 0


_NO_SOCKET = _NoSocket()


@implementer(IOutlet, IPullProducer)
class Outlet:
    """The sending half of one connection, and what brings what it reads to who reads it.

    Of a plain connection it replaces the transport's ``doRead``: that of a Unix socket also looks
    for descriptors with ``recvmsg``, which costs three times a ``recv``.  The transport still
    starts, stops and ends.

    Args:
        transport: The connection's; nobody else writes to it.
        received: Called with what a plain connection reads.
        moved: Called whenever some of what was queued has gone to the kernel; `queued`
            tells how much is left.  Never called from within `send`.

    Attributes:
        queued: Bytes taken by `send` that have not gone out yet.
        broken: The kernel would not take any: the other side had closed before.
        handed_over: Bytes that were queued and have gone out, ever.
    """

    __slots__ = (
        "_moved",
        "_moving",
        "_pieces",
        "_received",
        "_socket",
        "_transport",
        "broken",
        "handed_over",
        "queued",
    )

    def __init__(
        self, transport: Any, received: Callable[[bytes], None], moved: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._received = received
        self._moved = moved
        self._pieces: deque[memoryview] | None = None  # most never come to queue anything
        self._moving = 0
        self._socket: Any = _NO_SOCKET
        if is_plain(transport):
            self._socket = transport.socket
            transport.doRead = self.doRead
        self.queued = 0
        self.handed_over = 0
        self.broken = False

    def doRead(self) -> Exception | None:
        """Read what has come; the reactor calls this."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            # The other side had ended before it was sent something, and its kernel refused that.
            refused = self._socket.getsockopt(SOL_SOCKET, SO_ERROR)
            return CONNECTION_LOST if refused else CONNECTION_DONE
        self._received(data)
        return None

    def send(self, data: bytes) -> int:
        """Send ``data`` after all that was sent before, and give how much is queued.

        Takes any amount: see `FULL_BYTES`.
        """
        sent = 0
        if not self.queued:
            try:
                sent = self._socket.send(data)
                if sent == len(data):
                    return 0
            except BlockingIOError:
                pass
            except OSError:
                self.broken = True  # the transport meets the same error, and reports it
        first = not self.queued
        if self._pieces is None:
            self._pieces = deque()
        self._pieces.append(memoryview(data)[sent:])
        self.queued += len(data) - sent
        if first:
            self._transport.registerProducer(self, False)  # calls `resumeProducing` at once
        return self.queued

    def close(self) -> bool:
        """End the connection in order, at once or after what is queued; tell whether it has ended.

        Twisted's own way goes through the reactor once more, with three system calls for that.
        """
        transport = self._transport
        if self.queued or self._socket is _NO_SOCKET or not isinstance(transport, tcp.Connection):
            transport.loseConnection()
            return False
        transport.connectionLost(connectionDone)
        return True

    def resumeProducing(self) -> None:
        """Hand the next piece to the transport, which has none; Twisted calls this."""
        moved, self._moving = self._moving, 0
        self.queued -= moved
        self.handed_over += moved
        if self._pieces:
            piece = self._pieces.popleft()
            if len(piece) > _PIECE_BYTES:
                self._pieces.appendleft(piece[_PIECE_BYTES:])
                piece = piece[:_PIECE_BYTES]
            self._moving = len(piece)
            self._transport.write(bytes(piece))
        else:
            self._transport.unregisterProducer()
        if moved:
            self._moved()

    def stopProducing(self) -> None:
        """The connection is lost, and what was queued with it; Twisted calls this."""
        self._pieces = None
        self.queued = self._moving = 0
