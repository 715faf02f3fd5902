"""Connecting to a Unix socket whose queue of connections is full: its owner is busy, not dead.

The kernel refuses at once what TCP would try again by itself.  This module knows no HTTP.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.errors import AgentUnreachable, CallFailed, Overloaded

_AGAIN_SECONDS = 0.02


@implementer(IStreamClientEndpoint)
class PatientUnixEndpoint:
    """A Unix socket's endpoint that tries again for as long as the socket's queue is full.

    Args:
        path: Of the socket.
        seconds: For which it is tried.
    """

    def __init__(self, reactor: Any, path: str, seconds: float) -> None:
        self._reactor = reactor
        self._endpoint = UNIXClientEndpoint(reactor, path, seconds)
        self._seconds = seconds

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; see ``IStreamClientEndpoint.connect``.

        The Deferred fails with `Overloaded` where the queue stays full.  Cancelling it gives up.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        ends = self._reactor.seconds() + self._seconds
        while True:
            try:
                made: IProtocol = await self._endpoint.connect(factory)
            except ConnectError as error:
                # EAGAIN: Twisted takes it for a connection that ended before it began.
                if type(error) is not ConnectError or error.osError is not None:
                    raise
            else:
                return made
            if self._reactor.seconds() >= ends:
                raise Overloaded("the agent takes no more connections now", retry_after_seconds=1)
            await deferLater(self._reactor, _AGAIN_SECONDS)


def why_not_connected(failure: Failure) -> CallFailed:
    """Say why there is no connection to an agent."""
    error = failure.value
    if isinstance(error, CallFailed):
        return error
    return AgentUnreachable(f"no connection to the agent: {failure.getErrorMessage()}")
