"""``p-cli cloud agent``: what the registered repositories have to offer."""

from __future__ import annotations

import click

from ploinky.cli import output
from ploinky.cli.shared import client, json_option


@click.group()
def agent() -> None:
    """Look at the agents in the registered repositories."""


@agent.command("list")
@json_option
def list_agents(want_json: bool) -> None:
    """List the agents of all registered repositories."""
    answer = client().api("GET", "agents")
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("agent", "repository", "about"),
        (
            (a["name"], a["repository"], a.get("problem") or a.get("about"))
            for a in answer["agents"]
        ),
        empty="No agents.  Register a repository: p-cli cloud repo add NAME URL",
    )
    for problem in answer.get("problems", ()):
        click.echo(f"{problem['repository']}: {problem['message']}", err=True)
