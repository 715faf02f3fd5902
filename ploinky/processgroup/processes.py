"""Worker processes as the slots see them: a pid, a signal, one word when it is over.

Two kinds: children of this leader, and those that outlived an earlier one.  The latter are not
our children, so a pidfd tells of their end; how they ended is then unknown.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IReactorFDSet, IReactorProcess, IReadDescriptor
from twisted.internet.protocol import ProcessProtocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

COULD_NOT_BOOT = 78
"""Exit status of a worker that would fail the same way again (sysexits.h, EX_CONFIG)."""

LISTENING_DESCRIPTOR = 3
"""Where a worker finds its listening socket."""

OUTPUT_BYTES = 8192
"""Of a worker's last standard error that are kept."""


@frozen
class Exit:
    """How a worker process ended.

    Attributes:
        status: Exit status; None where a signal ended it or nobody knows.
        signal: Name such as ``SIGKILL``; ``""`` where none did.
        output: The last of its standard error.
    """

    status: int | None = None
    signal: str = ""
    output: str = ""

    def __str__(self) -> str:
        how = self.signal or ("unknown" if self.status is None else f"exit status {self.status}")
        return f"{how}: {self.output}" if self.output else how


Exited = Callable[[Exit], None]


class IWorkerProcess(Interface):
    """One process that runs or ran a worker."""

    pid: int = Attribute("Its process id.")

    def signal(number: int) -> None:
        """Send a signal; nothing happens if it has ended."""


@implementer(IWorkerProcess)
class ChildProcess(ProcessProtocol):
    """A worker that this leader started.

    Args:
        exited: Called once, when it has ended and its output was read.
    """

    def __init__(self, exited: Exited) -> None:
        self._exited = exited
        self._output = bytearray()

    @property
    def pid(self) -> int:
        """See `IWorkerProcess.pid`."""
        return self._pid

    def connectionMade(self) -> None:
        """Remember the pid, which the transport forgets."""
        process: Any = self.transport
        self._pid: int = process.pid

    def errReceived(self, data: bytes) -> None:
        """Keep the last of it."""
        self._output += data
        del self._output[:-OUTPUT_BYTES]

    def processEnded(self, reason: Failure = connectionDone) -> None:
        """Say how it ended."""
        output = self._output.decode("utf-8", "replace").strip()
        if reason.check(ProcessDone):
            self._exited(Exit(0, "", output))
            return
        ended: Any = reason.value
        name = signal.Signals(ended.signal).name if ended.signal else ""
        self._exited(Exit(ended.exitCode, name, output))

    def signal(self, number: int) -> None:
        """See `IWorkerProcess.signal`."""
        process: Any = self.transport
        with suppress(ProcessExitedAlready):
            process.signalProcess(number)


@implementer(IWorkerProcess, IReadDescriptor)
class AdoptedProcess:
    """A worker that an earlier leader started.  Source: pidfd_open(2).

    Args:
        pid: Of a process that runs now.
        exited: Called once, from the reactor, when it has ended.

    Raises:
        ProcessLookupError: It does not run.
    """

    def __init__(self, reactor: IReactorFDSet, pid: int, exited: Exited) -> None:
        self._reactor = reactor
        self.pid = pid
        self._exited = exited
        self._descriptor = os.pidfd_open(pid)
        reactor.addReader(self)

    def fileno(self) -> int:
        """The pidfd: readable once the process has ended."""
        return self._descriptor

    def doRead(self) -> None:
        """It has ended."""
        self.forget()
        self._exited(Exit())

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gave up on the descriptor."""
        self.forget()

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "worker"

    def signal(self, number: int) -> None:
        """See `IWorkerProcess.signal`."""
        if self._descriptor >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def forget(self) -> None:
        """Watch it no longer."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(descriptor)


def spawn(
    reactor: IReactorProcess,
    command: Sequence[str],
    environment: Mapping[str, str],
    listening: int,
    exited: Exited,
) -> ChildProcess:
    """Start a worker with a listening socket.

    Args:
        listening: Descriptor of the socket; it stays the caller's.
    """
    child = ChildProcess(exited)
    with open(os.devnull, "r+b") as null:
        reactor.spawnProcess(
            child,
            command[0],
            list(command),
            env=dict(environment),
            path="/",  # nothing in the leader's directory may stand in for a module
            childFDs={0: null.fileno(), 1: null.fileno(), 2: "r", LISTENING_DESCRIPTOR: listening},
        )
    return child
