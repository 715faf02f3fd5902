"""Answers that go on: written piece by piece, at the client's pace, until one side ends them.

Streams end when the client goes, when what they tell of ends, when the client's key or session
does, and when the server stops.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from ploinky.api.requests import ManagementRequest
from ploinky.values import Principal


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


class Streams(Service):
    """All answers that go on.  Stopping the service ends them; fires when all have ended.

    Args:
        clock: Its seconds are Unix time: keys expire by it.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._running: dict[Deferred[None], Principal] = {}

    @property
    def open(self) -> int:
        """How many go on."""
        return len(self._running)

    async def serve(self, request: ManagementRequest, stream: Stream, listener: Principal) -> None:
        """Write a stream to its end; cancelling (the client went) ends it."""
        outlet = Outlet(request)
        request.registerProducer(outlet, True)  # type: ignore[no-untyped-call]
        request.write(b"")  # type: ignore[no-untyped-call]  # the head, before there is anything to tell
        producing: Deferred[None] = Deferred.fromCoroutine(_awaited(stream.produce(outlet)))
        self._running[producing] = listener
        expires_at, now = listener.expires_at, self._clock.seconds()
        late = expires_at and self._clock.callLater(max(0, expires_at - now), self._end, producing)
        try:
            await producing
        except CancelledError:
            if producing in self._running:
                raise
        finally:
            self._running.pop(producing, None)
            if late and late.active():
                late.cancel()
            if request.channel is not None:  # else the client has gone
                request.unregisterProducer()  # type: ignore[no-untyped-call]

    def dismiss(self, gone: Set[str]) -> None:
        """End what goes on for keys and sessions that are valid no more, by their hashes."""
        for each, listener in list(self._running.items()):
            if listener.token_hash in gone:
                self._end(each)

    def stopService(self) -> Deferred[Any]:
        """End all of them."""
        super().stopService()  # type: ignore[no-untyped-call]
        running = list(self._running)
        ended = DeferredList([_over(each) for each in running])
        for each in running:
            self._end(each)
        return ended

    def _end(self, producing: Deferred[None]) -> None:
        """End a stream in order, at what was written last."""
        self._running.pop(producing, None)
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
