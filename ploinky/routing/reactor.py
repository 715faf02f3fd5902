"""The epoll reactor with a short way from an event to whoever reads.

A worker's root installs it; importing this module installs nothing.  The stock
reactor enters a log context for each descriptor that is ready and asks it whether
it still is one, which costs a quarter of a short request.
"""

from __future__ import annotations

import errno
from select import EPOLLIN, EPOLLOUT

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log

_PLAIN = EPOLLIN | EPOLLOUT


class PlainDispatchReactor(EPollReactor):
    """Twisted's ``EPollReactor``, less what stands between an event and a plain read or write.

    Hang-ups and errors go the stock way.  What raises is logged and loses its connection, as ever.
    """

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events, at most ``timeout`` seconds (None: as long as it takes)."""
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        selectables = self._selectables
        for descriptor, event in events:
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue  # an event before this one ended it
            if event == EPOLLIN:
                try:
                    why = selectable.doRead()
                except BaseException as error:
                    why = error
                    log.err()
                if why:
                    self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]
            elif event & ~_PLAIN:
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, descriptor, event)
            else:
                self._doReadOrWrite(selectable, descriptor, event)  # type: ignore[no-untyped-call]

    doIteration = doPoll


def install() -> PlainDispatchReactor:
    """Make it the process's reactor; before anything imports ``twisted.internet.reactor``."""
    reactor = PlainDispatchReactor()  # type: ignore[no-untyped-call]
    installReactor(reactor)
    return reactor
