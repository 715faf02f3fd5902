"""What every room of the leader is built with, and how rooms are started and stopped.

A part of the root.  Whatever is started here is stopped with the rest, and waited for.
"""

from __future__ import annotations

import os
import secrets
import string
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from ploinky.configuration import Configuration
from ploinky.extensions import load
from ploinky.settings import Settings
from ploinky.sockets import SocketPaths
from ploinky.threads import Blocking

_ID_LETTERS = string.ascii_lowercase + string.digits

_log = Logger()


@frozen
class Here:
    """What every room is built with.

    Attributes:
        settings: As they were at the start.
        configuration: Its settings as they are now.
        cluster: This server's id.
        files: Threads for small work on files.
        copying: Threads for work on files that takes long.
    """

    reactor: Any
    settings: Settings
    configuration: Configuration
    paths: SocketPaths
    cluster: str
    files: Blocking
    copying: Blocking


def log_directory(settings: Settings) -> Path:
    """Give where leader and workers log."""
    return settings.data_directory / "logs"


def new_id() -> str:
    """Give an unguessable id of ``[a-z0-9]{12}``."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(12))


async def begin(service: Any, rooms: AsyncExitStack) -> None:
    """Start a service now; it is stopped with the rest, and waited for."""
    rooms.push_async_callback(maybeDeferred, service.stopService)
    await maybeDeferred(service.startService)


def pool(reactor: Any, threads: int, name: str, rooms: AsyncExitStack) -> Blocking:
    """Give threads of their own to one kind of work."""
    blocking = Blocking(reactor, threads, name)
    blocking.start()
    rooms.callback(blocking.stop)
    return blocking


async def listen(here: Here, name: str, factory: Any, rooms: AsyncExitStack) -> None:
    """Listen on a Unix socket in the run directory, for this user alone.

    What an earlier leader left there is dead: this one holds the lock.
    """
    path = here.settings.run_directory / name
    path.unlink(missing_ok=True)
    port = here.reactor.listenUNIX(here.paths.usable(str(path)), factory, mode=0o600)
    rooms.push_async_callback(maybeDeferred, port.stopListening)


def write(path: Path, text: str) -> None:
    """Write a small file, whole or not at all, for this user alone."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    os.replace(fresh, path)


def plugins(interface: Any) -> dict[str, Any]:
    """Give the plugins that can be used, by name; say why others cannot."""
    found, problems = load(interface)
    for problem in problems:
        _log.warn("plugin {problem}", problem=str(problem))
    return found
