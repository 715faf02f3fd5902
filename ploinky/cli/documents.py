"""Files that people wrote, JSON or YAML, as values that know the line they stand in.

Text enters, `Node` trees leave, or one `CommandFailed` that names file, line and column.  YAML is read by
its version 1.2 (core schema), as Compose and people mean it: ``on``, ``no``, ``22:22`` and
``2024-01-15`` are text.  JSON is held to its own grammar first.  PyYAML finds the tokens; it
constructs nothing, so a file can name no type.  What a file may cost is bounded: bytes, depth,
and values once aliases are written out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml
from attrs import frozen

from ploinky.cli.failures import CONFIGURATION, CommandFailed

LARGEST_BYTES = 1024 * 1024
MOST_VALUES = 100_000
DEEPEST = 64

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None, "~": None, "": None}
_CASES = re.compile(r"true|True|TRUE|false|False|FALSE|null|Null|NULL|~|")
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_BASED = re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")
_ORDINARY = ("str", "int", "float", "bool", "null", "map", "seq", "merge", "timestamp", "value")


@frozen
class Node:
    """One value of a file.

    Attributes:
        value: A scalar, a list of nodes, or a dict of nodes.
        line: Counted from 1; of its name, where it has one.
        text: A scalar as it is written, without quotes; ``""`` for others.
    """

    value: Scalar | list[Node] | dict[str, Node]
    line: int
    text: str = ""

    @property
    def mapping(self) -> dict[str, Node]:
        """Its entries; none where it is no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    def get(self, name: str) -> Node | None:
        """Give an entry of a mapping; None where there is none, or it is null."""
        found = self.mapping.get(name)
        return found if found is not None and found.value is not None else None


