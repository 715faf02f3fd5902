"""Who has hung up while nothing is read from it, as the agent is slower than its client.

A reactor watches what it reads or writes, and a connection that is paused is neither: its end
would show only when the agent moves.  The kernel tells of it unasked to whoever waits for
anything else there (epoll(7), ``EPOLLRDHUP``).  This module knows no HTTP.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.routing.streams import is_plain

_GONE = select.EPOLLHUP | select.EPOLLERR


@implementer(IReadDescriptor)
class HangUps:
    """Watches paused connections of one reactor; while there are none, it holds nothing open."""

    def __init__(self) -> None:
        self._told: dict[int, Callable[[], None]] = {}
        self._poll: select.epoll | None = None
        self._reactor: Any = None

    def watch(self, transport: Any, hung_up: Callable[[], None]) -> int:
        """Watch a connection that is being paused.

        Args:
            hung_up: Called from the reactor when the other side sends nothing more, and when it
                has gone.  What it had sent before may still be unread.

        Returns:
            What `forget` needs, before the connection is resumed or once it is lost; -1 where
            there is nothing to watch, as with the transports of tests.
        """
        if not isinstance(transport, tcp.Connection) or not is_plain(transport):
            return -1
        if self._poll is None:
            self._poll = select.epoll()
            self._reactor = transport.reactor
            self._reactor.addReader(self)
        number: int = transport.fileno()
        self._told[number] = hung_up
        # Once each: they are states that last, and would be told in each turn.
        self._poll.register(number, select.EPOLLRDHUP | select.EPOLLONESHOT)
        return number

    def forget(self, number: int) -> None:
        """Watch a connection no longer; a second call, or one for -1, does nothing."""
        if self._told.pop(number, None) is None or self._poll is None:
            return
        with contextlib.suppress(OSError):  # closed by now
            self._poll.unregister(number)
        if not self._told:
            self._reactor.removeReader(self)
            self._poll.close()
            self._poll = None

    def fileno(self) -> int:
        """Give the descriptor that is readable when somebody hung up; Twisted calls this."""
        return -1 if self._poll is None else self._poll.fileno()

    def doRead(self) -> None:
        """Tell of each that hung up; Twisted calls this."""
        if self._poll is None:
            return
        for number, event in self._poll.poll(0):
            told = self._told.get(number)
            if told is None or self._poll is None:
                continue  # an event before this one ended it
            if not event & _GONE:
                self._poll.modify(number, select.EPOLLONESHOT)  # that it has gone is told unasked
            told()

    def connectionLost(self, reason: Failure) -> None:
        """Let go of everything: the reactor, which calls this, stops."""
        for number in list(self._told):
            self.forget(number)

    def logPrefix(self) -> str:
        """Name this in the reactor's log."""
        return "hang-ups"
