"""Processes that this server started, or an earlier one did, watched by descriptor.

An agent outlives the leader that started it, and is then nobody's child here; a pid
descriptor (pidfd_open(2)) tells of its end all the same, and a signal sent through it never
hits a stranger who got the number later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

READ_BYTES = 64 * 1024
KILL_SECONDS = 5.0
"""How long a process may take to be gone after SIGKILL, before we stop waiting for it."""


class FDReactor(IReactorFDSet, IReactorTime):
    """What watching a process needs of a reactor."""


@implementer(IReadDescriptor)
class WatchedProcess:
    """One process; its end is told once.

    Args:
        pid: It must not have been reaped yet, or not be a child of this process.
        child: Where it is a child: what reaps it and knows its exit code.

    Raises:
        ProcessLookupError: It is gone already.
    """

    def __init__(
        self, reactor: FDReactor, pid: int, child: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.pid = pid
        self.running = True
        self.exit_code: int | None = None
        self._reactor = reactor
        self._child = child
        self._waiting: list[Deferred[None]] = []
        self._told: list[Callable[[], None]] = []
        self._descriptor = os.pidfd_open(pid)
        reactor.addReader(self)

    def when_ended(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` once when it has ended; at once if it has."""
        if self.running:
            self._told.append(tell)
        else:
            tell()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended is no error."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    async def ended(self) -> None:
        """Wait until it has ended."""
        if not self.running:
            return
        wait: Deferred[None] = Deferred()
        self._waiting.append(wait)
        try:
            await wait
        except CancelledError:
            if wait in self._waiting:
                self._waiting.remove(wait)
            raise

    async def ends_within(self, seconds: float) -> bool:
        """Wait at most so long for its end; tell whether it came."""
        if self.running and seconds > 0:
            ending = Deferred.fromCoroutine(self.ended())
            timer = deferLater(self._reactor, seconds, ending.cancel)
            timer.addErrback(lambda failure: failure.trap(CancelledError))
            try:
                await ending
            except CancelledError:
                if not timer.called:
                    raise
            finally:
                timer.cancel()
        return not self.running

    def forget(self) -> None:
        """Watch it no further; it runs on."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    # --- IReadDescriptor

    def fileno(self) -> int:
        """The pid descriptor: readable once the process has ended."""
        return self._descriptor

    def doRead(self) -> None:
        """It has ended."""
        self.running = False
        if self._child is not None:
            status = self._child.poll()
            self.exit_code = None if status is None else status if status >= 0 else 128 - status
        self.forget()
        waiting, self._waiting = self._waiting, []
        told, self._told = self._told, []
        for wait in waiting:
            wait.callback(None)
        for tell in told:
            tell()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor takes its readers away when it stops."""

    def logPrefix(self) -> str:
        """For Twisted's log context."""
        return f"process {self.pid}"


@implementer(IReadDescriptor)
class OutputPipe:
    """The end of a pipe that a program prints into."""

    def __init__(self, reactor: FDReactor, descriptor: int, take: Callable[[bytes], None]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._take = take
        reactor.addReader(self)

    def fileno(self) -> int:
        """Ours."""
        return self._descriptor

    def doRead(self) -> None:
        """Take what is there; at its end, close."""
        try:
            chunk = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if chunk:
            self._take(chunk)
        else:
            self._close()

    def drain(self) -> None:
        """Take what is left, after the program has ended, and close."""
        while self._descriptor >= 0:
            try:
                chunk = os.read(self._descriptor, READ_BYTES)
            except BlockingIOError:
                chunk = b""
            if chunk:
                self._take(chunk)
            else:
                self._close()

    def _close(self) -> None:
        self._reactor.removeReader(self)
        os.close(self._descriptor)
        self._descriptor = -1

    def connectionLost(self, reason: Failure) -> None:
        """The reactor takes its readers away when it stops."""

    def logPrefix(self) -> str:
        """For Twisted's log context."""
        return "output of a command"


def spawn(
    reactor: FDReactor,
    argv: Sequence[str],
    environment: Mapping[str, str],
    directory: str,
    output: Any,
) -> WatchedProcess:
    """Start a program in a session of its own, with nothing of ours but its output.

    Args:
        output: Descriptor or file for standard output and error.

    Raises:
        OSError: There is no such program, or no such directory.
    """
    child = subprocess.Popen(
        list(argv),
        env=dict(environment),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return WatchedProcess(reactor, child.pid, child)


async def end(process: WatchedProcess, grace_seconds: float) -> None:
    """SIGTERM, then SIGKILL after the grace; fires when it has ended."""
    if grace_seconds > 0:
        process.signal(signal.SIGTERM)
        if await process.ends_within(grace_seconds):
            return
    process.signal(signal.SIGKILL)
    await process.ends_within(KILL_SECONDS)
