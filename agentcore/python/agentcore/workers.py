"""The process that runs in-process handlers, seen from the I/O loop.

Handlers live apart so that one that blocks, exits or crashes does not take the agent
down.  What a handler keeps in memory is kept once: there is one process, and when it
ends, a new one takes its place.  One in which a handler does not come back is
retired: it finishes what else it has, while a new one takes what comes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any, Callable, Dict, List, Optional

from .catalogue import Target
from .channel import Decoder, encode
from .executor import now_ms
from .script import signal_name
from .tasks import Abort, Done, Failure, Item, Task

# How long past its deadline a handler may stay before its process is retired.
STUCK_AFTER_SECONDS = 1.0

# Where cgroups of version 2, and 1, count what was killed for want of memory.
_MEMORY_EVENTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")

DOOR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Entry:
    """A task that a worker has and did not answer yet."""

    __slots__ = ("done", "item", "stuck", "task", "timer")

    def __init__(self, task: Task, done: Done, item: Item) -> None:
        self.task = task
        self.done = done
        self.item = item
        self.stuck = False
        self.timer: Optional[asyncio.TimerHandle] = None


class WorkerProcess:
    """One child process and what it has in hand."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[WorkerProcess, List[Any]], None],
        on_end: Callable[[WorkerProcess], None],
    ) -> None:
        self.entries: Dict[int, Entry] = {}
        self.retired = False
        self.broken: Optional[str] = None
        self.ending: Optional[str] = None
        self.culprit = 0
        self._kills_before = _kills_for_memory()
        self._loop = loop
        self._on_message = on_message
        self._on_end = on_end
        self._decoder = Decoder()
        self._outgoing = bytearray()
        self._blocked = False
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        self._process = subprocess.Popen(
            [sys.executable, DOOR, "worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        loop.add_reader(self._channel, self._receive)
        threading.Thread(target=self._wait, daemon=True).start()

    def send(self, message: List[Any], body: bytes = b"") -> None:
        """Send a frame, with whatever else is sent in this turn."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += encode(message, body)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def _flush(self) -> None:
        try:
            sent = self._channel.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it ended; _wait says so
        del self._outgoing[:sent]
        if self._outgoing:
            self._loop.add_writer(self._channel, self._flush)
            self._blocked = True
        elif self._blocked:
            self._loop.remove_writer(self._channel)
            self._blocked = False

    def _receive(self) -> None:
        try:
            chunk = self._channel.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            # Handlers may have closed its end; without that it is of no use.
            self._loop.remove_reader(self._channel)
            self._process.kill()
        self._decode(chunk)

    def _decode(self, chunk: bytes) -> None:
        for message, body in self._decoder.feed(chunk):
            if message[0] == "done":
                self._take(message[1], message[2], body)
            elif message[0] == "item":
                entry = self.entries.get(message[1])
                if entry:
                    entry.item(body)
            elif message[0] == "end":
                self._take(message[1], None, None)
            else:
                self._on_message(self, message)

    def _take(self, sequence: int, failed: Optional[Dict[str, Any]], body: Optional[bytes]) -> None:
        entry = self.entries.pop(sequence, None)
        if entry is None:
            return
        if entry.timer:
            entry.timer.cancel()
        entry.done(None if failed else body, Failure(**failed) if failed else None)
        self.close_if_over()

    def close_if_over(self) -> None:
        """End a retired process once only those that are stuck are left in it."""
        if self.retired and all(entry.stuck for entry in self.entries.values()):
            self.kill()

    def _wait(self) -> None:
        self._process.wait()
        try:
            self._loop.call_soon_threadsafe(self._ended)
        except RuntimeError:
            pass  # the loop is closed: the agent stops

    def _ended(self) -> None:
        self._receive_rest()
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        self._channel.close()
        status = self._process.returncode
        if self.ending is None and status < 0:
            self.ending = f"was killed by {signal_name(-status)}"
            if status == -signal.SIGKILL and _kills_for_memory() > self._kills_before:
                self.ending += " for want of memory"
        elif self.ending is None:
            self.ending = f"ended with exit status {status}"
        self._on_end(self)

    def _receive_rest(self) -> None:
        """Take what it sent just before it ended."""
        while True:
            try:
                chunk = self._channel.recv(262144)
            except OSError:
                return
            if not chunk:
                return
            self._decode(chunk)


class HandlerProcess:
    """Runs tasks in a process of their own, and sees that there always is one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._worker: Optional[WorkerProcess] = None
        self._retired: List[WorkerProcess] = []
        self._stopped = False
        self._started: Optional[asyncio.Future[List[Dict[str, Any]]]] = None

    async def start(self) -> List[Dict[str, Any]]:
        """Start the process and load `agent.py` in it; give the functions it has.

        Raises:
            Failure: AGENT_BROKEN, where it cannot be loaded.
        """
        self._started = self._loop.create_future()
        self._spawn()
        return await self._started

    def run(self, task: Task, target: Target, done: Done, item: Item) -> Abort:
        """Run a task; see Executor."""
        worker = self._worker or self._spawn()
        worker.entries[task.sequence] = Entry(task, done, item)
        task.taken = lambda size: worker.send(["taken", task.sequence, size])
        worker.send(
            [
                "run", task.sequence, target.file, task.command,
                task.id, task.user, task.request_id, task.deadline,
            ],
            task.raw,
        )  # fmt: skip
        return lambda reason: self._abort(worker, task, reason)

    def stop(self) -> None:
        """End all processes."""
        self._stopped = True
        for worker in [self._worker, *self._retired]:
            if worker:
                worker.kill()

    def _spawn(self) -> WorkerProcess:
        self._worker = WorkerProcess(self._loop, self._take, self._ended)
        return self._worker

    def _take(self, worker: WorkerProcess, message: List[Any]) -> None:
        if message[0] == "ending":
            worker.ending, worker.culprit = message[1:]
        elif message[0] == "broken":
            worker.broken = message[1]
        elif self._started and not self._started.done():
            self._started.set_result(message[1])

    def _abort(self, worker: WorkerProcess, task: Task, reason: str) -> None:
        entry = worker.entries.get(task.sequence)
        if entry is None:
            return
        worker.send(["abort", task.sequence, reason])
        delay = max(task.deadline - now_ms(), 0) / 1000 + STUCK_AFTER_SECONDS
        entry.timer = self._loop.call_later(min(delay, 86400), self._stuck, worker, entry)

    def _stuck(self, worker: WorkerProcess, entry: Entry) -> None:
        entry.stuck = True
        if not worker.retired:
            worker.retired = True
            worker.ending = f"was ended, as {entry.task.command} did not come back"
            self._retired.append(worker)
            self._worker = None
            self._spawn()
        worker.close_if_over()

    def _ended(self, worker: WorkerProcess) -> None:
        if worker is self._worker:
            self._worker = None
            if not worker.broken and not self._stopped and worker.entries:
                self._spawn()
        elif worker in self._retired:
            self._retired.remove(worker)
        if self._started and not self._started.done():
            reason = worker.broken or f"agent.py, while it was loaded, {worker.ending}."
            self._started.set_exception(Failure(500, "AGENT_BROKEN", reason))
        lost = list(worker.entries.values())
        culprit = worker.entries.get(worker.culprit)
        if culprit is None and len(lost) == 1:
            culprit = lost[0]
        worker.entries = {}
        for entry in lost:
            if entry.timer:
                entry.timer.cancel()
            reason = worker.broken or _explain(culprit, entry, worker.ending or "ended")
            entry.done(None, Failure(500, "HANDLER_FAILED", reason))


def _kills_for_memory() -> int:
    """Tell how often the kernel has killed a process of this container for want of memory."""
    for path in _MEMORY_EVENTS:
        try:
            with open(path) as file:
                counts = dict(line.split() for line in file)
            return int(counts["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def _explain(culprit: Optional[Entry], entry: Entry, ending: str) -> str:
    command = entry.task.command
    if culprit is entry:
        return f"{command} ended the worker that runs the handlers: it {ending}."
    other = "one of several tasks"
    if culprit:
        other = f"another task ({culprit.task.command}, {culprit.task.id})"
    return f"{command} was lost: the worker ended because {other} {ending}."
