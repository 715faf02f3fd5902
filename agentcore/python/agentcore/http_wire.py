"""The HTTP wire: `POST /task`, `GET /health`, `GET /commands`.

Requests enter, tasks go to the executor, answers leave.  HTTP/1.1 (RFC 9112) as far
as the server's own gateway speaks it: keep-alive, one request at a time, bodies by
length or chunks.  What can be read in two ways is refused.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Callable, List, Optional, Tuple
from urllib.parse import unquote

from .catalogue import Catalogue
from .executor import Executor
from .http_reading import MAX_BODY_BYTES, MAX_HEAD_BYTES, Chunks, Head, too_large
from .items import Items, Outlet, error_body
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

    def __init__(
        self, loop: asyncio.AbstractEventLoop, executor: Executor, catalogue: Catalogue
    ) -> None:
        self._loop = loop
        self._executor = executor
        self._catalogue = catalogue
        self._transport: Any = None
        self._buffer = bytearray()
        self._head: Optional[Head] = None
        self._chunks: Optional[Chunks] = None
        self._task: Optional[Task] = None
        self._items: Optional[Items] = None
        self._paused: Optional[List[Callable[[], None]]] = None
        self._closing = False
        self._proceeding = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._closing = True
        if self._task:
            if self._items:
                self._items.close()
            self._executor.cancel(self._task)

    def pause_writing(self) -> None:
        self._paused = []

    def resume_writing(self) -> None:
        paused, self._paused = self._paused, None
        for taken in paused or ():
            taken()

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
            self.refuse(failure, close=True)
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
                self._run(head, body)
            else:
                self.refuse(*_not_allowed("POST"))
        elif head.path in ("/health", "/commands"):
            if head.method == "GET":
                self.send(200, dump(self._report(head.path)))
            else:
                self.refuse(*_not_allowed("GET"))
        else:
            known = "There are POST /task, GET /health and GET /commands."
            self.refuse(Failure(404, "NO_SUCH_ROUTE", known))

    def _report(self, path: str) -> Any:
        if path == "/commands":
            return self._catalogue.list()
        executor = self._executor
        status = "draining" if executor.draining else "busy" if executor.busy else "ok"
        return {"status": status, "inflight": executor.inflight}

    def _run(self, head: Head, body: bytes) -> None:
        headers = head.headers
        request_id = headers.get("x-request-id")
        try:
            call = Call(body)
        except Failure as failure:
            self.refuse(failure, request_id=request_id)
            return
        raw_deadline = headers.get("x-ploinky-deadline", "")
        deadline = int(raw_deadline) if _TIME.match(raw_deadline) else None
        # The server percent-encodes whatever a field cannot hold.
        user, task_id = unquote(headers.get("x-ploinky-user", "")), headers.get("x-ploinky-task")
        task = Task(call, task_id, user, request_id, deadline)
        self._task = task
        closing, self._closing = self._closing, False
        to_events = "text/event-stream" in headers.get("accept", "").lower()
        outlet = HttpOutlet(self, task, closing, head.http_11)
        self._items = items = Items(self._loop, task, to_events, outlet)
        task.to_events = to_events
        task.item = items.item
        self._executor.submit(task, items.done)

    # --- one answer's way; HttpOutlet calls these

    def leave(self, closing: bool) -> None:
        """The task is over, and its answer is about to be."""
        self._task = self._items = None
        self._closing = closing

    def go_on(self) -> None:
        """Read the next request, if it has come."""
        if self._buffer and not self._closing:
            self._proceed()

    def begin(self, fields: str) -> None:
        """Begin an answer whose length is not known."""
        self._transport.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode())

    def write(self, piece: bytes, taken: Callable[[], None]) -> None:
        """Send a piece of a body, and call `taken` once there is room for more."""
        self._transport.write(piece)
        if self._paused is None:
            taken()
        else:
            self._paused.append(taken)

    def end(self) -> None:
        """Close, if this was the last answer."""
        if self._closing:
            self._close()

    def abort(self) -> None:
        """Cut an answer off."""
        self._closing = True
        self._transport.abort()

    def send(self, status: int, body: bytes, extra: str = "") -> None:
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

    def refuse(
        self,
        failure: Failure,
        extra: str = "",
        *,
        request_id: Optional[str] = None,
        close: bool = False,
    ) -> None:
        """Answer that the call itself failed; `X-Ploinky-Error` tells it from a result."""
        if failure.status == 503:
            extra += "Retry-After: 1\r\n"
        self._closing = self._closing or close
        self.send(failure.status, error_body(failure, request_id), f"X-Ploinky-Error: 1\r\n{extra}")


def _not_allowed(allow: str) -> Tuple[Failure, str]:
    return Failure(405, "METHOD_NOT_ALLOWED", f"Use {allow}."), f"Allow: {allow}\r\n"


class HttpOutlet(Outlet):
    """One answer on a connection."""

    def __init__(self, connection: Connection, task: Task, closing: bool, http_11: bool) -> None:
        self._connection = connection
        self._task = task
        self._closing = closing or not http_11
        self._chunked = http_11
        self._extra = f"X-Ploinky-Command: {task.command}\r\n"

    def result(self, raw: bytes) -> None:
        self._connection.leave(self._closing)
        self._connection.send(200, raw, self._extra)
        self._connection.go_on()

    def refuse(self, failed: Failure) -> None:
        self._connection.leave(self._closing)
        self._connection.refuse(failed, self._extra, request_id=self._task.request_id)
        self._connection.go_on()

    def begin(self, to_events: bool) -> None:
        kind = "text/event-stream" if to_events else "application/json"
        fields = f"Content-Type: {kind}\r\n{self._extra}"
        if to_events:
            fields += "Cache-Control: no-store\r\n"
        if self._chunked:
            fields += "Transfer-Encoding: chunked\r\n"
        if self._closing:
            fields += "Connection: close\r\n"
        self._connection.begin(fields)

    def write(self, piece: bytes, taken: Callable[[], None]) -> None:
        framed = b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece
        self._connection.write(framed, taken)

    def end(self) -> None:
        self._connection.leave(self._closing)
        if self._chunked:
            self._connection.write(b"0\r\n\r\n", lambda: None)
        self._connection.end()
        self._connection.go_on()

    def fail(self) -> None:
        self._connection.leave(True)
        self._connection.abort()
