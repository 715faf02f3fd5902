"""How calls went: ``metrics`` of a range, ``deployments stats`` of one deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from ploinky.cli import output
from ploinky.cli.names import completing
from ploinky.cli.shared import client, json_option

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
_SECONDS = {"1h": 3600, "24h": 86_400, "7d": 604_800}


@click.command()
@click.argument("range_", metavar="[1h|24h|7d]", default="24h", type=click.Choice(list(_SECONDS)))
@click.option(
    "--agent",
    shell_complete=completing("agent"),
    help="One agent, or DOMAIN/PATH; default: all of them.",
)
@click.option("--prometheus", is_flag=True, help="All of them, as Prometheus reads them.")
@json_option
def metrics(range_: str, agent: str | None, prometheus: bool, want_json: bool) -> None:
    """Show how calls went.  How many there were, how long they took, and what failed."""
    if prometheus:
        click.echo(client().prometheus(), nl=False)
        return
    answer = client().api("GET", "metrics", range=range_, agent=agent)
    if want_json:
        output.as_json(answer)
        return
    output.pairs(
        {
            "calls": f"{answer['totalRequests']} in {range_}",
            "failed": f"{answer['errorRate']}",
            "refused": f"{answer['unauthorizedRequests']} without a right to call",
            "up for": output.span(answer["uptime"] / 1000),
        }
    )
    counts = _stretches(answer, _SECONDS[range_])
    if any(counts):
        click.echo(
            f"\n{sparkline(counts)}  at most {max(counts)} in {output.span(_stretch(range_))}"
        )
    click.echo()
    output.table(
        ("agent", "calls", "failed", "average", "p50", "p95", "p99", "longest", "failed at"),
        (row for name, one in answer["agents"].items() for row in _rows(name, one)),
        empty="Nothing is deployed, and nothing was called.",
    )


def sparkline(counts: Sequence[int]) -> str:
    """Draw counts as a line of bars; nothing at all is a blank."""
    most = max(counts)
    return "".join(_BARS[(n * 8 - 1) // most if n * 8 > most else 0] if n else " " for n in counts)


def _stretch(range_: str) -> float:
    return _SECONDS[range_] / _WIDTH


def _stretches(answer: Mapping[str, Any], seconds: float) -> list[int]:
    """Sum the series up to as many numbers as fit into a line."""
    began = datetime.fromisoformat(answer["since"].replace("Z", "+00:00"))
    counts = [0] * _WIDTH
    for point in answer["series"]:
        at = datetime.fromisoformat(point["time"].replace("Z", "+00:00"))
        place = int((at - began).total_seconds() * _WIDTH / seconds)
        counts[min(max(place, 0), _WIDTH - 1)] += point["count"]
    return counts


def _rows(name: str, agent: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    commands = agent["commands"]
    rows = [_row(name, agent)]
    if len(commands) > 1 or (commands and next(iter(commands.values()))["count"] < agent["count"]):
        rows += [_row(f"  {command}", one) for command, one in commands.items()]
    return rows


def _row(name: str, one: Mapping[str, Any]) -> tuple[Any, ...]:
    times = (one[each] for each in ("avgDuration", "p50", "p95", "p99", "maxDuration"))
    failed = ", ".join(f"{part} {number}" for part, number in one["failedAt"].items())
    return (name, one["count"], one["errorRate"], *map(_duration, times), failed)


def _duration(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    if milliseconds >= 10_000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds:.0f} ms"


@click.command("stats")
@click.argument("domain", shell_complete=completing("domain"))
@click.argument("path", shell_complete=completing("path"))
@json_option
def stats(domain: str, path: str, want_json: bool) -> None:
    """Show what the instances of the deployment at DOMAIN and PATH use."""
    answer = client().api("GET", "deployments/stats", domain=domain, path=path)
    if want_json:
        output.as_json(answer)
        return
    start = answer["avgStartSeconds"]
    output.pairs(
        {
            "in flight": answer["inFlight"],
            "waiting": answer["waiting"],
            "starts": f"{answer['starts']}" + (f", {start:.2f} s on average" if start else ""),
        }
    )
    click.echo()
    output.table(
        ("instance", "release", "status", "cores", "memory", "limit", "processes", "restarts"),
        (
            (
                one["instance"],
                one["release"],
                _status(one),
                "-" if one["cores"] is None else f"{one['cores']:.2f}",
                _size(one["memoryBytes"]),
                _size(one["memoryLimitBytes"]),
                one["processes"],
                one["restarts"],
            )
            for one in answer["instances"]
        ),
        empty="It has no instances now.",
    )


def _status(one: Mapping[str, Any]) -> str:
    if one["running"]:
        return "running"
    return "out of memory" if one["outOfMemory"] else f"exit code {one['exitCode']}"


def _size(number: int | None) -> str:
    return "-" if number is None else f"{number / 1024 / 1024:.1f} MiB"
