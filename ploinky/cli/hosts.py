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
@json_option
def add(name: str, want_json: bool) -> None:
    """Let deployments be reached at the domain NAME."""
    answer = client().api("POST", "domains", {"name": name})
    words = f"Domain {name} added.  Next: p-cli cloud deploy {name} /path agent"
    output.done(answer, want_json, words)


@host.command("remove")
@click.argument("name")
@json_option
def remove(name: str, want_json: bool) -> None:
    """Forget the domain NAME."""
    answer = client().api("DELETE", "domains", {"name": name})
    output.done(answer, want_json, f"Domain {name} removed.")


@host.command("list")
@json_option
def list_hosts(want_json: bool) -> None:
    """List the domains."""
    answer = client().all_pages("domains", "domains")
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("domain", "enabled"),
        ((d["name"], "yes" if d["enabled"] else "no") for d in answer["domains"]),
        empty="There are no domains.  Add one: p-cli cloud host add NAME",
    )
