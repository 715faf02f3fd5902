"""``p-cli cloud repo``: the Git repositories that agents are looked for in."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ploinky.cli import output
from ploinky.cli.names import completing
from ploinky.cli.shared import client, json_option


@click.group()
def repo() -> None:
    """Add, remove, list and sync Git repositories."""


@repo.command("add")
@click.argument("name")
@click.argument("url")
@click.option("--branch", default="", help="Branch to take; default: the repository's own.")
@click.option("--username", default="", help="User name that goes with the token.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True),
    help="File with an access token (- reads it from input).",
)
@click.option(
    "--ssh-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a private key in OpenSSH's format.",
)
@click.option(
    "--known-hosts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the host's public keys, as ssh-keyscan prints them  [default: trust the first"
    " one seen].",
)
@json_option
def add(
    name: str,
    url: str,
    branch: str,
    username: str,
    token_file: Path | None,
    ssh_key: Path | None,
    known_hosts: Path | None,
    want_json: bool,
) -> None:
    """Register the repository at URL as NAME.

    Secrets come from files, so that they show neither in the process list nor in the history.
    """
    credential: dict[str, str] = {}
    if token_file:
        raw_token = (
            sys.stdin.readline()
            if str(token_file) == "-"
            else token_file.read_text(encoding="utf-8")
        )
        credential["token"] = raw_token.strip()
    if username:
        credential["username"] = username
    if ssh_key:
        credential["sshKey"] = ssh_key.read_text(encoding="utf-8")
    if known_hosts:
        credential["knownHosts"] = known_hosts.read_text(encoding="utf-8")
    body = {"name": name, "url": url, "branch": branch}
    answer = client().api(
        "POST", "repositories", {**body, **({"credential": credential} if credential else {})}
    )
    words = f"Repository {name} added.  Its agents: p-cli cloud agent list"
    output.done(answer, want_json, words)


@repo.command("remove")
@click.argument("name", shell_complete=completing("repository"))
@json_option
def remove(name: str, want_json: bool) -> None:
    """Forget the repository NAME; what is deployed from it goes on running."""
    answer = client().api("DELETE", f"repositories/{name}")
    words = f"Repository {name} removed.  Deployments from it go on running."
    output.done(answer, want_json, words)


@repo.command("sync")
@click.argument("name", shell_complete=completing("repository"))
@json_option
def sync(name: str, want_json: bool) -> None:
    """Fetch the repository NAME now."""
    answer = client().api("POST", f"repositories/{name}/sync")
    output.done(answer, want_json, f"Repository {name} is up to date.")


@repo.command("list")
@json_option
def list_repositories(want_json: bool) -> None:
    """List the repositories."""
    answer = client().all_pages("repositories", "repositories")
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("name", "url", "branch"),
        ((r["name"], r["url"], r.get("branch") or "(default)") for r in answer["repositories"]),
        empty="There are no repositories.  Add one: p-cli cloud repo add NAME URL",
    )
