"""Answers that go on: written piece by piece, at the client's pace, until one side ends them.

Streams end when the client goes, when what they tell of ends, and when the server stops.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IPushProducer
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


class Streams(Service):
    """All answers that go on.  Stopping the service ends them; fires when all have ended."""

    def __init__(self) -> None:
        self._running: set[Deferred[None]] = set()

    @property
    def open(self) -> int:
        """How many go on."""
        return len(self._running)

    async def serve(self, request: ManagementRequest, stream: Stream) -> None:
        """Write a stream to its end; cancelling (the client went) ends it."""
        outlet = Outlet(request)
        request.registerProducer(outlet, True)  # type: ignore[no-untyped-call]
        request.write(b"")  # type: ignore[no-untyped-call]  # the head, before there is anything to tell
        producing: Deferred[None] = Deferred.fromCoroutine(_awaited(stream.produce(outlet)))
        self._running.add(producing)
        try:
            await producing
        except CancelledError:
            if self.running:
                raise
        finally:
            self._running.discard(producing)
            request.unregisterProducer()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[Any]:
        """End all of them."""
        super().stopService()  # type: ignore[no-untyped-call]
        running = list(self._running)
        ended = DeferredList([_over(each) for each in running])
        for each in running:
            each.cancel()
        return ended


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _over(work: Deferred[None]) -> Deferred[None]:
    over: Deferred[None] = Deferred()

    def ended(result: Any) -> Any:
        over.callback(None)
        return result

    work.addBoth(ended)
    return over
