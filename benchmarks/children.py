"""What a benchmark starts, and its end: in reverse order, by pid, however the benchmark ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from benchmarks import machine

PROGRAMS = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
"""Where programs are looked for: servers lie where ordinary users have no PATH to."""

_END_SECONDS = 35.0
_ENDING = (signal.SIGINT, signal.SIGTERM)


class BenchmarkFailed(Exception):
    """A row cannot be measured; the text says why and what would help."""


class Child:
    """One program that was started here.

    Attributes:
        name: For messages.
        log: What it prints.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self.log = log
        self._process = process

    def processes(self) -> list[int]:
        """Give its pid and those of all that descend from it."""
        return machine.tree(self.pid)

    def check(self) -> None:
        """See that it runs.

        Raises:
            BenchmarkFailed: It has ended.
        """
        if self._process.poll() is not None:
            said = self.log.read_text(errors="replace")[-2000:]
            raise BenchmarkFailed(f"{self.name} ended with {self._process.returncode}: {said}")

    def end(self) -> None:
        """Ask it to end; kill it, and what descends from it, where it does not."""
        if self._process.poll() is not None:
            return
        family = self.processes()
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(_END_SECONDS)


class Children:
    """A context; programs that are started in it end with it.

    Args:
        directory: For their logs.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = ExitStack()

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not leave half of them behind.
        ignored = {each: signal.signal(each, signal.SIG_IGN) for each in _ENDING}
        try:
            self._stack.close()
        finally:
            for each, before in ignored.items():
                signal.signal(each, before)

    def finally_do(self, action: Callable[[], Any]) -> None:
        """Do something at the end, before what was started earlier ends."""
        self._stack.callback(action)

    def start(
        self,
        name: str,
        command: Sequence[str],
        cores: Sequence[int],
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a program on some cores.

        It gets a session of its own, so that a Ctrl-C in the terminal reaches this process
        alone, and the kernel ends it should this process be killed.
        """
        log = self.directory / f"{name}.log"
        at = ",".join(map(str, cores))
        argv = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", at, program(command[0])]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*argv, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self.directory,
                env=dict(environment) if environment is not None else None,
            )
        child = Child(name, process, log)
        self._stack.callback(child.end)
        return child


def program(name: str) -> str:
    """Give a program's path.

    Raises:
        BenchmarkFailed: It is not installed.
    """
    found = shutil.which(name, path=PROGRAMS)
    if found is None:
        raise BenchmarkFailed(f"{name} is not installed")
    return found


def free_port() -> int:
    """Give a TCP port of loopback that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def until(
    condition: Callable[[], Any], what: str, child: Child | None = None, seconds: float = 30.0
) -> Any:
    """Give the first true value of `condition`.

    Raises:
        BenchmarkFailed: There was none in time, or `child` ended.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if child is not None:
            child.check()
        with suppress(OSError):
            found = condition()
            if found:
                return found
        time.sleep(0.005)
    raise BenchmarkFailed(f"not within {seconds:g} s: {what}")


def listens(port: int) -> bool:
    """Tell whether somebody takes connections at a port of loopback."""
    with socket.create_connection(("127.0.0.1", port), 1):
        return True
