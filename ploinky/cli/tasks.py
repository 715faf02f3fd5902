"""``p-cli cloud tasks``: durable tasks, for those who look after deployments."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from ploinky.cli import output
from ploinky.cli.names import completing
from ploinky.cli.shared import F, client, json_option

STATES = ("queued", "running", "succeeded", "failed", "cancelled")


@click.group()
def tasks() -> None:
    """List durable tasks; show, cancel, retry one."""


def _choosing(command: F) -> F:
    """Add what chooses tasks, and a page of them."""
    for option in (
        click.option(
            "--deployment",
            metavar="DOMAIN/PATH",
            shell_complete=completing("place"),
            help="Only of this deployment.",
        ),
        click.option("--page", default=1, show_default=True, help="Counted from the newest."),
        click.option("--lines", default=50, show_default=True, help="Tasks of one page."),
        json_option,
    ):
        command = option(command)
    return command


@tasks.command("list")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    help="Only those that stand so; repeatable.",
)
@_choosing
def list_tasks(
    states: tuple[str, ...], deployment: str | None, page: int, lines: int, want_json: bool
) -> None:
    """List durable tasks, the newest first."""
    query = {"page": page, "perPage": lines, **_place(deployment)}
    if states:
        query["status"] = ",".join(states)
    answer = client().api("GET", "tasks", **query)
    _print(answer, page, want_json, "There are no such tasks.")


@tasks.command("dead")
@_choosing
def dead(deployment: str | None, page: int, lines: int, want_json: bool) -> None:
    """List tasks that failed for no fault of their caller's: what a retry may mend."""
    query = {"page": page, "perPage": lines, **_place(deployment)}
    answer = client().api("GET", "tasks/dead", **query)
    _print(answer, page, want_json, "There are no dead letters.")


@tasks.command("show")
@click.argument("task_id", metavar="ID", shell_complete=completing("task"))
@json_option
def show(task_id: str, want_json: bool) -> None:
    """Show how the task ID stands, and what came of it."""
    _print_one(client().api("GET", f"tasks/{quote(task_id, safe='')}"), want_json)


def _change(verb: str, about: str, done: str) -> click.Command:
    @click.command(verb, help=about)
    @click.argument("task_id", metavar="ID", shell_complete=completing("task"))
    @json_option
    def command(task_id: str, want_json: bool) -> None:
        answer = client().api("POST", f"tasks/{quote(task_id, safe='')}/{verb}")
        output.done(answer, want_json, f"Task {task_id} {done}.")

    return command


tasks.add_command(
    _change("cancel", "Cancel the task ID; a running handler is aborted.", "is cancelled")
)
tasks.add_command(
    _change("retry", "Queue the task ID again, which failed or was cancelled.", "is queued again")
)


def _place(deployment: str | None) -> dict[str, Any]:
    if deployment is None:
        return {}
    domain, slash, path = deployment.partition("/")
    return {"domain": domain or "localhost", "path": slash + path} if slash else {"domain": domain}


def _print(answer: Any, page: int, want_json: bool, empty: str) -> None:
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("id", "deployment", "command", "status", "attempts", "by", "since", "finished"),
        (
            (t["taskId"], t["domain"] + t["path"], t["command"], t["status"], t["attempts"],
             t["user"], t["createdAt"], t["finishedAt"])
            for t in answer["tasks"]
        ),
        empty=empty,
    )  # fmt: skip
    output.more(answer, page)


def _print_one(found: Any, want_json: bool) -> None:
    if want_json:
        output.as_json(found)
        return
    facts = {name: value for name, value in found.items() if name not in ("result", "error")}
    output.pairs({name: value for name, value in facts.items() if value is not None})
    for name in ("result", "error"):
        if found.get(name) is not None:
            output.pairs({name: output.json_text(found[name])})
