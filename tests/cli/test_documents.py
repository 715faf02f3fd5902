"""Files that people wrote: what they mean, where they are wrong, and what they may cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ploinky.cli.documents import LARGEST_BYTES, as_yaml, documents, line_of, plain, read_file
from ploinky.cli.failures import CONFIGURATION, CommandFailed

SCALARS = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=12)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=12,
)


def read(text: str) -> list[Any]:
    return [plain(node) for node in documents(text, "f.yml")]


def test_words_that_an_older_yaml_takes_for_something_else_are_text() -> None:
    """`on`, `no`, `22:22`, dates and numbers with signs in them are what is written."""
    text = "a: on\nb: no\nc: 22:22\nd: 2024-01-15\ne: 1_000\nf: 1:30:00\ng: y\nh: =\n"
    assert read(text) == [
        {
            "a": "on",
            "b": "no",
            "c": "22:22",
            "d": "2024-01-15",
            "e": "1_000",
            "f": "1:30:00",
            "g": "y",
            "h": "=",
        }
    ]


def test_numbers_keep_how_they_are_written() -> None:
    """`1.10` is a number, and a version for who asks for its text."""
    node = documents("a: 1.10\nb: 0755\nc: 0x1F\nd: -3\n", "f.yml")[0]
    assert plain(node) == {"a": 1.1, "b": 755, "c": 31, "d": -3}
    assert [node.mapping[name].text for name in "abc"] == ["1.10", "0755", "0x1F"]


def test_anchors_and_merges_are_written_out() -> None:
    """A mapping's own entries win over merged ones, and the first merged one over the next."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 3\n"
    assert read(text)[0]["c"] == {"x": 3, "y": 1, "z": 2}


@given(TREES)
def test_json_is_read_as_json(tree: Any) -> None:
    """With tabs, escapes of two halves and all, as every JSON reader does."""
    for indent in (None, "\t"):
        text = json.dumps({"a": tree}, indent=indent)
        assert read(text) == [{"a": tree}]


@given(TREES)
def test_what_is_written_is_read_again(tree: Any) -> None:
    """A dry run's output can be fed back."""
    assert read(as_yaml({"a": tree})) == [{"a": tree}]


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yml:3", "twice, first in line 1"),
        ('{"a": 1,\n "a": 2}', "f.yml:2", "twice"),
        ("1: x\n", "f.yml:1", "quotes around 1"),
        ("? [a]\n: b\n", "f.yml:1", "a name is text"),
        ("a: !!python/object:os.system x\n", "f.yml:1", "tag"),
        ("a:\n  b: !include x\n", "f.yml:2", "tag"),
        ("a: &x [*x]\n", "f.yml:1", "stands in itself"),
        ("a:\n- *nowhere\n", "f.yml:2:3", "nowhere"),
        ("a: [\n", "f.yml:2", "stream end"),
        ("a:\n\t- b\n", "f.yml:2:1", "\\t"),
        ("[" * 5000, "f.yml:1", "nested"),
        ("{a: " * 100 + "}" * 100, "f.yml:1", "nested"),
        ("a: '\x00'\n", "f.yml:1", "not allowed"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, place: str, said: str) -> None:
    """One message, with file and line, and the status for configuration."""
    with pytest.raises(CommandFailed) as caught:
        documents(text, "f.yml")
    assert caught.value.message.startswith(place)
    assert said in caught.value.message
    assert caught.value.exit_status == CONFIGURATION


def test_a_small_file_cannot_stand_for_a_large_one() -> None:
    """Aliases of aliases of aliases are refused before they are written out."""
    rows = ["a0: &a0 [" + ",".join(["x"] * 10) + "]"]
    rows += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 9)]
    with pytest.raises(CommandFailed, match="aliases written out"):
        documents("\n".join(rows), "f.yml")


def test_files_that_are_not_read(tmp_path: Path) -> None:
    """Too large, not text, not there: each is said."""
    (tmp_path / "large").write_bytes(b"a" * (LARGEST_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, said in (("large", "KiB"), ("binary", "UTF-8"), ("none", "No such file")):
        with pytest.raises(CommandFailed, match=said):
            read_file(tmp_path / name)


def test_a_path_within_leads_to_its_line() -> None:
    """Or to the nearest thing above it that is there."""
    node = documents("a:\n  b:\n  - c: 1\n    d: 2\n", "f.yml")[0]
    assert line_of(node, "a.b[0].d") == 4
    assert line_of(node, "a.b[0].missing") == 3
    assert line_of(node, "a.x") == 1
