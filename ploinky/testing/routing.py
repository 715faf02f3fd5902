"""Stand-ins for the routing room and its neighbours, and a client that speaks in raw bytes.

Each remembers what it was asked, and a test plays the other side by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from ploinky.errors import NoHealthyInstance
from ploinky.interfaces import (
    IAgentTransport,
    IAnswer,
    IExchange,
    ILease,
    IOrchestrator,
    IStanding,
    IUpgradeAnswer,
    IUpstream,
)
from ploinky.values import Address, Route, Target, TaskCall


@implementer(ILease)
class FakeLease:
    """A place that remembers how it was given back.

    Attributes:
        released: How often.
        failed: What the first release said of the instance.
    """

    def __init__(self, route: Route, target: Target) -> None:
        self.route = route
        self.target = target
        self.released = 0
        self.failed = False

    def release(self, failed: bool = False) -> None:
        """Count it."""
        if not self.released:
            self.failed = failed
        self.released += 1


@implementer(IStanding)
class FakeStanding:
    """Takes leases of a `FakeOrchestrator`, and gives them back."""

    def __init__(self, orchestrator: FakeOrchestrator, route: Route) -> None:
        self._orchestrator = orchestrator
        self._taken: list[FakeLease] = []
        self.route = route
        self.target = route.targets[0]

    def take(self) -> bool:
        """Claim one, unless the orchestrator is `FakeOrchestrator.full`."""
        lease = self._orchestrator.claim(self.route)
        if lease is not None:
            self._taken.append(lease)
        return lease is not None

    def release(self, failed: bool = False) -> None:
        """Release the one that was taken first."""
        self._taken.pop(0).release(failed)

    def lease(self) -> FakeLease:
        """Give the one that was taken first."""
        return self._taken.pop(0)


@implementer(IOrchestrator)
class FakeOrchestrator:
    """Gives a lease on a route's first target or the `chosen` one, or lets the test say when.

    Attributes:
        full: `claim` gives nothing, so that callers wait.
        chosen: Which of a route's targets leases are on.
        leases: All that were given, in order.
        waiting: Who waits, as (route, Deferred that fires with a lease).
    """

    def __init__(self) -> None:
        self.full = False
        self.chosen = 0
        self.leases: list[FakeLease] = []
        self.waiting: list[tuple[Route, Deferred[FakeLease]]] = []

    def claim(self, route: Route) -> FakeLease | None:
        """Give a lease unless `full`."""
        if not route.targets:
            raise NoHealthyInstance(route.reason, retry_after_seconds=1)
        return None if self.full else self._lease(route)

    def standing(self, route: Route) -> FakeStanding | None:
        """Give one where there is one target."""
        return FakeStanding(self, route) if len(route.targets) == 1 else None

    async def claim_later(
        self, route: Route, timeout_seconds: float, tried: Sequence[Target] = ()
    ) -> FakeLease:
        """Wait until the test grants it; whoever tried some already gets the next at once."""
        if tried and not self.full:
            return self._lease(route, next(one for one in route.targets if one not in tried))
        waiter: Deferred[FakeLease] = Deferred()
        entry = (route, waiter)
        self.waiting.append(entry)
        try:
            return await waiter
        finally:
            self.waiting.remove(entry)

    def grant(self) -> None:
        """Give a lease to whoever has waited longest."""
        route, waiter = self.waiting[0]
        waiter.callback(self._lease(route))

    async def drained(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """Tell how many leases are out, without waiting."""
        return self.in_flight()

    def in_flight(self) -> int:
        """Count the leases that are out."""
        return sum(not lease.released for lease in self.leases)

    def _lease(self, route: Route, target: Target | None = None) -> FakeLease:
        lease = FakeLease(route, target or route.targets[self.chosen])
        self.leases.append(lease)
        return lease


@implementer(IExchange)
class FakeExchange:
    """One request as an agent's side got it; the test answers through `answer`.

    Attributes:
        written: The body as it came piece by piece; a whole body where it came whole.
        finished: The body is whole.
    """

    def __init__(self, answer: IAnswer, body: bytes | None) -> None:
        self.answer = answer
        self.written = body or b""
        self.finished = body is not None
        self.cancelled = False
        self.paused = False

    def write(self, chunk: bytes) -> None:
        """Keep it."""
        self.written += chunk

    def finish(self) -> None:
        """Remember it."""
        self.finished = True

    def cancel(self) -> None:
        """Remember it."""
        self.cancelled = True

    def pause(self) -> None:
        """Remember it."""
        self.paused = True

    def resume(self) -> None:
        """Remember it."""
        self.paused = False

    def say(
        self, body: bytes = b"", status: int = 200, fields: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """Answer whole."""
        self.answer.started(status, fields, len(body))
        if body:
            self.answer.data(body)
        self.answer.ended()


@implementer(IAgentTransport)
class FakeTransport:
    """Keeps tasks until the test answers them.

    Attributes:
        sent: (lease, task, exchange) of each.
        respond: Called with each task and exchange as it is sent, if set.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[ILease, TaskCall, FakeExchange]] = []
        self.respond: Callable[[TaskCall, FakeExchange], None] | None = None

    def send(self, lease: ILease, request: TaskCall, answer: IAnswer) -> FakeExchange:
        """Keep it."""
        exchange = FakeExchange(answer, request.params)
        if self.respond is not None:
            self.respond(request, exchange)
        self.sent.append((lease, request, exchange))
        return exchange


