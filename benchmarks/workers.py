"""A second worker: what it costs, and whether the kernel gives it its half."""

from __future__ import annotations

import statistics
import threading
from functools import partial

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.load import Run
from benchmarks.machine import ALL_CORES
from benchmarks.product import Product
from benchmarks.report import Result, at_most, times
from benchmarks.rounds import take_turns

TITLE = "Two workers beside one, c=256, everything on all cores"

_CONNECTIONS = 256
_LOOK_SECONDS = 0.5


def run(bench: Bench) -> Result:
    """Measure it."""
    backend = bench.backend()
    machine.pin(backend.child.processes(), ALL_CORES)
    shares: list[float] = []
    variants = {}
    for workers in (1, 2):
        server = bench.product(f"of-{workers}", workers=workers, cores=ALL_CORES).start()
        server.lead_to("/app", f"http://{backend.target}")
        load = partial(bench.wrk, server.gateway("/app"), backend, _CONNECTIONS, cores=ALL_CORES)
        variants[f"{workers} worker{'s' * (workers > 1)}"] = (
            load if workers == 1 else partial(_watched, load, server, shares)
        )
    series = take_turns(variants, bench.rounds)
    one, two = variants
    ratio = series.ratio(two, one, "cpu_us")
    least = min(shares, default=float("nan"))
    middle = statistics.median(shares) if shares else float("nan")
    return Result(
        name="workers",
        title=TITLE,
        columns=["with", "requests/s", "of one", "CPU us", "of one", "p99 ms"],
        lines=[
            [
                name,
                series.median(name, "per_second"),
                times(series.ratio(name, one, "per_second")),
                series.median(name, "cpu_us"),
                times(series.ratio(name, one, "cpu_us")),
                series.median(name, "p99_ms"),
            ]
            for name in variants
        ],
        goals=[
            at_most("CPU for each request with two", 1.1, ratio, "x one's"),
            at_most(
                "share of the connections of the busier worker", 55.0, 100 * (1 - middle), " %"
            ),
        ],
        others=series.others(),
        notes=[
            f"The busier of two workers had {100 * (1 - middle):.0f} % of {_CONNECTIONS} connections"
            f" (median), {100 * (1 - least):.0f} % at most.  The kernel spreads them by a hash of"
            " the addresses: one time in ten, chance alone gives more than 55 %.",
            "The client runs on the same cores and takes what a second worker could use.",
        ],
        voids=series.voids,
    )


def _watched(load: partial[Run], server: Product, shares: list[float]) -> Run:
    """Run the load, and look once in the middle who has how many connections."""

    def look() -> None:
        counts = machine.connections(workers, server.port)
        if sum(counts) >= _CONNECTIONS // 2:
            shares.append(min(counts) / sum(counts))

    workers = server.workers()
    timer = threading.Timer(_LOOK_SECONDS, look)
    timer.start()
    try:
        return load()
    finally:
        timer.join()
