"""Answers that go on: written piece by piece, at the client's pace, until one side ends them.

Streams end when the client goes, when it may not read them any more, when what they tell of ends,
and when the server stops.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from ploinky.api.requests import ManagementRequest


@implementer(IPushProducer)
class Outlet:
    """Where a stream is written to."""

    def __init__(self, request: ManagementRequest) -> None:
        self._request = request
        self._full = False
        self._waiting: list[Deferred[None]] = []

    @property
    def is_full(self) -> bool:
        """Whether the client takes it more slowly than it comes."""
        return self._full

    async def write(self, data: bytes) -> None:
        """Write; fires once there is room for more."""
        self._request.write(data)  # type: ignore[no-untyped-call]
        if self._full:
            room: Deferred[None] = Deferred()
            self._waiting.append(room)
            await room

    def abort(self) -> None:
        """Cut the client off: it takes too little."""
        channel: Any = self._request.channel
        channel.transport.abortConnection()

    def pauseProducing(self) -> None:
        """The client has enough for now."""
        self._full = True

    def resumeProducing(self) -> None:
        """The client has taken what there was."""
        self._full = False
        waiting, self._waiting = self._waiting, []
        for room in waiting:
            if not room.called:
                room.callback(None)

    def stopProducing(self) -> None:
        """The client has gone; its request's end says so too."""


Produce = Callable[[Outlet], Awaitable[None]]


@frozen
class Stream:
    """An answer that is written by `produce` until that returns."""

    content_type: str
    produce: Produce
    fields: tuple[tuple[str, str], ...] = ()


@frozen
class Leave:
    """By what right a client reads a stream.

    Attributes:
        holds: Tells whether it holds still.
        ends_at: Unix seconds at which it ends by itself; None: never.
    """

    holds: Callable[[], Awaitable[bool]]
    ends_at: float | None = None


class Streams(Service):
    """All answers that go on.  Stopping the service ends them; fires when all have ended.

    Args:
        clock: Its seconds are Unix time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._running: dict[Deferred[None], Leave] = {}

    @property
    def open(self) -> int:
        """How many go on."""
        return len(self._running)

    async def serve(self, request: ManagementRequest, stream: Stream, leave: Leave) -> None:
        """Write a stream to its end, or for as long as there is leave.

        Cancelling (the client went) ends it.
        """
        outlet = Outlet(request)
        request.registerProducer(outlet, True)  # type: ignore[no-untyped-call]
        request.write(b"")  # type: ignore[no-untyped-call]  # the head, before there is anything to tell
        producing: Deferred[None] = Deferred.fromCoroutine(_awaited(stream.produce(outlet)))
        self._running[producing] = leave
        ending = None
        if leave.ends_at is not None:
            left = max(0.0, leave.ends_at - self._clock.seconds())
            ending = self._clock.callLater(left, self._end, producing)
        try:
            await producing
        except CancelledError:
            if producing in self._running:
                raise
        finally:
            self._running.pop(producing, None)
            if ending is not None and ending.active():
                ending.cancel()
            request.unregisterProducer()  # type: ignore[no-untyped-call]

    async def check(self) -> None:
        """End those whose client may not read them any more."""
        for producing, leave in list(self._running.items()):
            if not await leave.holds():
                self._end(producing)

    def stopService(self) -> Deferred[Any]:
        """End all of them."""
        super().stopService()  # type: ignore[no-untyped-call]
        running = list(self._running)
        ended = DeferredList([_over(each) for each in running])
        for each in running:
            self._end(each)
        return ended

    def _end(self, producing: Deferred[None]) -> None:
        """End one in an orderly way, as `serve` tells by its being no more among them."""
        if self._running.pop(producing, None) is not None:
            producing.cancel()


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _over(work: Deferred[None]) -> Deferred[None]:
    over: Deferred[None] = Deferred()

    def ended(result: Any) -> Any:
        over.callback(None)
        return result

    work.addBoth(ended)
    return over
