"""The process in which in-process handlers run.

Frames enter and leave by a socket (see `channel`).  Plain handlers run in threads,
async ones in one event loop; the main thread only reads frames, so that it hears of
aborts whatever the handlers do.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from typing import Any, Awaitable, Callable, Dict, List, Optional

from .channel import Decoder, encode
from .context import Context, Log
from .handlers import Handlers
from .streaming import Streaming, is_async_stream, is_stream
from .tasks import Failure, dump, load, params_of

_DEFAULT_MAX_RESULT_BYTES = 16 * 1024 * 1024

current: contextvars.ContextVar[int] = contextvars.ContextVar("current", default=0)


class Threads:
    """As many threads as there are plain handlers at work."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    def run(self, work: Callable[[], None]) -> None:
        """Call `work` in a thread that is free, or in a new one."""
        self._work.put(work)
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._work.get()()
            self._idle.release()


class Run:
    """One task in this process."""

    __slots__ = ("context", "coroutine", "raw", "sequence", "streaming")

    def __init__(self, sequence: int, context: Context, raw: bytes) -> None:
        self.sequence = sequence
        self.context = context
        self.raw = raw
        self.coroutine: Optional[asyncio.Task[None]] = None
        self.streaming: Optional[Streaming] = None


class Worker:
    """Runs what the I/O process asks for."""

    def __init__(self, channel: socket.socket, handlers: Handlers, max_result_bytes: int) -> None:
        self._channel = channel
        self._handlers = handlers
        self._max_result_bytes = max_result_bytes
        self._sending = threading.Lock()
        self._threads = Threads()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._runs: Dict[int, Run] = {}

    def send(self, message: List[Any], body: bytes = b"") -> None:
        """Send a frame, from any thread."""
        frame = encode(message, body)
        with self._sending:
            self._channel.sendall(frame)

    def serve(self) -> None:
        """Take frames until the I/O process is gone."""
        decoder = Decoder()
        while True:
            chunk = self._channel.recv(262144)
            if not chunk:
                return
            for message, body in decoder.feed(chunk):
                if message[0] == "run":
                    self._begin(body, *message[1:])
                elif message[0] == "taken":
                    self._taken(message[1], message[2])
                else:
                    self._abort(message[1], message[2])

    def _begin(
        self, raw: bytes, sequence: int, file: Optional[str], command: str, *about: Any
    ) -> None:
        run = Run(sequence, Context(about[0], command, *about[1:]), raw)
        self._runs[sequence] = run
        self._threads.run(lambda: self._call(run, file, command))

    def _abort(self, sequence: int, reason: str) -> None:
        run = self._runs.get(sequence)
        if run is None:
            return
        run.context.signal.fire(reason)
        if run.streaming is not None:
            run.streaming.stop()
        if run.coroutine is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(run.coroutine.cancel)

    def _taken(self, sequence: int, size: int) -> None:
        run = self._runs.get(sequence)
        if run is not None and run.streaming is not None:
            run.streaming.taken(size)

    def _call(self, run: Run, file: Optional[str], command: str) -> None:
        current.set(run.sequence)
        try:
            handler = self._handlers.find(file, command)
            params = params_of(run.raw)
            self._take(run, handler(params, run.context))
        except BaseException as error:
            self._fail(run, error)

    def _take(self, run: Run, result: Any) -> None:
        if inspect.isawaitable(result):
            self._event_loop().call_soon_threadsafe(self._start, run, result)
        elif is_async_stream(result):
            streaming = self._stream(run).run_async(result)
            self._event_loop().call_soon_threadsafe(self._start, run, streaming, True)
        elif is_stream(result):
            self._iterate(run, result)
        else:
            self._succeed(run, result)

    # --- streaming handlers -----------------------------------------------------

    def _stream(self, run: Run) -> Streaming:
        def send(item: Any) -> int:
            raw = self._dump(run, item)
            self.send(["item", run.sequence], raw)
            return len(raw)

        run.streaming = Streaming(send)
        if run.context.signal.aborted:
            run.streaming.stop()
        return run.streaming

    def _iterate(self, run: Run, items: Any) -> None:
        try:
            self._stream(run).run(items)
        except BaseException as error:
            self._fail(run, error)
        else:
            self._end(run)

    # --- async handlers ---------------------------------------------------------

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        with self._sending:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run_for_ever, args=(self._loop,), daemon=True).start()
            return self._loop

    def _start(self, run: Run, result: Awaitable[Any], streams: bool = False) -> None:
        assert self._loop is not None
        current.set(run.sequence)
        run.coroutine = self._loop.create_task(self._await(run, result, streams))
        if run.context.signal.aborted:
            run.coroutine.cancel()

    async def _await(self, run: Run, result: Awaitable[Any], streams: bool) -> None:
        try:
            value = await result
            if is_async_stream(value):
                streams = True
                await self._stream(run).run_async(value)
        except BaseException as error:
            # Also SystemExit: it would end the loop, and all that runs in it.
            self._fail(run, error)
        else:
            if streams:
                self._end(run)
            elif is_stream(value):
                self._threads.run(lambda: self._iterate(run, value))
            else:
                self._succeed(run, value)

    # --- outcomes ---------------------------------------------------------------

    def _succeed(self, run: Run, result: Any) -> None:
        try:
            self._finish(run, None, self._dump(run, result))
        except Failure as failure:
            self._finish(run, failure)

    def _end(self, run: Run) -> None:
        """Say that the last item was the last."""
        self._runs.pop(run.sequence, None)
        self.send(["end", run.sequence])

    def _dump(self, run: Run, value: Any) -> bytes:
        """Write a result or an item as JSON.

        Raises:
            Failure: It cannot be, or is too large.
        """
        command = run.context.command
        try:
            raw = dump(value)
        except Exception as error:
            kind = type(value).__name__
            message = f"{command} returned a {kind}, which cannot be written as JSON: {error}"
            raise Failure(500, "HANDLER_FAILED", message) from error
        if len(raw) > self._max_result_bytes:
            message = (
                f"{command} returned {len(raw)} bytes of JSON; at most {self._max_result_bytes} "
                "are taken. Return less, in pages, or raise PLOINKY_MAX_RESULT_BYTES."
            )
            raise Failure(500, "HANDLER_FAILED", message)
        return raw

    def _fail(self, run: Run, error: BaseException) -> None:
        """Turn what a handler raised into a failure, with what it says of itself."""
        try:
            failure = _failure_of(error)
        except Exception:  # its attributes, or its text, raise
            kind = type(error).__name__
            message = f"{run.context.command} raised a {kind} that cannot be read."
            failure = Failure(500, "HANDLER_FAILED", message)
        if failure.status >= 500 and not run.context.signal.aborted:
            stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            run.context.log.error(failure.message, stack=stack)
        self._finish(run, failure)

    def _finish(self, run: Run, failed: Optional[Failure], raw: bytes = b"") -> None:
        self._runs.pop(run.sequence, None)
        fields = failed.fields() if failed else None
        self.send(["done", run.sequence, fields], raw)