def read_file(path: Path) -> str:
    """Read a file of text, ``-`` being the input.

    Raises:
        CommandFailed: There is none, it is larger than such files are, or it is not text.
    """
    try:
        if str(path) == "-":
            raw = sys.stdin.buffer.read(LARGEST_BYTES + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(LARGEST_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", exit_code=CONFIGURATION) from error
    except UnicodeDecodeError as error:
        raise CommandFailed(
            f"{path} is not UTF-8 text (byte {error.start})", exit_code=CONFIGURATION
        ) from error
    if len(raw) > LARGEST_BYTES:
        raise CommandFailed(
            f"{path} is larger than {LARGEST_BYTES // 1024} KiB", exit_code=CONFIGURATION
        )
    return text


def documents(text: str, name: str, before: int = 0) -> list[Node]:
    """Read a file's documents: one of JSON, or any number of YAML, but for the empty ones.

    Args:
        name: Of the file, for messages.
        before: How many lines of the file stand before the text.

    Raises:
        CommandFailed: It is neither, or uses what is refused here; with file, line and column.
    """
    if _is_json(text):
        text = text.replace("\t", " ")  # indentation in JSON, an error in YAML
    try:
        composed = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 0)
        fail(name, before + line, _said(error), column)
    except yaml.YAMLError as error:
        fail(name, before + 1, f"it is not YAML: {error}")
    except (RecursionError, ValueError):
        fail(name, before + 1, "it is nested too deeply, or has an escape that is none")
    building = _Building(name, before)
    nodes = [building.node(one, ()) for one in composed if one is not None]
    return [node for node in nodes if node.value is not None]


def plain(node: Node) -> Any:
    """Give a node's value as Python's own types."""
    if isinstance(node.value, dict):
        return {name: plain(entry) for name, entry in node.value.items()}
    if isinstance(node.value, list):
        return [plain(entry) for entry in node.value]
    return node.value


def as_yaml(document: Any) -> str:
    """Write what `documents` reads as the same again, keys as they came."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that would be read as something else, by YAML 1.1 or by 1.2."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(_scalar(text), str) and text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def line_of(node: Node, path: str) -> int:
    """Find the line of ``health.path`` or ``volumes[0].name``, or of what there is on the way."""
    for step in re.findall(r"[^.\[\]]+", path):
        inner = node.mapping.get(step)
        if isinstance(node.value, list) and step.isdigit() and int(step) < len(node.value):
            inner = node.value[int(step)]
        if inner is None:
            break
        node = inner
    return node.line


def fail(name: str, line: int, problem: str, column: int = 0, hint: str = "") -> NoReturn:
    """End the command with what is wrong in a file, and where.

    Raises:
        CommandFailed: Always.
    """
    place = f"{name}:{line}:{column}" if column else f"{name}:{line}"
    raise CommandFailed(f"{place}: {problem}", hint=hint, exit_code=CONFIGURATION)


def _is_json(text: str) -> bool:
    """Tell JSON by its own reader; what merely begins like it may be YAML's flow style."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _said(error: yaml.MarkedYAMLError) -> str:
    parts = [part for part in (error.problem, error.context) if part]
    return ", ".join(parts) or "it is not YAML"


class _Building:
    """Builds nodes, and counts what aliases make of a small file."""

    def __init__(self, name: str, before: int) -> None:
        self._name = name
        self._before = before
        self._values = 0

    def node(self, raw: yaml.Node, above: tuple[yaml.Node, ...], line: int = 0) -> Node:
        line = line or self._line(raw)
        self._values += 1
        if self._values > MOST_VALUES:
            fail(self._name, line, f"it has over {MOST_VALUES:,} values, its aliases written out")
        if any(raw is one for one in above):
            fail(self._name, line, "an alias leads to what it stands in itself")
        if len(above) >= DEEPEST:
            fail(self._name, line, f"it is nested deeper than {DEEPEST} levels")
        if not self._is_ordinary(raw):
            fail(self._name, line, f"the tag {raw.tag} has no meaning here")
        within = (*above, raw)
        if isinstance(raw, yaml.MappingNode):
            return Node(self._entries(raw, within), line)
        if isinstance(raw, yaml.SequenceNode):
            return Node([self.node(item, within) for item in raw.value], line)
        assert isinstance(raw, yaml.ScalarNode)
        text = _paired(raw.value)
        return Node(text if raw.style is not None else _scalar(text), line, text)

    def _entries(self, raw: yaml.MappingNode, above: tuple[yaml.Node, ...]) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in raw.value:
            line = self._line(key)
            if not isinstance(key, yaml.ScalarNode):
                fail(self._name, line, "a name is text, not a list or an object")
            if key.style is None and key.value == "<<":
                for name, entry in self._merged(value, above):
                    merged.setdefault(name, entry)
                continue
            name = _paired(key.value)
            if key.style is None and not isinstance(_scalar(name), str):
                fail(self._name, line, f"a name is text: put quotes around {name or 'null'}")
            if name in own:
                before = next(k for k, _ in raw.value if k.value == key.value)
                first = self._line(before)
                fail(self._name, line, f"{name!r} stands here twice, first in line {first}")
            own[name] = self.node(value, above, line)
        return {**merged, **own}

    def _merged(self, raw: yaml.Node, above: tuple[yaml.Node, ...]) -> Iterator[tuple[str, Node]]:
        """Give what ``<<`` brings: of one mapping, or of several, the first winning."""
        node = self.node(raw, above)
        for one in node.value if isinstance(node.value, list) else [node]:
            if not isinstance(one.value, dict):
                fail(self._name, node.line, "<< takes a mapping, or a list of them")
            yield from one.value.items()

    def _line(self, raw: yaml.Node) -> int:
        return self._before + int(raw.start_mark.line) + 1

    @staticmethod
    def _is_ordinary(raw: yaml.Node) -> bool:
        prefix, _, kind = raw.tag.rpartition(":")
        return prefix == "tag:yaml.org,2002" and kind in _ORDINARY


def _scalar(text: str) -> Scalar:
    """Read a plain scalar by the core schema of YAML 1.2 (section 10.3.2)."""
    if _CASES.fullmatch(text):
        return _WORDS[text.lower()]
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def _paired(text: str) -> str:
    r"""Make one character of the two ``\u`` escapes that JSON writes for it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