@implementer(IUpstream)
class FakeUpstream:
    """Keeps requests until the test answers them.

    Attributes:
        sent: (address, head, exchange) of each.
        respond: Called with each head and exchange as it is sent, if set.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[Address, bytes, FakeExchange]] = []
        self.respond: Callable[[bytes, FakeExchange], None] | None = None
        self.closed = False

    def exchange(
        self, address: Address, head: bytes, body: bytes | None, answer: IAnswer
    ) -> FakeExchange:
        """Keep it."""
        exchange = FakeExchange(answer, body)
        if self.respond is not None:
            self.respond(head, exchange)
        self.sent.append((address, head, exchange))
        return exchange

    def pool(self, address: Address) -> None:
        """Give none: every request comes to `exchange`."""

    def upgrade(
        self, address: Address, head: bytes, asked: bytes, key: bytes, answer: IUpgradeAnswer
    ) -> FakeExchange:
        """Keep it like any other."""
        return self.exchange(address, head, b"", answer)

    def close(self) -> None:
        """Remember it."""
        self.closed = True


async def settled(reactor: IReactorTime, is_so: Callable[[], Any]) -> None:
    """Let the loop turn until it is so.

    Raises:
        AssertionError: It did not come to that within five seconds or so.
    """
    for _ in range(1000):
        if is_so():
            return
        await deferLater(reactor, 0.005)
    raise AssertionError("it never came to that")


async def turns(reactor: IReactorTime, count: int = 20) -> None:
    """Let the loop turn a few times, so that what is going to happen has happened."""
    for _ in range(count):
        await deferLater(reactor, 0.001)


class RawClient(Protocol):
    """Either end of a connection, in raw bytes.

    Attributes:
        received: All that came and was not taken by `take`.
        lost: Fires with this client when the connection has ended.
        reason: Why it ended; None before.
    """

    transport: Any

    def __init__(self, clock: IReactorTime, patience_seconds: float = 10.0) -> None:
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._awaited: dict[Deferred[None], tuple[Callable[[bytes], bool], IDelayedCall]] = {}
        self.received = b""
        self.lost: Deferred[RawClient] = Deferred()
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for _, timer in self._awaited.values():
            timer.reset(self._patience_seconds)
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.lost.callback(self)
        self._look()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.transport.write(data)

    async def take(self, end: bytes) -> bytes:
        """Wait for `end` and take all up to and with it."""
        await self.until(lambda received: end in received)
        at = self.received.index(end) + len(end)
        taken, self.received = self.received[:at], self.received[at:]
        return taken

    async def until(self, enough: Callable[[bytes], bool]) -> None:
        """Wait until ``enough`` says so of `received`.

        Raises:
            AssertionError: The connection ended first, or nothing came for long.
        """
        if enough(self.received):
            return
        waiter: Deferred[None] = Deferred()
        timer = self._clock.callLater(self._patience_seconds, self._give_up, waiter)
        self._awaited[waiter] = enough, timer
        try:
            await waiter
        finally:
            self._awaited.pop(waiter, None)
            if timer.active():
                timer.cancel()

    async def answer(self, to_head: bool = False) -> Answered:
        """Wait for one whole answer with a length or in chunks, and take it."""
        head = await self.take(b"\r\n\r\n")
        answered = Answered(head)
        length = answered.field(b"content-length")
        if to_head or answered.status in (204, 304):
            return answered
        if answered.field(b"transfer-encoding") == b"chunked":
            while True:
                size = int(await self.take(b"\r\n"), 16)
                chunk = await self._exactly(size + 2)
                if not size:
                    return answered
                answered.body += chunk[:-2]
        answered.body = await self._exactly(int(length or 0))
        return answered

    async def _exactly(self, count: int) -> bytes:
        await self.until(lambda received: len(received) >= count)
        taken, self.received = self.received[:count], self.received[count:]
        return taken

    def _look(self) -> None:
        for waiter, (enough, _) in list(self._awaited.items()):
            if enough(self.received):
                self._awaited.pop(waiter)
                waiter.callback(None)
            elif self.reason is not None:
                self._give_up(waiter)

    def _give_up(self, waiter: Deferred[None]) -> None:
        if self._awaited.pop(waiter, None) is not None:
            why = "the connection ended" if self.reason is not None else "nothing more came"
            waiter.errback(AssertionError(f"{why}; received {self.received!r}"))


def half_closing(end: RawClient) -> list[bool]:
    """Let this end of a connection stay open when the other side stops sending.

    Returns:
        A list that gets an entry when that happens.
    """
    heard: list[bool] = []
    end.readConnectionLost = lambda: heard.append(True)  # type: ignore[attr-defined]
    end.writeConnectionLost = lambda: None  # type: ignore[attr-defined]
    directlyProvides(end, IHalfCloseableProtocol)
    end.transport.protocol = end  # the wrapper of an endpoint would not pass it on
    return heard


class Answered:
    """One answer as a client read it."""

    def __init__(self, head: bytes) -> None:
        lines = head[:-4].split(b"\r\n")
        self.head = head
        self.status = int(lines[0].split(b" ")[1])
        self.fields = [
            (name.lower(), value)
            for name, _, value in (line.partition(b": ") for line in lines[1:])
        ]
        self.body = b""

    def field(self, name: bytes) -> bytes | None:
        """Give the value of the first field of this name (in lower case)."""
        return next((value for n, value in self.fields if n == name), None)


class RawServer(Factory):
    """Accepts connections for a test to play an agent on.

    Attributes:
        accepted: A `RawClient` each, in order.
    """

    noisy = False

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.accepted: list[RawClient] = []

    def buildProtocol(self, addr: IAddress | None) -> RawClient:
        return _Accepted(self._clock, self.accepted)


class _Accepted(RawClient):
    def __init__(self, clock: IReactorTime, accepted: list[RawClient]) -> None:
        super().__init__(clock)
        self._accepted = accepted

    def connectionMade(self) -> None:
        self._accepted.append(self)
