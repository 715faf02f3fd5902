"""A worker process: the data corridor behind one listening socket.

``python -m ploinky.worker``, started by the leader with the socket as descriptor 3 and its
configuration as JSON in ``PLOINKY_WORKER``.  It connects to the leader, gets a snapshot, begins to
accept, acknowledges; on SIGTERM it stops accepting, finishes what is in hand and exits 0.  What
keeps it from booting is one line on standard error and exit status 78.

This is a composition root: the only place that names the corridor's concrete classes.
"""

from __future__ import annotations

import gc
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger, globalLogBeginner
from zope.interface import implementer

from ploinky.errors import PloinkyError, WorkerCouldNotBoot
from ploinky.link import ICorridor, Identity, LeaderLink, Outbox
from ploinky.processgroup import COULD_NOT_BOOT, LISTENING_DESCRIPTOR
from ploinky.recurring import recurring
from ploinky.routing.access import AccessLog
from ploinky.routing.descriptors import Descriptors
from ploinky.routing.gateway import Gateway
from ploinky.routing.headers import TrustedProxies
from ploinky.routing.listening import GatewayFactory
from ploinky.routing.logins import Logins
from ploinky.routing.rates import LOGINS_FILE_NAME, SharedRates
from ploinky.routing.reactor import install
from ploinky.routing.spool import Spool
from ploinky.routing.streams import Outlet
from ploinky.routing.table import RouteTable
from ploinky.routing.upstream import Upstream
from ploinky.routing.wheel import Wheel
from ploinky.security.throttle import LoginThrottle
from ploinky.sockets import SocketPaths
from ploinky.task_values import DURABLE_PREFIX
from ploinky.tasks.file_transport import FileTransport
from ploinky.tasks.frame_transport import FrameTransport
from ploinky.tasks.http_transport import HttpTransport
from ploinky.tasks.inotify import Inotify
from ploinky.tasks.orchestrator import Orchestrator
from ploinky.telemetry.logs import ACCESS, SERVER, DailyFile, JsonLog, at_level
from ploinky.threads import Blocking
from ploinky.values import Route, RouteChange, RouteSnapshot, Wire

LINK_SOCKET = "link.sock"
"""In the run directory."""

LOAD = "load"
"""What the link calls the report of `Rooms.load`."""

STRANGERS = "strangers"
"""What it calls the report of `Rooms.strangers`."""

REPORT_SECONDS = 1.0

DRAIN_SECONDS = 28.0
"""To finish what is in hand; a little less than the leader waits."""


@frozen
class WorkerConfiguration:
    """What the leader tells a worker in ``PLOINKY_WORKER``.

    Attributes:
        slot: Its place, 0 to N-1.
        build: Of the leader's code and of all other fields.
        run_directory: Where ``link.sock`` and ``control.sock`` lie.
        log_directory: Where it writes its log.
        log_level: Least level that is logged.
        trusted_proxies: Addresses whose ``X-Forwarded-*`` fields are believed.
    """

    slot: int
    build: str
    run_directory: str
    log_directory: str
    log_level: str = "info"
    trusted_proxies: tuple[str, ...] = ()


@frozen
class Rooms:
    """The corridor's rooms, as `build_rooms` gives them.

    Attributes:
        router: Provides `IRouter`.
        orchestrator: An `Orchestrator`.
        gateway: A protocol factory with ``async def drain(seconds) -> int``, and ``expel()``,
            which cuts off what goes on for callers who may call no more.
        counts: Gives what was counted since the last call, as lines of JSON.
        load: Gives what is in flight now, as a line of JSON.
        strangers: Gives whom it refused since the last call, as lines of JSON.
        close: Ends what else was opened.
    """

    router: Any
    orchestrator: Any
    gateway: Any
    counts: Callable[[], bytes]
    load: Callable[[], bytes]
    strangers: Callable[[], bytes]
    close: Callable[[], None]


