"""``twistd ploinky``: options, and a service that runs the leader from its start to its end.

It is the same server that ``p-cli cloud start`` starts.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python import usage

from ploinky.configuration import Configuration
from ploinky.errors import PloinkyError, SettingsInvalid
from ploinky.leader import lead, say
from ploinky.settings import fields

COULD_NOT_START = 1
MISCONFIGURED = 5
"""Exit statuses; the second is what ``p-cli`` says for configuration (contract, section 6)."""

_log = Logger()


class Options(usage.Options):
    """Options of ``twistd ploinky``: every setting, by its name in the contract."""

    synopsis = "[options]"
    longdesc = "Serve agents from Git repositories, in containers, behind one domain and path each."
    optParameters = [
        ["dir", None, None, "where .ploinky-cloud lies: this directory, or PLOINKY_CLOUD_DIR"],
        *([name, None, None, about] for _, name, about in fields()),
    ]


def make_service(options: Mapping[str, Any]) -> IService:
    """Make the leader.

    Raises:
        SystemExit: The settings do not fit; each problem is a line on standard error.
    """
    from twisted.internet import reactor

    given = {name: value for name, value in options.items() if name != "dir"}
    directory = options["dir"] or os.environ.get("PLOINKY_CLOUD_DIR") or "."
    try:
        configuration = Configuration(Path(directory), os.environ, given)
    except SettingsInvalid as error:
        say(sys.stderr, error.message)
        raise SystemExit(MISCONFIGURED) from None
    return Leader(reactor, lambda rooms: lead(reactor, configuration, rooms))


makeService = make_service
"""As `twisted.application.service.ServiceMaker` calls it."""


class Leader(Service):
    """Runs a composition from its start to its end.

    Args:
        reactor: Told to stop where the start fails.
        compose: Starts everything, and pushes how each thing is stopped onto the stack.
    """

    def __init__(
        self, reactor: Any, compose: Callable[[AsyncExitStack], Coroutine[Any, Any, None]]
    ) -> None:
        self._reactor = reactor
        self._compose = compose
        self._rooms = AsyncExitStack()
        self._starting: Deferred[None] | None = None

    def startService(self) -> None:
        """Start once the reactor runs: children and threads need it."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> Deferred[None]:
        """Stop every room, the last one first; fires when all have ended."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    def _begin(self) -> None:
        self._starting = Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        try:
            await self._compose(self._rooms)
        except CancelledError:
            return  # `_stop` asked for it
        except Exception as error:  # this process's end: the reason becomes its last line
            self._give_up(error)

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await self._starting
        await self._rooms.aclose()

    def _give_up(self, error: Exception) -> None:
        reason = error.message if isinstance(error, PloinkyError) else f"internal error: {error!r}"
        if not isinstance(error, PloinkyError):
            _log.failure("the server could not start")
        status = MISCONFIGURED if isinstance(error, SettingsInvalid) else COULD_NOT_START
        say(sys.__stderr__, reason)
        # twistd knows no exit status but 0; its own clean-up comes before the interpreter's.
        atexit.register(_exit, status)
        with suppress(ReactorNotRunning):
            self._reactor.stop()


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
