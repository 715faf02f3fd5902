"""``p-cli cloud batch``: what a file says, one after another."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ploinky.cli import documents, output
from ploinky.cli.configs import deployment
from ploinky.cli.deployments import deploy_with_progress, deployed_words
from ploinky.cli.documents import Node, fail
from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.cli.operations import Operation, run_all
from ploinky.cli.shared import client, json_option
from ploinky.cli.typed import typed, typed_lines
from ploinky.deployment.readers import Misfit, Reader, listing, number, record, text, whole

_CALL_SECONDS = 120.0
_PLACE: dict[str, Reader[Any]] = {"domain": text(), "path": text()}
_BOTH = ("domain", "path")
_VERBS: Mapping[str, Reader[dict[str, Any]]] = {
    **{verb: record(_PLACE, _BOTH) for verb in ("undeploy", "sync", "restart", "stop", "start")},
    "scale": record({**_PLACE, "replicas": whole(1, 1000)}, (*_BOTH, "replicas")),
    "rollback": record({**_PLACE, "release": whole(1, 2**31)}, _BOTH),
    "call": record(
        {
            **_PLACE,
            "agent": text(),
            "command": text(),
            "params": listing(lambda raw_value: raw_value),
            "timeout": number(0, 86_400),
        },
        ("command",),
    ),
}
_DEPLOYING = ("deploy", "update")
_FORMS = (
    "a deployment {domain, path, agent, image ...}, a call {agent: /path, command, params},"
    f" one of {', '.join((*_DEPLOYING, *_VERBS))} with its fields below it, or a command line"
)


@click.command()
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True)
)
@click.option("--keep-going", is_flag=True, help="Go on after a line that failed.")
@click.option("--dry-run", is_flag=True, help="Check the file, show what it says, do nothing.")
@json_option
def batch(file: Path, keep_going: bool, dry_run: bool, want_json: bool) -> None:
    """Do what FILE says, line by line (- reads it from input).

    Command lines, as they are typed; # begins a comment:

    \b
    deploy localhost /demo demo --env GREETING="Good day"
    call /demo hello World

    Or JSON, JSON lines or YAML, of calls, deployments and changes:

    \b
    [{"agent": "/demo", "command": "hello", "params": ["World"]}]

    \b
    - {domain: localhost, path: /web, agent: web, image: nginx, port: 80}
    - scale: {domain: localhost, path: /web, replicas: 3}

    All of it is checked before the first line is run.  It stops at the first one that fails.
    Exit status: 0 if all went well, else the highest of those that failed.
    """
    operations = read_batch(documents.read_file(file), str(file))
    if dry_run:
        if want_json:
            output.as_json(
                {"operations": [{"place": o.place, "operation": o.title} for o in operations]}
            )
            return
        for one in operations:
            click.echo(f"{one.place}  {one.title}")
        return
    run_all(operations, keep_going=keep_going, want_json=want_json)


def read_batch(raw_text: str, name: str) -> list[Operation]:
    """Read a file of operations.

    Args:
        name: Of the file, for messages.

    Raises:
        CommandFailed: A line is none, with file and line; nothing was done.
    """
    first = next(
        (line for line in raw_text.splitlines() if line.strip() and line.lstrip()[0] != "#"), ""
    )
    is_structured = first.lstrip().startswith(("[", "{", "- ", "---")) or name.endswith(
        (".json", ".jsonl", ".yml", ".yaml")
    )
    found: list[Operation] = []
    problems: list[str] = []
    entries = _entries(raw_text, name) if is_structured else typed_lines(raw_text)
    for node in entries:
        try:
            found.append(_operation(node, name))
        except CommandFailed as error:
            problems.append(error.message)
    if problems:
        raise CommandFailed("\n  ".join(problems), exit_code=CONFIGURATION)
    if not found:
        fail(name, 1, "there is nothing to do in it", hint=f"it takes {_FORMS}")
    return found


# --- JSON and YAML


def _entries(raw_text: str, name: str) -> Iterator[Node]:
    """Give the entries of a list, of several documents, or of JSON lines."""
    lines = raw_text.splitlines()
    if sum(bool(line.strip()) for line in lines) > 1 and all(map(_is_blank_or_json, lines)):
        for at, line in enumerate(lines):
            yield from documents.documents(line, name, at)
        return
    for node in documents.documents(raw_text, name):
        if isinstance(node.value, list):
            yield from node.value
        else:
            yield node


def _is_blank_or_json(line: str) -> bool:
    if not line.strip():
        return True
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _operation(node: Node, name: str) -> Operation:
    if isinstance(node.value, str):
        return typed(node.value, node.line, name)
    names = list(node.mapping)
    if len(names) == 1 and names[0] in (*_DEPLOYING, *_VERBS) and node.mapping[names[0]].mapping:
        verb, node = names[0], node.mapping[names[0]]
    elif "command" in names and (
        "params" in names or _is_path(node.get("agent")) or "domain" not in names
    ):
        verb = "call"
    elif "domain" in names and "path" in names:
        verb = "deploy"
    else:
        fail(name, node.line, f"expected {_FORMS}")
    if verb in _DEPLOYING:
        return _deploying(verb, node, name)
    try:
        fields = _VERBS[verb](documents.plain(node))
    except Misfit as problem:
        line = documents.line_of(node, problem.path)
        fail(name, line, f"{verb}{problem.path}: {problem.expected}")
    return _calling(fields, node, name) if verb == "call" else _changing(verb, fields, node, name)


def _is_path(agent: Node | None) -> bool:
    return agent is None or agent.text.startswith("/")


def _deploying(verb: str, node: Node, name: str) -> Operation:
    body = deployment(node, name, os.environ, unsets=verb == "update")
    missing = [field for field in _BOTH if not body.get(field)]
    if missing:
        fail(name, node.line, f"{verb}: expected {' and '.join(missing)}")

    def run(want_json: bool) -> Any:
        if verb == "deploy":
            return deploy_with_progress(client(), body)
        return client().api("POST", "deployments/update", body, timeout=None)

    where = f"{body['domain']}{body['path']}"
    return Operation(f"{name}:{node.line}", f"{verb} {where}", run, deployed_words)


def _changing(verb: str, fields: dict[str, Any], node: Node, name: str) -> Operation:
    def run(want_json: bool) -> Any:
        if verb == "undeploy":
            return client().api("DELETE", "deployments", fields)
        return client().api("POST", f"deployments/{verb}", fields, timeout=None)

    more = [str(fields[field]) for field in ("replicas", "release") if field in fields]
    title = " ".join([verb, fields["domain"] + fields["path"], *more])
    return Operation(f"{name}:{node.line}", title, run, lambda answer: "Done.")


def _calling(fields: dict[str, Any], node: Node, name: str) -> Operation:
    path = fields.get("path") or fields.get("agent")
    if not path:
        fail(name, node.line, "call: expected the path of an agent, as path or as agent")
    body = {"command": fields["command"], "params": list(fields.get("params", ()))}

    def run(want_json: bool) -> Any:
        seconds = fields.get("timeout", _CALL_SECONDS)
        where = "/" + path.lstrip("/")
        return {"result": client().call(fields.get("domain", ""), where, body, seconds)}

    title = f"call {fields.get('domain', '')}{path} {fields['command']}"
    return Operation(
        f"{name}:{node.line}",
        title,
        run,
        lambda answer: output.json_text(answer["result"]),
    )
