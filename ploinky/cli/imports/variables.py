"""Variables of Compose: ``${NAME:-default}`` in its files, ``.env``, and ``env_file``.

Source: the Compose Specification, *Interpolation*, and Compose's *Environment file syntax*.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from attrs import define, evolve, field, frozen

from ploinky.cli import documents
from ploinky.cli.documents import Node
from ploinky.cli.failures import CommandFailed
from ploinky.cli.imports.parts import Part, Remark

Fail = Callable[[str], NoReturn]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":-|-|:\?|\?|:\+|\+")
_LINE = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*
    (?:(?P<given>[=:])[ \t]*
       (?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<plain>[^\n'"][^\n]*)?))?
    [ \t]*(?:\#[^\n]*)?\r?(?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(r"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


@define
class Variables:
    """What ``$NAME`` stands for.

    Attributes:
        known: By name; what is set where p-cli runs wins over ``.env``.
        unset: Names that were used, are not set, and have no default; and the place of each.
        used: Names that were used and are set.
    """

    known: Mapping[str, str] = field(repr=False)
    unset: dict[str, Remark] = field(factory=dict)
    used: set[str] = field(factory=set)

    def take(self, name: str) -> str | None:
        """Give what a name stands for, as used; None where it is not set."""
        if name in self.known:
            self.used.add(name)
        return self.known.get(name)

    def in_part(self, part: Part) -> Part:
        """Give a part with every text in it filled in."""
        return evolve(part, node=self._in_node(part, part.node, part.place))

    def in_text(self, text: str, part: Part) -> str:
        """Fill in one text.

        Raises:
            CommandFailed: It has a ``$`` that begins nothing, or lacks what it says it needs.
        """
        missed: list[str] = []
        filled = _Filling(self.take, missed, part.fail).text(text)
        for name in missed:
            remark = Remark(
                part.book.file,
                part.line,
                part.place,
                f"${name} is not set, and counts as empty",
                f"export {name}=VALUE first, or write it into .env beside the file",
                is_lost=False,
            )
            self.unset.setdefault(name, remark)
        return filled

    def _in_node(self, part: Part, node: Node, place: str) -> Node:
        if isinstance(node.value, dict):
            inner = node.value.items()
            return evolve(
                node,
                value={k: self._in_node(part, v, f"{place}.{k}" if place else k) for k, v in inner},
            )
        if isinstance(node.value, list):
            items = enumerate(node.value)
            return evolve(node, value=[self._in_node(part, v, f"{place}[{i}]") for i, v in items])
        if isinstance(node.value, str) and "$" in node.value:
            text = self.in_text(node.value, Part(part.book, node, place))
            return evolve(node, value=text, text=text)
        return node


@frozen
class _Filling:
    """Fills in one text."""

    take: Callable[[str], str | None]
    missed: list[str]
    fail: Fail

    def text(self, text: str) -> str:
        pieces = []
        rest = text
        while rest:
            before, dollar, rest = rest.partition("$")
            pieces.append(before)
            if not dollar:
                break
            if rest.startswith("$"):
                pieces.append("$")
                rest = rest[1:]
            elif rest.startswith("{"):
                inner, rest = self._braced(rest)
                pieces.append(self._value(inner))
            elif found := _NAME.match(rest):
                pieces.append(self._plain(found[0]))
                rest = rest[found.end() :]
            else:
                self.fail("a $ begins a variable here: write $$ for the character itself")
        return "".join(pieces)

    def _braced(self, rest: str) -> tuple[str, str]:  # noqa: RET503 - fail never returns
        """Split after the brace that closes the first one."""
        depth = 0
        for index, character in enumerate(rest):
            if character == "{" and (index == 0 or rest[index - 1] == "$"):
                depth += 1
            elif character == "}":
                depth -= 1
                if not depth:
                    return rest[1:index], rest[index + 1 :]
        self.fail("${ is not closed by }")

    def _value(self, inner: str) -> str:
        found = _NAME.match(inner)
        if not found:
            self.fail(f"${{{inner}}} names no variable")
        name, rest = found[0], inner[found.end() :]
        if not rest:
            return self._plain(name)
        operator = _OPERATOR.match(rest)
        if not operator:
            self.fail(f"${{{inner}}}: expected :-, -, :?, ?, :+ or + after {name}")
        sign, word = operator[0], rest[operator.end() :]
        value = self.take(name)
        is_given = bool(value) if sign.startswith(":") else value is not None
        if sign.endswith("+"):
            return self.text(word) if is_given else ""
        if is_given:
            return value or ""
        if sign.endswith("?"):
            self.fail(f"${name} is required: {self.text(word) or 'it is not set'}")
        return self.text(word)

    def _plain(self, name: str) -> str:
        value = self.take(name)
        if value is None:
            self.missed.append(name)
        return value or ""


@frozen
class Files:
    """Files that a file names: below its own directory, or below one that was allowed.

    Attributes:
        directory: Of the file.
        allowed: Others.
    """

    directory: Path
    allowed: tuple[Path, ...] = ()

    def text(self, name: str, part: Part) -> tuple[str, str]:
        """Give a file's text, and its name for people.

        Raises:
            CommandFailed: It leads elsewhere, is none, or cannot be read.
        """
        path = self.directory / name
        try:
            real = path.resolve()
        except (OSError, RuntimeError) as error:  # links in a circle
            part.fail(f"{name} cannot be read: {error}")
        reachable = [one.resolve() for one in (self.directory, *self.allowed)]
        if not any(real.is_relative_to(one) for one in reachable):
            part.fail(
                f"{name} leads outside of the file's own directory",
                hint=f"allow it with --also-read {real.parent}",
            )
        if not real.is_file():
            part.fail(f"there is no file {name}")
        return documents.read_file(real), str(path)

    def exists(self, name: str) -> bool:
        """Tell whether there is such a file."""
        return (self.directory / name).is_file()


def read_variables(
    text: str, name: str, known: Mapping[str, str], *, is_raw: bool = False
) -> dict[str, str]:
    """Read lines of ``NAME=VALUE``.

    Args:
        name: Of the file, for messages.
        known: What ``$NAME`` stands for, beside the lines before, and ``NAME`` without a value.
        is_raw: Take values as they are, quotes and all.

    Raises:
        CommandFailed: A line is none of these; its content is not shown.
    """
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        if blank := _BLANK.match(text, position):
            position = blank.end()
            continue
        line = text.count("\n", 0, position) + 1

        def fail(problem: str, line: int = line) -> NoReturn:
            documents.fail(name, line, problem)

        entry = _LINE.match(text, position)
        if entry is None:
            fail("expected NAME=VALUE")
        position = entry.end()
        if is_raw:
            found[entry["name"]] = entry[0].rstrip("\r\n").partition("=")[2]
        elif entry["given"]:
            found[entry["name"]] = _read_value(entry, {**found, **known}, fail)
        elif entry["name"] in known:
            found[entry["name"]] = known[entry["name"]]
    return found


def _read_value(entry: re.Match[str], known: Mapping[str, str], fail: Fail) -> str:
    if entry["single"] is not None:
        return entry["single"]
    if entry["double"] is not None:
        raw = re.sub(
            r"\\(.)",
            lambda e: _ESCAPES.get(e[1], "$$" if e[1] == "$" else e[1]),
            entry["double"],
            flags=re.DOTALL,
        )
    else:
        raw = re.split(r"[ \t]#", entry["plain"] or "")[0].strip()
    return _Filling(known.get, [], fail).text(raw)


def environment_file(files: Files, environment: Mapping[str, str]) -> dict[str, str]:
    """Give what ``.env`` beside a file and p-cli's own environment set, the latter winning."""
    if not files.exists(".env"):
        return dict(environment)
    path = files.directory / ".env"
    try:
        found = read_variables(documents.read_file(path), str(path), environment)
    except CommandFailed as error:
        error.hint = error.hint or "it is read for the variables in the file"
        raise
    return {**found, **environment}
