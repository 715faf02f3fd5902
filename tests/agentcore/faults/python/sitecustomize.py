"""Kills the engine after its n-th call for the files of one task; see test_killed.py.

From the lock of that task on, every call in the queue counts.  There is no rescan,
so that the calls are the same ones every time.
"""

import asyncio
import builtins
import functools
import os
import signal

TASK = os.environ.get("FAULT_TASK")
CALLS = ("link", "open", "read", "pwrite", "ftruncate", "close", "rename", "unlink", "rmdir")


class Kill:
    """Wraps calls; the last one of them does not return."""

    def __init__(self):
        self.queue = os.environ["PLOINKY_QUEUE"]
        self.after = int(os.environ["FAULT_AFTER"])
        self.log = os.open(os.environ["FAULT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.ours = set()
        self.calls = -1

    def wrapped(self, name, real):
        """Give the call that counts itself."""

        def call(first, *given, **named):
            is_ours = first in self.ours or str(first).startswith(self.queue)
            result = real(first, *given, **named)
            if name == "open" and is_ours:
                self.ours.add(result)
            if name == "close":
                self.ours.discard(first)
            if name == "link" and given[0].endswith(f"/locks/{TASK}"):
                self.calls = 0
            if is_ours and self.calls >= 0:
                self.calls += 1
                os.write(self.log, name.encode() + b"\n")
                if self.calls == self.after:
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        return functools.partial(
            call
        )  # a function would become a method of who keeps it in a class


if TASK:
    kill = Kill()
    for call_name in CALLS:
        setattr(os, call_name, kill.wrapped(call_name, getattr(os, call_name)))
    builtins.open = kill.wrapped("file", builtins.open)
    call_later = asyncio.BaseEventLoop.call_later

    def without_rescan(loop, delay, callback, *given, **named):
        """Leave out what comes every second."""
        if getattr(callback, "__name__", "") != "_rescan":
            return call_later(loop, delay, callback, *given, **named)
        return None

    asyncio.BaseEventLoop.call_later = without_rescan
