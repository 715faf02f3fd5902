"""Bytes into and out of a connection, in as few steps as there can be.

Stock transports queue every write and wait for epoll to say that the socket is
writable, four system calls a request.  An `Outlet` sends at once and falls back
to the transport for what is left; `read_straight` takes bytes from the kernel to
whoever reads them.  This module knows nothing of HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IPullProducer
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from zope.interface import implementer

from ploinky.interfaces import IOutlet

FULL_BYTES = 256 * 1024
"""Queued bytes from which on whoever fills an outlet should pause until it is empty."""

_PIECE_BYTES = 128 * 1024
_READ_BYTES = 64 * 1024


def is_plain(transport: Any) -> bool:
    """Tell whether a transport's bytes are those of its socket: with TLS they are not."""
    return isinstance(transport, tcp.Connection) and not transport.TLS


def read_straight(transport: Any, received: Callable[[bytes], None]) -> None:
    """Let what a plain connection reads go to ``received`` with nothing in between.

    The transport still starts, stops and ends; only its ``doRead`` is replaced.  That of a Unix
    socket also looks for descriptors with ``recvmsg``, which costs three times a ``recv``.
    """
    if not is_plain(transport):
        return
    receive = transport.socket.recv

    def doRead() -> Exception | None:
        try:
            data = receive(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        received(data)
        return None

    transport.doRead = doRead


def read_no_more(transport: Any) -> None:
    """Undo `read_straight` once the connection is lost, so that nothing holds it any longer."""
    vars(transport).pop("doRead", None)


def attach(transport: Any, received: Callable[[bytes], None], moved: Callable[[], None]) -> Outlet:
    """Read a connection straight, and give its sending half."""
    read_straight(transport, received)
    return Outlet(transport, moved)


@implementer(IOutlet, IPullProducer)
class Outlet:
    """The sending half of one connection.

    Args:
        transport: The connection's; nobody else writes to it.
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
        "_send",
        "_transport",
        "broken",
        "handed_over",
        "queued",
    )

    def __init__(self, transport: Any, moved: Callable[[], None]) -> None:
        self._transport = transport
        self._moved = moved
        self._pieces: deque[memoryview] = deque()
        self._moving = 0
        self._send: Callable[[bytes], int] | None = None
        if is_plain(transport):
            self._send = transport.socket.send
        self.queued = 0
        self.handed_over = 0
        self.broken = False

    def send(self, data: bytes) -> None:
        """Send ``data`` after all that was sent before.  Takes any amount: see `FULL_BYTES`."""
        sent = 0
        if not self.queued and self._send is not None:
            try:
                sent = self._send(data)
            except BlockingIOError:
                pass
            except OSError:
                self.broken = True  # the transport meets the same error, and reports it
            if sent == len(data):
                return
        first = not self.queued
        self._pieces.append(memoryview(data)[sent:])
        self.queued += len(data) - sent
        if first:
            self._transport.registerProducer(self, False)  # calls `resumeProducing` at once

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
        self._pieces.clear()
        self.queued = self._moving = 0
