"""What others notice of 10,000 idle connections, and of 1,000 clients that are slow on purpose."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.children import Child, free_port, listens, until
from benchmarks.growth import IdleConnections
from benchmarks.machine import LOAD_CORE
from benchmarks.report import Result, at_least, at_most, times
from benchmarks.rivals import Gateway
from benchmarks.rounds import take_turns

TITLE = "Hostile clients beside load (c=32)"

_IDLE, _SLOW = 10_000, 1_000
_READY_SECONDS = 60.0
_SETTLED_SECONDS = 5.0
_ROOT = Path(__file__).parent.parent


def run(bench: Bench) -> Result:
    """Measure it."""
    backend = bench.backend()
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.slow"]
    environment = {"PYTHONPATH": str(_ROOT)}
    agent = [*command, "agent", str(port)]
    waited = bench.children.start("slow-agent", agent, LOAD_CORE, environment)
    until(lambda: listens(port), "the slow clients' agent listens", waited)
    servers = {}
    for name in ("nobody", "idle", "slow"):
        servers[name] = bench.product(name).start()
        servers[name].lead_to("/app", f"http://{backend.target}")
    servers["slow"].lead_to("/slow", f"http://127.0.0.1:{port}")
    before = {name: machine.resident_bytes(server.workers()) for name, server in servers.items()}
    slow = servers["slow"].gateway("/slow", check=False)
    with IdleConnections(servers["idle"].gateway("/app"), _IDLE) as idle:
        crowd = _crowd(bench, slow, command, environment)
        held = {
            name: machine.resident_bytes(servers[name].workers()) - before[name]
            for name in ("idle", "slow")
        }
        variants = {
            "nobody else": partial(bench.wrk, servers["nobody"].gateway("/app"), backend, 32),
            f"{len(idle):,} idle": partial(bench.wrk, servers["idle"].gateway("/app"), backend, 32),
            f"{_SLOW:,} slow": partial(bench.wrk, servers["slow"].gateway("/app"), backend, 32),
        }
        series = take_turns(variants, bench.rounds)
        idle.check()
        crowd.check()
    nobody, *hostile = variants
    per_idle, per_slow = held["idle"] / _IDLE / 1024, held["slow"] / _SLOW / 1024
    goals = [
        at_least(f"throughput beside {name}", 0.9, series.ratio(name, nobody, "per_second"), "x")
        for name in hostile
    ]
    goals.append(at_most("memory for each idle connection", 4.0, per_idle, " KiB"))
    goals.append(at_most("memory for each slow client", 1024.0, per_slow, " KiB"))
    return Result(
        name="hostile",
        title=TITLE,
        columns=["beside", "requests/s", "of alone", "CPU us", "of alone", "p99 ms"],
        lines=[
            [
                name,
                series.median(name, "per_second"),
                times(series.ratio(name, nobody, "per_second")),
                series.median(name, "cpu_us"),
                times(series.ratio(name, nobody, "cpu_us")),
                series.median(name, "p99_ms"),
            ]
            for name in variants
        ],
        goals=goals,
        others=series.others(),
        notes=[
            "The slow ones are as many that send a byte of a head each second, 2 KiB of a body, and "
            "that take 2 KiB of an answer; who is cut off comes again. They run on the client's core.",
            f"Memory of a worker for each idle connection: {per_idle:.1f} KiB; for each slow client, "
            f"with its agent's connection and what is held for it: {per_slow:.1f} KiB.",
        ],
        voids=series.voids,
    )


def _crowd(bench: Bench, slow: Gateway, command: list[str], environment: dict[str, str]) -> Child:
    """Start the slow clients, and wait until all are there and what they fill is full."""
    arguments = ["clients", slow.url, json.dumps(slow.headers), str(_SLOW)]
    crowd = bench.children.start("slow-clients", [*command, *arguments], LOAD_CORE, environment)
    until(lambda: "ready" in crowd.log.read_text(), "slow clients", crowd, _READY_SECONDS)
    time.sleep(_SETTLED_SECONDS)
    return crowd
