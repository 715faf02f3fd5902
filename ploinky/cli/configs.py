"""A deployment as a file says it: ``--config FILE``, and the deployments of a batch.

JSON or YAML enters, the body of ``POST deployments`` leaves.  All that is wrong with it is said at
once, each with its line, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ploinky.cli import documents
from ploinky.cli.documents import Node
from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.deployment.fields import FIELDS
from ploinky.deployment.manifest import check_environment, check_settings
from ploinky.deployment.readers import resembling
from ploinky.errors import ValidationFailed

TEXTS = ("domain", "path", "agent", "repository", "branch", "subPath", "target")
TABLES = ("environment", "env", "secrets")
_KNOWN = (*TEXTS, *TABLES, *FIELDS)


def read_config(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Read a file of one deployment; ``-`` is the input.

    Args:
        environment: Where secrets without a value are taken from.

    Raises:
        CommandFailed: It is no such file; with every problem and its line.
    """
    found = documents.documents(documents.read_file(path), str(path))
    if len(found) != 1 or not isinstance(found[0].value, dict):
        line = found[-1].line if found else 1
        documents.fail(
            str(path),
            line,
            "expected one deployment, as an object such as {domain: localhost, path: /demo, agent: demo}",
            hint=f"a file of several is for: p-cli cloud batch {path}" if found else "",
        )
    return deployment(found[0], str(path), environment)


def deployment(
    node: Node, name: str, environment: Mapping[str, str], *, unsets: bool = False
) -> dict[str, Any]:
    """Read a deployment.

    Args:
        name: Of the file, for messages.
        environment: Where secrets without a value are taken from.
        unsets: Whether a variable may be null, which takes it away.

    Raises:
        CommandFailed: With every problem and its line; no value of a secret is in it.
    """
    problems: dict[str, str] = {}
    body: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for field, entry in node.mapping.items():
        if field in TEXTS:
            body[field] = entry.value
            if not isinstance(entry.value, str):
                problems[field] = "expected text"
        elif field in TABLES:
            body[field] = _variables(field, entry, environment, problems, unsets)
        elif field in FIELDS:
            settings[field] = documents.plain(entry)
        else:
            near = resembling(field, dict.fromkeys(_KNOWN))
            problems[field] = f"there is no such field{near}"
    problems |= _misfits(check_settings, _of_manifest(settings))
    _say(problems, node, name)
    return {**body, **settings}


def _of_manifest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a deployment may be and a manifest may not: the server looks at its target."""
    return {
        name: value for name, value in settings.items() if (name, value) != ("kind", "external")
    }


def _variables(
    field: str,
    node: Node,
    environment: Mapping[str, str],
    problems: dict[str, str],
    unsets: bool,
) -> dict[str, str | None]:
    """Take variables as they are written: ``PORT: 8080`` is a text too."""
    is_secret = field == "secrets"
    if is_secret and isinstance(node.value, list):
        node = Node({one.text: Node(None, one.line) for one in node.value}, node.line)
    if not isinstance(node.value, dict):
        problems[field] = "expected names with values"
        return {}
    found: dict[str, str | None] = {}
    for variable, entry in node.value.items():
        path = f"{field}.{variable}"
        if entry.value is not None and not isinstance(entry.value, (list, dict)):
            found[variable] = entry.text
        elif entry.value is None and is_secret and variable in environment:
            found[variable] = environment[variable]
        elif entry.value is None and is_secret:
            problems[path] = f"there is no variable {variable} to take it from: export it first"
        elif entry.value is None and unsets:
            found[variable] = None
        else:
            problems[path] = "expected text"
        for problem in _misfits(check_environment, {variable: found.get(variable) or ""}).values():
            problems.setdefault(path, problem)
    return found


def _misfits(check: Callable[[Any], None], value: Mapping[str, Any]) -> dict[str, str]:
    try:
        check(value)
    except ValidationFailed as error:
        return {str(path): str(problem) for path, problem in (error.details or {}).items()}
    return {}


def _say(problems: Mapping[str, str], node: Node, name: str) -> None:
    if not problems:
        return
    lines = sorted((documents.line_of(node, path), path, problems[path]) for path in problems)
    said = [f"{name}:{line}: {path}: {problem}" for line, path, problem in lines]
    raise CommandFailed("\n  ".join(said), exit_code=CONFIGURATION)
