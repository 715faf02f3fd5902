"""What every command has: the connection in its context, ``--json``, and its client."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from ploinky.cli import connection as connections
from ploinky.cli.client import Client
from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.cli.output import visible

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Add ``--json``: the answer as the API gave it, for programs."""
    return click.option("--json", "want_json", is_flag=True, help="Print JSON.")(command)


def json_anyway(command: F) -> F:
    """Add a ``--json`` that changes nothing, where JSON is all there is."""
    about = "Nothing else is printed anyway."
    return click.option("--json", is_flag=True, expose_value=False, help=about)(command)


def connection() -> connections.Connection:
    """The connection that holds in this directory.

    Raises:
        CommandFailed: There is one that cannot be read, or no such directory any more.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        raise CommandFailed(
            "the directory that this is typed in is gone",
            hint="go to one that there is: cd",
            exit_code=CONFIGURATION,
        ) from error
    return connections.find(here, home(), os.environ)


def home() -> Path:
    """The user's own directory; one without any (in a container, say) has the root's."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def client() -> Client:
    """A client for the connection that holds in this directory."""
    return Client(connection())


def show_stream(pieces: Iterable[bytes]) -> None:
    """Print what comes as it comes."""
    text = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        click.echo(visible(text.decode(piece)), nl=False)
