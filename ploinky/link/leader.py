"""The leader's end: one listening Unix socket, one connection per worker.

Routes and principals enter; every worker's acknowledgement leaves.  It must not know how workers
are started or ended: it tells that to `IWorkerSlots`.

A worker is trusted with a snapshot once the kernel vouches for its user and it has said hello
with the leader's own build.  From then on it is either up to date, about to be, or ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from ploinky.leader_interfaces import IWorkerGroup
from ploinky.link.changes import Parcel, change_between, parcel_of, whole_of
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
    OutOfStep,
    Peer,
    Ping,
    Report,
    Stop,
    TablePart,
    peer_of,
)
from ploinky.values import Principal, Route, RouteSnapshot

T = TypeVar("T")

ACKNOWLEDGE_SECONDS = 5.0
"""A worker that does not answer for so long does not turn its loop, and is replaced."""

GATHER_SECONDS = 1.0
"""How long whoever looks at figures waits for a busy worker's newest."""

Reports = Callable[[int, str, bytes], None]
"""Takes (pid, kind, lines) of a worker."""


class ITally(Interface):
    """Who adds workers' counts up."""

    def take(reporter: str, number: int, lines: bytes) -> None:
        """Take a report, possibly again."""

    async def write() -> None:
        """Fires once what was taken is on disk, or cannot be written now."""


class IWorkerSlots(Interface):
    """Who owns the workers' processes, and hears from the links about them."""

    def joined(link: Any) -> None:
        """A worker said hello; `link` is its `WorkerLink`."""

    def serving(pid: int) -> None:
        """It serves by a snapshot of this leader."""

    def stalled(pid: int) -> None:
        """It does not answer: end it.  `left` follows when it has gone."""

    def left(pid: int) -> None:
        """Its connection is gone."""

    def describe() -> list[dict[str, Any]]:
        """One entry a slot: ``{slot, pid, state, restarts}``."""


