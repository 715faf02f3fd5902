"""Who we are to which server: connect, init, login, logout, status, health."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import attrs
import click

from ploinky.cli import connection as connections
from ploinky.cli import output
from ploinky.cli.client import Client
from ploinky.cli.failures import DEPLOYMENT, CommandFailed
from ploinky.cli.shared import client, connection, json_anyway, json_option


@click.command()
@click.argument("url")
@json_option
def connect(url: str, want_json: bool) -> None:
    """Use the server at URL.  It is remembered for this directory and those below it."""
    if "://" not in url:
        url = f"http://{url}"
    wanted = attrs.evolve(connection(), url=url.rstrip("/"))
    if wanted.url != connection().url:
        wanted = connections.without_token(wanted)
    status = Client(connections.without_token(wanted)).api("GET", "health")["status"]
    connections.save(wanted)
    words = f"Connected to {wanted.url} (status: {status})."
    output.done({"url": wanted.url, "status": status}, want_json, words)
    if not (wanted.token or want_json):
        click.echo("Next: p-cli cloud login <API_KEY>, or p-cli cloud init on a new server.")


@click.command()
@click.option("--token", help="The bootstrap token that the server printed at its first start.")
@json_option
def init(token: str | None, want_json: bool) -> None:
    """Make the first admin key of a new server.  It is shown this once."""
    answer = client().api("POST", "init", {"token": token} if token else {})
    if want_json:
        output.as_json(answer)
        return
    click.echo(f"Admin API key: {answer['apiKey']}")
    click.echo("Keep it: it is not shown again.")
    click.echo(f"Next: p-cli cloud login {answer['apiKey']}")


@click.command()
@click.argument("api_key", required=False)
@json_option
def login(api_key: str | None, want_json: bool) -> None:
    """Log in with API_KEY.  It is asked for, unseen, where it is not given; - reads a line of input."""
    if api_key == "-":
        api_key = sys.stdin.readline().strip()
    key = api_key or click.prompt("API key", hide_input=True)
    here = connection()
    answer = Client(here).login(key.strip())
    connections.save(attrs.evolve(here, token=answer["authorizationToken"]))
    said = {"url": here.url, "userId": answer["userId"]}
    output.done(said, want_json, f"Logged in to {here.url} as {answer['userId']}.")


@click.command()
@json_option
def logout(want_json: bool) -> None:
    """End the session, here and on the server."""
    here = connection()
    if here.token:
        Client(here).logout()
    connections.save(connections.without_token(here))
    output.done({"url": here.url}, want_json, f"Logged out of {here.url}.")


@click.command()
@json_option
def status(want_json: bool) -> None:
    """Show the server in use, who we are, how it is."""
    here = connection()
    caller = Client(here)
    whoami = caller.api("GET", "check-auth")
    health = caller.api("GET", "health")
    domains = caller.all_pages("domains", "domains")["domains"] if "server" in health else []
    if want_json:
        output.as_json({"url": here.url, **whoami, "health": health, "domains": domains})
        return
    user = f"{whoami['userId']} ({whoami['role']})" if whoami.get("authenticated") else "nobody"
    shown = {"server": here.url, "status": health["status"], "logged in as": user}
    if disabled := [domain["name"] for domain in domains if not domain["enabled"]]:
        shown["disabled"] = ", ".join(disabled)
    output.pairs(shown)


@click.command()
@json_option
def health(want_json: bool) -> None:
    """Show the health of server and deployments.  Exit status 4 where it is not ok."""
    answer = client().api("GET", "health")
    if want_json:
        output.as_json(answer)
    else:
        words = {k: v for k, v in answer.items() if isinstance(v, str)}
        output.pairs(words | (_running(answer) if "workers" in answer else {}))
        if "deployments" in answer:
            click.echo()
            output.table(
                ("deployment", "status", "last failure"),
                (
                    (
                        d["domain"] + d["path"],
                        d["status"],
                        (d.get("lastFailure") or {}).get("reason", ""),
                    )
                    for d in answer["deployments"]
                ),
                empty="Nothing is deployed.",
            )
    if answer["status"] != "ok":
        raise CommandFailed(
            f"the server is {answer['status']}",
            hint="see what failed: p-cli cloud deployments",
            exit_code=DEPLOYMENT,
        )


@click.command()
@json_option
def overview(want_json: bool) -> None:
    """Show counts, and what was changed last."""
    answer = client().api("GET", "overview")
    if want_json:
        output.as_json(answer)
        return
    output.pairs(
        {
            "calls": answer["totalRequests"],
            "failed": answer["errorRate"],
            "refused": f"{answer['unauthorizedRequests']} without a right to call",
            "deployments": answer["totalDeployments"],
            "that run": answer["activeAgents"],
            "up for": output.span(answer["uptime"] / 1000),
        }
    )
    click.echo()
    output.table(
        ("time", "who", "did", "to", "result"),
        (
            (a["time"], a["user"], a["action"], a["subject"], a["error"] or "done")
            for a in answer["recentActivity"]
        ),
        empty="Nothing was changed since the server was started.",
    )


@click.command()
@json_anyway
def openapi() -> None:
    """Print the description of the management API.  It is OpenAPI 3.1, as JSON."""
    output.as_json(client().api("GET", "openapi.json"))


def _running(health: Mapping[str, Any]) -> dict[str, str]:
    """Say how many workers and instances there are, and what is odd about the former."""
    workers = health["workers"]
    serving = [worker for worker in workers if worker["state"] == "serving"]
    restarts = sum(worker["restarts"] for worker in workers)
    said = f"{len(serving)} of {len(workers)} serve" + (f", {restarts} restarts" * bool(restarts))
    return {"workers": said, "healthy": f"{health['agents']['healthyInstances']} instances"}


COMMANDS = (connect, init, login, logout, status, health, overview, openapi)
