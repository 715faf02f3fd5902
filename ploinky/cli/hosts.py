"""``p-cli cloud host``: the domains that deployments may be reached at."""

from __future__ import annotations

from urllib.parse import quote

import click

from ploinky.cli import output
from ploinky.cli.names import completing
from ploinky.cli.shared import client, json_option


@click.group()
def host() -> None:
    """Add, remove, list, disable and enable domains."""


@host.command("add")
@click.argument("name")
@json_option
def add(name: str, want_json: bool) -> None:
    """Let deployments be reached at the domain NAME."""
    answer = client().api("POST", "domains", {"name": name})
    words = f"Domain {name} added.  Next: p-cli cloud deploy {name} /path agent"
    output.done(answer, want_json, words)


@host.command("remove")
@click.argument("name", shell_complete=completing("domain"))
@json_option
def remove(name: str, want_json: bool) -> None:
    """Forget the domain NAME."""
    answer = client().api("DELETE", "domains", {"name": name})
    output.done(answer, want_json, f"Domain {name} removed.")


@host.command("enable")
@click.argument("name", shell_complete=completing("domain"))
@json_option
def enable(name: str, want_json: bool) -> None:
    """Let what is deployed at the domain NAME be reached again."""
    answer = client().api("POST", f"domains/{quote(name, safe='')}/enable")
    output.done(answer, want_json, f"Domain {name} is enabled: what is deployed there is reached.")


@host.command("disable")
@click.argument("name", shell_complete=completing("domain"))
@json_option
def disable(name: str, want_json: bool) -> None:
    """Answer 404 at the domain NAME; what is deployed there goes on running, unreached."""
    answer = client().api("POST", f"domains/{quote(name, safe='')}/disable")
    words = f"Domain {name} is disabled.  To take it back: p-cli cloud host enable {name}"
    output.done(answer, want_json, words)


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