def _failure_of(error: BaseException) -> Failure:
    status = getattr(error, "status", None)
    if not isinstance(status, int) or not 400 <= status <= 599:
        status = 500
    # The code of SystemExit is an exit status, or the words to end with.
    code = None if isinstance(error, SystemExit) else getattr(error, "code", None)
    if not isinstance(code, str) or not code:
        code = "HANDLER_FAILED"
    return Failure(status, code, _message_of(error), _json_or_none(error))


def _message_of(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"The handler called sys.exit({'' if error.code is None else error.code})."
    if isinstance(error, KeyError) or not str(error):
        return "".join(traceback.format_exception_only(type(error), error)).strip()
    return str(error)


def _json_or_none(error: BaseException) -> Any:
    try:
        return load(dump(getattr(error, "details", None)))
    except (RecursionError, TypeError, ValueError):
        return None


def _run_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop of all async handlers, whatever one of them does to end it."""
    while not loop.is_closed():
        try:
            loop.run_forever()  # a handler's `stop` ends it
        except BaseException:  # as `sys.exit` in a task of a handler's own does
            Log().error("An error escaped a handler.", stack=traceback.format_exc())


def _watch_exits(worker: Worker) -> None:
    """Say which task it was that ends the process, before it does."""
    end = os._exit
    process = os.getpid()

    def announce(status: int) -> None:
        if os.getpid() == process:
            worker.send(["ending", f"called os._exit({status})", current.get()])
        end(status)

    os._exit = announce  # type: ignore[assignment]


def _start(worker: Worker, handlers: Handlers) -> bool:
    try:
        functions = handlers.load_agent()
    except BaseException as error:
        stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        worker.send(["broken", f"agent.py cannot be loaded: {stack}"])
        return False
    worker.send(["loaded", functions])
    return True


def main(descriptor: int) -> None:
    """Serve the handlers of AGENT_DIR to the I/O process behind a descriptor."""
    os.set_inheritable(descriptor, False)
    # The I/O process decides when this one ends; what a handler starts keeps the default.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    agent_dir = os.environ["AGENT_DIR"]
    sys.path[0] = agent_dir
    sys.argv = [agent_dir]
    limit = int(os.environ.get("PLOINKY_MAX_RESULT_BYTES") or _DEFAULT_MAX_RESULT_BYTES)
    handlers = Handlers(agent_dir)
    worker = Worker(socket.socket(fileno=descriptor), handlers, limit)
    end = os._exit
    _watch_exits(worker)
    try:
        if _start(worker, handlers):
            worker.serve()
    except OSError:
        pass  # the I/O process is gone
    end(0)
