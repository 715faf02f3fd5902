"""What more of everything costs: deployments, and connections that nobody uses now."""

from __future__ import annotations

import os
import resource
import secrets
import socket
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import sqlalchemy

from benchmarks import machine, rivals
from benchmarks.bench import Bench
from benchmarks.children import BenchmarkFailed
from benchmarks.product import NAME, Product
from benchmarks.report import Goal, Result, at_least, at_most, times
from benchmarks.rivals import Backend, Gateway
from benchmarks.rounds import take_turns
from ploinky.rooms import new_id
from ploinky.security.secrets import SecretBox, master_keys
from ploinky.store import records
from ploinky.store.tables import DEPLOYMENTS, RELEASES
from ploinky.values import Deployment, DeploymentKey, DeployRequest, Release, ReleaseState

TITLE = "Cost as it grows: deployments, idle connections (c=32 beside them)"

_FEW, _MANY = 10, 10_000
_FEW_IDLE, _MANY_IDLE = 100, 10_000


def run(bench: Bench) -> Result:
    """Measure it."""
    backend = bench.backend()
    few = _with_deployments(bench, backend, _FEW)
    many = _with_deployments(bench, backend, _MANY)
    crowded = bench.product("crowded").start()
    crowded.lead_to("/app", f"http://{backend.target}")
    per_idle = _idle_costs(bench, backend)
    before = machine.resident_bytes(crowded.workers())
    with (
        IdleConnections(crowded.gateway("/app"), _MANY_IDLE) as idle,
        IdleConnections(few.at(0), _FEW_IDLE),
    ):
        held = machine.resident_bytes(crowded.workers()) - before
        per_idle[NAME] = held / len(idle)
        variants = {
            f"{_FEW} deployments": partial(bench.wrk, few.at(0), backend, 32, ("paths", str(_FEW))),
            f"{_MANY:,} deployments": partial(
                bench.wrk, many.at(0), backend, 32, ("paths", str(_MANY))
            ),
            f"{_MANY:,} deployments, {_FEW} of them called": partial(
                bench.wrk, many.at(0), backend, 32, ("paths", str(_FEW))
            ),
            f"{_FEW_IDLE} idle connections": partial(bench.wrk, few.at(0), backend, 32),
            f"{len(idle):,} idle connections": partial(
                bench.wrk, crowded.gateway("/app"), backend, 32
            ),
        }
        series = take_turns(variants, bench.rounds)
        idle.check()
    names = list(variants)
    pairs = {names[1]: names[0], names[2]: names[0], names[4]: names[3]}
    per_route = (many.held - few.held) / (_MANY - _FEW)
    goals: list[Goal] = []
    for name, base in pairs.items():
        ratio = series.ratio(name, base, "per_second")
        goals.append(at_least(f"throughput with {name}", 0.95, ratio, f"x that with {base}"))
    goals.append(at_most("memory for each idle connection", 4.0, per_idle[NAME] / 1024, " KiB"))
    goals.append(at_most("memory for each route", 2.0, per_route / 1024, " KiB"))
    others = ", ".join(f"{name} {held / 1024:.1f} KiB" for name, held in per_idle.items())
    return Result(
        name="growth",
        title=TITLE,
        columns=["with", "requests/s", "of the few", "CPU us", "of the few"],
        lines=[
            [
                name,
                series.median(name, "per_second"),
                times(series.ratio(name, pairs.get(name, name), "per_second")),
                series.median(name, "cpu_us"),
                times(series.ratio(name, pairs.get(name, name), "cpu_us")),
            ]
            for name in names
        ],
        goals=goals,
        others=series.others(),
        notes=[
            "Requests go to deployments at random, to all of a server or to those that are named, so"
            " hardly one has the head before it.",
            f"Memory of a worker for each idle connection that has had one request: {others}; "
            f"for each route: {per_route / 1024:.1f} KiB in the worker, "
            f"{(many.leader_held - few.leader_held) / (_MANY - _FEW) / 1024:.1f} KiB in the leader.",
            f"A server with {_MANY:,} deployments in its database serves {many.start_seconds:.1f} s "
            f"after it was started, one with {_FEW} {few.start_seconds:.1f} s after; one more "
            f"deployment through the API takes {many.deploy_seconds * 1000:.0f} ms and "
            f"{few.deploy_seconds * 1000:.0f} ms.",
        ],
        voids=series.voids,
    )


