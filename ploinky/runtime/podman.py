"""Podman: where its API socket is found, and its API service where nothing listens yet."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ploinky.deploy_errors import EngineUnavailable
from ploinky.interfaces import IRuntime
from ploinky.runtime import children, facts
from ploinky.runtime.assembly import assembled, first_of
from ploinky.runtime.facts import Connection, EngineFacts
from ploinky.sockets import LONGEST_SOCKET_PATH
from ploinky.threads import Blocking

TITLE = "Podman"
SOCKET_NAME = "podman.sock"
CHECK_SECONDS = 15.0
BOOT_SECONDS = 15.0
BOOT_POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0
RESTART_SECONDS = 1.0


def connections(environment: Mapping[str, str], uid: int) -> list[Connection]:
    """Give the places where Podman's API may answer; a variable that names one rules others out.

    Source: podman-system-service(1), podman(1) on ``CONTAINER_HOST``.
    """
    for name in ("PODMAN_SOCK", "CONTAINER_HOST"):
        given = environment.get(name, "")
        if given:
            return [Connection(given if "://" in given else f"unix://{given}")]
    if uid == 0:
        return [Connection("unix:///run/podman/podman.sock")]
    runtime_directory = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    return [Connection(f"unix://{runtime_directory}/podman/podman.sock")]


def _wanted(found: EngineFacts) -> bool:
    return found.podman


def _named(environment: Mapping[str, str]) -> bool:
    return bool(environment.get("PODMAN_SOCK") or environment.get("CONTAINER_HOST"))


def check_program(environment: Mapping[str, str]) -> str:
    """Find out whether the program `podman` works here.  Blocking.

    Returns:
        ``""`` if it does, else why not.
    """
    program = shutil.which("podman", path=environment.get("PATH"))
    if program is None:
        return "the program podman is not installed"
    try:
        done = subprocess.run(
            [program, "info", "--format", "{{.Host.OS}}"],
            env=dict(environment),
            capture_output=True,
            timeout=CHECK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"podman info: {error}"
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return f"podman info failed: {said[-1]}"


async def available(reactor: Any) -> str:
    """See `IRuntimeFactory`."""
    found, reasons = await first_of(
        reactor, connections(os.environ, os.getuid()), _wanted, facts.ask
    )
    if found is not None:
        return ""
    if _named(os.environ):
        return f"{'; '.join(reasons)}. See that it listens there, or unset the variable."
    checking = Blocking(reactor, 1, "podman-check")
    checking.start()
    try:
        problem = await checking.run(check_program, os.environ)
    finally:
        checking.stop()
    if not problem:
        return ""
    return f"{'; '.join(reasons)}, and {problem}. Install podman, or choose docker or process."


async def create(reactor: Any, settings: Any) -> IRuntime:
    """See `IRuntimeFactory`.  What comes back is an ``IService`` too.

    Where no socket answers, ``podman system service`` is started as a child, which the
    returned runtime owns.
    """
    found, reasons = await first_of(
        reactor, connections(os.environ, os.getuid()), _wanted, facts.ask
    )
    if found is not None:
        return assembled(reactor, TITLE, found, Path(settings.data_directory))
    if _named(os.environ):
        raise EngineUnavailable(f"Podman: {'; '.join(reasons)}.")
    service = PodmanService(reactor, Path(settings.run_directory), os.environ)
    await service.boot()
    return assembled(
        reactor, TITLE, service.connection, Path(settings.data_directory), companion=service
    )


class PodmanService(Service):
    """``podman system service`` as a child of ours; containers do not depend on it.

    It is ended with this service.  One that a leader left when it was killed is taken over.

    Args:
        directory: Where its socket and its output go.
        environment: Podman's own, but for what is this server's: it finds its storage by it.
    """

    _log = Logger()

    def __init__(self, reactor: Any, directory: Path, environment: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._directory = directory
        # systemd's socket would otherwise be handed on into every container; and what is meant
        # for this server, its master key first of all, is nothing for what runs beside it.
        self._environment = {
            name: value
            for name, value in environment.items()
            if name != "NOTIFY_SOCKET" and not name.startswith("PLOINKY_")
        }
        self._socket = _short(directory / SOCKET_NAME)
        self._process: children.WatchedProcess | None = None
        self._restart: IDelayedCall | None = None
        self._wanted = True

    @property
    def connection(self) -> Connection:
        """Where it listens."""
        return Connection(f"unix://{self._socket}")

    @property
    def pid(self) -> int:
        """Of the child; 0 while there is none."""
        return self._process.pid if self._process is not None and self._process.running else 0

    async def boot(self) -> None:
        """Start it, or take over the one that is there; fires when it listens.

        Cancelling ends it again.

        Raises:
            EngineUnavailable: It ended, or does not listen in time.
        """
        pid = _listener(self._socket)
        if pid:
            self._watch(children.WatchedProcess(self._reactor, pid))
            return
        try:
            self._spawn()
            await self._until_it_listens()
        except (CancelledError, EngineUnavailable):
            await self.end()
            raise

    def stopService(self) -> Deferred[None]:
        """End it; fires when it has ended."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self.end())

    async def end(self) -> None:
        """End it, whether it ever listened or not."""
        self._wanted = False
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        if self._process is not None:
            await children.end(self._process, GRACE_SECONDS)
        Path(self._socket).unlink(missing_ok=True)

    def _spawn(self) -> None:
        self._restart = None
        Path(self._socket).unlink(missing_ok=True)
        argv = ["podman", "system", "service", "--time=0", self.connection.url]
        with self._log_path.open("wb") as output:
            try:
                started = children.spawn(self._reactor, argv, self._environment, "/", output)
            except OSError as error:
                raise EngineUnavailable(f"Podman: {error}") from error
        self._watch(started)

    def _spawn_again(self) -> None:
        try:
            self._spawn()
        except (OSError, EngineUnavailable) as error:  # a full disk, say: not for good
            self._log.error("podman system service cannot be started: {why}", why=str(error))
            self._restart = self._reactor.callLater(RESTART_SECONDS, self._spawn_again)

    @property
    def _log_path(self) -> Path:
        return self._directory / "podman.log"

    def _watch(self, process: children.WatchedProcess) -> None:
        self._process = process
        process.when_ended(self._ended)

    def _ended(self) -> None:
        if not self._wanted:
            return
        self._log.warn(
            "podman system service ended; it is started again: {said}", said=self._said()
        )
        self._restart = self._reactor.callLater(RESTART_SECONDS, self._spawn_again)

    async def _until_it_listens(self) -> None:
        began = self._reactor.seconds()
        while not _listener(self._socket):
            if not self.pid:
                raise EngineUnavailable(f"Podman: its API service ended: {self._said()}")
            if self._reactor.seconds() - began > BOOT_SECONDS:
                raise EngineUnavailable(
                    f"Podman: its API service did not listen within {BOOT_SECONDS:.0f} s"
                )
            await deferLater(self._reactor, BOOT_POLL_SECONDS)

    def _said(self) -> str:
        try:
            said = self._log_path.read_text(errors="replace").strip()
        except OSError:
            said = ""
        return said[-500:] or "it said nothing"


def _short(path: Path) -> str:
    """Give ``path``, or where it is too long for a socket a place in the temporary directory."""
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return str(path)
    return f"{tempfile.mkdtemp(prefix='ploinky-podman-')}/{SOCKET_NAME}"


def _listener(path: str) -> int:
    """Give the pid of our own user's process that listens at a socket; 0 where there is none.

    Source: unix(7), SO_PEERCRED.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return 0
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid if uid == os.getuid() else 0
