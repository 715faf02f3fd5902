"""Lines of the interactive mode: what they mean, and which of them are remembered."""

from __future__ import annotations

from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from ploinky.cli.client import Client
from ploinky.cli.failures import CommandFailed
from ploinky.cli.history import history_path, holds_secret
from ploinky.cli.interactive import CommandCompleter, as_arguments, commands, goes_on
from ploinky.cli.main import cli
from ploinky.cli.names import Names


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("health", "cloud health"),
        ("p-cli cloud health", "cloud health"),
        ("cloud health --json", "cloud health --json"),
        ("client methods /demo", "client methods /demo"),
        ("p-cli client methods /demo", "client methods /demo"),
        ("help", "cloud --help"),
        ("help deploy", "cloud deploy --help"),
        ("help client task", "client task --help"),
        ("--version", "--version"),
        ("p-cli", "cloud"),
    ],
)
def test_what_may_be_left_out(line: str, arguments: str) -> None:
    """The program's name, and the word `cloud`."""
    assert as_arguments(line.split(), cli) == arguments.split()


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("", []),
        ("  # a comment", []),
        ("a b # c d", [["a", "b"]]),
        ("a '#b' c#d", [["a", "#b", "c#d"]]),
        ("a\nb c\n", [["a"], ["b", "c"]]),
        ("a '1\n2' b", [["a", "1\n2", "b"]]),
        ("a \\\n  b", [["a", "b"]]),
        (
            "call /x y --params '[\n  1,\n  2\n]'",
            [["call", "/x", "y", "--params", "[\n  1,\n  2\n]"]],
        ),
    ],
)
def test_a_line_is_a_command_unless_it_goes_on(typed: str, found: list[list[str]]) -> None:
    """As in a shell: quotes, backslashes and comments."""
    assert list(commands(typed)) == found


def test_open_quotes_and_backslashes_go_on() -> None:
    """Enter adds a line to them."""
    assert goes_on("a 'b")
    assert goes_on('a "b')
    assert goes_on("a \\")
    assert not goes_on("a 'b' \"c\"")
    assert not goes_on("")


@pytest.mark.parametrize(
    "line",
    [
        "login pk_0123456789",
        "p-cli cloud login whatever-it-is",
        "p-cli cloud login --json something",
        "init --token abc",
        "init --token=abc",
        "deploy localhost /x x --secret TOKEN=abc",
        "deploy localhost /x x --secret=TOKEN=abc",
        "deployments update localhost /x --env PASSWORD=abc",
        "deploy localhost /x x --env=PASSWORD=abc",
        "deploy localhost /x x --env DATABASE=f7Gh29!kd",
        "repo add x https://me:abc@git.example/x.git",
        "connect http://pk_abc@localhost",
        "call /x hello pk_0123456789",
        "deploy localhost /x x --secret 'TOKEN=ab",
    ],
)
def test_lines_with_a_secret_are_not_remembered(line: str) -> None:
    """Nor those that may have one."""
    assert holds_secret(line)


@pytest.mark.parametrize(
    "line",
    [
        "login",
        "login -",
        "host list",
        "deploy localhost /x x --env NODE_ENV=production --secret-less",
        "deploy localhost /x x --repository https://git.example/x.git",
        "repo add x https://git.example/x.git --token-file secret.txt",
        "settings set taskTimeout=5",
        "call /demo hello World",
    ],
)
def test_other_lines_are(line: str) -> None:
    """History is for those."""
    assert not holds_secret(line)


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("tas", ["tasks"]),
        ("help tas", ["tasks"]),
        ("p-cli cloud tas", ["tasks"]),
        ("host list\ntasks re", ["retry"]),
        ("client met", ["methods"]),
        ("qu", ["quit"]),
        ("logs --acc", ["--access"]),
        ("tasks list --state qu", ["queued"]),
        ("call /x y --params '[1, 2]'", []),
        ("call /x 'y", []),
        ("call /x y \\", []),
    ],
)
def test_what_is_completed(text: str, offered: list[str]) -> None:
    """As shells do; what is in quotes is its writer's own."""
    completer = CommandCompleter(cli, Names(lambda: 0.0, nobody))
    found = completer.get_completions(Document(text), CompleteEvent())
    assert [one.text for one in found] == offered


def nobody() -> Client:
    raise CommandFailed("there is no server")


def test_history_lies_where_the_user_keeps_such_things() -> None:
    """``XDG_STATE_HOME`` says where, if it is a place."""
    home = Path("/home/me")
    assert history_path(home, {}) == home / ".local/state/ploinky/history"
    assert history_path(home, {"XDG_STATE_HOME": "/s"}) == Path("/s/ploinky/history")
    assert history_path(home, {"XDG_STATE_HOME": "s"}) == home / ".local/state/ploinky/history"
