"""Changing what is deployed by a part: update, rollback, scale, hook, destroy."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import click

from ploinky.cli import output
from ploinky.cli.deployments import deployments, environment_of, secrets_of
from ploinky.cli.failures import CONFIGURATION, DEPLOYMENT, CommandFailed
from ploinky.cli.names import completing
from ploinky.cli.shared import client, json_option


@click.command()
@click.argument("domain", shell_complete=completing("domain"))
@click.argument("path", shell_complete=completing("path"))
@click.argument("release", required=False, type=int, shell_complete=completing("release"))
@json_option
def rollback(domain: str, path: str, release: int | None, want_json: bool) -> None:
    """Serve RELEASE again.  Without: the one before; with the code and image it had."""
    body: dict[str, Any] = {"domain": domain, "path": path, "release": release or 0}
    answer = client().api("POST", "deployments/rollback", body, timeout=None)
    now = answer["deployment"]["release"]
    output.done(answer, want_json, f"{domain}{path} serves release {now} again.")


@click.command()
@click.argument("domain", shell_complete=completing("domain"))
@click.argument("path", shell_complete=completing("path"))
@click.argument("replicas", type=int)
@json_option
def scale(domain: str, path: str, replicas: int, want_json: bool) -> None:
    """Run REPLICAS instances of a deployment.  No call is lost."""
    body = {"domain": domain, "path": path, "replicas": replicas}
    answer = client().api("POST", "deployments/scale", body, timeout=None)
    output.done(answer, want_json, f"{domain}{path} runs {replicas} instances.")


@deployments.command("update")
@click.argument("domain", shell_complete=completing("domain"))
@click.argument("path", shell_complete=completing("path"))
@click.option("--branch", help="Branch, tag or commit.")
@click.option("--image", help="Container image.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Added; NAME= makes it empty.")
@click.option("--unset", multiple=True, metavar="NAME", help="Variable to take away; repeatable.")
@click.option("--secret", multiple=True, metavar="NAME=VALUE", help="As for deploy.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=JSON", help="Setting, such as timeout=5."
)
@json_option
def update(
    domain: str,
    path: str,
    env: tuple[str, ...],
    unset: tuple[str, ...],
    secret: tuple[str, ...],
    settings: tuple[str, ...],
    want_json: bool,
    **options: str | None,
) -> None:
    """Deploy again with a part of it changed; the rest stays as it was asked for."""
    body: dict[str, Any] = {"domain": domain, "path": path}
    body |= {name: value for name, value in options.items() if value is not None}
    body["environment"] = {**environment_of(env), **dict.fromkeys(unset)}
    body["secrets"] = secrets_of(secret)
    body |= dict(map(_setting, settings))
    answer = client().api("POST", "deployments/update", body, timeout=None)
    now = answer["deployment"]["release"]
    output.done(answer, want_json, f"{domain}{path} serves release {now}.")


def _setting(pair: str) -> tuple[str, Any]:
    name, _, value = pair.partition("=")
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise CommandFailed(
            f"--set {pair}: {error}", hint="such as --set timeout=5", exit_code=CONFIGURATION
        ) from error


@deployments.command("show")
@click.argument("domain", shell_complete=completing("domain"))
@click.argument("path", shell_complete=completing("path"))
@json_option
def show(domain: str, path: str, want_json: bool) -> None:
    """Show all about the deployment at DOMAIN and PATH."""
    answer = client().api("GET", f"deployments/{quote(domain)}/{quote(path.lstrip('/'))}")
    if want_json:
        output.as_json(answer)
    else:
        known = {k: v for k, v in answer.items() if v not in (None, "", [], {})}
        output.pairs({k: v if isinstance(v, str) else json.dumps(v) for k, v in known.items()})


@deployments.command("hook")
@click.argument("domain", shell_complete=completing("domain"))
@click.argument("path", shell_complete=completing("path"))
@json_option
def hook(domain: str, path: str, want_json: bool) -> None:
    """Make a webhook: a push to its repository deploys it.  An earlier secret is void."""
    caller = client()
    answer = caller.api("POST", "deployments/hook", {"domain": domain, "path": path})
    answer["url"] = caller.connection.url + answer["url"]
    if want_json:
        output.as_json(answer)
        return
    output.pairs({"url": answer["url"], "secret": answer["secret"], "content type": "JSON"})
    click.echo(
        "Enter these at the Git host (GitHub, GitLab, Gitea).  The secret is shown this once."
    )


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def destroy(yes: bool, want_json: bool) -> None:
    """Stop all that is deployed.  Every instance is removed; deployments stay, stopped."""
    if not yes:
        click.confirm("Stop everything that is deployed on this server?", abort=True)
    answer = client().api("POST", "stopAndDeleteAll", timeout=None)
    words = f"Stopped.  {len(answer['removed'])} instances removed ({answer['runtime']})."
    output.done(answer, want_json, words)
    if answer["problems"]:
        raise CommandFailed(
            "; ".join(f"{place}: {why}" for place, why in answer["problems"].items()),
            exit_code=DEPLOYMENT,
        )


COMMANDS = (rollback, scale, destroy)