BuildRooms = Callable[[Any, WorkerConfiguration, SocketPaths], Rooms]


@implementer(ICorridor)
class Corridor:
    """The rooms behind one listening socket.

    Args:
        reactor: Listens.
        rooms: Serve.
        listening: Descriptor of the listening socket, or None; this object closes it.
        leave: Begins the end of the process.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, rooms: Rooms, listening: int | None, leave: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._rooms = rooms
        self._listening = listening
        self._leave = leave
        self._port: Any = None

    @property
    def generation(self) -> int:
        """See `ICorridor.generation`."""
        generation: int = self._rooms.router.generation
        return max(0, generation)

    def adopt(self, snapshot: RouteSnapshot) -> None:
        """See `ICorridor.adopt`."""
        self._turn_over(self._rooms.router.adopt(snapshot))
        if self._port is None and self._listening is not None:
            self._accept(self._listening)

    def amend(self, change: RouteChange) -> None:
        """See `ICorridor.amend`."""
        self._turn_over(self._rooms.router.amend(change))

    def _turn_over(self, left: Sequence[Route]) -> None:
        """Let go of what the routes that were in use kept up, and of who may call no more."""
        self._rooms.orchestrator.adopt(left, self._rooms.router)
        self._rooms.gateway.expel()

    async def drained(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """See `ICorridor.drained`."""
        left: int = await self._rooms.orchestrator.drained(instances, timeout_seconds)
        return left

    def listening(self) -> int | None:
        """See `ICorridor.listening`."""
        return self._listening

    def stop(self) -> None:
        """See `ICorridor.stop`."""
        self._leave()

    async def drain(self, seconds: float) -> None:
        """Stop accepting; fires when nothing is in hand, or after `seconds`."""
        listening, self._listening = self._listening, None
        if self._port is not None:
            await self._port.stopListening()
        if listening is not None:
            os.close(listening)
        left = await self._rooms.gateway.drain(seconds)
        if left:
            self.log.warn(
                "{left} requests were cut off after {seconds} s", left=left, seconds=seconds
            )
        self._rooms.close()

    def _accept(self, listening: int) -> None:
        with socket.socket(fileno=os.dup(listening)) as given:
            family = given.family
            if family != socket.AF_UNIX:  # what it accepts has this from it
                given.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = self._reactor.adoptStreamPort(listening, family, self._rooms.gateway)
        # What was built so far stays for life: the collector need not look at it again.
        gc.collect()
        gc.freeze()


def build_rooms(reactor: Any, configuration: WorkerConfiguration, paths: SocketPaths) -> Rooms:
    """Put the data corridor together."""
    access_file = DailyFile(time.time, Path(configuration.log_directory), ACCESS)
    access_log = AccessLog(reactor, time.time, access_file.append)
    router = RouteTable(time.time)
    orchestrator = Orchestrator(reactor)
    wheel = Wheel(reactor)
    descriptors = Descriptors.of_this_process()
    upstream = Upstream(reactor, wheel, paths, descriptors=descriptors)
    files = FileTransport(reactor, Inotify(reactor))
    files.startService()
    http = HttpTransport(upstream)
    frames = FrameTransport(reactor, paths, Outlet, http)
    id_prefix = f"{configuration.slot:x}{secrets.token_hex(4)}"
    deleting = Blocking(reactor, 1, "deleting uploads")
    deleting.start()
    spool = Spool(deleting, configuration.run_directory, id_prefix)
    spool.open()
    run_directory = Path(configuration.run_directory)
    rates = SharedRates(run_directory, time.monotonic_ns)
    login_rates = SharedRates(run_directory, time.monotonic_ns, LOGINS_FILE_NAME)
    trusted = TrustedProxies(configuration.trusted_proxies)
    logins = Logins(time.time, router, trusted, LoginThrottle(login_rates))
    gateway = Gateway(
        reactor,
        time.time,
        wheel,
        router,
        orchestrator,
        {Wire.HTTP: http, Wire.FILE: files, Wire.FRAMES: frames},
        upstream,
        access_log,
        spool,
        rates,
        logins,
        id_prefix,
        trusted,
        new_task=lambda: DURABLE_PREFIX + secrets.token_hex(16),
    )

    def counts() -> bytes:
        return b"".join(msgspec.json.encode(entry) + b"\n" for entry in access_log.drain())

    def load() -> bytes:
        return msgspec.json.encode(orchestrator.load()) + b"\n"

    def close() -> None:
        files.stopService()
        frames.close()
        upstream.close()
        deleting.stop()
        spool.close()
        rates.close()
        login_rates.close()
        access_log.flush()
        access_file.close()

    factory = GatewayFactory(gateway, descriptors)
    return Rooms(router, orchestrator, factory, counts, load, logins.drain, close)


def run(build_rooms: BuildRooms) -> None:
    """Run a worker in this process until it is told to stop.

    Args:
        build_rooms: Gives the rooms; called after the reactor was chosen.
    """
    try:
        with suppress(PermissionError):  # a shell has made it one already
            os.setsid()
        configuration = msgspec.json.decode(os.environ["PLOINKY_WORKER"], type=WorkerConfiguration)
        start = _prepare(configuration, build_rooms)
    except Exception as error:  # a child's exit: the leader reads the reason
        reason = error.message if isinstance(error, PloinkyError) else repr(error)
        print(reason, file=sys.stderr, flush=True)
        sys.exit(COULD_NOT_BOOT)
    start()


def _prepare(configuration: WorkerConfiguration, build_rooms: BuildRooms) -> Callable[[], None]:
    """Compose the worker; give what runs it."""
    reactor = install()
    _begin_log(configuration)
    _require_listening(LISTENING_DESCRIPTOR)
    paths = SocketPaths(configuration.run_directory)

    def leave() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    rooms = build_rooms(reactor, configuration, paths)
    corridor = Corridor(reactor, rooms, LISTENING_DESCRIPTOR, leave)
    identity = Identity(configuration.slot, os.getpid(), configuration.build)
    endpoint = UNIXClientEndpoint(
        reactor, paths.usable(os.path.join(configuration.run_directory, LINK_SOCKET))
    )
    outbox = Outbox(f"{configuration.slot}-{secrets.token_hex(8)}", rooms.counts)
    link = LeaderLink(reactor, endpoint, identity, corridor, outbox)

    def report() -> None:
        rooms.gateway.expel()
        link.count()
        link.report(LOAD, rooms.load())
        report_strangers()

    def report_strangers() -> None:
        if link.connected:  # else they are kept, as far as there is room
            link.report(STRANGERS, rooms.strangers())

    reporting = recurring(reactor, "reporting to the leader", report)

    def begin() -> None:
        link.startService()
        reporting.start(REPORT_SECONDS, now=False)

    async def end() -> None:
        # The link stays to the last: without it the leader would end this process at once.
        await corridor.drain(DRAIN_SECONDS)
        reporting.stop()
        report_strangers()
        await link.settle()
        await link.stopService()

    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(end()))
    return reactor.run


def _begin_log(configuration: WorkerConfiguration) -> None:
    file = DailyFile(time.time, Path(configuration.log_directory), SERVER)
    log = at_level(JsonLog(file, f"worker-{configuration.slot}"), configuration.log_level)
    globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False)


def _require_listening(descriptor: int) -> None:
    """Check what the leader handed over.

    Raises:
        WorkerCouldNotBoot: It is not a listening socket.
    """
    try:
        with socket.socket(fileno=os.dup(descriptor)) as given:
            listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listens = 0
    if not listens:
        raise WorkerCouldNotBoot(
            f"descriptor {descriptor} is not a listening socket: workers are started by "
            "`twistd ploinky` or `p-cli cloud start`"
        )


if __name__ == "__main__":
    run(build_rooms)
