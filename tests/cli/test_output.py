"""What others wrote, as it is shown: nobody's text commands the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from ploinky.cli import output
from ploinky.cli.failures import from_answer
from ploinky.cli.shared import show_stream
from tests.cli.conftest import StandIn, ended

CLEARS = "\x1b[2J\x9b2J\x07\x1b]0;title\x07"


def test_colours_stay_and_commands_do_not() -> None:
    """Whatever an agent, a manifest or a server prints."""
    assert output.visible("\x1b[31mred\x1b[0m\tand\r\nmore ü") == "\x1b[31mred\x1b[0m\tand\nmore ü"
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(output.visible(f"{CLEARS}\u202e"))


@pytest.mark.parametrize(
    "show",
    [
        lambda text: output.table(["about"], [[text]], empty=""),
        lambda text: output.pairs({"about": text}),
        lambda text: output.as_json({"about": text}),
        lambda text: from_answer(400, {"message": text, "details": {"output": text}}).show(),
        lambda text: show_stream([text.encode()[:9], text.encode()[9:]]),
    ],
)
def test_nothing_that_is_shown_commands_the_terminal(show, capsys) -> None:
    """In a table, a list, JSON, an error, a log."""
    show(f"before {CLEARS} after")
    said = "".join(capsys.readouterr())
    assert "before" in said
    assert "after" in said
    assert not {"\x1b[2J", "\x9b", "\x07"} & {
        said[i : i + n] for n in (1, 4) for i in range(len(said))
    }


def test_json_for_programs_is_not_changed(capsys) -> None:
    """It is escaped, not replaced."""
    output.as_json({"about": CLEARS})
    assert json.loads(capsys.readouterr().out) == {"about": CLEARS}


@pytest.mark.parametrize(
    ("as_batch", "half"), [(False, r"\ud800"), (True, "\N{REPLACEMENT CHARACTER}")]
)
def test_what_an_agent_answers_neither_commands_the_terminal_nor_breaks_the_command(
    stand_in: StandIn, typed: Callable[..., Result], as_batch: bool, half: str
) -> None:
    """JSON lets controls of eight bits stand, and halves of characters."""
    params = r'["\u009b2J", "\ud800", "\u00fc"]'
    if as_batch:
        call = f'{{"agent": "/demo", "command": "say", "params": {params}}}'
        done = typed("batch", "-", stdin=f"[{call}]")
    else:
        done = typed("call", "/demo", "say", "--params", params)
    assert ended(done) == (0, "")
    assert done.stdout == rf'{{"said": ["say", "\u009b2J", "{half}", "ü"]}}' + "\n"
