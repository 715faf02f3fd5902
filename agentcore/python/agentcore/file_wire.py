"""The file wire: `tasks/<id>` in, `results/<id>` or `errors/<id>` out.

Every file is written in `tmp/` and renamed into place; `locks/<id>` is made by
whoever runs a task.  Changes are seen by inotify; a slow look at the whole directory
is the safety net, and a fast one stands in where inotify is not to be had.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Dict, Optional, Set

from .executor import Executor, now_ms
from .inotify import Watch
from .task_files import TaskFiles, is_there
from .tasks import Call, Failure, Task, dump, is_command_name, load

RESCAN_SECONDS = 1.0
POLL_SECONDS = 0.02
# How long past its deadline a lock whose holder may be dead is left alone.
LOCK_GRACE_MS = 2000
DIRECTORIES = ("tasks", "results", "errors", "locks", "tmp")


def prepare_queue(root: str) -> None:
    """Make what is missing of a queue directory."""
    for name in DIRECTORIES:
        os.makedirs(os.path.join(root, name), mode=0o700, exist_ok=True)


def publish(root: str, name: str, content: bytes) -> None:
    """Put a file into place whole: written in `tmp/`, then renamed."""
    temporary = f"{root}/tmp/{name.replace('/', '.')}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(content)
    os.rename(temporary, f"{root}/{name}")


def remove_if_there(path: str) -> None:
    """Remove a file that may be gone."""
    is_there(os.unlink, path)


class FileWire:
    """Takes tasks from a queue directory and puts back what came of them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        root: str,
        executor: Executor,
        timeout: float,
        poll_seconds: float,
    ) -> None:
        self._loop = loop
        self._root = root
        self._files = TaskFiles(root)
        self._executor = executor
        self._timeout_ms = timeout * 1000
        self._running: Dict[str, Task] = {}
        self._backlog: Dict[str, None] = {}
        self._removed: Set[str] = set()
        self._poll_seconds = poll_seconds
        self._interval = RESCAN_SECONDS
        self._stopped = False

    def start(self) -> None:
        """Begin to take tasks, those first that wait already."""
        try:
            watch = Watch(f"{self._root}/tasks")
        except OSError:
            self._interval = self._poll_seconds
        else:
            self._loop.add_reader(watch.descriptor, self._hear, watch)
        self._rescan()

    def stop(self) -> None:
        """Take no more tasks; those that run go on."""
        self._stopped = True
        self._backlog.clear()
        self._files.close()

    def _hear(self, watch: Watch) -> None:
        for name in watch.names():
            if name is None:
                self._scan()
            elif name in self._removed:
                self._removed.discard(name)
            elif name in self._running:
                self._check_cancelled(name)
            else:
                self._offer(name)

    def _rescan(self) -> None:
        self._scan()
        self._loop.call_later(self._interval, self._rescan)

    def _scan(self) -> None:
        if not self._running:
            self._files.rest()
        self._removed.clear()
        names = sorted(self._files.names())
        present = set(names)
        for name in [name for name in self._running if name not in present]:
            self._check_cancelled(name)
        for name in names:
            if name not in self._running:
                self._offer(name)

    def _offer(self, name: str) -> None:
        if self._stopped or not is_command_name(name):
            return
        if self._executor.busy:
            self._backlog[name] = None
        else:
            self._claim(name)

    def _check_cancelled(self, name: str) -> None:
        if not self._files.is_queued(name):
            self._executor.cancel(self._running.pop(name))
            self._unlock(name)
            self._next()

    def _next(self) -> None:
        while self._backlog and not self._executor.busy:
            name = next(iter(self._backlog))
            del self._backlog[name]
            self._claim(name)

    # --- one task's way -----------------------------------------------------------

    def _claim(self, name: str) -> None:
        try:
            if not self._files.lock(name):
                self._break_lock(name)
                return
        except OSError as error:
            _complain(f"Task {name} cannot be locked: {error}")
            return
        # Read under the lock: whoever held it before may have finished the task.
        raw = self._read(name)
        if raw is None:
            self._unlock(name)
        else:
            self._submit(name, raw)

    def _read(self, name: str) -> Optional[bytes]:
        try:
            return self._files.read(name)
        except OSError as error:
            _complain(f"Task {name} cannot be read: {error}")
            return None

    def _submit(self, name: str, raw: bytes) -> None:
        try:
            call = Call(raw)
            held = call.fields.get("id", name)
            if held != name:
                other = dump(held).decode()
                message = f"The task file {name} holds the task {other}."
                raise Failure(400, "BAD_JSON", message)
        except Failure as failure:
            self._finish(name, None, failure)
            return
        get = call.fields.get
        task = Task(call, name, get("user"), get("requestId"), get("deadline"))
        self._running[name] = task

        def done(result: Optional[bytes], failed: Optional[Failure]) -> None:
            del self._running[name]
            self._finish(name, result, failed)
            self._next()

        self._executor.submit(task, done)

    def _finish(self, name: str, result: Optional[bytes], failed: Optional[Failure]) -> None:
        key = dump(name)
        self._removed.add(name)
        try:
            if failed:
                error = b'{"id":%b,"error":%b}' % (key, dump(failed.fields()))
                self._files.answer(name, "errors", error)
            else:
                data = b'{"id":%b,"data":%b}' % (key, result or b"null")
                self._files.answer(name, "results", data)
        except OSError as problem:
            # The lock stays: without a result the task would be run again.
            _complain(f"The result of task {name} cannot be written: {problem}")
            return
        self._unlock(name)

    def _unlock(self, name: str) -> None:
        try:
            self._files.unlock(name)
        except OSError as error:
            _complain(f"The lock of task {name} cannot be removed: {error}")

    def _break_lock(self, name: str) -> None:
        """End the task of an executor that died: done already, or past its deadline."""
        if self._files.is_answered(name):
            self._files.remove(name)
            self._unlock(name)
        elif now_ms() > self._lock_deadline(name) + LOCK_GRACE_MS:
            message = "The agent ended while it ran this task."
            self._finish(name, None, Failure(504, "TASK_TIMEOUT", message))

    def _lock_deadline(self, name: str) -> float:
        try:
            with open(f"{self._root}/tasks/{name}", "rb") as file:
                deadline = load(file.read())["deadline"]
            if deadline > 0:
                return float(deadline)
        except FileNotFoundError:
            return float("inf")
        except (OSError, ValueError, TypeError, KeyError):
            pass
        try:
            return self._files.locked_at(name) + self._timeout_ms
        except OSError:
            return float("inf")


def _complain(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
