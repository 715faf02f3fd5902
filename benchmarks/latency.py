"""How long one request takes, with one client and with 32."""

from __future__ import annotations

from functools import partial

from benchmarks import product, rivals
from benchmarks.bench import Bench
from benchmarks.report import Result, at_most, times
from benchmarks.rounds import Series, at_each

TITLE = "Latency"

_CONNECTIONS = (1, 32)
_OWN = product.NAME
_QUANTILES = {"p50": "p50_ms", "p99": "p99_ms"}


def run(bench: Bench) -> Result:
    """Measure it."""
    backend = bench.backend()
    server = bench.product().start()
    server.lead_to("/app", f"http://{backend.target}")
    gateways = [
        backend.direct(),
        rivals.start_haproxy(bench.children, backend.target),
        rivals.start_nginx(bench.children, backend.target),
        rivals.start_nginx(bench.children, backend.target, "nginx, duties"),
        server.gateway("/app"),
    ]
    variants = {each.name: partial(bench.wrk, each, backend) for each in gateways}
    found = at_each(_CONNECTIONS, variants, bench.rounds)
    return Result(
        name="latency",
        title=TITLE,
        columns=["gateway", "c", "p50 ms", "of haproxy", "p99 ms", "of haproxy"],
        lines=[_line(each.name, c, series) for c, series in found.items() for each in gateways],
        goals=[
            at_most(f"{q} at c={c}", 1.0, series.ratio(_OWN, "haproxy", what), "x haproxy")
            for c, series in found.items()
            for q, what in _QUANTILES.items()
        ],
        others=max(series.others() for series in found.values()),
        voids=[void for series in found.values() for void in series.voids],
    )


def _line(name: str, connections: int, series: Series) -> list[str | float]:
    line: list[str | float] = [name, str(connections)]
    for what in _QUANTILES.values():
        line += [series.median(name, what), times(series.ratio(name, "haproxy", what))]
    return line
