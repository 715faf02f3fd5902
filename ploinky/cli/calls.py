"""``p-cli cloud call``: call an agent and print what it returned."""

from __future__ import annotations

import json
from typing import Any

import click

from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.cli.shared import client


@click.command()
@click.argument("where", metavar="[DOMAIN]/PATH")
@click.argument("command")
@click.argument("params", nargs=-1)
@click.option("--params", "params_json", metavar="JSON", help="The params as a JSON array instead.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait.")
def call(
    where: str, command: str, params: tuple[str, ...], params_json: str | None, timeout: float
) -> None:
    """Call COMMAND of the agent at PATH with PARAMS (sent as texts) and print its JSON.

    \b
    p-cli cloud call /demo hello World
    p-cli cloud call api.example.com/v1 add --params '[1, 2]'
    """
    domain, slash, path = where.partition("/")
    if not slash:
        domain, path = "", where
    sent: list[Any] = list(params)
    if params_json is not None:
        try:
            sent = json.loads(params_json)
            if not isinstance(sent, list) or params:
                raise ValueError("expected one JSON array, and no params beside it")
        except ValueError as error:
            raise CommandFailed(f"--params: {error}", exit_code=CONFIGURATION) from error
    answer = client().call(domain, f"/{path}", {"command": command, "params": sent}, timeout)
    click.echo(json.dumps(answer, ensure_ascii=False))
