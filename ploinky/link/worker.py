"""A worker's end: tell the leader hello, do what it says, come back for ever if it is away.

Tables, and changes to them, enter and go to `ICorridor`; counts leave.  It must not know how
requests are served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface

from ploinky.link.changes import Assembly
from ploinky.link.outbox import Numbered, Outbox
from ploinky.link.sharing import Shared
from ploinky.link.wire import (
    Adopt,
    Conversation,
    Counted,
    Drain,
    Gather,
    HandBack,
    Hello,
    Identity,
    Keep,
    Kept,
    NotListening,
    OutOfStep,
    Ping,
    Report,
    Stop,
    TablePart,
    lines_cut,
)
from ploinky.values import RouteChange, RouteSnapshot

ORPHAN_SECONDS = 30.0
"""After which a worker that never got a snapshot gives up."""

SETTLE_SECONDS = 5.0
"""How long a worker that ends waits until its counts are on disk."""

SLOWEST_RETRY_SECONDS = 0.5
"""Between attempts while the leader is away; a new one waits a few times as long for workers."""


class ICorridor(Interface):
    """What the link moves in a worker."""

    generation: int = Attribute("By which it serves; 0 before the first snapshot.")

    def adopt(snapshot: RouteSnapshot) -> None:
        """Serve by it from now on; with the first one, begin to accept connections."""

    def amend(change: RouteChange) -> None:
        """Serve by what it makes of the generation that is its base, which is `generation`."""

    async def drained(instances: frozenset[str], timeout_seconds: float) -> int:
        """See `IOrchestrator.drained`."""

    def listening() -> int | None:
        """Give the listening socket's descriptor, which stays the worker's; None without one."""

    def stop() -> None:
        """Begin to drain and exit; returns at once."""


class LeaderConnection(Conversation):
    """The worker's end of one connection.

    Args:
        identity: Who this worker is.
        corridor: Provides `ICorridor`.
        outbox: What was counted; the service fills it.
        lost: Called once when the connection is gone.
    """

    log = Logger()

    def __init__(
        self,
        identity: Identity,
        corridor: Any,
        outbox: Outbox,
        lost: Callable[[LeaderConnection], None],
    ) -> None:
        super().__init__()
        self._identity = identity
        self._corridor = corridor
        self._outbox = outbox
        self._lost = lost
        self._shared = Shared()
        self._assembly = Assembly(self._shared)

    def connectionMade(self) -> None:
        """Say hello; then report again what no leader has acknowledged."""
        hello = self.ask(
            Hello,
            slot=self._identity.slot,
            pid=self._identity.pid,
            build=self._identity.build,
            generation=self._corridor.generation,
            accepting=self._corridor.listening() is not None,
        )
        Deferred.fromCoroutine(hello).addErrback(self._refused)
        self.count(self._outbox.unacknowledged())

    def _refused(self, failure: Failure) -> None:
        if not failure.check(ConnectionClosed):
            self.log.error("the leader refused this worker: {error}", error=failure.value)
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the service."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._lost(self)

    @Ping.responder
    def ping(self) -> dict[str, Any]:
        """Answer."""
        return {}

    @TablePart.responder
    def part(self, data: bytes) -> dict[str, Any]:
        """Collect it."""
        self._assembly.add(data)
        return {}

    @Adopt.responder
    def adopt(self, base: int, generation: int, parts: int) -> dict[str, Any]:
        """Serve by what was collected."""
        collected, self._assembly = self._assembly, Assembly(self._shared)
        if parts != collected.parts:
            raise ValueError(f"{collected.parts} of {parts} parts of generation {generation}")
        change = collected.change(base, generation)
        if base == 0:
            self._corridor.adopt(RouteSnapshot(generation, change.routes, change.principals))
        elif base == self._corridor.generation:
            self._corridor.amend(change)
        else:
            raise OutOfStep()
        return {"generation": self._corridor.generation}

    @Drain.responder
    def drain(self, instances: list[str], timeout_seconds: float) -> Deferred[dict[str, Any]]:
        """Answer once they are drained."""

        async def answer() -> dict[str, Any]:
            left = await self._corridor.drained(frozenset(instances), timeout_seconds)
            return {"left": left}

        return Deferred.fromCoroutine(answer())

    @HandBack.responder
    def hand_back(self) -> dict[str, Any]:
        """Give a copy of the listening socket."""
        descriptor = self._corridor.listening()
        if descriptor is None:
            raise NotListening()
        return {"listening": descriptor}

    @Stop.responder
    def stop(self) -> dict[str, Any]:
        """Begin to leave."""
        self._corridor.stop()
        return {}

    @Kept.responder
    def kept(self, number: int) -> dict[str, Any]:
        """Forget what is on disk."""
        self._outbox.acknowledged(number)
        return {}

    @Gather.responder
    def gather(self) -> Deferred[dict[str, Any]]:
        """Report what was counted, then answer."""

        async def answer() -> dict[str, Any]:
            if self._outbox.is_full:  # somebody asks often: what was reported is written first
                await self.ask(Keep)
            self.count(self._outbox.fill())
            return {}

        return Deferred.fromCoroutine(answer())

    def count(self, reports: Sequence[Numbered]) -> None:
        """Send reports."""
        for each in reports:
            self.tell(Counted, reporter=self._outbox.reporter, number=each.number, data=each.data)

    def report(self, kind: str, data: bytes) -> None:
        """Send whole lines."""
        for piece in lines_cut(data):
            self.tell(Report, kind=kind, data=piece)


class LeaderLink(Service):
    """Keeps a connection to whichever leader there is.

    A worker that has never served ends when its leader goes or never comes: connections would
    wait in its socket's queue for nobody.

    Args:
        clock: For the waits between attempts.
        endpoint: Of the leader's link socket.
        identity: Who this worker is.
        corridor: Provides `ICorridor`.
        outbox: What was counted.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        identity: Identity,
        corridor: Any,
        outbox: Outbox,
    ) -> None:
        self._clock = clock
        self._corridor = corridor
        self._outbox = outbox
        self._identity = identity
        self._connection: LeaderConnection | None = None
        factory = Factory.forProtocol(self._connect)
        factory.noisy = False
        self._client = ClientService(
            endpoint,
            factory,
            retryPolicy=lambda attempts: min(0.02 * 2 ** min(attempts, 8), SLOWEST_RETRY_SECONDS),
            clock=clock,
        )

    def startService(self) -> None:
        """Connect, and again whenever the connection is lost."""
        super().startService()  # type: ignore[no-untyped-call]
        self._client.startService()
        self._orphaned = self._clock.callLater(ORPHAN_SECONDS, self._end_if_useless)

    def stopService(self) -> Deferred[None]:
        """Disconnect; fires when that is done."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._orphaned.active():
            self._orphaned.cancel()
        stopped: Deferred[None] = self._client.stopService()
        return stopped

    @property
    def connected(self) -> bool:
        """Whether there is a leader to talk to."""
        return self._connection is not None

    def count(self) -> None:
        """Send what was counted to the leader, if there is one; else it waits where it is counted."""
        if self._connection:
            self._connection.count(self._outbox.fill())

    async def settle(self) -> None:
        """Send what was counted for the last time; fires once it is on disk.

        Without a leader, or where it does not answer in time, at once: this process ends anyway.
        """
        self.count()
        if self._connection:
            kept = Deferred.fromCoroutine(self._connection.ask(Keep))
            with suppress(ConnectionClosed, TimeoutError, amp.AmpError):
                await kept.addTimeout(SETTLE_SECONDS, self._clock)

    def report(self, kind: str, data: bytes) -> None:
        """Send whole lines to the leader, if there is one: nothing is kept for a later one."""
        if self._connection:
            self._connection.report(kind, data)

    def _connect(self) -> LeaderConnection:
        self._connection = LeaderConnection(
            self._identity, self._corridor, self._outbox, self._lost
        )
        return self._connection

    def _lost(self, connection: LeaderConnection) -> None:
        if self._connection is connection:
            self._connection = None
        self._end_if_useless()

    def _end_if_useless(self) -> None:
        if self.running and self._corridor.generation == 0:
            self._corridor.stop()
