"""What leader and workers say to each other: AMP commands.

`Hello`, `HandBack` and `Stop` stay as they are for ever: a leader uses them with workers of any
other build, in order to take over their sockets and to replace them.

AMP's values are at most 65,535 bytes, so a table goes in parts (`ploinky.link.changes`), followed by
one command that is answered once the worker serves by it.  A worker that connects gets all of it;
from then on, as a connection keeps the order, each change alone.  Source: ``twisted.protocols.amp``.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, ClassVar

from attrs import frozen
from twisted.internet.error import ConnectionClosed
from twisted.protocols import amp

PART_BYTES = 60_000
"""Of a table or report in one box; below AMP's limit for a value."""

_PEER = struct.Struct("3i")
"""`struct ucred`: pid, uid, gid (unix(7), SO_PEERCRED)."""


class NotListening(Exception):
    """The worker holds no listening socket (any more)."""


class OutOfStep(Exception):
    """The worker serves by another generation than the one that was changed: send it all."""


class Hello(amp.Command):
    """Worker to leader, first of all: who it is.

    ``generation`` is 0 until it has served; `accepting` tells whether it holds a socket that
    `HandBack` would give.
    """

    arguments = [
        (b"slot", amp.Integer()),
        (b"pid", amp.Integer()),
        (b"build", amp.Unicode()),
        (b"generation", amp.Integer()),
        (b"accepting", amp.Boolean()),
    ]
    response: ClassVar = []


class HandBack(amp.Command):
    """Leader to worker: give a copy of the listening socket."""

    arguments: ClassVar = []
    response = [(b"listening", amp.Descriptor())]
    errors = {NotListening: b"NOT_LISTENING"}


class Stop(amp.Command):
    """Leader to worker: stop accepting, finish what is in hand, exit."""

    arguments: ClassVar = []
    response: ClassVar = []
    requiresAnswer = False


class Ping(amp.Command):
    """Leader to worker: answer, and so prove that the loop turns."""

    arguments: ClassVar = []
    response: ClassVar = []


class TablePart(amp.Command):
    """Leader to worker: the next bytes of a table, or of a change to one."""

    arguments = [(b"data", amp.String())]
    response: ClassVar = []
    requiresAnswer = False


class Adopt(amp.Command):
    """Leader to worker: serve by what the parts that have come make.  Answered once it does.

    ``base`` is the generation that they are a change to, and 0 for a whole table.
    """

    arguments = [
        (b"base", amp.Integer()),
        (b"generation", amp.Integer()),
        (b"parts", amp.Integer()),
    ]
    response = [(b"generation", amp.Integer())]
    errors = {OutOfStep: b"OUT_OF_STEP"}


class Drain(amp.Command):
    """Leader to worker: answer once nothing is in hand at these instances, or time is up."""

    arguments = [(b"instances", amp.ListOf(amp.Unicode())), (b"timeout_seconds", amp.Float())]
    response = [(b"left", amp.Integer())]


class Report(amp.Command):
    """Worker to leader: how it stands now, in whole lines; one that is lost does not matter."""

    arguments = [(b"kind", amp.Unicode()), (b"data", amp.String())]
    response: ClassVar = []
    requiresAnswer = False


class Counted(amp.Command):
    """Worker to leader: what it counted since its report before, in whole lines.

    Each process (``reporter``, never used twice) numbers its reports from 1, keeps them until
    `Kept`, and sends them again, under the same numbers, to a leader that it meets anew.
    """

    arguments = [
        (b"reporter", amp.Unicode()),
        (b"number", amp.Integer()),
        (b"data", amp.String()),
    ]
    response: ClassVar = []
    requiresAnswer = False


class Gather(amp.Command):
    """Leader to worker: report what you counted.  Answered once that is on its way before it."""

    arguments: ClassVar = []
    response: ClassVar = []


class Kept(amp.Command):
    """Leader to worker: the reports up to this number are on disk."""

    arguments: ClassVar = [(b"number", amp.Integer())]
    response: ClassVar = []
    requiresAnswer = False


class Keep(amp.Command):
    """Worker to leader, before it ends: write what it counted.  Answered once that is on disk."""

    arguments: ClassVar = []
    response: ClassVar = []


class Conversation(amp.AMP):
    """AMP between leader and worker, at either end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    async def ask(self, command: type[amp.Command], **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            ConnectionClosed: The other end has gone.
            amp.AmpError: It could not do it.
        """
        answer: dict[str, Any] = await self.callRemote(command, **arguments)  # type: ignore[no-untyped-call]
        return answer

    def tell(self, command: type[amp.Command], **arguments: Any) -> None:
        """Send a command that has no answer; nothing happens if the other end has gone."""
        failed = self.callRemote(command, **arguments)  # type: ignore[no-untyped-call]
        if failed is not None:
            failed.addErrback(lambda failure: failure.trap(ConnectionClosed))

    def abort(self) -> None:
        """Close the connection without a word."""
        transport: Any = self.transport
        transport.abortConnection()


@frozen
class Identity:
    """Who a worker is.

    Attributes:
        slot: Its place, 0 to N-1; two have the same while one replaces the other.
        build: Of its code; only equal builds exchange snapshots.
    """

    slot: int
    pid: int
    build: str


@frozen
class Peer:
    """The process at the other end of a Unix socket, as the kernel knows it."""

    pid: int
    uid: int


def peer_of(transport: Any) -> Peer:
    """Ask the kernel who is at the other end of a connected Unix transport."""
    raw = transport.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid, uid, _ = _PEER.unpack(raw)
    return Peer(pid, uid)


def lines_cut(data: bytes) -> list[bytes]:
    """Cut whole lines into pieces that fit into a box; a line over the limit is dropped."""
    pieces: list[bytes] = []
    piece = bytearray()
    for line in data.splitlines(keepends=True):
        if len(line) > PART_BYTES:
            continue
        if len(piece) + len(line) > PART_BYTES:
            pieces.append(bytes(piece))
            piece.clear()
        piece += line
    if piece:
        pieces.append(bytes(piece))
    return pieces
