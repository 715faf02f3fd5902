"""The frame wire: many tasks at once on one connection.

Frames enter, tasks go to the executor, frames with their outcomes leave, all of one
turn of the loop in one write.  The peer is the server's own gateway: one that breaks
the protocol loses its connection, and with it its tasks.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Set, Tuple

from . import frames
from .executor import Executor
from .frames import CANCEL, CREDIT, DATA, END, FAIL, GOAWAY, MAX_PAYLOAD_BYTES, OPEN, RESULT
from .items import Items, Outlet, error_body
from .tasks import Failure, Task, bad_command, is_command_name

# A peer that takes no answers is heard no more until it does.
UNREAD_BYTES = 1 << 20


class FrameOutlet(Outlet):
    """One answer on a connection: what may go out now, and what waits for credit."""

    def __init__(self, connection: FrameConnection, number: int, request_id: str) -> None:
        self._connection = connection
        self._number = number
        self._request_id = request_id
        self._credit = frames.WINDOW_BYTES
        self._pieces: Deque[Tuple[memoryview, Callable[[], None]]] = deque()
        self._is_whole = False

    def result(self, raw: bytes) -> None:
        if len(raw) <= MAX_PAYLOAD_BYTES:
            self._connection.finish(self._number, frames.frame(RESULT, self._number, raw))
            return
        self._connection.put(frames.begin(self._number, False, len(raw)))
        self.write(raw, lambda: None)
        self.end()

    def refuse(self, failed: Failure) -> None:
        body = error_body(failed, self._request_id)
        if len(body) + 2 > MAX_PAYLOAD_BYTES:
            short = Failure(failed.status, failed.code, failed.message[:8192])
            body = error_body(short, self._request_id)
        self._connection.finish(self._number, frames.error(self._number, failed.status, body))

    def begin(self, to_events: bool) -> None:
        self._connection.put(frames.begin(self._number, to_events, 0))

    def write(self, piece: bytes, taken: Callable[[], None]) -> None:
        self._pieces.append((memoryview(piece), taken))
        self._connection.move(self)

    def end(self) -> None:
        self._is_whole = True
        self._connection.move(self)

    def fail(self) -> None:
        self._connection.finish(self._number, frames.frame(FAIL, self._number))

    def grant(self, size: int) -> None:
        """Send on: the other side has taken so many bytes."""
        self._credit += size
        self._connection.move(self)

    def pump(self) -> None:
        """Put into frames what may go; small pieces of one turn share one."""
        while self._pieces and self._credit > 0:
            payload = self._next(min(self._credit, MAX_PAYLOAD_BYTES))
            self._credit -= len(payload)
            self._connection.put(frames.frame(DATA, self._number, payload))
        if self._is_whole and not self._pieces:
            self._connection.finish(self._number, frames.frame(END, self._number))

    def _next(self, room: int) -> bytes:
        parts = []
        while self._pieces and room > 0:
            piece, taken = self._pieces.popleft()
            parts.append(piece[:room])
            if len(piece) > room:
                self._pieces.appendleft((piece[room:], taken))
            else:
                taken()
            room -= len(parts[-1])
        return b"".join(parts)


class Answering:
    """A task in hand, and what its answer leaves by."""

    __slots__ = ("items", "outlet", "task")

    def __init__(self, task: Task, outlet: FrameOutlet) -> None:
        self.task = task
        self.outlet = outlet
        self.items: Optional[Items] = None


class FrameConnection(asyncio.Protocol):
    """One connection of the server's, with many tasks."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        connections: Set[FrameConnection],
    ) -> None:
        self._loop = loop
        self._executor = executor
        self._connections = connections
        self._transport: Any = None
        self._reader = frames.FrameReader()
        self._open: Dict[int, Answering] = {}
        self._outgoing: List[bytes] = []
        self._moving: Set[FrameOutlet] = set()
        self._flushing = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._connections.add(self)
        transport.set_write_buffer_limits(high=UNREAD_BYTES)
        transport.write(frames.hello())

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._connections.discard(self)
        self._moving.clear()
        lost, self._open = self._open, {}
        for answering in lost.values():
            if answering.items:
                answering.items.close()
            self._executor.cancel(answering.task)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        try:
            for kind, number, payload in self._reader.feed(data):
                self._take(kind, number, payload)
        except frames.ProtocolError as error:
            message = f"A connection of the server broke the protocol: {error}"
            print(message, file=sys.stderr, flush=True)
            self._transport.abort()

    def put(self, frame: bytes) -> None:
        """Send a frame with whatever else is sent in this turn."""
        self._outgoing.append(frame)
        self._schedule()

    def move(self, outlet: FrameOutlet) -> None:
        """Let an answer send on, at the end of this turn."""
        self._moving.add(outlet)
        self._schedule()

    def finish(self, number: int, frame: bytes) -> None:
        """Send the last frame of a task."""
        answering = self._open.pop(number, None)
        if answering:
            self._moving.discard(answering.outlet)
        self.put(frame)

    def go_away(self) -> None:
        """Tell the peer to send no more tasks here."""
        self.put(frames.frame(GOAWAY, 0))

    def _schedule(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        while self._moving:
            self._moving.pop().pump()
        self._flushing = False
        outgoing, self._outgoing = self._outgoing, []
        if not self._transport.is_closing():
            self._transport.write(b"".join(outgoing))

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind == OPEN:
            self._begin(number, payload)
        elif kind == CANCEL:
            self._cancel(number)
        elif kind == CREDIT:
            size = frames.read_credit(payload)
            answering = self._open.get(number)
            if answering:
                answering.outlet.grant(size)
        else:
            raise frames.ProtocolError(f"a frame of type {kind}")

    def _begin(self, number: int, payload: bytes) -> None:
        if number in self._open:
            raise frames.ProtocolError(f"the id {number} twice")
        call = frames.read_open(payload)
        task = Task(call, call.task_id, call.user, call.request_id, call.deadline)
        outlet = FrameOutlet(self, number, task.request_id)
        self._open[number] = answering = Answering(task, outlet)

        def items() -> Items:
            if answering.items is None:
                answering.items = Items(self._loop, task, call.to_events, outlet)
            return answering.items

        def done(raw: Optional[bytes], failed: Optional[Failure]) -> None:
            if answering.items or raw is None or call.to_events:
                items().done(raw, failed)
            else:
                outlet.result(raw)

        task.to_events = call.to_events
        task.item = lambda raw: items().item(raw)
        if is_command_name(call.command):
            self._executor.submit(task, done)
        else:
            done(None, bad_command(call.command))

    def _cancel(self, number: int) -> None:
        answering = self._open.get(number)
        if answering is None:
            return  # its last frame is on its way
        if answering.items:
            answering.items.close()
        self._executor.cancel(answering.task)
        self.finish(number, frames.frame(END, number))


class FrameWire:
    """All connections that carry frames."""

    def __init__(self, loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        self._loop = loop
        self._executor = executor
        self._connections: Set[FrameConnection] = set()

    def connect(self) -> FrameConnection:
        """Give what serves a new connection."""
        return FrameConnection(self._loop, self._executor, self._connections)

    def stop(self) -> None:
        """Take no more tasks; those that run go on."""
        for connection in self._connections:
            connection.go_away()
