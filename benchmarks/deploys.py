"""From the request to deploy until the agent serves, beside `docker create`, `start`, first answer.

Both run the example agent in the same image, with AgentCore, the same mounts and the same
confinement.  The rival is measured twice: as the two commands that a person would type, and over
the engine's API without the commands' own start.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import agents
from benchmarks.bench import Bench
from benchmarks.children import program, until
from benchmarks.load import Run
from benchmarks.product import NAME, Product
from benchmarks.report import Result, at_most, times
from benchmarks.rounds import take_turns

TITLE = "Deploy of a cached image, from the request until it serves"

_TYPED = "docker create, start"
_API = "the same over the API"
_NUMBERS = itertools.count(1)


def run(bench: Bench) -> Result:
    """Measure it."""
    engine = agents.engine()
    server = bench.product(runtime="docker").start()
    source = agents.repository(bench.directory / "agents")
    bench.children.finally_do(partial(_remove_all, server))
    rival = _Rival(bench, engine)
    bench.children.finally_do(rival.remove)
    variants = {
        _TYPED: partial(_timed, rival.typed, rival.remove),
        _API: partial(_timed, rival.over_api, rival.remove),
        NAME: partial(_timed, partial(_deploy, server, source), partial(server.remove, "/bench")),
    }
    series = take_turns(variants, bench.rounds)
    return Result(
        name="deploys",
        title=TITLE,
        columns=["way", "ms", "of the commands", "of the API"],
        lines=[
            [
                name,
                series.median(name, "p50_ms"),
                times(series.ratio(name, _TYPED, "p50_ms")),
                times(series.ratio(name, _API, "p50_ms")),
            ]
            for name in variants
        ],
        goals=[
            at_most("time to serve", 1.3, series.ratio(NAME, _TYPED, "p50_ms"), "x the commands'"),
            at_most("time to serve", 1.3, series.ratio(NAME, _API, "p50_ms"), "x the API's"),
        ],
        others=series.others(),
        notes=[
            "A new deployment each time, from a repository whose mirror is fresh: checkout,"
            " container, proof of health, switch of the workers and one call are in it."
        ],
        voids=series.voids,
    )


def _timed(begin: Callable[[], None], tidy: Callable[[], None]) -> Run:
    """Time one; what it made is removed afterwards, and that is not timed."""
    began = time.monotonic()
    try:
        begin()
        took = time.monotonic() - began
    finally:
        tidy()
    # The engine's daemons work too, and are not ours: what others took cannot be told.
    return Run(1 / took, took * 1000, took * 1000, others=float("nan"))


def _deploy(server: Product, source: str) -> None:
    server.deploy("/bench", source)
    answer = server.call("/bench", agents.CALL)
    assert "Hello World" in answer, answer


def _remove_all(server: Product) -> None:
    for found in server.api("GET", "deployments")["deployments"]:
        server.remove(found["path"])


class _Rival:
    """The same agent in a container that nobody manages."""

    def __init__(self, bench: Bench, engine: Any) -> None:
        self._engine = engine
        self._code = bench.directory / "code"
        self._queues = bench.directory
        self._name = ""
        shutil.copytree(agents.AGENTCORE.parent / "examples" / "agents" / "demo", self._code)

    def typed(self) -> None:
        """As a person would."""
        queue = self._next()
        words = [f"--volume={source}:{place}" for source, place in self._mounts(queue)]
        words += [f"--env={name}={value}" for name, value in _ENVIRONMENT.items()]
        words += ["--init", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        words += [f"--user={os.getuid()}:{os.getgid()}", f"--name={self._name}"]
        words += ["--entrypoint=/bin/sh", agents.IMAGE, "/agentCore/run.sh"]
        for command in (["create", *words], ["start", self._name]):
            subprocess.run([program("docker"), *command], check=True, stdout=subprocess.DEVNULL)
        _first_answer(queue)

    def over_api(self) -> None:
        """As a program would."""
        queue = self._next()
        container = self._engine.containers.create(
            agents.IMAGE,
            ["/agentCore/run.sh"],
            entrypoint="/bin/sh",
            name=self._name,
            user=f"{os.getuid()}:{os.getgid()}",
            volumes=[f"{source}:{place}" for source, place in self._mounts(queue)],
            environment=_ENVIRONMENT,
            init=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
        container.start()
        _first_answer(queue)

    def remove(self) -> None:
        """Remove the container, if there is one."""
        if self._name:
            self._engine.containers.get(self._name).remove(force=True)
            self._name = ""

    def _next(self) -> Path:
        self._name = f"ploinky-bench-{os.getpid()}-{next(_NUMBERS)}"
        queue = self._queues / f"q{next(_NUMBERS)}"
        queue.mkdir()
        return queue

    def _mounts(self, queue: Path) -> list[tuple[Path, str]]:
        return [
            (self._code, "/agent"),
            (agents.AGENTCORE, "/agentCore"),
            (queue, "/agent/.ploinky/queue"),
        ]


_ENVIRONMENT = {
    "AGENT_DIR": "/agent",
    "PLOINKY_QUEUE": "/agent/.ploinky/queue",
    "PLOINKY_ENGINE": "node",
    "HOME": "/tmp",
}


def _first_answer(queue: Path) -> None:
    """Wait until AgentCore answers a task."""
    head = f"POST /task HTTP/1.1\r\nHost: a\r\nContent-Length: {len(agents.CALL)}\r\n\r\n"

    def answered() -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(queue / "agent.sock"))
            connection.sendall((head + agents.CALL).encode())
            return connection.recv(4096).startswith(b"HTTP/1.1 200 ")

    until(answered, "the agent's first answer")
