"""A worker with the smallest corridor there can be: `GET` answers who served it.

The link, the reactor and the life of the process are the product's own; only the rooms behind the
socket are stand-ins, so that the tests of processes need no agent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import protocol
from twisted.internet.defer import Deferred, TimeoutError

from ploinky.values import Route, RouteChange, RouteSnapshot
from ploinky.worker import Rooms, WorkerConfiguration, run


class Router:
    """Remembers its generation."""

    generation = -1

    def adopt(self, snapshot: RouteSnapshot) -> Sequence[Route]:
        """Move forward."""
        self.generation = max(self.generation, snapshot.generation)
        return []

    def amend(self, change: RouteChange) -> Sequence[Route]:
        """Move forward."""
        self.generation = change.generation
        return []


class Orchestrator:
    """Has nothing in flight."""

    def adopt(self, left: Sequence[Route], now: Router) -> None:
        """Nothing waits here."""

    async def drained(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """Nothing is ever in hand."""
        return 0


class Answering(protocol.Protocol):
    """Answers each request with pid and generation; `/slow` takes half a second, once it is in hand."""

    def connectionMade(self) -> None:
        """Count it."""
        self.received = b""
        self.busy = 0
        self.factory.open.add(self)

    def connectionLost(self, reason: Any = None) -> None:
        """Count it no more."""
        self.factory.open.discard(self)
        self.factory.look()

    def dataReceived(self, data: bytes) -> None:
        """Answer every whole request."""
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            self.busy += 1
            if b"/slow" in head:
                self.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            self.factory.reactor.callLater(0.5 if b"/slow" in head else 0, self.answer)

    def answer(self) -> None:
        """Say who serves."""
        body = b"%d %d" % (os.getpid(), self.factory.router.generation)
        closing = b"Connection: close\r\n" if self.factory.draining else b""
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), closing, body)
        )
        self.busy -= 1
        if closing:
            self.transport.loseConnection()


class Gateway(protocol.Factory):
    """Makes and drains them."""

    protocol = Answering
    noisy = False

    def __init__(self, reactor: Any, router: Router) -> None:
        self.reactor = reactor
        self.router = router
        self.open: set[Answering] = set()
        self.draining = False
        self.idle: Deferred[None] = Deferred()

    def look(self) -> None:
        """See whether a drain is over."""
        if self.draining and not self.open and not self.idle.called:
            self.idle.callback(None)

    def expel(self) -> None:
        """Nobody has a key here."""

    async def drain(self, seconds: float) -> int:
        """Wait for what is in hand, and a second for what comes on a connection, as the gateway does."""
        self.draining = True
        self.reactor.callLater(1.0, self.close_idle)
        self.look()
        try:
            await self.idle.addTimeout(seconds, self.reactor)
        except TimeoutError:
            return sum(connection.busy for connection in self.open)
        return 0

    def close_idle(self) -> None:
        """Let those go that have asked nothing."""
        for connection in list(self.open):
            if not connection.busy:
                connection.transport.loseConnection()


def build_rooms(reactor: Any, configuration: WorkerConfiguration, paths: Any) -> Rooms:
    """Give the stand-ins; where the run directory has a file `fails`, it holds why it cannot."""
    obstacle = Path(configuration.run_directory, "fails")
    if obstacle.exists():
        raise RuntimeError(obstacle.read_text())
    router = Router()
    silent = bytes  # nothing to report
    gateway = Gateway(reactor, router)
    return Rooms(router, Orchestrator(), gateway, silent, silent, silent, lambda: None)


if __name__ == "__main__":
    assert len(sys.argv) == 1
    run(build_rooms)
