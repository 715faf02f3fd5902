"""``p-cli cloud keys``, ``sessions`` and `audit`: who may come in, who is in, who did what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from ploinky.cli import output
from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.cli.names import completing
from ploinky.cli.offline import run_offline
from ploinky.cli.server import directory_option
from ploinky.cli.shared import client, json_option

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@click.group()
def keys() -> None:
    """Make, list and remove API keys."""


@keys.command("list")
@json_option
def list_keys(want_json: bool) -> None:
    """List the keys that you may see."""
    answer = client().all_pages("keys", "keys")
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("name", "role", "scope", "expires", "last used"),
        (
            (k["name"], k["role"], ", ".join(k["scope"]) or "everywhere", k["expiresAt"] or "never",
             k["lastUsedAt"] or "never")
            for k in answer["keys"]
        ),
        empty="There are no keys.",
    )  # fmt: skip


@keys.command("add")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["admin", "deployer", "viewer", "caller"]),
    default="caller",
    show_default=True,
    help="admin: everything; deployer: deploys; viewer: reads; caller: only calls agents.",
)
@click.option(
    "--scope",
    multiple=True,
    metavar="DOMAIN[/PATH]",
    shell_complete=completing("place"),
    help="Confine it to a domain or a deployment; repeatable.",
)
@click.option("--expires", metavar="TIME", help="Such as 12h or 30d; default: never.")
@json_option
def add_key(
    name: str, role: str, scope: tuple[str, ...], expires: str | None, want_json: bool
) -> None:
    """Make the key NAME.  It is shown this once, and can do no more than your own."""
    body: dict[str, Any] = {"name": name, "role": role, "scope": list(scope)}
    if expires:
        body["expiresIn"] = _seconds(expires)
    answer = client().api("POST", "keys", body)
    if want_json:
        output.as_json(answer)
        return
    click.echo(answer["apiKey"])
    click.echo("Keep it: it is not shown again.", err=True)


@keys.command("remove")
@click.argument("name", shell_complete=completing("key"))
@click.option("--force", is_flag=True, help="Also where it is the last admin key.")
@json_option
def remove_key(name: str, force: bool, want_json: bool) -> None:
    """Remove the key NAME; its sessions, and the keys made with it, end with it."""
    answer = client().api("DELETE", "keys", {"name": name, "force": force})
    output.done(answer, want_json, f"Key {name} is removed, and so are its sessions.")


@click.group()
def sessions() -> None:
    """List and end login sessions."""


@sessions.command("list")
@json_option
def list_sessions(want_json: bool) -> None:
    """List the sessions that you may see, the newest first."""
    answer = client().all_pages("sessions", "sessions")
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("id", "key", "role", "since", "ends"),
        (
            (s["id"], s["key"] + (" (this one)" if s["isThisOne"] else ""), s["role"],
             s["createdAt"], s["expiresAt"])
            for s in answer["sessions"]
        ),
        empty="Nobody is logged in.",
    )  # fmt: skip


@sessions.command("end")
@click.argument("session_id", metavar="ID", shell_complete=completing("session"))
@json_option
def end_session(session_id: str, want_json: bool) -> None:
    """End the session ID, as the list names it."""
    answer = client().api("DELETE", f"sessions/{session_id}")
    output.done(answer, want_json, f"Session {session_id} has ended.")


@click.group()
def audit() -> None:
    """See who did what; check that record."""


@audit.command("list")
@click.option("--page", default=1, show_default=True, help="Counted from the newest.")
@click.option("--lines", default=50, show_default=True, help="Entries of one page.")
@json_option
def list_audit(page: int, lines: int, want_json: bool) -> None:
    """List what was changed, refused or failed, the newest first."""
    answer = client().api("GET", "audit", page=page, perPage=lines)
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("time", "who", "from", "did", "to", "result"),
        (
            (e["time"], e["user"], e["address"], e["action"], e["subject"], e["code"] or "done")
            for e in answer["entries"]
        ),
        empty="Nothing was changed yet.",
    )
    output.more(answer, page)


@audit.command("verify")
@click.option("--expect", metavar="HASH", help="A head that an earlier check gave.")
@click.option("--offline", is_flag=True, help="Read the data directory; no server runs on it.")
@directory_option
@json_option
def verify(expect: str | None, offline: bool, directory: Path, want_json: bool) -> None:
    """Check the chain of the audit trail; keep the head that it prints elsewhere."""
    if offline:
        found = run_offline("verify-audit", directory, *([expect] if expect else []))
    else:
        found = client().api("GET", "audit/verify", expect=expect, timeout=None)
    if want_json:
        output.as_json(found)
    elif found["intact"]:
        click.echo(f"Intact: {found['entries']} entries, head {found['head'] or '(none)'}")
    if not found["intact"]:
        raise CommandFailed(
            f"the audit trail is not intact: {found['problem']}",
            hint="somebody changed the database; compare it with a backup",
        )


@click.command("rotate-key")
@directory_option
@json_option
def rotate_key(directory: Path, want_json: bool) -> None:
    """Seal every secret with a new master key.  The server must be stopped.

    With PLOINKY_MASTER_KEY, the new one is taken from PLOINKY_NEW_MASTER_KEY.
    """
    found = run_offline("rotate-key", directory)
    words = f"{found['secrets']} secrets are sealed anew.  The new key: {found['key']}"
    if found["key"] != "master.key":
        words += ", from now on with what PLOINKY_NEW_MASTER_KEY holds"
    output.done(found, want_json, words + ".")


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if not found:
        raise CommandFailed(
            f"--expires {text}: expected a number and s, m, h, d or w",
            hint="such as --expires 30d",
            exit_code=CONFIGURATION,
        )
    return int(found[1]) * _SECONDS[found[2]]


COMMANDS = (keys, sessions, audit, rotate_key)
