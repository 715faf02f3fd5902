"""Connecting to an agent that takes no more connections: it is busy, not dead.

For a Unix socket whose queue is full the kernel says so at once.  For TCP there is no such
word: Linux lets whoever knocks at a full queue wait, and knocks again by itself; other systems
refuse, as they do where nobody listens.  What an address has done lately tells the difference.
This module knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionRefusedError, TimeoutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.errors import AgentUnreachable, CallFailed, Overloaded
from ploinky.interfaces import IAnswer, IMovable
from ploinky.values import Address

CONNECT_SECONDS = 5.0
"""In which a request gets a connection to an agent, however many instances are tried for it."""

_LEAST_SHARE = 0.1

_AGAIN_SECONDS = 0.02

_LATELY_SECONDS = 60.0
"""For so long an address that took a connection is taken to be alive when it lets others wait."""


@implementer(IStreamClientEndpoint)
class PatientEndpoint:
    """An agent's endpoint that tries again for as long as the agent is busy.

    Nothing has been sent by then, so that a further try repeats nothing.

    Args:
        endpoint: Makes one try.
        seconds: After which none is begun.
        is_busy: Tells whether a try that failed means so; else it is the last.
        took: Called when the agent has taken the connection.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        seconds: float,
        is_busy: Callable[[ConnectError], bool],
        took: Callable[[], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._seconds = seconds
        self._is_busy = is_busy
        self._took = took

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; see ``IStreamClientEndpoint.connect``.

        The Deferred fails with `Overloaded` where the agent stays busy.  Cancelling it gives up.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        ends = self._reactor.seconds() + self._seconds
        while True:
            try:
                made: IProtocol = await self._endpoint.connect(factory)
            except ConnectError as error:
                if not self._is_busy(error):
                    raise
            else:
                if self._took is not None:
                    self._took()
                return made
            if self._reactor.seconds() >= ends:
                raise Overloaded(
                    "the agent takes no more connections now",
                    retry_after_seconds=1,
                    got_nothing=True,
                )
            await deferLater(self._reactor, _AGAIN_SECONDS)


def share_of(seconds: float, answer: IAnswer) -> float:
    """Give how much of the time to connect one instance may take; see `IMovable`."""
    if IMovable.providedBy(answer):
        return seconds * max(1 / answer.candidates, _LEAST_SHARE)
    return seconds


def queue_is_full(error: ConnectError) -> bool:
    """Tell whether a Unix socket's queue of connections was full.

    That is EAGAIN, which Twisted takes for a connection that ended before it began.
    """
    return type(error) is ConnectError and error.osError is None


class Acquaintances:
    """Which TCP addresses are known to be alive, from what they did with connections.

    Args:
        seconds: Tells the time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._took: dict[Address, float] = {}  # the one of longest ago first

    def took(self, address: Address) -> None:
        """Note that an address took a connection."""
        now = self._seconds()
        self._took.pop(address, None)
        self._took[address] = now
        while self._took[first := next(iter(self._took))] < now - _LATELY_SECONDS:
            del self._took[first]

    def is_busy(self, address: Address, holds: bool, error: ConnectError) -> bool:
        """Tell whether an address that did not take a connection is alive nevertheless.

        One that refuses is, if it holds others: a process that ends closes all that it has.  One
        that lets wait is also if it took one lately; a machine that is gone does the same.

        Args:
            holds: It has connections of ours open.
        """
        if isinstance(error, ConnectionRefusedError):
            if not holds:
                self._took.pop(address, None)
            return holds
        if not isinstance(error, TimeoutError):
            return False
        took = self._took.get(address)
        return holds or (took is not None and self._seconds() - took < _LATELY_SECONDS)


def why_not_connected(failure: Failure) -> CallFailed:
    """Say why there is no connection to an agent."""
    error = failure.value
    if isinstance(error, CallFailed):
        return error
    return AgentUnreachable(
        f"no connection to the agent: {failure.getErrorMessage()}", got_nothing=True
    )


def unnameable(error: ValueError) -> CallFailed:
    """Say that an agent's socket lies where it cannot be named: its directory is gone."""
    return AgentUnreachable(f"the agent's socket cannot be named: {error}", got_nothing=True)
