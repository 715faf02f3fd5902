"""Heads that all differ, as behind a tracing front end: nothing that was read before helps."""

from __future__ import annotations

from functools import partial

from benchmarks import product, rivals
from benchmarks.bench import Bench
from benchmarks.report import Result, at_least, times
from benchmarks.rounds import take_turns

TITLE = "Heads that differ from request to request (random traceparent and cookie), c=32"

_OWN = product.NAME
_UNIX = ", Unix socket"


def run(bench: Bench) -> Result:
    """Measure it; a line with equal heads stands beside it."""
    backend = bench.backend()
    server = bench.product().start()
    server.lead_to("/app", f"http://{backend.target}")
    server.lead_to("/unix", f"unix:{backend.socket}")
    gateways = [
        rivals.start_haproxy(bench.children, backend.target),
        rivals.start_nginx(bench.children, backend.target, "nginx, duties"),
        server.gateway("/app"),
        server.gateway("/unix", _OWN + _UNIX),
    ]
    variants = {each.name: partial(bench.wrk, each, backend, 32, ("heads",)) for each in gateways}
    same = f"{_OWN}, equal heads"
    variants[same] = partial(bench.wrk, server.gateway("/app"), backend, 32)
    series = take_turns(variants, bench.rounds)
    return Result(
        name="heads",
        title=TITLE,
        columns=["gateway", "requests/s", "of haproxy", "CPU us", "of haproxy", "p99 ms"],
        lines=[
            [
                name,
                series.median(name, "per_second"),
                times(series.ratio(name, "haproxy", "per_second")),
                series.median(name, "cpu_us"),
                times(series.ratio(name, "haproxy", "cpu_us")),
                series.median(name, "p99_ms"),
            ]
            for name in variants
        ],
        goals=[
            at_least("requests/s", 0.7, series.ratio(_OWN, "haproxy", "per_second"), "x haproxy")
        ],
        others=series.others(),
        voids=series.voids,
    )
