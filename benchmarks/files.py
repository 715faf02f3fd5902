"""The file queue: a worker's transport and an agent, with inotify on both sides.

Without a gateway before it: one process on each core.  The same tasks over HTTP and as frames, from
the same worker to the same agent, stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import agents, load, machine
from benchmarks.bench import Bench
from benchmarks.load import Run
from benchmarks.machine import GATEWAY_CORE
from benchmarks.report import Result, at_least, at_most, times
from benchmarks.rounds import Series, at_each

TITLE = "File queue, round trip between a worker and an agent (Node unless it says Python)"

_CONNECTIONS = (1, 32)
_DISK, _TMPFS, _HTTP = "files on disk", "files on tmpfs", "HTTP on agent.sock"
_PYTHON_DISK, _PYTHON_TMPFS = "files on disk, Python", "files on tmpfs, Python"
_FRAMES = "frames on agent.sock"


def run(bench: Bench) -> Result:
    """Measure it."""
    disk, memory = bench.directory / "disk", bench.memory_directory()

    def calls(wire: str, place: Path, engine: str) -> Callable[[int], Run]:
        name = f"{wire}-{engine}"
        agent = agents.start_agentcore(bench.children, f"{place.name}-{name}", place / name, engine)

        def call(connections: int) -> Run:
            arguments = [wire, str(place / name / "q"), str(connections), str(bench.seconds)]
            watched = load.watching((), (), agent.processes())
            return load.script("wires", arguments, watched, GATEWAY_CORE)

        return call

    variants = {
        _DISK: calls("file", disk, "node"),
        _TMPFS: calls("file", memory, "node"),
        _PYTHON_DISK: calls("file", disk, "python"),
        _PYTHON_TMPFS: calls("file", memory, "python"),
        _HTTP: calls("http", disk, "node"),
        _FRAMES: calls("frames", disk, "node"),
    }
    found = at_each(_CONNECTIONS, variants, bench.rounds)
    one, many = (found[c] for c in _CONNECTIONS)
    return Result(
        name="files",
        title=TITLE,
        columns=["wire", "c", "tasks/s", "of HTTP", "p50 ms", "p99 ms", "worker us", "agent us"],
        lines=[_line(name, c, series) for c, series in found.items() for name in variants],
        goals=[
            at_most(f"p50 of {_DISK} at c=1", 0.5, one.median(_DISK, "p50_ms"), " ms"),
            at_least(f"{_DISK} at c=32", 8000, many.median(_DISK, "per_second"), " tasks/s"),
        ],
        others=max(series.others() for series in found.values()),
        notes=[
            f"The disk's file system: {machine.file_system(bench.directory)}.",
            "No task is synced to the disk: one that must outlast a crash is in the server's database"
            " before it is accepted, and goes through the same queue.",
        ],
        voids=[void for series in found.values() for void in series.voids],
    )


def _line(name: str, connections: int, series: Series) -> list[str | float]:
    return [
        name,
        str(connections),
        series.median(name, "per_second"),
        times(series.ratio(name, _HTTP, "per_second")),
        series.median(name, "p50_ms"),
        series.median(name, "p99_ms"),
        series.median(name, "client_us"),
        series.median(name, "agent_us"),
    ]
