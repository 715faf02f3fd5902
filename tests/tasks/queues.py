"""A queue directory with an executor by hand, and a reactor's loop by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock

from ploinky.interfaces import IExchange
from ploinky.tasks.file_transport import FileTransport
from ploinky.tasks.inotify import Inotify
from ploinky.testing.tasks import HeldLease, RecordedAnswer, a_call
from ploinky.values import Address, Target, TaskCall, Wire


class Queue:
    """A queue directory and whoever runs the tasks in it, by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("tasks", "results", "errors", "locks", "tmp"):
            (root / name).mkdir(parents=True)
        self.read: list[str] = []
        target = Target("one", Address(), Wire.FILE, str(root))
        self.lease = HeldLease(target)

    def tasks(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_bytes()) for path in (self.root / "tasks").iterdir()]

    def put(self, place: str, name: str, content: bytes | dict[str, Any]) -> Path:
        """Write elsewhere and rename into place, as the contract says."""
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        temporary = self.root / "tmp" / f"{name}.executor"
        temporary.write_bytes(content)
        if place != "tmp":
            self.read.append(name)
        return temporary.rename(self.root / place / name)

    def left(self) -> list[str]:
        """Every file that lies in the queue, but for spare ones."""
        files = (str(p.relative_to(self.root)) for p in self.root.rglob("*") if not p.is_dir())
        spare = {f"tmp/{name}" for name in self.read}
        return sorted(set(files) - spare)


class Loop:
    """A clock, and the readers that a reactor would read."""

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.advance: Callable[[float], None] = self.reactor.advance

    def turn(self) -> None:
        """Read every descriptor once."""
        for reader in self.reactor.getReaders():
            reader.doRead()


def started(loop: Loop) -> FileTransport:
    transport = FileTransport(loop.reactor, Inotify(loop.reactor))
    transport.startService()
    return transport


def sent(
    transport: FileTransport, queue: Queue, call: TaskCall | None = None
) -> tuple[TaskCall, RecordedAnswer, IExchange]:
    call = call or a_call("hello", "world")
    answer = RecordedAnswer()
    return call, answer, transport.send(queue.lease, call, answer)


def answered(transport: FileTransport, queue: Queue, loop: Loop, result: Any) -> TaskCall:
    """Have a task sent, run and read."""
    call, answer, _ = sent(transport, queue)
    queue.put("results", call.task, {"id": call.task, "data": result})
    loop.turn()
    assert answer.json() == result
    (queue.root / "tasks" / call.task).unlink()
    return call
