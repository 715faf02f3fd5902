"""``logs``: the server's own log, or what the instances of a deployment print."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from ploinky.cli import output
from ploinky.cli.client import Client
from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.cli.names import completing
from ploinky.cli.shared import client, json_option, show_stream


@click.command()
@click.argument("what", metavar="[N|list|download DATE]", default="100")
@click.argument("date", required=False, metavar="")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes; Ctrl-C ends it.")
@click.option(
    "--deployment",
    metavar="DOMAIN/PATH",
    shell_complete=completing("place"),
    help="What its instances print, instead.",
)
@click.option("--release", type=int, help="With --deployment: of this release.")
@click.option("--level", help="Only this level and above: debug, info, warn, error.")
@click.option("--request", help="Only what belongs to the request with this id.")
@click.option(
    "--about",
    metavar="DOMAIN/PATH",
    shell_complete=completing("place"),
    help="Only what is about this deployment.",
)
@click.option("--access", is_flag=True, help="The access log: one line a request.")
@json_option
def logs(
    what: str,
    date: str | None,
    follow: bool,
    deployment: str | None,
    release: int | None,
    level: str | None,
    request: str | None,
    about: str | None,
    access: bool,
    want_json: bool,
) -> None:
    """Show the server's log.  The last N lines; or list its days, or download the one of DATE."""
    log = "access" if access else None
    if date is not None and what != "download":
        raise CommandFailed(
            f"{date!r} is one too many",
            hint="p-cli cloud logs 500   or: p-cli cloud logs download 2024-01-15",
            exit_code=CONFIGURATION,
        )
    if what == "list":
        _list(log, want_json)
    elif what == "download":
        _download(date, log, want_json)
    elif not what.isdigit():
        raise CommandFailed(
            f"{what!r} is neither a number of lines nor list nor download",
            hint="p-cli cloud logs 500   or: p-cli cloud logs download 2024-01-15",
            exit_code=CONFIGURATION,
        )
    elif deployment is not None:
        domain, slash, path = deployment.partition("/")
        query = {"domain": domain, "path": slash + path, "release": release, "lines": what}
        _show(client(), "deployments/logs", query, follow, want_json)
    else:
        query = {"lines": what, "log": log, "level": level, "request": request}
        if want_json:
            query["format"] = "json"
        _show(client(), "logs", {**query, "deployment": about}, follow, want_json=False)


def _list(log: str | None, want_json: bool) -> None:
    answer = client().api("GET", "logs/list", log=log)
    if want_json:
        output.as_json(answer)
        return
    for date in answer["dates"]:
        click.echo(date)


def _download(date: str | None, log: str | None, want_json: bool) -> None:
    if date is None:
        raise CommandFailed(
            "no date given",
            hint="p-cli cloud logs list shows which there are",
            exit_code=CONFIGURATION,
        )
    place = Path(f"{log or 'server'}-{date}.jsonl.gz")
    pieces = client().stream("logs/download", date=date, log=log)
    first = next(pieces, b"")  # an error is told before there is a file
    try:
        file = place.open("xb")
    except FileExistsError as error:
        raise CommandFailed(f"{place} is there already", exit_code=CONFIGURATION) from error
    with file, ExitStack() as unless_whole:
        unless_whole.callback(place.unlink)
        file.write(first)
        for piece in pieces:
            file.write(piece)
        file.flush()
        unless_whole.pop_all()
    output.done({"file": str(place)}, want_json, str(place))


def _show(caller: Client, path: str, query: dict[str, Any], follow: bool, want_json: bool) -> None:
    if follow:
        show_stream(caller.stream(path, follow=1, **query))
        return
    answer = caller.api("GET", path, **query)
    if want_json:
        output.as_json({"output": answer})
    elif answer:
        click.echo(output.visible(answer), nl=not answer.endswith("\n"))
