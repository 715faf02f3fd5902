"""What others notice of 50 wrong logins a second, and how soon a key that is taken back is refused."""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import threading
import time
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from attrs import Factory, define, frozen

from benchmarks.bench import Bench
from benchmarks.children import BenchmarkFailed, until
from benchmarks.load import Run
from benchmarks.machine import ALL_CORES, LOAD_CORE
from benchmarks.product import Product
from benchmarks.report import Result, at_least, at_most, times
from benchmarks.rivals import Backend
from benchmarks.rounds import take_turns

TITLE = "Keys: wrong logins beside load (c=32), and one that is taken back"

_A_SECOND = 50
_REMOVALS = 20
_ROOT = Path(__file__).parent.parent
_NUMBERS = itertools.count(1)


def run(bench: Bench) -> Result:
    """Measure it."""
    backend = bench.backend()
    server = bench.product().start()
    server.lead_to("/app", f"http://{backend.target}")
    guessed = f"{_A_SECOND} wrong logins/s"
    variants = {
        "nobody else": partial(bench.wrk, server.gateway("/app"), backend, 32),
        guessed: partial(_guessed, bench, server, backend),
    }
    series = take_turns(variants, bench.rounds)
    server.stop()
    taken = _taken_back(bench, backend)
    answered, refused = ([1000 * one[i] for one in taken] for i in range(2))
    return Result(
        name="keys",
        title=TITLE,
        columns=["beside", "requests/s", "of alone", "CPU us", "of alone", "p99 ms"],
        lines=[
            [
                name,
                series.median(name, "per_second"),
                times(series.ratio(name, "nobody else", "per_second")),
                series.median(name, "cpu_us"),
                times(series.ratio(name, "nobody else", "cpu_us")),
                series.median(name, "p99_ms"),
            ]
            for name in variants
        ],
        goals=[
            at_least(
                f"throughput beside {guessed}",
                0.95,
                series.ratio(guessed, "nobody else", "per_second"),
                "x",
            ),
            at_most("time until both workers refuse a key, at most", 100.0, max(refused), " ms"),
        ],
        others=series.others(),
        notes=[
            "CPU is that of leader and worker together, so the logins' own share is in it.",
            f"A key in use on a connection to each of two workers was taken back {len(taken)} times:"
            f" answered after {statistics.median(answered):.1f} ms (median), refused by both"
            f" {statistics.median(refused):.1f} ms (median) after it was asked for.",
        ],
        voids=series.voids,
    )


def _guessed(bench: Bench, server: Product, backend: Backend) -> Run:
    """Load the server once while somebody guesses, who has been held up already."""
    command = [sys.executable, "-m", "benchmarks.guesses", server.url, str(_A_SECOND)]
    name = f"guesses-{next(_NUMBERS)}"
    child = bench.children.start(name, command, LOAD_CORE, {"PYTHONPATH": str(_ROOT)})
    try:
        until(lambda: "held up" in child.log.read_text(), "the guesser is held up", child)
        found = bench.wrk(server.gateway("/app"), backend, 32)
        child.check()
        return found
    finally:
        child.end()


def _taken_back(bench: Bench, backend: Backend) -> list[tuple[float, float]]:
    """Take keys back; give, in seconds, when each removal was answered, and when all refused."""
    server = bench.product("two", workers=2, cores=ALL_CORES).start()
    server.lead_to("/app", f"http://{backend.target}")
    return [_take_back(server, f"key-{number}") for number in range(_REMOVALS)]


def _take_back(server: Product, name: str) -> tuple[float, float]:
    key = server.api("POST", "keys", {"name": name, "role": "caller"})["apiKey"]
    callers = _to_each_worker(server, key)
    for caller in callers:
        caller.start()
    until(lambda: all(caller.served > 20 for caller in callers), "both workers are in use")
    began = time.monotonic()
    server.api("DELETE", f"keys/{name}")
    answered = time.monotonic()
    for caller in callers:
        caller.thread.join(30)
    return answered - began, max(caller.refused_at for caller in callers) - began


def _to_each_worker(server: Product, key: str) -> list[_Caller]:
    found: dict[str, _Caller] = {}
    for _ in range(200):
        caller = _Caller(_Connection(HTTPConnection(str(urlsplit(server.url).netloc)), key))
        _, worker = caller.connection.call()
        found.setdefault(worker, caller)
        if len(found) == 2:
            return list(found.values())
    raise BenchmarkFailed("no connection came to the second worker")


@frozen
class _Connection:
    """One that stays open, and what is said on it."""

    http: HTTPConnection
    key: str

    def call(self) -> tuple[int, str]:
        """Give the status, and the worker that answered: an id begins with its slot."""
        self.http.request("GET", "/app/hello", headers={"X-API-Key": self.key, "Host": "localhost"})
        answer = self.http.getresponse()
        answer.read()
        return answer.status, str(answer.headers["X-Request-Id"])[0]


@define(eq=False)
class _Caller:
    """Calls until it is refused.

    Attributes:
        served: How many calls were answered.
        refused_at: When one was not.
    """

    connection: _Connection
    served: int = 0
    refused_at: float = float("inf")
    thread: threading.Thread = Factory(
        lambda self: threading.Thread(target=self.call, daemon=True), takes_self=True
    )

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def call(self) -> None:
        """Call again and again."""
        while True:
            status, _ = self.connection.call()
            if status == 401:
                self.refused_at = time.monotonic()
                return
            if status != 200:
                raise BenchmarkFailed(json.dumps({"status": status}))
            self.served += 1
