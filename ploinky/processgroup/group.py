"""The leader's workers: opened, started, adopted, replaced, ended.

Settings and a link enter; a port that answers leaves.  It must not know what workers serve.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    FirstError,
    TimeoutError,
    gatherResults,
    succeed,
)
from twisted.internet.error import ConnectionClosed
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.errors import WorkerCouldNotBoot
from ploinky.link import IWorkerSlots, NotListening, WorkerLink, WorkerLinks
from ploinky.processgroup.listeners import join_listeners, open_listeners, resolved
from ploinky.processgroup.processes import AdoptedProcess, ChildProcess, Exit, Exited, spawn
from ploinky.processgroup.records import WorkerRecords
from ploinky.processgroup.slot import Slot
from ploinky.recurring import recurring

RECONNECT_SECONDS = 5.0
"""For workers that outlived their leader; they try several times as often."""

CHECK_SECONDS = 10.0
"""Between looks whether every worker's loop turns."""


@frozen
class WorkerCommand:
    """How a worker is started.

    Attributes:
        argv: Program and arguments.
        environment: Of the process.
        configuration: Goes into the variable ``PLOINKY_WORKER`` as JSON, with its slot.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    configuration: Mapping[str, Any]


@frozen
class Place:
    """A listening socket and the slot whose worker serves it.

    Attributes:
        adopted: The worker of an earlier leader that it was made for, if any.
        outdated: That one was started by other code or with another configuration.
    """

    listener: socket.socket
    slot: Slot
    adopted: AdoptedProcess | None = None
    outdated: bool = False

    def is_as_found(self) -> bool:
        """Tell whether the worker of an earlier leader still holds it."""
        found = self.adopted
        return bool(found and found.pid == self.slot.pid and self.slot.state == "serving")


@implementer(IWorkerSlots)
class ProcessGroup(Service):
    """All workers of one leader: `open`, then `start`, and `stopService` at the end.

    Args:
        reactor: Starts processes, watches pidfds, keeps time.
        links: Hears from the workers; listens before `open`.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        workers: How many.
        command: Starts one.
        records: Of this leader and the ones before it.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        links: WorkerLinks,
        host: str,
        port: int,
        workers: int,
        command: WorkerCommand,
        records: WorkerRecords,
    ) -> None:
        self._reactor = reactor
        self._links = links
        self._host = host
        self._wanted_port = port
        self._workers = workers
        self._command = command
        self._records = records
        self._places: list[Place] = []
        self._beside: list[Slot] = []
        self._arrivals: _Arrivals | None = None
        self._checks = recurring(reactor, "looking after the workers", links.check)
        self.port = 0
        links.watch(self)

    # --- life ----------------------------------------------------------------

    async def open(self) -> None:
        """Take over workers that outlived an earlier leader, and listen where they do not.

        `port` is the real one afterwards.  Connections wait until `start`, except where
        workers were taken over.

        Raises:
            PortInUse, SettingsInvalid: The port cannot be listened on.
        """
        for link in await self._outlived():
            await self._take_over(link)
        taken = {place.slot.number for place in self._places}
        missing = [number for number in range(self._workers) if number not in taken]
        if self._places:
            listeners = join_listeners(self._places[0].listener, len(missing))
        else:
            listeners = open_listeners(self._host, self._wanted_port, self._workers)
        for number, listener in zip(missing, listeners, strict=True):
            self._places.append(Place(listener, self._slot(number, listener)))
        self._places.sort(key=lambda place: place.slot.number)
        self.port = self._places[0].listener.getsockname()[1]

    async def start(self) -> None:
        """Start the workers that are missing, replace the outdated; fires when all serve.

        The links must have been given a snapshot before.

        Raises:
            WorkerCouldNotBoot: One never will; the others are left to `stopService`.
        """
        self.startService()
        new = [place.slot.start() for place in self._places if place.slot.state == "idle"]
        try:
            await gatherResults(new, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        for place in [place for place in self._places if place.outdated]:
            await self._replace(place)

    async def reload(self) -> None:
        """Replace every worker by a new one, one after the other; no request notices.

        Raises:
            WorkerCouldNotBoot: A new one would not serve; those not replaced yet serve on.
        """
        for place in list(self._places):
            await self._replace(place)

    def startService(self) -> None:
        """Begin to look after the workers; `start` does it."""
        super().startService()  # type: ignore[no-untyped-call]
        self._checks.start(CHECK_SECONDS, now=False)

    def stopService(self) -> Deferred[None]:
        """Stop accepting and end every worker; fires when all have ended.

        New clients are refused at once: nobody would serve them from the sockets' queues.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._checks.running:
            self._checks.stop()
        ended = [slot.stop() for slot in self._slots()]
        for place in self._places:
            place.listener.close()
        return DeferredList(ended).addCallback(lambda _: None)

    async def leave(self) -> None:
        """End what this leader started, and leave those it took over to the next one.

        For a leader that could not start: what served before it came goes on serving.
        """
        for place in self._places:
            if place.adopted and place.is_as_found():
                place.adopted.forget()
                place.listener.close()
        self._places = [place for place in self._places if not place.is_as_found()]
        await self.stopService()

    # --- IWorkerSlots --------------------------------------------------------

    def joined(self, link: WorkerLink) -> None:
        """See `IWorkerSlots.joined`."""
        if self._held_by(link.pid):
            return
        if self._arrivals:
            self._arrivals.add(link)
        else:
            self.log.warn("worker {pid} belongs to nobody: it is stopped", pid=link.pid)
            link.stop()

    def serving(self, pid: int) -> None:
        """See `IWorkerSlots.serving`."""
        if slot := self._held_by(pid):
            slot.serves()

    def stalled(self, pid: int) -> None:
        """See `IWorkerSlots.stalled`."""
        if slot := self._held_by(pid):
            slot.unfit()

    def left(self, pid: int) -> None:
        """See `IWorkerSlots.left`.  Without a link its table grows stale, so it must not go on."""
        self.stalled(pid)

    def describe(self) -> list[dict[str, Any]]:
        """See `IWorkerSlots.describe`."""
        return [place.slot.describe() for place in self._places]

    # --- within --------------------------------------------------------------

    def _slots(self) -> list[Slot]:
        return [*(place.slot for place in self._places), *self._beside]

    def _held_by(self, pid: int) -> Slot | None:
        return next((slot for slot in self._slots() if slot.pid == pid), None)

    def _slot(self, number: int, listener: socket.socket) -> Slot:
        configuration = {**self._command.configuration, "slot": number}
        environment = {**self._command.environment, "PLOINKY_WORKER": json.dumps(configuration)}

        def launch(exited: Exited) -> ChildProcess:
            def ended(exit: Exit) -> None:
                self._records.remove(number, child.pid)
                exited(exit)

            child = spawn(self._reactor, self._command.argv, environment, listener.fileno(), ended)
            self._records.write(number, child.pid)
            return child

        return Slot(self._reactor, number, launch)

    async def _replace(self, place: Place) -> None:
        """Start a new worker beside the old one, on the same socket; then end the old one."""
        new = self._slot(place.slot.number, place.listener)
        self._beside.append(new)
        try:
            await new.start()
        except (WorkerCouldNotBoot, CancelledError):
            await new.stop()
            raise
        finally:
            self._beside.remove(new)
        self._places[self._places.index(place)] = Place(place.listener, new)
        self._beside.append(place.slot)
        await place.slot.stop()
        self._beside.remove(place.slot)

    async def _outlived(self) -> list[WorkerLink]:
        """Wait for the workers of an earlier leader; those that stay away are killed."""
        self._arrivals = _Arrivals({survivor.pid for survivor in self._records.survivors()})
        try:
            await self._arrivals.complete().addTimeout(RECONNECT_SECONDS, self._reactor)
        except TimeoutError:
            for survivor in self._records.survivors():
                if survivor.pid not in self._arrivals.links:
                    await self._kill(survivor.pid)
        links, self._arrivals = list(self._arrivals.links.values()), None
        return sorted(links, key=self._is_outdated)

    async def _take_over(self, link: WorkerLink) -> None:
        """Make a slot for a worker that serves already, around its own socket."""
        assert link.identity is not None
        try:
            asked = Deferred.fromCoroutine(link.hand_back())
            listener = socket.socket(
                fileno=await asked.addTimeout(RECONNECT_SECONDS, self._reactor)
            )
        except (NotListening, ConnectionClosed):
            link.stop()
            return
        except TimeoutError:
            await self._kill(link.pid)
            return
        number = link.identity.slot
        if any(place.slot.number == number for place in self._places) or not self._fits(listener):
            listener.close()
            link.stop()
            return
        slot = self._slot(number, listener)

        def ended(exit: Exit) -> None:
            self._records.remove(number, link.pid)
            slot.exited(exit)

        try:
            adopted = AdoptedProcess(self._reactor, link.pid, ended)
        except ProcessLookupError:  # it died just now: `start` starts another
            self._places.append(Place(listener, slot))
            return
        slot.adopt(adopted)
        self._places.append(Place(listener, slot, adopted, self._is_outdated(link)))
        self.log.info("worker {slot} taken over: {pid}", slot=number, pid=link.pid)

    def _is_outdated(self, link: WorkerLink) -> bool:
        return link.identity is None or link.identity.build != self._links.build

    def _fits(self, listener: socket.socket) -> bool:
        """Tell whether a socket listens where the settings say."""
        _, wanted = resolved(self._host, self._wanted_port)
        host, port = listener.getsockname()[:2]
        return bool(host == wanted[0] and self._wanted_port in (0, port))

    async def _kill(self, pid: int) -> None:
        """End a worker that does not answer, and with it its hold on the port."""
        self.log.warn("worker {pid} outlived its leader and does not answer: killed", pid=pid)
        ended: Deferred[None] = Deferred()
        with suppress(ProcessLookupError):
            process = AdoptedProcess(self._reactor, pid, lambda exit: ended.callback(None))
            process.signal(signal.SIGKILL)
            await ended


class _Arrivals:
    """The workers of an earlier leader, as they come back.

    Args:
        expected: Their pids, as far as they are known.
    """

    def __init__(self, expected: set[int]) -> None:
        self._missing = expected
        self._complete: Deferred[None] | None = None
        self.links: dict[int, WorkerLink] = {}

    def add(self, link: WorkerLink) -> None:
        """One has come back."""
        self.links[link.pid] = link
        self._missing.discard(link.pid)
        if self._complete and not self._missing:
            complete, self._complete = self._complete, None
            complete.callback(None)

    def complete(self) -> Deferred[None]:
        """Fires when none is missing."""
        if not self._missing:
            return succeed(None)
        self._complete = Deferred()
        return self._complete
