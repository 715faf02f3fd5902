"""The HTTP wire: `POST /task`, `GET /health`, `GET /commands`.

Requests enter, tasks go to the executor, answers leave.  HTTP/1.1 (RFC 9112) as far
as the server's own gateway speaks it: keep-alive, one request at a time, bodies by
length or chunks.  What can be read in two ways is refused.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any, Callable, Dict, List, Optional, Tuple
from urllib.parse import unquote

from .catalogue import Catalogue
from .executor import Executor
from .http_reading import MAX_BODY_BYTES, MAX_HEAD_BYTES, Chunks, Head, Headers, too_large
from .tasks import Call, Failure, Task, dump

_TIME = re.compile(r"\d{1,15}\Z")
_REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
    413: "Content Too Large", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
    504: "Gateway Timeout",
}  # fmt: skip


class Connection(asyncio.Protocol):
    """One client, which asks one thing after another."""

    def __init__(self, executor: Executor, catalogue: Catalogue) -> None:
        self._executor = executor
        self._catalogue = catalogue
        self._transport: Any = None
        self._buffer = bytearray()
        self._head: Optional[Head] = None
        self._chunks: Optional[Chunks] = None
        self._task: Optional[Task] = None
        self._closing = False
        self._proceeding = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._closing = True
        if self._task:
            self._executor.cancel(self._task)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return  # what comes after a refusal is thrown away
        self._buffer += data
        if self._task is None:
            self._proceed()
        elif len(self._buffer) > MAX_HEAD_BYTES:
            self._transport.abort()  # nobody pipelines that much in good faith

    def _proceed(self) -> None:
        """Answer what is in the buffer, up to the first task that takes time."""
        if self._proceeding:
            return  # a task was answered at once: the loop below goes on
        self._proceeding = True
        try:
            while self._buffer and self._task is None and not self._closing:
                if not self._read_one():
                    return
        except Failure as failure:
            self._refuse(failure, close=True)
        finally:
            self._proceeding = False

    def _read_one(self) -> bool:
        if self._head is None and not self._read_head():
            return False
        head = self._head
        assert head is not None
        body = self._read_body(head)
        if body is None:
            return False
        self._head = self._chunks = None
        self._answer(head, body)
        return True

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES):
            raise Failure(431, "BAD_REQUEST", f"A head has at most {MAX_HEAD_BYTES} bytes.")
        if end < 0:
            return False
        self._head = head = Head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        if head.length is None:
            self._chunks = Chunks()
        elif head.length > MAX_BODY_BYTES:
            raise too_large()
        if head.headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _read_body(self, head: Head) -> Optional[bytes]:
        if self._chunks:
            return bytes(self._chunks.body) if self._chunks.feed(self._buffer) else None
        assert head.length is not None
        if len(self._buffer) < head.length:
            return None
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        return body

    def _answer(self, head: Head, body: bytes) -> None:
        if not head.keep_alive:
            self._closing = True
        if head.path == "/task":
            if head.method == "POST":
                self._run(head.headers, body)
            else:
                self._refuse(*_not_allowed("POST"))
        elif head.path in ("/health", "/commands"):
            if head.method == "GET":
                self._send(200, dump(self._report(head.path)))
            else:
                self._refuse(*_not_allowed("GET"))
        else:
            known = "There are POST /task, GET /health and GET /commands."
            self._refuse(Failure(404, "NO_SUCH_ROUTE", known))

    def _report(self, path: str) -> Any:
        if path == "/commands":
            return self._catalogue.list()
        executor = self._executor
        status = "draining" if executor.draining else "busy" if executor.busy else "ok"
        return {"status": status, "inflight": executor.inflight}

    def _run(self, headers: Headers, body: bytes) -> None:
        request_id = headers.get("x-request-id")
        try:
            call = Call(body)
        except Failure as failure:
            self._refuse(failure, request_id=request_id)
            return
        raw_deadline = headers.get("x-ploinky-deadline", "")
        deadline = int(raw_deadline) if _TIME.match(raw_deadline) else None
        # The server percent-encodes whatever a field cannot hold.
        user, task_id = unquote(headers.get("x-ploinky-user", "")), headers.get("x-ploinky-task")
        task = Task(call, task_id, user, request_id, deadline)
        self._task = task
        closing, self._closing = self._closing, False

        def done(raw: Optional[bytes], failed: Optional[Failure]) -> None:
            self._task = None
            self._closing = closing
            extra = f"X-Ploinky-Command: {task.command}\r\n"
            if failed:
                self._refuse(failed, extra, request_id=task.request_id)
            else:
                self._send(200, raw or b"null", extra)
            if self._buffer and not self._closing:
                self._proceed()

        self._executor.submit(task, done)

    def _send(self, status: int, body: bytes, extra: str = "") -> None:
        if self._transport.is_closing():
            return
        if self._closing:
            extra += "Connection: close\r\n"
        head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        )
        self._transport.write(head.encode() + body)
        if self._closing:
            self._close()

    def _close(self) -> None:
        # Half of it, where it can: the answer to a request that was not read to its
        # end would be lost with the connection.
        if self._transport.can_write_eof():
            self._transport.write_eof()
            asyncio.get_event_loop().call_later(1, self._transport.close)
        else:
            self._transport.close()

    def _refuse(
        self,
        failure: Failure,
        extra: str = "",
        *,
        request_id: Optional[str] = None,
        close: bool = False,
    ) -> None:
        """Answer that the call itself failed; `X-Ploinky-Error` tells it from a result."""
        body: Dict[str, Any] = {"error": True, **failure.fields()}
        del body["status"]
        if request_id is not None:
            body["requestId"] = request_id
        if failure.status == 503:
            extra += "Retry-After: 1\r\n"
        self._closing = self._closing or close
        self._send(failure.status, dump(body), f"X-Ploinky-Error: 1\r\n{extra}")


def _not_allowed(allow: str) -> Tuple[Failure, str]:
    return Failure(405, "METHOD_NOT_ALLOWED", f"Use {allow}."), f"Allow: {allow}\r\n"


class HttpWire:
    """The servers that listen."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, executor: Executor, catalogue: Catalogue
    ) -> None:
        self._loop = loop
        self._connect: Callable[[], Connection] = lambda: Connection(executor, catalogue)
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