class WorkerLink(Conversation):
    """The leader's end of the connection to one worker.

    Attributes:
        identity: Who it is; None before its hello.
        generation: By which it serves, as far as this leader knows.
        sent: The newest generation that was sent to it here; 0 before the first.
        accepting: Whether it said that it holds a listening socket.
        reporter: As which it counts; ``""`` before its first report.
    """

    def __init__(self, links: WorkerLinks) -> None:
        super().__init__()
        self._links = links
        self.identity: Identity | None = None
        self.generation = 0
        self.sent = 0
        self.accepting = False
        self.reporter = ""
        self._waiting: list[Deferred[None]] = []

    def _refuse(self, reason: str) -> None:
        self._links.log.warn(
            "process {pid} of user {uid} is refused: {reason}",
            pid=self._peer.pid,
            uid=self._peer.uid,
            reason=reason,
        )
        self.abort()

    @property
    def pid(self) -> int:
        """Of the worker; 0 before its hello."""
        return self.identity.pid if self.identity else 0

    def connectionMade(self) -> None:
        """Refuse other users' processes before a byte of theirs is read."""
        self._peer = self._links.peer_of(self.transport)
        if self._peer.uid != os.geteuid():
            self._refuse("it belongs to another user")

    @Hello.responder
    def hello(
        self, slot: int, pid: int, build: str, generation: int, accepting: bool
    ) -> dict[str, Any]:
        """Take the worker in, if the kernel confirms who it is."""
        if self._peer != Peer(pid, os.geteuid()):
            self._refuse(f"it calls itself {pid}")
            return {}
        self.identity = Identity(slot, pid, build)
        self.generation = generation
        self.accepting = accepting
        self._links.welcome(self)
        return {}

    @Report.responder
    def report(self, kind: str, data: bytes) -> dict[str, Any]:
        """Pass lines on."""
        if self.identity:
            self._links.reports(self.pid, kind, data)
        return {}

    @Counted.responder
    def counted(self, reporter: str, number: int, data: bytes) -> dict[str, Any]:
        """Pass counts on; `WorkerLinks.kept` says when they are on disk."""
        if self.identity:
            self.reporter = reporter
            self._links.tally.take(reporter, number, data)
        return {}

    @Keep.responder
    def keep(self) -> Deferred[dict[str, Any]]:
        """Answer once what it counted is on disk."""

        async def answer() -> dict[str, Any]:
            await self._links.tally.write()
            return {}

        return Deferred.fromCoroutine(answer())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell who counts on it."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._links.farewell(self)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def gone(self) -> Deferred[None]:
        """Fires when the connection is lost."""
        self._waiting.append(Deferred(self._waiting.remove))
        return self._waiting[-1]

    async def deliver(self, parcel: Parcel) -> None:
        """Send a table or a change; fires once the worker serves by it.

        Raises:
            ConnectionClosed: The worker has gone.
            OutOfStep: It cannot, as it serves by another generation than this is a change to.
            amp.RemoteAmpError: It could not read it.
        """
        for part in parcel.parts:
            self.tell(TablePart, data=part)
        self.sent = parcel.generation
        answer = await self.ask(
            Adopt, base=parcel.base, generation=parcel.generation, parts=len(parcel.parts)
        )
        self.generation = max(self.generation, answer["generation"])

    async def drain(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """Wait for what is in hand at these instances; give how much was left in the end.

        Raises:
            ConnectionClosed: The worker has gone.
        """
        answer = await self.ask(Drain, instances=sorted(instances), timeout_seconds=timeout_seconds)
        left: int = answer["left"]
        return left

    async def hand_back(self) -> int:
        """Ask for a copy of the worker's listening socket; the caller closes the descriptor.

        Raises:
            NotListening: It has none.
        """
        answer = await self.ask(HandBack)
        descriptor: int = answer["listening"]
        os.set_inheritable(descriptor, False)
        return descriptor

    def stop(self) -> None:
        """Tell it to drain and exit."""
        self.tell(Stop)


@implementer(IWorkerGroup)
class WorkerLinks(Factory):
    """All links at once, and what every worker should serve by.

    Args:
        clock: For time limits.
        build: Of this code.
        reports: Takes how workers stand.
        tally: Provides `ITally`.
        peer_of: Asks who is at the other end of a transport.
    """

    noisy = False
    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        build: str,
        reports: Reports,
        tally: Any,
        peer_of: Callable[[Any], Peer] = peer_of,
    ) -> None:
        self._clock = clock
        self.build = build
        self.reports = reports
        self.tally = tally
        self.peer_of = peer_of
        self._slots: Any = None
        self._links: dict[int, WorkerLink] = {}
        self._newest = RouteSnapshot(0, ())
        self._published = False
        self._background: set[Deferred[None]] = set()

    def watch(self, slots: Any) -> None:
        """Tell an `IWorkerSlots` of everything from now on.  Call it once, before listening."""
        self._slots = slots

    def buildProtocol(self, addr: Any) -> WorkerLink:
        """Make the end of a new connection."""
        return WorkerLink(self)

    # --- IWorkerGroup --------------------------------------------------------

    async def publish(self, routes: Sequence[Route]) -> int:
        """See `IWorkerGroup.publish`."""
        self._published = True
        return await self._spread(routes=tuple(routes))

    async def publish_principals(self, principals: Sequence[Principal]) -> int:
        """See `IWorkerGroup.publish_principals`.

        Before the first `publish` they are only kept for it: a worker that outlived an earlier
        leader would lose its routes to a snapshot without any.
        """
        if not self._published:
            self._newest = attrs.evolve(self._newest, principals=tuple(principals))
            return self._newest.generation
        return await self._spread(principals=tuple(principals))

    async def drain(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """See `IWorkerGroup.drain`."""
        left = [self._drained(link, instances, timeout_seconds) for link in self._trusted()]
        return sum(await _all(left))

    async def gather_counts(self) -> None:
        """See `IWorkerGroup.gather_counts`."""
        await _all([self._gathered(link) for link in self._trusted()])

    def status(self) -> list[dict[str, Any]]:
        """See `IWorkerGroup.status`."""
        entries: list[dict[str, Any]] = self._slots.describe()
        for entry in entries:
            link = self._links.get(entry["pid"])
            entry["generation"] = link.generation if link else 0
        return entries

    # --- what links say ------------------------------------------------------

    def welcome(self, link: WorkerLink) -> None:
        """Take a worker in and bring it up to date."""
        self._links[link.pid] = link
        self._slots.joined(link)
        if not self._published or link not in self._trusted():
            return
        if link.generation >= self._newest.generation:
            # It served an earlier leader, which had counted further than this one.
            self._in_background(self._spread())
        else:
            self._in_background(self._bring_up_to_date(link))

    def farewell(self, link: WorkerLink) -> None:
        """Forget a worker whose connection is gone."""
        if self._links.get(link.pid) is link:
            del self._links[link.pid]
            self._slots.left(link.pid)

    def kept(self, numbers: Mapping[str, int]) -> None:
        """Tell workers that their reports, up to these numbers by reporter, are on disk."""
        for link in self._links.values():
            if link.reporter in numbers:
                link.tell(Kept, number=numbers[link.reporter])

    async def check(self) -> None:
        """Ask every worker for a sign of life; one that gives none is ended."""

        async def ping(link: WorkerLink) -> None:
            await link.ask(Ping)

        await _all(
            [self._answered(link, ping(link), ACKNOWLEDGE_SECONDS) for link in self._trusted()]
        )

    # --- within --------------------------------------------------------------

    def _trusted(self) -> list[WorkerLink]:
        """The workers that run this leader's own code."""
        return [
            link
            for link in self._links.values()
            if link.identity is not None and link.identity.build == self.build
        ]

    async def _spread(self, **changes: Any) -> int:
        """Make the next generation and bring every worker to it."""
        before = self._newest
        seen = max([before.generation, *(link.generation for link in self._links.values())])
        newest = self._newest = attrs.evolve(before, generation=seen + 1, **changes)
        change = parcel_of(change_between(before, newest))
        await _all([self._bring_up_to_date(link, change) for link in self._trusted()])
        return newest.generation

    async def _bring_up_to_date(self, link: WorkerLink, change: Parcel | None = None) -> None:
        """Fires once the worker serves by what is the newest generation now, or has gone.

        Args:
            change: What leads there from the generation before.
        """
        delivery = self._delivered(link, change)
        if await self._answered(link, delivery, ACKNOWLEDGE_SECONDS):
            self._slots.serving(link.pid)

    async def _delivered(self, link: WorkerLink, change: Parcel | None) -> None:
        """Send the change to a worker that has what it is a change to; else the whole table."""
        if change is not None and link.sent and link.sent == change.base:
            try:
                await link.deliver(change)
                return
            except OutOfStep:
                self.log.warn("worker {pid} asks for the whole table", pid=link.pid)
        await link.deliver(parcel_of(whole_of(self._newest)))

    async def _drained(
        self, link: WorkerLink, instances: frozenset[str], timeout_seconds: float
    ) -> int:
        left = 0

        async def ask() -> None:
            nonlocal left
            left = await link.drain(instances, timeout_seconds)

        await self._answered(link, ask(), timeout_seconds + ACKNOWLEDGE_SECONDS)
        return left

    async def _gathered(self, link: WorkerLink) -> None:
        with suppress(TimeoutError, ConnectionClosed, amp.AmpError):
            await Deferred.fromCoroutine(link.ask(Gather)).addTimeout(GATHER_SECONDS, self._clock)

    async def _answered(
        self, link: WorkerLink, question: Coroutine[Any, Any, None], seconds: float
    ) -> bool:
        """Wait for an answer; a worker that gives none, or refuses, is ended.

        Returns:
            Whether it answered.  Where it did not, it has gone.
        """
        try:
            await Deferred.fromCoroutine(question).addTimeout(seconds, self._clock)
        except (TimeoutError, amp.AmpError) as error:
            self.log.error("worker {pid} is replaced: {error!r}", pid=link.pid, error=error)
            gone = link.gone().addTimeout(ACKNOWLEDGE_SECONDS, self._clock)
            self._slots.stalled(link.pid)
            try:
                await gone
            except TimeoutError:
                link.abort()
            return False
        except ConnectionClosed:
            return False
        return True

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        running = Deferred.fromCoroutine(work)
        self._background.add(running)
        running.addErrback(lambda failure: self.log.failure("welcoming a worker", failure))
        running.addBoth(lambda _: self._background.discard(running))


async def _all(work: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Do all of it at once; cancelling cancels each."""
    return await gatherResults([Deferred.fromCoroutine(each) for each in work], consumeErrors=True)
