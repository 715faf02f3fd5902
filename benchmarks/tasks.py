"""A task through everything, beside calling the same agent directly.

Client and agent share a core, as client and backend do everywhere here; beside that, with the agent
on a core for itself: there the gateway shares its own with the client, and a direct caller
has both.  Each way has a container of the same agent for itself, as what one leaves in a Node
process for its collector is not the other's: directly, the small client writes to its `agent.sock`;
through the gateway, the same client and wrk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks import agents, load, machine, product
from benchmarks.bench import Bench
from benchmarks.load import Run
from benchmarks.machine import GATEWAY_CORE, LOAD_CORE
from benchmarks.report import Result, at_least, times
from benchmarks.rounds import Series, at_each

TITLE = "A task through everything: client, gateway, Node agent in a container, and back"

_CONNECTIONS = (1, 32)
_DIRECT = "agent.sock, directly"
_OWN = f"through {product.NAME}"
_OWN_WRK = f"through {product.NAME}, wrk"
_OWN_HTTP = f"through {product.NAME}, wrk, HTTP inside"
_DIRECT_ALONE = f"{_DIRECT}; a core for the agent"
_OWN_ALONE = f"{_OWN_WRK}; a core for the agent"
_ALONE = (_DIRECT_ALONE, _OWN_ALONE)


def run(bench: Bench) -> Result:
    """Measure it."""
    engine = agents.engine()
    server = bench.product(runtime="docker").start()
    repository = agents.repository(bench.directory / "agents")
    sockets: dict[str, Path] = {}
    for path, environment in (
        ("/direct", {}),
        ("/demo", {}),
        ("/http", {"PLOINKY_FRAMES": "off"}),
    ):
        bench.children.finally_do(partial(server.remove, path))
        server.deploy(path, repository, environment=environment)
        (sockets[path],) = {*(server.data / "run" / "i").glob("*/agent.sock")} - {*sockets.values()}
    agent = agents.container_processes(engine, server)
    machine.pin(agent, LOAD_CORE)
    gateway = server.processes()
    direct, public = str(sockets["/direct"]), server.url.removeprefix("http://")

    def call(
        address: str, path: str, pids: list[int], cores: Sequence[int], connections: int
    ) -> Run:
        request = _request(path)
        arguments = [address, str(connections), str(bench.seconds), request]
        watched = load.watching(pids, (), agent)
        return load.script("client", arguments, watched, cores)

    def wrk(path: str, cores: Sequence[int], connections: int) -> Run:
        return load.wrk(
            f"{server.url}{path}",
            {"Host": "localhost"},
            load.watching(gateway, (), agent),
            connections,
            bench.seconds,
            ("post", agents.CALL),
            cores,
        )

    variants: dict[str, Callable[[int], Run]] = {
        _DIRECT: partial(call, direct, "/task", [], LOAD_CORE),
        _OWN: partial(call, public, "/demo", gateway, LOAD_CORE),
        _OWN_WRK: partial(wrk, "/demo", LOAD_CORE),
        _OWN_HTTP: partial(wrk, "/http", LOAD_CORE),
        _DIRECT_ALONE: partial(call, direct, "/task", [], GATEWAY_CORE),
        _OWN_ALONE: partial(wrk, "/demo", GATEWAY_CORE),
    }
    found = at_each(_CONNECTIONS, variants, bench.rounds)
    most = found[_CONNECTIONS[-1]].ratio(_OWN_WRK, _DIRECT, "per_second")
    return Result(
        name="tasks",
        title=TITLE,
        columns=[
            "way",
            "c",
            "tasks/s",
            "of direct",
            "p50 ms",
            "p99 ms",
            "gateway us",
            "agent us",
            "client us",
        ],
        lines=[_line(name, c, series) for c, series in found.items() for name in variants],
        goals=[at_least(f"tasks/s at c={_CONNECTIONS[-1]}", 1.0, most, "x direct")],
        others=max(series.others() for series in found.values()),
        notes=[
            "The gateway has one core, client and agent the other.  Tasks travel as frames to the"
            " agent, but where it says HTTP.",
            "A core for the agent: client and gateway share the other, of which a direct caller"
            " leaves two thirds idle.  No goal is held against that.",
        ],
        voids=[void for series in found.values() for void in series.voids],
    )


def _line(name: str, connections: int, series: Series) -> list[str | float]:
    return [
        name,
        str(connections),
        series.median(name, "per_second"),
        times(series.ratio(name, _DIRECT_ALONE if name in _ALONE else _DIRECT, "per_second")),
        series.median(name, "p50_ms"),
        series.median(name, "p99_ms"),
        "-" if name in (_DIRECT, _DIRECT_ALONE) else series.median(name, "cpu_us"),
        series.median(name, "agent_us"),
        series.median(name, "client_us"),
    ]


def _request(path: str) -> str:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(agents.CALL)}\r\n\r\n{agents.CALL}"
    )
