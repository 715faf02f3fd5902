"""Requests per second on one core, and the gateway's own time for each."""

from __future__ import annotations

from functools import partial

from benchmarks import product, rivals
from benchmarks.bench import Bench
from benchmarks.report import Result, at_least, at_most, times
from benchmarks.rounds import Series, at_each

TITLE = "Requests per second and core, with every duty on"

_CONNECTIONS = (32, 256)
_OWN = product.NAME
_UNIX = ", Unix socket"


def run(bench: Bench) -> Result:
    """Measure it."""
    backend = bench.backend()
    over_unix = str(backend.socket)
    server = bench.product().start()
    server.lead_to("/app", f"http://{backend.target}")
    server.lead_to("/unix", f"unix:{over_unix}")
    gateways = [
        backend.direct(),
        rivals.start_haproxy(bench.children, backend.target),
        rivals.start_nginx(bench.children, backend.target),
        rivals.start_nginx(bench.children, backend.target, "nginx, duties"),
        rivals.start_caddy(bench.children, backend.target),
        server.gateway("/app"),
        rivals.start_haproxy(bench.children, f"unix@{over_unix}", "haproxy" + _UNIX),
        rivals.start_nginx(bench.children, f"unix:{over_unix}", "nginx, duties" + _UNIX),
        server.gateway("/unix", _OWN + _UNIX),
    ]
    variants = {each.name: partial(bench.wrk, each, backend) for each in gateways}
    found = at_each(_CONNECTIONS, variants, bench.rounds)
    names = [gateway.name for gateway in gateways]
    return Result(
        name="throughput",
        title=TITLE,
        columns=["gateway", "c", "requests/s", "of haproxy", "CPU us", "of haproxy"],
        lines=[_line(name, c, series) for c, series in found.items() for name in names],
        goals=[
            goal
            for c, series in found.items()
            for goal in (
                at_least(
                    f"requests/s at c={c}",
                    1.0,
                    series.ratio(_OWN, "haproxy", "per_second"),
                    "x haproxy",
                ),
                at_least(
                    f"requests/s at c={c}",
                    1.0,
                    series.ratio(_OWN, "nginx", "per_second"),
                    "x nginx",
                ),
                at_least(
                    f"requests/s at c={c}",
                    3.0,
                    series.ratio(_OWN, "caddy", "per_second"),
                    "x caddy",
                ),
                at_most(
                    f"CPU for each request at c={c}",
                    1.0,
                    series.ratio(_OWN, "haproxy", "cpu_us"),
                    "x haproxy",
                ),
            )
        ],
        others=max(series.others() for series in found.values()),
        voids=[void for series in found.values() for void in series.voids],
        bars=[
            (f"c={c}", name, series.median(name, "per_second"))
            for c, series in found.items()
            for name in names
        ],
    )


def _line(name: str, connections: int, series: Series) -> list[str | float]:
    rival = "haproxy" + _UNIX if name.endswith(_UNIX) else "haproxy"
    line: list[str | float] = [name, str(connections)]
    for what in ("per_second", "cpu_us"):
        if what == "cpu_us" and name == "none":
            line += ["-", "-"]
        else:
            line += [series.median(name, what), times(series.ratio(name, rival, what))]
    return line
