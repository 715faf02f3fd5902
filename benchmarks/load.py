"""Load, and what it gives: requests, latencies, and the gateway's own time for each request.

`wrk` for TCP.  `script` for what wrk cannot do: Unix sockets (`client`, a few dozen lines of
Python) and the tasks' own transports (`wires`).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from benchmarks import machine
from benchmarks.children import program
from benchmarks.machine import LOAD_CORE

_SCRIPT = str(Path(__file__).with_name("load.lua"))
_FAULTS = ("connect", "read", "write", "status", "timeout")


class Void(Exception):
    """A run in which something went wrong counts for nothing; the text says what went wrong."""


@frozen
class Run:
    """What one run gave.

    Attributes:
        per_second: Answers.
        p50_ms: Half of them came within this time.
        p99_ms: And 99 of 100 within this.
        cpu_us: What the gateway's processes took of a core for each answer.
        agent_us: What the agent's took; 0 where none was watched.
        client_us: What the client took for each answer.
        others: How much of the whole machine was taken by what is no part of this, 0 to 1.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float = 0.0
    agent_us: float = 0.0
    client_us: float = 0.0
    others: float = 0.0


@frozen
class Watched:
    """Whose time is measured.

    Attributes:
        gateway: Between client and backend.
        agent: What answers, if that is measured too.
        rest: Also ours, but not measured: backends.
    """

    gateway: Sequence[int] = ()
    agent: Sequence[int] = ()
    rest: Sequence[int] = ()


def wrk(
    url: str,
    headers: Mapping[str, str],
    watched: Watched,
    connections: int,
    seconds: int,
    kind: Sequence[str] = ("same",),
    cores: Sequence[int] = LOAD_CORE,
) -> Run:
    """Load a URL with wrk.

    Args:
        kind: What `load.lua` takes.

    Raises:
        Void: Not every request had an answer in time, with a status below 400.
    """
    command = [program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=5s"]
    command += [f"--script={_SCRIPT}"]
    command += [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    return _measured([*command, url, "--", *kind], watched, cores)


def script(
    name: str, arguments: Sequence[str], watched: Watched, cores: Sequence[int] = LOAD_CORE
) -> Run:
    """Load something with one of this package's own clients, as a program.

    Args:
        name: `client` or `wires`.
        arguments: What it takes.

    Raises:
        Void: There was an answer that was none of the wanted ones, or none at all.
    """
    return _measured([sys.executable, "-m", f"benchmarks.{name}", *arguments], watched, cores)


def _measured(command: Sequence[str], watched: Watched, cores: Sequence[int]) -> Run:
    ours = (*watched.gateway, *watched.agent, *watched.rest)
    meters: dict[str, Callable[[], float]] = {
        "gateway": lambda: machine.cpu_seconds(watched.gateway),
        "agent": lambda: machine.cpu_seconds(watched.agent),
        "ours": lambda: machine.cpu_seconds(ours),
        "client": _ended_children_seconds,
        "all": machine.busy_seconds,
        "time": time.monotonic,
    }
    before = {name: read() for name, read in meters.items()}
    said = _run(command, cores)
    took = {name: read() - before[name] for name, read in meters.items()}
    answers = said["requests"]
    others = max(0.0, took["all"] - took["ours"] - took["client"])
    client = said.get("cpu", took["client"])  # its start is none of the load
    return Run(
        per_second=answers / said["seconds"],
        p50_ms=said["p50"] / 1000,
        p99_ms=said["p99"] / 1000,
        cpu_us=took["gateway"] / answers * 1e6,
        agent_us=took["agent"] / answers * 1e6,
        client_us=client / answers * 1e6,
        others=others / took["time"] / len(machine.ALL_CORES),
    )


def _run(command: Sequence[str], cores: Sequence[int]) -> dict[str, float]:
    """Run a client to its end; it says what it did in its last line of standard error."""
    pinned = [program("taskset"), "-c", ",".join(map(str, cores)), *command]
    # On Ctrl-C it is killed with the wait for it.
    done = subprocess.run(
        pinned,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        cwd=Path(__file__).parent.parent,
    )
    try:
        said: dict[str, float] = json.loads(done.stderr.splitlines()[-1])
    except (ValueError, IndexError):
        raise Void(f"{command[0]} said {(done.stderr + done.stdout)[-300:]!r}") from None
    faults = [f"{said[name]:.0f} x {name}" for name in _FAULTS if said[name]]
    if faults or not said["requests"]:
        raise Void(", ".join(faults) or "no answer at all")
    return said


def _ended_children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def watching(gateway: Iterable[int], rest: Iterable[int], agent: Iterable[int] = ()) -> Watched:
    """Give a `Watched`."""
    return Watched(tuple(gateway), tuple(agent), tuple(rest))