@attrs.frozen
class _Grown:
    """A server with so many deployments, `/d0` and on.

    Attributes:
        held: Bytes of its worker.
        leader_held: Of its leader.
        start_seconds: From its start until it answers.
        deploy_seconds: For one more deployment.
    """

    server: Product
    held: int
    leader_held: int
    start_seconds: float
    deploy_seconds: float

    def at(self, number: int) -> Gateway:
        return self.server.gateway(f"/d{number}")


def _with_deployments(bench: Bench, backend: Backend, count: int) -> _Grown:
    """Give a server with `count` external deployments.

    They are written to its database while it is down, by the store's own code: through the API,
    each is published to every worker with all before it, and 10,000 would take hours.  What
    reads, posts and publishes them is the server.
    """
    server = bench.product(f"with-{count}").start()
    server.stop()
    _fill(server.data, backend, count)
    began = time.monotonic()
    server.start()
    started = time.monotonic() - began
    began = time.monotonic()
    server.lead_to("/one-more", f"http://{backend.target}")
    deployed = time.monotonic() - began
    workers = server.workers()
    leader = [pid for pid in server.processes() if pid not in workers]
    return _Grown(
        server, machine.resident_bytes(workers), machine.resident_bytes(leader), started, deployed
    )


def _fill(data: Path, backend: Backend, count: int) -> None:
    master, *_ = master_keys(data, os.environ, secrets.token_bytes)
    box = SecretBox(master, secrets.token_bytes)
    deployments: list[Any] = []
    releases: list[Any] = []
    for number in range(count):
        key = DeploymentKey("localhost", f"/d{number}")
        request = DeployRequest(
            key, "backend", target=f"http://{backend.target}", settings={"auth": "key"}
        )
        deployment = Deployment(new_id(), key, "backend", active_release=1)
        release = Release(
            deployment.id,
            1,
            ReleaseState.ACTIVE,
            request,
            settings={"kind": "service", "auth": "key"},
        )
        deployments.append(records.deployment_to_row(deployment))
        releases.append(records.release_to_row(release, box))
    engine = sqlalchemy.create_engine(f"sqlite:///{data / 'ploinky.sqlite'}")
    with engine.begin() as connection:
        connection.execute(DEPLOYMENTS.insert(), deployments)
        connection.execute(RELEASES.insert(), releases)
    engine.dispose()


def _idle_costs(bench: Bench, backend: Backend) -> dict[str, float]:
    """Give what rivals hold for each idle connection, in bytes."""
    costs = {}
    for gateway in (
        rivals.start_haproxy(bench.children, backend.target),
        rivals.start_nginx(bench.children, backend.target),
    ):
        before = machine.resident_bytes(gateway.processes())
        with IdleConnections(gateway, _MANY_IDLE) as idle:
            costs[gateway.name] = (machine.resident_bytes(gateway.processes()) - before) / len(idle)
    return costs


class IdleConnections:
    """A context with connections that had one answer each and say nothing more."""

    def __init__(self, gateway: Gateway, count: int) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._gateway = gateway
        self._count = min(count, most - 1000) if most != resource.RLIM_INFINITY else count
        self._connections: list[socket.socket] = []

    def __len__(self) -> int:
        return len(self._connections)

    def __enter__(self) -> IdleConnections:
        where = urlsplit(self._gateway.url)
        fields = "".join(f"{name}: {value}\r\n" for name, value in self._gateway.headers.items())
        request = f"GET {where.path} HTTP/1.1\r\n{fields}\r\n".encode()
        for _ in range(self._count):
            connection = socket.create_connection((where.hostname, where.port), 10)
            self._connections.append(connection)
            connection.sendall(request)
            if b" 200 " not in connection.recv(4096):
                raise BenchmarkFailed(f"{self._gateway.name} refused connection {len(self)}")
            connection.setblocking(False)
        return self

    def check(self) -> None:
        """See that all are still open.

        Raises:
            BenchmarkFailed: The other side closed some.
        """
        closed = 0
        for connection in self._connections:
            with suppress(BlockingIOError):
                closed += not connection.recv(1)
        if closed:
            raise BenchmarkFailed(f"{closed} idle connections were closed meanwhile")

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()
