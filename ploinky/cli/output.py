"""How results look: tables for people on a terminal, JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_WIDEST = 10_000

_COLOURS = {
    "running": "green",
    "ok": "green",
    "deploying": "cyan",
    "unhealthy": "yellow",
    "degraded": "yellow",
    "stopped": "dim",
    "failed": "red",
    "down": "red",
}


_UNFIT_IN_JSON = re.compile(r"[\x7f-\x9f\ud800-\udfff]")
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


def as_json(document: Any) -> None:
    """Print a document on standard output, indented, keys as they came."""
    click.echo(json_text(document, indent=2))


def json_text(document: Any, indent: int | None = None) -> str:
    """Give a document as JSON that can be printed, on one line unless it is indented."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    # JSON escapes control characters but for some, which terminals may obey as well; and halves
    # of characters cannot be written at all.
    return _UNFIT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def visible(text: str) -> str:
    """Give a text that somebody else wrote as a terminal may show it: colours, and no commands."""
    parts = _COLOUR.split(text.replace("\r\n", "\n"))
    return "".join(part if number % 2 else _shown(part) for number, part in enumerate(parts))


def _shown(text: str) -> str:
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def done(answer: Any, want_json: bool, words: str) -> None:
    """Print what was done: the answer for programs, or a sentence for people."""
    if want_json:
        as_json(answer)
    else:
        click.echo(words)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print rows under a heading, or one line that says there are none."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    if drawn.row_count:
        # Nobody's screen is as wide as a pipe: there a row is a line, for grep and its kin.
        width = None if sys.stdout.isatty() else _WIDEST
        Console(highlight=False, soft_wrap=False, width=width).print(drawn)
    else:
        click.echo(empty)


def more(answer: Mapping[str, Any], page: int) -> None:
    """Say on standard error that a list goes on after this page, where it does."""
    if page * answer["perPage"] < answer["total"]:
        rest = answer["total"] - page * answer["perPage"]
        click.echo(f"{rest} more: --page {page + 1}", err=True)


def pairs(document: Mapping[str, Any]) -> None:
    """Print names and values, aligned."""
    width = max((len(name) for name in document), default=0)
    console = Console(highlight=False)
    for name, value in document.items():
        console.print(f"[bold]{name.ljust(width)}[/]  {_cell(value)}", soft_wrap=True)


def span(seconds: float) -> str:
    """Give a time as people say it."""
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.0f} s"


def _cell(value: Any) -> str:
    text = escape("" if value is None else _shown(str(value)))
    colour = _COLOURS.get(text)
    return f"[{colour}]{text}[/]" if colour else text
