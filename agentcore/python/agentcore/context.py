"""What a handler is given beside its parameters."""

from __future__ import annotations

import sys
import threading
import time
from json import dumps  # by name: whatever handlers put in its place
from typing import Any, Dict, Optional


class Signal:
    """Tells a handler that its result is not wanted any more.

    A plain handler looks at `aborted` or waits with `wait`; the coroutine of an
    async one is cancelled.
    """

    def __init__(self) -> None:
        self._fired = threading.Event()
        #: Why: "timeout" or "cancelled"; None as long as it goes on.
        self.reason: Optional[str] = None

    @property
    def aborted(self) -> bool:
        """Whether the caller went away or the deadline passed."""
        return self._fired.is_set()

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait up to `timeout` seconds, and tell whether the task was aborted."""
        return self._fired.wait(timeout)

    def fire(self, reason: str) -> None:
        """Abort; the engine calls it."""
        self.reason = reason
        self._fired.set()


class Log:
    """Writes JSON lines to stderr that say which task they are about."""

    def __init__(self, **task: str) -> None:
        self._task = task

    def debug(self, message: object, /, **fields: Any) -> None:
        """Write what helps to find an error."""
        self._write("debug", message, fields)

    def info(self, message: object, /, **fields: Any) -> None:
        """Write what happened."""
        self._write("info", message, fields)

    def warning(self, message: object, /, **fields: Any) -> None:
        """Write what may become an error."""
        self._write("warning", message, fields)

    def error(self, message: object, /, **fields: Any) -> None:
        """Write what went wrong."""
        self._write("error", message, fields)

    def _write(self, level: str, message: object, fields: Any) -> None:
        try:
            line = {"time": int(time.time() * 1000), "level": level, "message": str(message)}
            line.update(self._task)
            line.update(fields)
            sys.stderr.write(_json_of(line) + "\n")
        except Exception:
            pass  # a handler closed it, or gave what has no text: the task goes on


def _json_of(line: Dict[str, Any]) -> str:
    """Give a line's JSON; where it has none (what contains itself), that of its fields' texts."""
    try:
        return dumps(line, default=str)
    except (RecursionError, TypeError, ValueError):
        return dumps({name: str(value) for name, value in line.items()})


class Context:
    """The task that a handler works on.

    Attributes:
        taskId: The task's id.
        command: The command's name.
        user: Who calls: `InternetUser`, `Admin` or the principal's id.
        requestId: The id that goes through all logs.
        deadline: When the task must be done, in ms since 1970.
        signal: Fires when the caller went away or the deadline passed.
        log: `debug`, `info`, `warning`, `error` with fields, about this task.
    """

    def __init__(
        self, task_id: str, command: str, user: str, request_id: str, deadline: float
    ) -> None:
        self.taskId = task_id
        self.command = command
        self.user = user
        self.requestId = request_id
        self.deadline = deadline
        self.signal = Signal()
        self.log = Log(command=command, taskId=task_id, requestId=request_id)
