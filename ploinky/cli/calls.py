"""Calls of agents, at once or as durable tasks: ``p-cli cloud call`` and ``p-cli client``."""

from __future__ import annotations

import json
from typing import Any

import click

from ploinky.cli import output
from ploinky.cli.failures import CONFIGURATION, DEPLOYMENT, CommandFailed
from ploinky.cli.names import completing
from ploinky.cli.shared import client as connected
from ploinky.cli.shared import json_anyway, json_option

_LONGEST_WAIT_SECONDS = 300

_WHERE = click.argument("where", metavar="[DOMAIN]/PATH", shell_complete=completing("where"))
_COMMAND = click.argument("command", shell_complete=completing("command"))
_PARAMS = click.argument("params", nargs=-1)
_PARAMS_JSON = click.option(
    "--params", "params_json", metavar="JSON", help="The params as a JSON array instead."
)
_KEY = click.option(
    "--key", metavar="TEXT", help="Idempotency-Key: a repeat with it gets the first one's answer."
)
_WAIT = click.option(
    "--wait",
    type=click.IntRange(1, _LONGEST_WAIT_SECONDS),
    help="Wait so many seconds for the result.",
)


@click.command()
@_WHERE
@_COMMAND
@_PARAMS
@_PARAMS_JSON
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait.")
@click.option("--async", "is_async", is_flag=True, help="Do not wait: print the task's id.")
@_KEY
@json_anyway
def call(
    where: str,
    command: str,
    params: tuple[str, ...],
    params_json: str | None,
    timeout: float,
    is_async: bool,
    key: str | None,
) -> None:
    """Call COMMAND of the agent at PATH; print its JSON.

    PARAMS are sent as texts.

    \b
    p-cli cloud call /demo hello World
    p-cli cloud call api.example.com/v1 add --params '[1, 2]'
    p-cli cloud call /demo report --async
    """
    fields = _fields("respond-async" if is_async else "", key)
    click.echo(output.json_text(_call(where, command, _sent(params, params_json), timeout, fields)))


@click.group()
def client() -> None:
    """Call agents, and follow calls that go on without you."""


@client.command("task")
@_WHERE
@_COMMAND
@_PARAMS
@_PARAMS_JSON
@_WAIT
@_KEY
@json_option
def task(
    where: str,
    command: str,
    params: tuple[str, ...],
    params_json: str | None,
    wait: int | None,
    key: str | None,
    want_json: bool,
) -> None:
    """Hand COMMAND to the agent at PATH as a durable task, and print the task's id.

    With --wait, its result is printed instead if it comes in time.
    """
    preference = f"wait={wait}" if wait else "respond-async"
    sent = _sent(params, params_json)
    answer = _call(where, command, sent, 60.0 + (wait or 0), _fields(preference, key))
    if want_json or not _is_receipt(answer):
        click.echo(output.json_text(answer))
        return
    click.echo(answer["taskId"])
    click.echo(f"See how it stands: p-cli client task-status {answer['taskId']}", err=True)


@client.command("task-status")
@click.argument("task_id", shell_complete=completing("task"))
@_WAIT
@click.option("--cancel", is_flag=True, help="Cancel it; a running handler is aborted.")
@json_option
def task_status(task_id: str, wait: int | None, cancel: bool, want_json: bool) -> None:
    """Show how a durable task stands, and what came of it.  Exit status 4 where it failed."""
    caller = connected()
    found = caller.cancel_task(task_id) if cancel else caller.task(task_id, wait or 0)
    if want_json:
        output.as_json(found)
    else:
        shown = ("taskId", "status", "attempts", "command", "createdAt", "startedAt", "finishedAt")
        output.pairs({name: found[name] for name in shown if found.get(name) is not None})
        if "result" in found:
            click.echo(output.json_text(found["result"]))
    if found["status"] == "failed":
        error = found.get("error", {})
        raise CommandFailed(
            f"{error.get('message', 'the task failed')} ({error.get('code')})", exit_code=DEPLOYMENT
        )


@client.command("methods")
@_WHERE
@json_option
def methods(where: str, want_json: bool) -> None:
    """List the commands of the agent at PATH."""
    domain, path = _place(where)
    answer = connected().api(
        "GET", "deployments/commands", domain=domain or "localhost", path=f"/{path}"
    )
    if want_json:
        output.as_json(answer)
        return
    output.table(
        ("command", "kind", "about"),
        ((one["name"], one["kind"], one.get("about")) for one in answer["commands"]),
        empty="It has no commands.",
    )


client.add_command(call)


def _call(
    where: str, command: str, params: list[Any], timeout: float, fields: dict[str, str]
) -> Any:
    domain, path = _place(where)
    body = {"command": command, "params": params}
    return connected().call(domain, f"/{path}", body, timeout, fields)


def _place(where: str) -> tuple[str, str]:
    domain, slash, path = where.partition("/")
    return (domain, path) if slash else ("", where)


def _sent(params: tuple[str, ...], params_json: str | None) -> list[Any]:
    if params_json is None:
        return list(params)
    try:
        sent = json.loads(params_json)
        if not isinstance(sent, list) or params:
            raise ValueError("expected one JSON array, and no params beside it")
    except ValueError as error:
        raise CommandFailed(f"--params: {error}", exit_code=CONFIGURATION) from error
    return sent


def _fields(preference: str, key: str | None) -> dict[str, str]:
    fields = {"Prefer": preference} if preference else {}
    return fields | ({"Idempotency-Key": key} if key else {})


def _is_receipt(answer: Any) -> bool:
    return isinstance(answer, dict) and set(answer) == {"taskId", "status", "href"}
