"""``p-cli cloud show``: all at a glance, or all about one deployment."""

from __future__ import annotations

import click

from ploinky.cli import hosts, output, repositories, rollouts, session
from ploinky.cli.deployments import deployments
from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.cli.names import completing
from ploinky.cli.shared import client, connection, json_option


@click.command()
@click.argument("domain", required=False, shell_complete=completing("domain"))
@click.argument("path", required=False, shell_complete=completing("path"))
@json_option
@click.pass_context
def show(context: click.Context, domain: str | None, path: str | None, want_json: bool) -> None:
    """Show all at a glance.  Server, domains, repositories, deployments; or one of the latter."""
    if domain is not None:
        if path is None:
            raise CommandFailed(
                f"no path given on {domain}",
                hint=f"p-cli cloud show {domain} /demo",
                exit_code=CONFIGURATION,
            )
        context.invoke(rollouts.show, domain=domain, path=path, want_json=want_json)
        return
    if want_json:
        caller = client()
        lists = ("domains", "repositories", "deployments")
        found = {name: caller.all_pages(name, name)[name] for name in lists}
        output.as_json({"url": connection().url, **caller.api("GET", "check-auth"), **found})
        return
    context.invoke(session.status, want_json=False)
    for command in (hosts.list_hosts, repositories.list_repositories, deployments):
        click.echo()
        context.invoke(command, want_json=False)
