"""``p-cli cloud host``: the domains that deployments may be reached at."""

from __future__ import annotations

import click

from ploinky.cli import output
from ploinky.cli.shared import client, json_option


@click.group()
def host() -> None:
    """Add, remove and list domains."""


@host.command("add")
@click.argument("name")
def add(name: str) -> None:
    """Let deployments be reached at the domain NAME."""
    client().api("POST", "domains", {"name": name})
    click.echo(f"Domain {name} added.  Next: p-cli cloud deploy {name} /path agent")


@host.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Forget the domain NAME."""
    client().api("DELETE", "domains", {"name": name})
    click.echo(f"Domain {name} removed.")


@host.command("list")
@json_option
def list_hosts(want_json: bool) -> None:
    """List the domains."""
    answer = client().api("GET", "domains")
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("domain", "enabled"),
        ((d["name"], "yes" if d["enabled"] else "no") for d in answer["domains"]),
        empty="There are no domains.  Add one: p-cli cloud host add NAME",
    )
