"""Deployments: deploy, undeploy, list, restart, stop, start, releases, logs of one."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ploinky.cli import output
from ploinky.cli.client import Client
from ploinky.cli.configs import read_config
from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.cli.metrics import stats
from ploinky.cli.names import completing
from ploinky.cli.shared import client, json_option, show_stream

_POLL_SECONDS = 0.25


def environment_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read ``NAME=VALUE`` pairs.

    Raises:
        CommandFailed: One is none.
    """
    environment = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CommandFailed(
                f"--env {name or pair}: expected NAME=VALUE", exit_code=CONFIGURATION
            )
        environment[name] = value
    return environment


def secrets_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read secrets; one without a value comes from p-cli's environment, and shows in no argv.

    Raises:
        CommandFailed: There is no such variable.
    """
    missing = [name for name in pairs if "=" not in name and name not in os.environ]
    if missing:
        raise CommandFailed(
            f"--secret {missing[0]}: there is no variable {missing[0]} to take it from",
            hint=f"export {missing[0]}=VALUE first, or write --secret {missing[0]}=VALUE",
            exit_code=CONFIGURATION,
        )
    return environment_of(tuple(p if "=" in p else f"{p}={os.environ[p]}" for p in pairs))


@click.command()
@click.argument("domain", required=False, shell_complete=completing("domain"))
@click.argument("path", required=False, shell_complete=completing("path"))
@click.argument("agent", required=False, shell_complete=completing("agent"))
@click.option(
    "--repository",
    shell_complete=completing("repository"),
    help="Git URL, or the name of a registered repository.",
)
@click.option("--branch", help="Branch, tag or commit; default: the repository's own.")
@click.option("--image", help="Container image; wins over the manifest's.")
@click.option("--target", help="Route to something that already runs: http://host:port, unix:PATH.")
@click.option(
    "--env", multiple=True, metavar="NAME=VALUE", help="Environment variable; repeatable."
)
@click.option(
    "--secret",
    multiple=True,
    metavar="NAME=VALUE",
    help="Variable that is masked in output as well; NAME alone takes it from p-cli's own.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True),
    help="JSON or YAML file with any of these, and the manifest's settings; options win.",
)
@json_option
def deploy(
    domain: str | None,
    path: str | None,
    agent: str | None,
    env: tuple[str, ...],
    secret: tuple[str, ...],
    config: Path | None,
    want_json: bool,
    **options: str | None,
) -> None:
    """Deploy AGENT to DOMAIN and PATH.  What served there before serves until the new one does."""
    body = read_config(config, os.environ) if config else {}
    given = {"domain": domain, "path": path, "agent": agent, **options}
    body |= {name: value for name, value in given.items() if value is not None}
    if env:
        body["environment"] = {**body.get("environment", {}), **environment_of(env)}
    if secret:
        body["secrets"] = {**body.get("secrets", {}), **secrets_of(secret)}
    missing = [name for name in ("domain", "path") if not body.get(name)]
    if missing:
        raise CommandFailed(
            f"no {' and no '.join(missing)} given",
            hint="p-cli cloud deploy localhost /demo demo",
            exit_code=CONFIGURATION,
        )
    answer = deploy_with_progress(client(), body, quiet=want_json)
    output.done(answer, want_json, deployed_words(answer))


def deployed_words(answer: Any) -> str:
    """Say what serves now."""
    deployment = answer["deployment"]
    where = deployment["domain"] + deployment["path"]
    return f"{where} serves release {deployment['release']} of {deployment['agent']}."


def deploy_with_progress(caller: Client, body: Mapping[str, Any], *, quiet: bool = False) -> Any:
    """Deploy, showing the step it is in until it has ended one way or the other.

    Returns:
        The answer; its warnings are printed on standard error.

    Raises:
        CommandFailed: It failed; what served before still serves.
    """
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(caller.api("POST", "deployments", body, timeout=None))
        except CommandFailed as error:
            outcome.append(error)

    worker = threading.Thread(target=work, daemon=True)
    watcher = Client(caller.connection)
    shown = ""
    console = Console(stderr=True, highlight=False, quiet=quiet)
    with console.status("deploying") as line:
        worker.start()
        try:
            while worker.is_alive():
                worker.join(_POLL_SECONDS)
                step = _step(watcher, body)
                if step and step != shown:
                    shown = step
                    line.update(step)
                    if not console.is_terminal:
                        console.print(f"  {step}")
        except KeyboardInterrupt:
            console.print("The deploy goes on without you: p-cli cloud deployments")
            raise
    if isinstance(outcome[0], CommandFailed):
        raise outcome[0]
    for warning in outcome[0]["deployment"].get("warnings", ()):
        click.echo(f"Warning: {output.visible(warning)}", err=True)
    return outcome[0]


def _step(watcher: Client, body: Mapping[str, Any]) -> str:
    try:
        found = watcher.api("GET", "deployments", domain=body["domain"], path=body["path"])
    except CommandFailed:
        return ""
    return next((str(d.get("step") or "") for d in found["deployments"]), "")


@click.command()
@click.argument("domain", shell_complete=completing("domain"))
@click.argument("path", shell_complete=completing("path"))
@json_option
def undeploy(domain: str, path: str, want_json: bool) -> None:
    """Remove the deployment at DOMAIN and PATH.  Calls in hand are finished first."""
    answer = client().api("DELETE", "deployments", {"domain": domain, "path": path})
    output.done(answer, want_json, f"{domain}{path} is gone.")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def deployments(context: click.Context, want_json: bool) -> None:
    """List deployments; change one, or read its output."""
    if context.invoked_subcommand is not None:
        return
    answer = client().all_pages("deployments", "deployments")
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("deployment", "agent", "status", "release", "kind", "image"),
        (
            (
                d["domain"] + d["path"],
                d["agent"],
                d["status"],
                d.get("release"),
                d.get("kind"),
                d.get("image"),
            )
            for d in answer["deployments"]
        ),
        empty="Nothing is deployed.  Try: p-cli cloud deploy localhost /demo demo",
    )
    for found in answer["deployments"]:
        where = found["domain"] + found["path"]
        if found.get("error"):
            click.echo(f"{where}: last deploy failed: {found['error']['message']}", err=True)
        for warning in found.get("warnings", ()):
            click.echo(f"{where}: {warning}", err=True)


@click.command()
@click.argument("domain", shell_complete=completing("domain"))
@click.argument("path", shell_complete=completing("path"))
@json_option
def releases(domain: str, path: str, want_json: bool) -> None:
    """List a deployment's releases, newest first."""
    answer = client().all_pages("deployments/releases", "releases", domain=domain, path=path)
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("release", "state", "commit", "image", "error"),
        (
            (
                r["number"],
                r["state"],
                (r.get("commit") or "")[:12],
                r.get("image"),
                (r.get("error") or {}).get("message", ""),
            )
            for r in answer["releases"]
        ),
        empty="There are no releases.",
    )


