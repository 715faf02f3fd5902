"""Reading a file so that nothing of it gets lost: what is not taken is remarked upon.

A mapper takes the names it knows from a `Part` and ends with `Part.rest`, which makes a `Remark`
of every name that is left: with the reason where there is a known one, else as unknown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import NoReturn

from attrs import define, field, frozen

from ploinky.cli import documents
from ploinky.cli.documents import Node

Reasons = Mapping[str, tuple[str, str]]
"""By name: why it does not map, and what to do instead (``""``: nothing needs to be done)."""


@frozen
class Remark:
    """One part of a file that is not as it was there.

    Attributes:
        file: Its name.
        line: Counted from 1.
        place: Such as ``services.web.networks``.
        why: What becomes of it, and why.
        instead: What to do; ``""`` for nothing.
        is_lost: Whether it has no effect here; else it has another one.
    """

    file: str
    line: int
    place: str
    why: str
    instead: str = ""
    is_lost: bool = True


@define
class Book:
    """A file while it is read.

    Attributes:
        file: Its name, for people.
        remarks: In the order in which they came up.
    """

    file: str
    remarks: list[Remark] = field(factory=list)


@define
class Part:
    """One value of a file, and which of its names were taken.

    Attributes:
        place: Where it stands, such as ``services.web``.
    """

    book: Book
    node: Node
    place: str
    _taken: set[str] = field(factory=set)

    @property
    def line(self) -> int:
        """Counted from 1."""
        return self.node.line

    @property
    def names(self) -> list[str]:
        """Names of a mapping, in their order."""
        return list(self._mapping())

    @property
    def is_list(self) -> bool:
        """Whether it is a list."""
        return isinstance(self.node.value, list)

    @property
    def is_mapping(self) -> bool:
        """Whether it is a mapping."""
        return isinstance(self.node.value, dict)

    def take(self, name: str) -> Part | None:
        """Give what stands under a name, as taken; None where there is nothing, or null."""
        self._taken.add(name)
        found = self._mapping().get(name)
        if found is None or found.value is None:
            return None
        return Part(self.book, found, f"{self.place}.{name}" if self.place else name)

    def part(self, name: str) -> Part:
        """Give what stands under a name, as taken; an empty mapping where there is nothing."""
        return self.take(name) or Part(self.book, Node({}, self.line), f"{self.place}.{name}")

    def items(self) -> Iterator[tuple[str, Part]]:
        """Give all entries of a mapping, as taken; values may be null."""
        for name, node in self._mapping().items():
            self._taken.add(name)
            place = f"{self.place}.{name}" if self.place else name
            yield name, Part(self.book, node, place)

    def entries(self) -> list[Part]:
        """Give the items of a list; a value that is none is one of its own."""
        if not isinstance(self.node.value, list):
            return [self]
        found = enumerate(self.node.value)
        return [Part(self.book, node, f"{self.place}[{index}]") for index, node in found]

    def listed(self, name: str) -> list[Part]:
        """Give the items of the list under a name, as taken; none where there is nothing."""
        found = self.take(name)
        if found is None:
            return []
        if not found.is_list:
            found.fail("expected a list")
        return found.entries()

    @property
    def words(self) -> str:
        """A scalar as it is written.

        Raises:
            CommandFailed: It is a list or a mapping.
        """
        if self.is_list or self.is_mapping:
            self.fail("expected text")
        return self.node.text

    def text(self, name: str) -> str:
        """Take a scalar as it is written; ``""`` where there is none."""
        found = self.take(name)
        return found.words if found else ""

    def number(self, name: str) -> int | None:
        """Take a whole number, also one in quotes; None where there is none."""
        found = self.take(name)
        return found.whole if found else None

    @property
    def whole(self) -> int:
        """A whole number, also one in quotes.

        Raises:
            CommandFailed: It is something else.
        """
        text = self.words
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            self.fail(f"expected a whole number, got {text!r}")
        return int(text)

    def flag(self, name: str) -> bool | None:
        """Take true or false, also in quotes; None where there is neither."""
        found = self.take(name)
        if found is None:
            return None
        text = found.words.lower()
        if text not in ("true", "false"):
            found.fail(f"expected true or false, got {found.words!r}")
        return text == "true"

    def called(self, place: str) -> Part:
        """Give the same under another name; what is taken of one is taken of both."""
        return Part(self.book, self.node, place, self._taken)

    def remark(self, why: str, instead: str = "") -> None:
        """Note that this is lost."""
        self.book.remarks.append(Remark(self.book.file, self.line, self.place, why, instead))

    def note(self, why: str, instead: str = "") -> None:
        """Note that this has another effect than it had."""
        remark = Remark(self.book.file, self.line, self.place, why, instead, is_lost=False)
        self.book.remarks.append(remark)

    def ignore(self, *names: str) -> None:
        """Take names that mean nothing for what runs."""
        self._taken.update(names)

    def rest(self, reasons: Reasons) -> None:
        """Remark upon every name that nobody took."""
        for name, node in self._mapping().items():
            if name in self._taken or name.startswith("x-"):
                continue
            self._taken.add(name)
            part = Part(self.book, node, f"{self.place}.{name}" if self.place else name)
            if name in reasons:
                part.remark(*reasons[name])
            else:
                known = [*reasons, *self._taken - {name}]
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
                part.remark("is not known here", f"is it {near[0]}?" if near else "")

    def fail(self, problem: str, hint: str = "") -> NoReturn:
        """End the import: the file is invalid.

        Raises:
            CommandFailed: Always.
        """
        place = f"{self.place}: " if self.place else ""
        documents.fail(self.book.file, self.line, place + problem, hint=hint)

    def _mapping(self) -> dict[str, Node]:
        if not isinstance(self.node.value, dict):
            self.fail("expected names with values below it")
        return self.node.value
