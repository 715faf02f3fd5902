"""A worker's own transports without the gateway before them, run as a program.

    python -m benchmarks.wires file|http|frames QUEUE CONNECTIONS SECONDS

So many tasks are in flight at a time; each answer sends the next.  What it says is what
`load.lua` says.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from benchmarks.client import summary
from ploinky.errors import CallFailed
from ploinky.interfaces import IAgentTransport, IAnswer, ILease
from ploinky.routing.reactor import install
from ploinky.routing.streams import Outlet
from ploinky.routing.upstream import Upstream
from ploinky.routing.wheel import Wheel
from ploinky.sockets import SocketPaths
from ploinky.tasks.file_transport import FileTransport
from ploinky.tasks.frame_transport import FrameTransport
from ploinky.tasks.http_transport import HttpTransport
from ploinky.tasks.inotify import Inotify
from ploinky.values import Address, DeploymentKey, Kind, Route, Target, TaskCall, Wire


@implementer(ILease)
class Lease:
    """A place at one instance that is never given back."""

    def __init__(self, queue: str) -> None:
        self.route = Route(DeploymentKey("localhost", "/"), Kind.TASK)
        self.target = Target("i", Address(path=f"{queue}/agent.sock"), Wire.FILE, queue)

    def release(self, failed: bool = False) -> None:
        """Keep it."""


@implementer(IAnswer)
class Line:
    """One task after the other; each answer sends the next."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._sent = 0.0
        self._status = 0

    def send(self) -> None:
        """Send the next task."""
        self._sent = time.perf_counter()
        self._load.transport.send(self._load.lease, self._load.next_task(), self)

    def started(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> None:
        """See `IAnswer`."""
        self._status = status

    def data(self, chunk: bytes) -> None:
        """See `IAnswer`."""

    def ended(self) -> None:
        """See `IAnswer`."""
        self._load.took(time.perf_counter() - self._sent, self._status == 200)
        self._load.reactor.callLater(0, self.send)

    def complete(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """See `IAnswer`."""
        self._status = status
        self.ended()

    def failed(self, error: CallFailed) -> None:
        """See `IAnswer`."""
        self._load.took(time.perf_counter() - self._sent, False)
        self._load.reactor.callLater(0, self.send)


class Load:
    """All lines, for a while."""

    def __init__(self, reactor: Any, transport: IAgentTransport, lease: ILease) -> None:
        self.reactor = reactor
        self.transport = transport
        self.lease = lease
        self.times: list[float] = []
        self.bad = 0
        self._number = 0

    def next_task(self) -> TaskCall:
        """Give a task with an id of its own."""
        self._number += 1
        deadline_ms = int((time.time() + 30) * 1000)
        return TaskCall(
            f"b{time.monotonic_ns():x}-{self._number}",
            "hello",
            b'["World"]',
            "InternetUser",
            deadline_ms,
            "r",
        )

    def took(self, seconds: float, well: bool) -> None:
        """Note one answer."""
        self.times.append(seconds)
        self.bad += not well


def run(wire: str, queue: str, connections: int, seconds: float) -> dict[str, float]:
    """Load one queue; give what happened."""
    reactor: Any = install()
    paths = SocketPaths(queue)
    files = FileTransport(reactor, Inotify(reactor))
    upstream = Upstream(reactor, Wheel(reactor), paths)
    http = HttpTransport(upstream)
    frames = FrameTransport(reactor, paths, Outlet, http)
    transport = {"file": files, "http": http, "frames": frames}[wire]
    load = Load(reactor, transport, Lease(queue))
    said: dict[str, float] = {}
    began: list[float] = []

    def begin() -> None:
        files.startService()
        began.extend((time.perf_counter(), time.process_time()))
        for _ in range(connections):
            Line(load).send()
        reactor.callLater(seconds, end)

    def end() -> None:
        took, used = time.perf_counter() - began[0], time.process_time() - began[1]
        said.update(summary(load.times, took, used, load.bad))
        reactor.callLater(0.1, leave)  # what is in flight may come in

    def leave() -> None:
        files.stopService()
        frames.close()
        upstream.close()
        paths.close()
        reactor.stop()

    reactor.callWhenRunning(begin)
    reactor.run()
    return said


if __name__ == "__main__":
    which, where, how_many, how_long = sys.argv[1:]
    print(json.dumps(run(which, where, int(how_many), float(how_long))), file=sys.stderr)