def _change(verb: str, about: str, done: str) -> click.Command:
    @click.command(verb, help=about)
    @click.argument("domain", shell_complete=completing("domain"))
    @click.argument("path", shell_complete=completing("path"))
    @json_option
    def command(domain: str, path: str, want_json: bool) -> None:
        body = {"domain": domain, "path": path}
        answer = client().api("POST", f"deployments/{verb}", body, timeout=None)
        output.done(answer, want_json, f"{domain}{path} {done}.")

    return command


deployments.add_command(
    _change("restart", "Replace its instances by new ones; no call is lost.", "was restarted")
)
deployments.add_command(_change("stop", "Stop its instances, keep its releases.", "is stopped"))
deployments.add_command(_change("start", "Start it again after stop.", "serves"))
deployments.add_command(
    _change("sync", "Fetch its repository and deploy what is new.", "is up to date")
)


@deployments.command("logs")
@click.argument("domain", shell_complete=completing("domain"))
@click.argument("path", shell_complete=completing("path"))
@click.option("--lines", default=100, show_default=True, help="How many of the last lines.")
@click.option(
    "--release",
    type=int,
    shell_complete=completing("release"),
    help="Of this release; default: the one that serves.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes; Ctrl-C ends it.")
@json_option
def logs(
    domain: str, path: str, lines: int, release: int | None, follow: bool, want_json: bool
) -> None:
    """Print what its instances printed last, also of those that are gone."""
    query: dict[str, Any] = {
        "domain": domain,
        "path": path,
        "lines": lines,
        "release": release,
    }
    if follow:
        show_stream(client().stream("deployments/logs", follow=1, **query))
        return
    answer = client().api("GET", "deployments/logs", **query)
    if want_json:
        output.as_json({"output": answer})
        return
    said = output.visible(answer) or "Its instances have printed nothing yet."
    click.echo(said, nl=not said.endswith("\n"))


deployments.add_command(stats)

COMMANDS = (deploy, undeploy, deployments, releases)
