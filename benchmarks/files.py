"""The file queue: a worker's transport and a Node agent, with inotify on both sides.

Without a gateway before it: one process on each core.  The same tasks over HTTP and as frames, from
the same worker to the same agent, stand beside it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks import agents, load
from benchmarks.bench import Bench
from benchmarks.children import Child
from benchmarks.load import Run
from benchmarks.machine import GATEWAY_CORE
from benchmarks.report import Result, at_least, at_most, times
from benchmarks.rounds import Series, at_each

TITLE = "File queue, round trip between a worker and a Node agent"

_CONNECTIONS = (1, 32)
_DISK, _TMPFS, _HTTP = "files on disk", "files on tmpfs", "HTTP on agent.sock"
_FRAMES = "frames on agent.sock"


def run(bench: Bench) -> Result:
    """Measure it."""
    disk, memory = bench.directory / "disk", bench.memory_directory()
    on_disk = agents.start_agentcore(bench.children, "agent-disk", disk)
    in_memory = agents.start_agentcore(bench.children, "agent-tmpfs", memory)

    def call(wire: str, place: Path, agent: Child, connections: int) -> Run:
        arguments = [wire, str(place / "q"), str(connections), str(bench.seconds)]
        watched = load.watching((), (), agent.processes())
        return load.script("wires", arguments, watched, GATEWAY_CORE)

    variants = {
        _DISK: partial(call, "file", disk, on_disk),
        _TMPFS: partial(call, "file", memory, in_memory),
        _HTTP: partial(call, "http", disk, on_disk),
        _FRAMES: partial(call, "frames", disk, on_disk),
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
        notes=["Tasks that are synced to the disk before they are accepted are not built yet."],
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
