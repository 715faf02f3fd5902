"""``python -m benchmarks [--write] [ROW ...]``: all rows, or some."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from types import FrameType

from benchmarks import machine, packages, plot, report
from benchmarks.bench import Bench
from benchmarks.children import BenchmarkFailed

ROWS = (
    "throughput",
    "steps",
    "latency",
    "heads",
    "once",
    "growth",
    "hostile",
    "keys",
    "workers",
    "tasks",
    "files",
    "deploys",
)


def main() -> int:
    """Measure, print, and if asked write; give the exit status."""
    rows = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    rows.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all")
    rows.add_argument("--write", action="store_true", help="put tables into docs/performance.md")
    asked = rows.parse_args()
    unknown = sorted(set(asked.rows) - set(ROWS))
    if unknown:
        rows.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        packages.require()
        return _measure(asked.rows or ROWS, asked.write)
    except BenchmarkFailed as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; what was started has ended", file=sys.stderr)
        return 130


def _measure(rows: list[str] | tuple[str, ...], write: bool) -> int:
    seconds = int(os.environ.get("BENCH_SECONDS", "1"))
    rounds = int(os.environ.get("BENCH_ROUNDS", "5"))
    header = _header(seconds, rounds)
    print(header)
    began = time.monotonic()
    failed = False
    for name in rows:
        row = importlib.import_module(f"benchmarks.{name}")
        try:
            with Bench.open(seconds, rounds) as bench:
                result: report.Result = row.run(bench)
        except BenchmarkFailed as error:
            print(f"\n== {row.TITLE}\n\nNot measured: {error}", flush=True)
            failed = True
            continue
        failed = failed or bool(result.voids)
        print(result.text(), flush=True)
        if write:
            blocks = {"machine": header, name: result.markdown()}
            report.write(blocks)
            if result.bars:
                plot.draw(result, report.DOCUMENT.with_name(f"{name}.svg"))
    print(f"\n{time.monotonic() - began:.0f} s in all")
    return int(failed)


def _header(seconds: int, rounds: int) -> str:
    versions = {
        "Python": sys.version.split()[0],
        "nginx": machine.version("/usr/sbin/nginx", "-v"),
        "haproxy": machine.version("/usr/sbin/haproxy", "-v"),
        "caddy": machine.version("caddy", "version"),
        "wrk": machine.version("wrk", "-v"),
        "node": machine.version("node", "--version"),
        "docker": machine.version("docker", "--version"),
    }
    said = ", ".join(f"{name} {number}" for name, number in versions.items())
    placed = (
        f"gateway on core {machine.GATEWAY_CORE[0]}, client and backend on {machine.LOAD_CORE[0]}"
    )
    if len(machine.ALL_CORES) < 2:
        placed = "ONE CORE FOR EVERYTHING: requests per second mean little, CPU still does"
    return (
        f"Machine: {machine.description()}.\nVersions: {said}.\n"
        f"Runs of {seconds} s, {rounds} rounds; {placed}."
    )


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
