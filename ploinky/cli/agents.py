"""``p-cli cloud agent``: what the registered repositories have to offer."""

from __future__ import annotations

from urllib.parse import quote

import click

from ploinky.cli import output
from ploinky.cli.failures import CommandFailed
from ploinky.cli.names import completing
from ploinky.cli.shared import client, json_option


@click.group()
def agent() -> None:
    """Look at agents in repositories; stop, start, restart."""


@agent.command("list")
@click.option(
    "--repository",
    metavar="NAME",
    shell_complete=completing("repository"),
    help="Of this registered repository alone.",
)
@json_option
def list_agents(repository: str | None, want_json: bool) -> None:
    """List the agents of all registered repositories."""
    place = f"repositories/{quote(repository, safe='')}/agents" if repository else "agents"
    answer = client().all_pages(place, "agents")
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
        message = output.visible(problem["message"])
        click.echo(f"{problem['repository']}: {message}", err=True)


@agent.command("info")
@click.argument("name", shell_complete=completing("agent"))
@json_option
def info(name: str, want_json: bool) -> None:
    """Show where the agent NAME comes from, and where it is deployed."""
    caller = client()
    found = [a for a in caller.all_pages("agents", "agents")["agents"] if a["name"] == name]
    deployed = caller.all_pages("deployments", "deployments")["deployments"]
    places = [d for d in deployed if d["agent"].rpartition("/")[2] == name]
    if not found and not places:
        raise CommandFailed(
            f"there is no agent {name!r}", hint="see those there are: p-cli cloud agent list"
        )
    if want_json:
        output.as_json({"agents": found, "deployments": places})
        return
    for one in found:
        output.pairs(one)
    output.table(
        ("deployment", "status", "release"),
        ((d["domain"] + d["path"], d["status"], d["release"]) for d in places),
        empty=f"It is not deployed.  Try: p-cli cloud deploy localhost /{name} {name}",
    )


def _change(verb: str, about: str) -> click.Command:
    @click.command(verb, help=about)
    @click.argument("name", shell_complete=completing("agent"))
    @json_option
    def command(name: str, want_json: bool) -> None:
        answer = client().api("POST", f"agents/{quote(name, safe='')}/{verb}", timeout=None)
        places = ", ".join(d["domain"] + d["path"] for d in answer["deployments"])
        output.done(answer, want_json, f"Done ({verb}): {places}.")

    return command


agent.add_command(_change("start", "Start every deployment of the agent NAME."))
agent.add_command(_change("stop", "Stop every deployment of the agent NAME."))
agent.add_command(_change("restart", "Restart every deployment of the agent NAME."))
