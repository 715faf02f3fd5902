"""The Python engine: where its parts meet.

The environment enters; the process serves the agent until SIGTERM.  Exit status 0
after a graceful stop, 1 where the agent cannot be served.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
import traceback
from typing import List, Optional, Union

from .catalogue import Catalogue
from .executor import Executor
from .file_wire import POLL_SECONDS, FileWire, prepare_queue, publish, remove_if_there
from .frame_wire import FrameWire
from .http_wire import Connection
from .listener import Listener
from .manifest import read_manifest
from .script import ScriptRunner
from .tasks import Failure, dump
from .workers import HandlerProcess

DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_CONCURRENCY = 64
DEFAULT_MAX_RESULT_BYTES = 16 * 1024 * 1024
STOP_AFTER_SECONDS = 5.0
# Where files bring durable tasks alone, and inotify has no room for one more agent.
RARE_POLL_SECONDS = 1.0


class Settings:
    """What the environment says."""

    def __init__(self) -> None:
        self.agent_dir = os.environ["AGENT_DIR"]
        self.queue = os.environ["PLOINKY_QUEUE"]
        self.files_first = os.environ.get("PLOINKY_TRANSPORT") == "file"
        self.offers_frames = os.environ.get("PLOINKY_FRAMES") != "off"
        self.port = _whole("PORT")
        self.concurrency = _whole("PLOINKY_CONCURRENCY")
        self.max_result_bytes = _whole("PLOINKY_MAX_RESULT_BYTES") or DEFAULT_MAX_RESULT_BYTES


def _whole(name: str) -> Optional[int]:
    text = os.environ.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise Failure(500, "AGENT_BROKEN", f"{name}={text}: expected a whole number above 0")
    return int(text)


class Engine:
    """The running engine: its parts, and how they stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings) -> None:
        self._loop = loop
        self._settings = settings
        self._handlers = HandlerProcess(loop)
        self._scripts = ScriptRunner(loop, settings.agent_dir, settings.max_result_bytes)
        self._wires: List[Union[Listener, FrameWire, FileWire]] = []
        self._stop = asyncio.Event()

    async def serve(self) -> None:
        """Serve the agent until it is told to stop.

        Raises:
            Failure: It cannot be served.
        """
        settings = self._settings
        prepare_queue(settings.queue)
        manifest = read_manifest(settings.agent_dir)
        concurrency = settings.concurrency or manifest.concurrency or DEFAULT_CONCURRENCY
        timeout = manifest.timeout or DEFAULT_TIMEOUT_SECONDS
        functions = await self._handlers.start()
        catalogue = Catalogue(settings.agent_dir, manifest, functions)
        runners = {
            "handler": self._handlers.run,
            "function": self._handlers.run,
            "command": self._scripts.run,
            "script": self._scripts.run,
            "runTask": self._scripts.run,
        }
        executor = Executor(
            self._loop, catalogue, runners, concurrency, timeout, settings.max_result_bytes
        )
        frames = FrameWire(self._loop, executor)

        def http() -> Connection:
            return Connection(self._loop, executor, catalogue)

        await self._listen(Listener(self._loop, http, frames.connect))
        self._wires.append(frames)
        # After the listener: the server tells by the new socket that earlier locks are a dead
        # engine's.
        poll_seconds = POLL_SECONDS if settings.files_first else RARE_POLL_SECONDS
        files = FileWire(self._loop, settings.queue, executor, timeout, poll_seconds)
        files.start()
        self._wires.append(files)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._told_to_stop)
        # Last: whoever waits for it may tell the engine to stop at once.
        self._announce()
        await self._stop.wait()
        await self._drain(executor)

    async def _listen(self, listener: Listener) -> None:
        settings = self._settings
        path = f"{settings.queue}/agent.sock"
        try:
            remove_if_there(path)
            await listener.listen_unix(_socket_path(settings.queue))
        except OSError as error:
            reason = f"{path} cannot be listened on: {error}"
            if settings.port is None:
                raise Failure(500, "QUEUE_UNUSABLE", reason) from error
            print(f"{reason}; port {settings.port} alone is.", file=sys.stderr)
        if settings.port is not None:
            await listener.listen_tcp(settings.port)
        self._wires.append(listener)

    def _announce(self) -> None:
        frames = ["frames"] if self._settings.offers_frames else []
        ready = {
            "engine": "python",
            "version": platform.python_version(),
            "transports": ["http", *frames, "file"],
            "pid": os.getpid(),
        }
        publish(self._settings.queue, "ready", dump(ready))

    def _told_to_stop(self) -> None:
        if self._stop.is_set():
            os._exit(0)
        self._stop.set()

    async def _drain(self, executor: Executor) -> None:
        """Take no more, finish what is in flight, end."""
        executor.draining = True
        remove_if_there(f"{self._settings.queue}/ready")
        for wire in self._wires:
            wire.stop()
        timer = self._loop.call_later(STOP_AFTER_SECONDS, executor.abandon)
        await executor.wait_idle()
        timer.cancel()
        self._handlers.stop()
        self._scripts.stop()
        remove_if_there(f"{self._settings.queue}/agent.sock")
        await asyncio.sleep(0.02)  # answers that were just written leave


async def _run() -> None:
    await Engine(asyncio.get_running_loop(), Settings()).serve()


def _fail(failure: Failure) -> None:
    """Say why the agent cannot be served, to the server and on stderr."""
    queue = os.environ["PLOINKY_QUEUE"]
    print(f"{failure.code}: {failure.message}", file=sys.stderr)
    try:
        prepare_queue(queue)
        reason = {"code": failure.code, "message": failure.message}
        publish(queue, "failed", dump(reason))
    except OSError as error:
        print(f"{queue}/failed cannot be written: {error}", file=sys.stderr)


def main() -> None:
    """Run the engine, and end the process with it."""
    status = 0
    try:
        asyncio.run(_run())
    except Failure as failure:
        _fail(failure)
        status = 1
    except Exception:
        _fail(Failure(500, "AGENT_BROKEN", traceback.format_exc()))
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _socket_path(queue: str) -> str:
    """Give a name for the socket that fits the kernel's 107 bytes.

    Where the queue lies deep it goes through a descriptor, held open for good.
    """
    path = f"{queue}/agent.sock"
    if len(os.fsencode(path)) <= 107:
        return path
    return f"/proc/self/fd/{os.open(queue, os.O_DIRECTORY)}/agent.sock"
