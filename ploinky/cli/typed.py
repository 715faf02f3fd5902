"""Command lines that stand in a file: parsed as a shell and ``click`` would, and run later."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from collections.abc import Iterator
from typing import Any

import click

from ploinky.cli.documents import Node, fail
from ploinky.cli.operations import Operation

_SHOWN = ("domain", "path", "where", "name")
"""Parameters that tell lines apart and are never secret."""


def typed_lines(raw_text: str) -> Iterator[Node]:
    """Give the lines that say something, those that end in a backslash with the next."""
    begun, at = "", 0
    for number, line in enumerate(raw_text.splitlines(), 1):
        at = at if begun else number
        begun += line
        if begun.endswith("\\"):
            begun = begun[:-1] + " "
            continue
        if begun.strip() and not begun.lstrip().startswith("#"):
            yield Node(begun, at)
        begun = ""
    if begun.strip():
        yield Node(begun, at)


def typed(line: str, at: int, name: str) -> Operation:
    """Parse a command line; nothing of it is run yet.

    Args:
        at: Its number in the file.
        name: Of the file, for messages.

    Raises:
        CommandFailed: It is no command, or not as that command takes it.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        fail(name, at, f"{error}")
    words = words[1:] if words[:1] == ["p-cli"] else words
    context = _parsed(words, at, name)
    path = context.command_path.split(" ", 1)[-1]
    shown = [str(context.params[one]) for one in _SHOWN if context.params.get(one)]

    def run(want_json: bool) -> Any:
        if not want_json:
            _invoke(context)
            return None
        if "want_json" in context.params:
            context.params["want_json"] = True
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            _invoke(context)
        with contextlib.suppress(ValueError):
            return json.loads(printed.getvalue())
        return printed.getvalue()

    return Operation(f"{name}:{at}", " ".join([path, *shown]), run, str)


def _parsed(words: list[str], at: int, name: str) -> click.Context:
    root = click.get_current_context().find_root()
    assert isinstance(root.command, click.Group)
    top = words[0] if words and words[0] in root.command.commands else "cloud"
    words = words[1:] if words and words[0] == top else words
    context = click.Context(root.command, info_name="p-cli")
    command: click.Command = root.command.commands[top]
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        context = click.Context(command, parent=context, info_name=command.name)
        command, words = command.commands[words[0]], words[1:]
    if command.name == "batch":
        fail(name, at, "a batch is not run within a batch")
    is_option = not words or words[0].startswith("-")
    if isinstance(command, click.Group) and not (command.invoke_without_command and is_option):
        tried = " ".join([context.command_path, str(command.name), *words[:1]])
        fail(name, at, f"there is no command {tried!r}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return command.make_context(command.name, list(words), parent=context)
    except click.exceptions.Exit:
        fail(name, at, "it only shows help or a version")
    except click.UsageError as error:
        fail(name, at, error.format_message().partition("\n")[0] or "expected a command")


def _invoke(context: click.Context) -> None:
    with context, contextlib.suppress(click.exceptions.Exit):
        context.command.invoke(context)
