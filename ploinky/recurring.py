"""Work that comes again and again, whatever becomes of one turn of it.

A ``LoopingCall`` ends for good with the first turn that breaks.  What looks after others must not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()


def recurring(clock: IReactorTime, what: str, work: Callable[[], Any]) -> LoopingCall:
    """Give what does something again and again, once it is started, until it is stopped.

    Args:
        what: Said in the log of a turn that breaks; the next one comes as ever.
        work: One turn; may give a Deferred or a coroutine.
    """

    def turn() -> Deferred[Any]:
        return maybeDeferred(work).addErrback(broke)

    def broke(failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            _log.failure("{what} broke, and is tried again", failure, what=what)

    loop = LoopingCall(turn)
    loop.clock = clock
    return loop
