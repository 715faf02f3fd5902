"""Runs shell handlers: manifest `commands`, `handlers/*.sh`, executables, `runTask`.

One process group per task: cancelling ends all that a script has started.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Dict, List, Optional, Set

from .catalogue import Target
from .tasks import Abort, Done, Failure, Item, Task, dump, load

KILL_AFTER_SECONDS = 2.0
# What a script left in the background may hold its stdout open; this long is waited
# for the rest of it.
DRAIN_SECONDS = 0.2
TAIL_BYTES = 4096


class Script:
    """One running script.  `asyncio.subprocess` is no help here: on some Pythons its
    `wait` ends only when all that inherited stdout has."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        task: Task,
        process: subprocess.Popen[bytes],
        done: Done,
        max_result_bytes: int,
    ) -> None:
        self._loop = loop
        self._task = task
        self._process = process
        self._done = done
        self._max_result_bytes = max_result_bytes
        self._input = dump(describe(task)) + b"\n"
        self._output = bytearray()
        self._tail = b""
        self._finished = False
        self._exited = False
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._reading = {self._stdout.fileno(), self._stderr.fileno()}
        for stream in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(stream.fileno(), False)
        loop.add_writer(self._stdin, self._write)
        loop.add_reader(self._stdout, self._read_output)
        loop.add_reader(self._stderr, self._read_errors)
        threading.Thread(target=self._wait, daemon=True).start()

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole process group."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass

    def _write(self) -> None:
        try:
            self._input = self._input[os.write(self._stdin.fileno(), self._input) :]
        except BlockingIOError:
            return
        except OSError:
            self._input = b""  # a script need not read its task
        if not self._input:
            self._close_input()

    def _close_input(self) -> None:
        if not self._stdin.closed:
            self._loop.remove_writer(self._stdin)
            self._stdin.close()

    def _read(self, descriptor: int) -> bytes:
        try:
            chunk = os.read(descriptor, 262144)
        except BlockingIOError:
            return b""
        if not chunk:
            self._loop.remove_reader(descriptor)
            self._reading.discard(descriptor)
            if self._exited and not self._reading:
                self._finish()
        return chunk

    def _read_output(self) -> None:
        self._output += self._read(self._stdout.fileno())
        if len(self._output) > self._max_result_bytes:
            self.signal(signal.SIGKILL)
            self._finish()

    def _read_errors(self) -> None:
        chunk = self._read(self._stderr.fileno())
        if chunk:
            sys.stderr.buffer.write(chunk)
            sys.stderr.buffer.flush()
            self._tail = (self._tail + chunk)[-TAIL_BYTES:]

    def _wait(self) -> None:
        self._process.wait()
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            pass  # the loop is closed: the agent stops

    def _end(self) -> None:
        self._exited = True
        if self._reading:
            self._loop.call_later(DRAIN_SECONDS, self._finish)
        else:
            self._finish()

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        self._close_input()
        for descriptor in self._reading:
            self._loop.remove_reader(descriptor)
        self._stdout.close()
        self._stderr.close()
        if len(self._output) > self._max_result_bytes:
            self._done(None, _too_large(self._task, self._max_result_bytes))
        elif self._process.returncode:
            self._done(None, _exited(self._task, self._process.returncode, self._tail))
        else:
            self._done(_result_of(bytes(self._output)), None)


class ScriptRunner:
    """Starts scripts and ends those that nobody waits for."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, agent_dir: str, max_result_bytes: int
    ) -> None:
        self._loop = loop
        self._agent_dir = agent_dir
        self._max_result_bytes = max_result_bytes
        self._ending: Set[Script] = set()

    def run(self, task: Task, target: Target, done: Done, item: Item) -> Optional[Abort]:
        """Run a task; see Executor."""
        environment: Dict[str, str] = {**os.environ, "TASK_COMMAND": task.command}
        try:
            process = subprocess.Popen(
                arguments_of(task, target),
                cwd=self._agent_dir,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except Failure as failure:
            done(None, failure)
            return None
        except (OSError, ValueError) as error:
            done(None, _not_started(task, error))
            return None
        script = Script(self._loop, task, process, done, self._max_result_bytes)
        return lambda reason: self._end(script)

    def stop(self) -> None:
        """Kill at once what is still being ended."""
        for script in self._ending:
            script.signal(signal.SIGKILL)

    def _end(self, script: Script) -> None:
        script.signal(signal.SIGTERM)
        self._ending.add(script)
        self._loop.call_later(KILL_AFTER_SECONDS, self._kill, script)

    def _kill(self, script: Script) -> None:
        script.signal(signal.SIGKILL)
        self._ending.discard(script)


def signal_name(number: int) -> str:
    """Give a signal's name; real-time ones have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def arguments_of(task: Task, target: Target) -> List[bytes]:
    """Give the command line that runs a task."""
    words = ["/bin/sh"]
    if target.file is None:
        words += ["-c", f'{target.command} "$@"', task.command]
    elif os.access(target.file, os.X_OK):  # its #! line decides
        words += ["-c", 'exec "$0" "$@"', target.file]
    else:
        words += [target.file]
    for param in task.params:
        words.append(param if isinstance(param, str) else json.dumps(param, ensure_ascii=False))
    return [_utf8(word) for word in words]


def _utf8(word: str) -> bytes:
    try:
        return word.encode()
    except UnicodeEncodeError:  # half a surrogate pair stands for nothing
        return word.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def describe(task: Task) -> Dict[str, object]:
    """Give the task as a script reads it on stdin."""
    return {
        "id": task.id,
        "command": task.command,
        "params": task.params,
        "user": task.user,
        "requestId": task.request_id,
        "deadline": int(task.deadline),
    }


def _result_of(output: bytes) -> bytes:
    """Give the result's JSON: what was printed where it is JSON, else as a string."""
    try:
        load(output)
        return output.strip()
    except ValueError:
        return dump(output.decode(errors="replace").rstrip("\n"))


def _not_started(task: Task, error: Exception) -> Failure:
    if isinstance(error, ValueError):
        return Failure(
            400,
            "BAD_REQUEST",
            f"A parameter of {task.command} has a NUL character, "
            "which a command line cannot carry.",
        )
    if isinstance(error, OSError) and error.errno == errno.E2BIG:
        message = f"The parameters of {task.command} are too long for a command line."
        return Failure(413, "BODY_TOO_LARGE", message)
    return Failure(500, "HANDLER_FAILED", f"{task.command} could not be started: {error}")


def _exited(task: Task, status: int, tail: bytes) -> Failure:
    stderr = tail.decode(errors="replace").strip()
    details: Dict[str, object] = {"stderr": stderr}
    if status < 0:
        details["signal"] = signal_name(-status)
        how = f"was killed by {details['signal']}"
    else:
        details["exitStatus"] = status
        how = f"ended with exit status {status}"
    last = stderr.split("\n")[-1]
    message = f"{task.command} {how}" + (f": {last}" if last else "")
    return Failure(500, "HANDLER_FAILED", message, details)


def _too_large(task: Task, limit: int) -> Failure:
    return Failure(
        500,
        "HANDLER_FAILED",
        f"{task.command} printed more than {limit} bytes, the most that is taken. "
        "Print less, in pages, or raise PLOINKY_MAX_RESULT_BYTES.",
    )
