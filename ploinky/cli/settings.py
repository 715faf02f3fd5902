"""``p-cli cloud config`` and `settings`: what the server runs by."""

from __future__ import annotations

import json
from typing import Any

import click

from ploinky.cli import output
from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.cli.names import completing
from ploinky.cli.shared import client, json_option


@click.command()
@json_option
def config(want_json: bool) -> None:
    """Show the configuration, and where it comes from."""
    answer = client().api("GET", "config")
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("setting", "value", "from", "from the next start"),
        (
            (name, _said(value), answer["origins"][name],
             _said(answer["waiting"][name]) if name in answer["waiting"] else "")
            for name, value in answer["settings"].items()
        ),
        empty="There are no settings.",
    )  # fmt: skip


@click.group()
def settings() -> None:
    """Show and change settings."""


@settings.command("show")
@json_option
def show(want_json: bool) -> None:
    """Show the settings, and which changes hold at once."""
    answer = client().api("GET", "settings")
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("setting", "value", "a change holds"),
        (
            (name, _said(value), "at once" if name in answer["atOnce"] else "after a restart")
            for name, value in answer["settings"].items()
        ),
        empty="There are no settings.",
    )


@settings.command("set")
@click.argument(
    "pairs", nargs=-1, required=True, metavar="NAME=VALUE...", shell_complete=completing("setting")
)
@json_option
def set_settings(pairs: tuple[str, ...], want_json: bool) -> None:
    """Change settings; NAME= leads back to the default.  A bad value changes nothing."""
    body: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CommandFailed(f"{pair}: expected NAME=VALUE", exit_code=CONFIGURATION)
        body[name] = value or None
    answer = client().api("POST", "settings", body)
    if want_json:
        output.as_json(answer)
        return
    if answer["applied"]:
        click.echo(f"In force: {', '.join(answer['applied'])}.")
    if answer["needsRestart"]:
        names = ", ".join(answer["needsRestart"])
        click.echo(f"From the next start: {names}.  (p-cli cloud stop, then start)")
    for name, winner in answer["overridden"].items():
        click.echo(f"Without effect: {name}, as {winner} wins.", err=True)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


COMMANDS = (config, settings)
