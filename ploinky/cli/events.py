"""``p-cli cloud events``: what happens on the server, as it happens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import click

from ploinky.cli import output
from ploinky.cli.shared import client

KINDS = ("deployment", "instance", "metrics", "task", "lost")


@click.command()
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="Only events of this kind; repeatable.",
)
@click.option("--after", metavar="ID", help="Go on after this event, as --json names it.")
@click.option("--count", type=click.IntRange(1), help="End after so many; default: never.")
@click.option("--json", "want_json", is_flag=True, help="Print JSON: one object a line.")
def events(kinds: tuple[str, ...], after: str | None, count: int | None, want_json: bool) -> None:
    """Show what happens, as it happens.  Ctrl-C ends it."""
    pieces = client().stream("events", lastEventId=after)
    wanted = (one for one in parsed(pieces) if not kinds or one["event"] in kinds)
    for one in islice(wanted, count):
        click.echo(output.json_text(one) if want_json else _line(one))


def parsed(pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Read Server-Sent Events: ``{id, event, data}``, whatever pieces they come in."""
    fields: dict[str, str] = {}
    for line in _lines(pieces):
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif not line:
            if "data" in fields:
                data = json.loads(fields["data"])
                yield {"id": fields.get("id"), "event": fields.get("event"), "data": data}
            fields = {}


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")


def _line(event: dict[str, Any]) -> str:
    data = event["data"]
    place = f"{data['domain']}{data['path']} " if "path" in data else ""
    return f"{event['event']:<11}{place}{_said(event['event'], data)}"


def _said(kind: str, data: dict[str, Any]) -> str:
    if kind == "deployment":
        return data.get("line") or f"is {data['status']}"
    if kind == "instance":
        if data["up"]:
            return f"instance {data['instance']} is up after {data['seconds']:.2f} s"
        return f"instance {data['instance']} died: {data['reason']}"
    if kind == "metrics":
        return f"{data['count']} calls, {data['errorRate']} failed"
    if kind == "task":
        return f"task {data['taskId']} is {data['status']}"
    return "events were missed"
