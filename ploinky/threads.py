"""The one seam between the reactor and work that blocks.

Each blocking library (SQLAlchemy, GitPython, the Docker SDK) gets a pool of
its own, so that a slow clone never holds up a query.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Runs functions in a pool of threads; results come back as coroutines' values.

    Args:
        reactor: Where results are handed back.
        threads: Most threads at once.
        name: Of the pool, for thread names.

    The owner calls `start` before the first `run` and `stop` after the last.
    """

    def __init__(self, reactor: IReactorFromThreads, threads: int, name: str) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name=name)

    def start(self) -> None:
        """Begin to take work."""
        self._pool.start()

    def stop(self) -> None:
        """Wait for the work in hand and end the threads.  Blocks: bound the work itself."""
        self._pool.stop()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``work`` in a thread.

        Cancelling gives up the wait; the thread goes on until ``work`` returns, so ``work``
        must be bounded by a timeout of its own.
        """
        result: T = await deferToThreadPool(self._reactor, self._pool, work, *args, **kwargs)
        return result
