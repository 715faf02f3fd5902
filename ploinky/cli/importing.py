"""``p-cli cloud import``: deploy what a file of Docker Compose or Kubernetes says."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from ploinky.cli import documents, output
from ploinky.cli.client import Client
from ploinky.cli.deployments import deploy_with_progress, deployed_words
from ploinky.cli.documents import Node
from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.cli.imports.compose import plan_compose
from ploinky.cli.imports.kubernetes import plan_kubernetes
from ploinky.cli.imports.plan import Plan, Planned, Wishes, without_secrets
from ploinky.cli.imports.showing import show_plan
from ploinky.cli.imports.variables import Files, environment_file
from ploinky.cli.operations import Operation, run_all
from ploinky.cli.shared import client, json_option


@click.command("import")
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True)
)
@click.argument("places", nargs=-1, metavar="[NAME=[DOMAIN]/PATH]...")
@click.option("--domain", default="", help="For all of it; default: the file's own, or localhost.")
@click.option("--path", default="", help="For a file of one deployment.")
@click.option("--port", "ports", multiple=True, metavar="NAME=PORT", help="Port in the container.")
@click.option(
    "--format", "kind", type=click.Choice(["compose", "k8s"]), help="Default: as it looks."
)
@click.option("--profile", "profiles", multiple=True, help="Of Compose, to import too; * is all.")
@click.option(
    "--also-read",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where files named in it may lie, beside its own directory.",
)
@click.option("--dry-run", is_flag=True, help="Deploy nothing: print what batch and --config take.")
@click.option("--show-secrets", is_flag=True, help="With --dry-run: values of secrets as well.")
@click.option("--strict", is_flag=True, help="Deploy nothing where a part of it does not map.")
@click.option("--keep-going", is_flag=True, help="Go on after a deploy that failed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def import_(
    file: Path,
    places: tuple[str, ...],
    domain: str,
    path: str,
    ports: tuple[str, ...],
    kind: str | None,
    profiles: tuple[str, ...],
    also_read: tuple[Path, ...],
    dry_run: bool,
    show_secrets: bool,
    strict: bool,
    keep_going: bool,
    yes: bool,
    want_json: bool,
) -> None:
    """Deploy what a file of Docker Compose or Kubernetes says.

    What of it does not map is listed, with what to do instead.

    \b
    p-cli cloud import compose.yml                         each service to /<its name>
    p-cli cloud import compose.yml web=/ api=api.example.com/v1
    p-cli cloud import k8s.yaml --dry-run > cloud.yml      then edit it, and
    p-cli cloud batch cloud.yml

    A place given by name deploys also what would be left out.
    """
    wishes = Wishes(domain, path, _places(places), _ports(ports), frozenset(profiles))
    plan = _plan(file, kind, also_read, wishes)
    if strict and not plan.is_whole:
        show_plan(plan, sys.stderr)
        raise CommandFailed(
            "a part of it does not map, and --strict is given", exit_code=CONFIGURATION
        )
    if dry_run:
        _print_dry(plan, show_secrets, want_json)
        return
    if not plan.deployments:
        show_plan(plan, sys.stderr)
        raise CommandFailed(f"{plan.file}: nothing of it can be deployed", exit_code=CONFIGURATION)
    caller = client()
    plan = _fitted(plan, caller)
    if not want_json:
        show_plan(plan, sys.stdout)
    if not yes and not want_json and sys.stdin.isatty() and sys.stdout.isatty():
        click.confirm("Deploy this?", abort=True)
    _deploy(plan, caller, keep_going, want_json)


def _places(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if not name or not equals or "/" not in place:
            raise CommandFailed(
                f"{pair}: expected NAME=/PATH or NAME=DOMAIN/PATH", exit_code=CONFIGURATION
            )
        found[name] = place
    return found


def _ports(pairs: Sequence[str]) -> dict[str, int]:
    found = {}
    for pair in pairs:
        name, _, port = pair.partition("=")
        if not name or not port.isdigit() or not 0 < int(port) < 65536:
            raise CommandFailed(f"--port {pair}: expected NAME=PORT", exit_code=CONFIGURATION)
        found[name] = int(port)
    return found


def _plan(file: Path, kind: str | None, also_read: Sequence[Path], wishes: Wishes) -> Plan:
    name = "input" if str(file) == "-" else str(file)
    text = documents.read_file(file)
    try:
        nodes = documents.documents(text, name)
    except CommandFailed as error:
        if "{{" in text:
            error.hint = "it looks like a template: render it first, as with helm template"
        raise
    kind = kind or _kind(nodes, name)
    if kind == "k8s":
        return plan_kubernetes(nodes, name, wishes)
    if len(nodes) != 1:
        line = nodes[1].line if nodes else 1
        documents.fail(name, line, "a Compose file has one document")
    files = Files(Path.cwd() if str(file) == "-" else file.parent, tuple(also_read))
    environment = environment_file(files, os.environ)
    return plan_compose(nodes[0], name, files, environment, wishes)


def _kind(nodes: Sequence[Node], name: str) -> str:  # noqa: RET503 - fail never returns
    """Tell by what stands at the top."""
    for node in nodes:
        if node.get("apiVersion") is not None and node.get("kind") is not None:
            return "k8s"
        if node.get("services") is not None:
            return "compose"
    documents.fail(
        name,
        nodes[0].line if nodes else 1,
        "it has neither the services of a Compose file nor the apiVersion and kind of Kubernetes",
        hint="say what it is with --format compose or --format k8s",
    )


def _print_dry(plan: Plan, show_secrets: bool, want_json: bool) -> None:
    show_plan(plan, sys.stderr)
    bodies = [dict(b.body) if show_secrets else without_secrets(b.body) for b in plan.deployments]
    if any(one.body.get("secrets") for one in plan.deployments) and not show_secrets:
        click.echo(
            "Secrets are left out: null takes each from p-cli's environment"
            " (--show-secrets writes them down).",
            err=True,
        )
    if want_json:
        output.as_json({**plan.as_json(), "deployments": bodies})
    elif bodies:
        one_or_all: Any = bodies[0] if len(bodies) == 1 else bodies
        click.echo(documents.as_yaml(one_or_all), nl=False)


def _fitted(plan: Plan, caller: Client) -> Plan:
    """See that the server knows the domains, and that no agent of its own has one of the names.

    Raises:
        CommandFailed: A domain is not registered; nothing was deployed.
    """
    domains = {d["name"] for d in caller.all_pages("domains", "domains")["domains"] if d["enabled"]}
    missing = {one.body["domain"]: None for one in plan.deployments}.keys() - domains
    if missing:
        raise CommandFailed(
            f"not registered, or not enabled: {', '.join(sorted(missing))}",
            hint="; ".join(f"p-cli cloud host add {one}" for one in sorted(missing)),
            exit_code=CONFIGURATION,
        )
    taken = {
        agent["name"].rpartition("/")[2] for agent in caller.all_pages("agents", "agents")["agents"]
    }
    return attrs.evolve(plan, deployments=tuple(_renamed(one, taken) for one in plan.deployments))


def _renamed(planned: Planned, taken: set[str]) -> Planned:
    """Let an image stay an image where a repository has an agent of the same name."""
    agent = planned.body["agent"]
    while agent in taken:
        agent += "-image"
    return attrs.evolve(planned, body={**planned.body, "agent": agent})


def _deploy(plan: Plan, caller: Client, keep_going: bool, want_json: bool) -> None:
    operations = [_operation(plan.file, one, caller) for one in plan.deployments]
    hint = "" if keep_going else "what is deployed stays; import it again once it is right"
    run_all(
        operations,
        keep_going=keep_going,
        want_json=want_json,
        document=plan.as_json(),
        hint=hint,
    )


def _operation(file: str, planned: Planned, caller: Client) -> Operation:
    return Operation(
        f"{file}:{planned.line}",
        f"{planned.name} to {planned.where}",
        lambda want_json: deploy_with_progress(caller, planned.body, quiet=want_json),
        deployed_words,
    )
