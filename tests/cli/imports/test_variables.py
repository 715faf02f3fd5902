"""Variables of Compose files, and of the files beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ploinky.cli.documents import Node
from ploinky.cli.failures import CommandFailed
from ploinky.cli.imports.parts import Book, Part
from ploinky.cli.imports.variables import Files, Variables, environment_file, read_variables

PART = Part(Book("f.yml"), Node({}, 7), "services.web")
KNOWN = {"SET": "value", "EMPTY": "", "OTHER": "x"}


def filled(text: str) -> str:
    return Variables(KNOWN).in_text(text, PART)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a-$SET-b", "a-value-b"),
        ("${SET}", "value"),
        ("${SET:-d}", "value"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NONE-d}", "d"),
        ("${NONE:-${OTHER}-${NONE:-e}}", "x-e"),
        ("${SET:+there}", "there"),
        ("${EMPTY:+there}", ""),
        ("${EMPTY+there}", "there"),
        ("${SET:?gone}", "value"),
        ("$$SET costs $$5", "$SET costs $5"),
        ("${NONE:-a:b}", "a:b"),
        ("$NONE", ""),
    ],
)
def test_what_stands_for_what(text: str, meant: str) -> None:
    assert filled(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${NONE:?set it}", "NONE is required: set it"),
        ("${EMPTY?}", ""),
        ("a $ b", r"write \$\$"),
        ("$(ls)", r"write \$\$"),
        ("${SET", "not closed"),
        ("${}", "names no variable"),
        ("${SET!x}", "expected :-"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    if not said:
        assert filled(text) == ""
        return
    with pytest.raises(CommandFailed, match=r"f\.yml:7: services\.web: .*" + said):
        filled(text)


@given(st.text())
def test_text_without_a_dollar_stays(text: str) -> None:
    assert filled(text.replace("$", "$$")) == text


def test_a_variable_that_is_not_set_is_told_once() -> None:
    variables = Variables({})
    variables.in_text("$A $A $B", PART)
    assert [remark.why for remark in variables.unset.values()] == [
        "$A is not set, and counts as empty",
        "$B is not set, and counts as empty",
    ]


def test_lines_of_an_environment_file() -> None:
    """Quotes, comments, `export`, other variables, and names that take p-cli's own value."""
    text = (
        "# comment\n\nA=1\nexport B='two $SET'\nC=\"three $SET \\$x\\n\"  # comment\n"
        "D=four # comment\nE=a#b\nF=\nSET\nNONE\nG: six\nH='a\nb'\r\nI=${A}1\n"
    )
    assert read_variables(text, ".env", KNOWN) == {
        "A": "1",
        "B": "two $SET",
        "C": "three value $x\n",
        "D": "four",
        "E": "a#b",
        "F": "",
        "SET": "value",
        "G": "six",
        "H": "a\nb",
        "I": "11",
    }
    assert read_variables("A='x' # y\n", ".env", {}, is_raw=True) == {"A": "'x' # y"}


@pytest.mark.parametrize("line", ["s3cret", "= s3cret", "A='s3cret", 'A="s3cret', "A=$(s3cret)"])
def test_a_line_that_is_none_is_named_and_not_shown(line: str) -> None:
    """What is in such a file may be a secret."""
    if line == "s3cret":
        assert read_variables(line, ".env", {}) == {}  # a name that is not set
        return
    with pytest.raises(CommandFailed, match=r"\.env:2") as caught:
        read_variables(f"X=1\n{line}\n", ".env", {})
    assert "s3cret" not in caught.value.message


def test_what_is_set_where_p_cli_runs_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\n")
    assert environment_file(Files(tmp_path), {"A": "own"}) == {"A": "own", "B": "file"}


def test_files_outside_are_read_only_where_that_is_allowed(tmp_path: Path) -> None:
    """Whether by dots, by an absolute path or through a link."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "x.env").write_text("A=1\n")
    (inside / "link.env").symlink_to(outside / "x.env")
    for name in ("../out/x.env", str(outside / "x.env"), "link.env"):
        with pytest.raises(CommandFailed, match="outside") as caught:
            Files(inside).text(name, PART)
        assert "--also-read" in caught.value.hint
        assert Files(inside, (outside,)).text(name, PART)[0] == "A=1\n"
    for name in ("none.env", "."):
        with pytest.raises(CommandFailed):
            Files(inside).text(name, PART)
