"""Clients that are slow in three ways, and an agent for them: ``python -m benchmarks.slow``.

``agent PORT`` sends without end and takes without end.  ``clients URL HEADERS COUNT`` keeps so
many clients (HEADERS is JSON) and prints ``ready`` once all are there: a third sends a byte of a
head every second, a third 2 KiB of a body, and a third takes 2 KiB of an answer.  One that is cut
off comes again.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Way = Callable[[Reader, Writer, bool], Awaitable[None]]

_EVERY_SECONDS = 1.0
_BYTES = 2048
_ENDLESS = 10**12
_OPENED_AT_ONCE = 50


class Crowd:
    """So many slow clients, each opened again when it is cut off."""

    def __init__(self, url: str, headers: dict[str, str], count: int) -> None:
        self._where = urlsplit(url)
        self._fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._count = count
        self._gate = asyncio.Semaphore(_OPENED_AT_ONCE)
        self._begun = 0

    async def run(self) -> None:
        """Be slow until cancelled."""
        ways = (self._slow_head, self._slow_body, self._slow_reader)
        await asyncio.gather(
            *(self._again_and_again(ways[number % 3]) for number in range(self._count))
        )

    async def _again_and_again(self, way: Way) -> None:
        first = True
        while True:
            async with self._gate:
                wanted = socket.socket()
                wanted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
                wanted.setblocking(False)
                where = (self._where.hostname, self._where.port)
                await asyncio.get_running_loop().sock_connect(wanted, where)
                reader, writer = await asyncio.open_connection(sock=wanted, limit=_BYTES)
            try:
                await way(reader, writer, first)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()
            first = False

    def _there(self, first: bool) -> None:
        self._begun += first
        if first and self._begun == self._count:
            print("ready", flush=True)

    async def _slow_head(self, reader: Reader, writer: Writer, first: bool) -> None:
        writer.write(f"GET {self._where.path} HTTP/1.1\r\n{self._fields}X-Slow: ".encode())
        self._there(first)
        while not reader.at_eof():
            writer.write(b"x")
            await asyncio.sleep(_EVERY_SECONDS)
            await writer.drain()

    async def _slow_body(self, reader: Reader, writer: Writer, first: bool) -> None:
        head = f"POST {self._where.path} HTTP/1.1\r\n{self._fields}"
        writer.write(f"{head}Content-Length: {_ENDLESS}\r\n\r\n".encode())
        self._there(first)
        while not reader.at_eof():
            writer.write(b"x" * _BYTES)
            await asyncio.sleep(_EVERY_SECONDS)
            await writer.drain()

    async def _slow_reader(self, reader: Reader, writer: Writer, first: bool) -> None:
        writer.write(f"GET {self._where.path} HTTP/1.1\r\n{self._fields}\r\n".encode())
        self._there(first)
        while True:
            await reader.readexactly(_BYTES)
            await asyncio.sleep(_EVERY_SECONDS)


async def agent(reader: Reader, writer: Writer) -> None:
    """Send without end to whoever asks, and take without end what is sent."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            while await reader.read(65536):
                pass
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _ENDLESS)
            while True:
                writer.write(b"y" * 16384)
                await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def serve(port: int) -> None:
    """Be the agent until ended."""
    serving = await asyncio.start_server(agent, "127.0.0.1", port, backlog=1024)
    await serving.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "agent":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        asyncio.run(Crowd(sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])).run())
