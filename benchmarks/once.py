"""A connection for each request, as many small clients make one: what setting it up and ending it cost."""

from __future__ import annotations

from functools import partial

from benchmarks import product, rivals
from benchmarks.bench import Bench
from benchmarks.report import Result, at_least, times
from benchmarks.rounds import take_turns

TITLE = "A connection for each request, c=32"

_OWN = product.NAME


def run(bench: Bench) -> Result:
    """Measure it."""
    backend = bench.backend()
    server = bench.product().start()
    server.lead_to("/app", f"http://{backend.target}")
    gateways = [
        rivals.start_haproxy(bench.children, backend.target),
        rivals.start_nginx(bench.children, backend.target, "nginx, duties"),
        rivals.start_caddy(bench.children, backend.target),
        server.gateway("/app"),
    ]
    variants = {each.name: partial(bench.wrk, each, backend, 32, ("once",)) for each in gateways}
    series = take_turns(variants, bench.rounds)
    return Result(
        name="once",
        title=TITLE,
        columns=["gateway", "requests/s", "of caddy", "CPU us", "of haproxy", "p99 ms"],
        lines=[
            [
                name,
                series.median(name, "per_second"),
                times(series.ratio(name, "caddy", "per_second")),
                series.median(name, "cpu_us"),
                times(series.ratio(name, "haproxy", "cpu_us")),
                series.median(name, "p99_ms"),
            ]
            for name in variants
        ],
        goals=[at_least("requests/s", 1.0, series.ratio(_OWN, "caddy", "per_second"), "x caddy")],
        others=series.others(),
        voids=series.voids,
    )
