"""Where connections come in: tells frames from HTTP by their first bytes.

No HTTP method begins like the preface of frames, not even in its first byte.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Callable, List, Optional

from .frames import PREFACE

Build = Callable[[], Any]


class Entrance(asyncio.Protocol):
    """A connection that has not said anything yet."""

    def __init__(self, http: Build, frames: Build) -> None:
        self._http = http
        self._frames = frames
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        is_frames = PREFACE.startswith(data[: len(PREFACE)])
        protocol = (self._frames if is_frames else self._http)()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def connection_lost(self, error: Optional[Exception]) -> None:
        """Nothing was asked."""


class Listener:
    """The sockets that are listened on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, http: Build, frames: Build) -> None:
        self._loop = loop
        self._connect: Callable[[], Entrance] = lambda: Entrance(http, frames)
        self._servers: List[asyncio.AbstractServer] = []

    async def listen_unix(self, path: str) -> None:
        """Listen on a Unix socket; raises OSError where that cannot be."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(path)
        except OSError:
            listener.close()
            raise
        server = await self._loop.create_unix_server(self._connect, sock=listener, backlog=1024)
        self._servers.append(server)

    async def listen_tcp(self, port: int) -> None:
        """Listen on a TCP port; raises OSError where that cannot be."""
        server = await self._loop.create_server(self._connect, "0.0.0.0", port, backlog=1024)
        self._servers.append(server)

    def stop(self) -> None:
        """Take no more connections; those that are open are answered still."""
        for server in self._servers:
            server.close()
