"""``extends`` of Compose: a service that begins as another one, of this file or of another.

Source: the Compose Specification, *Extend* and *Merge*.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, frozen

from ploinky.cli import documents
from ploinky.cli.documents import Node
from ploinky.cli.imports.parts import Book, Part
from ploinky.cli.imports.variables import Files, Variables

_TABLES = ("environment", "labels", "annotations", "sysctls", "extra_hosts")
"""Written as a mapping or as a list of ``NAME=VALUE``, and merged by name either way."""

_REPLACED = ("command", "entrypoint", "test")
"""Lists that are one value."""


@frozen
class Services:
    """The services of one file, by name, from which others may be extended.

    Attributes:
        files: As seen from that file.
    """

    book: Book
    services: Mapping[str, Part]
    files: Files
    variables: Variables

    def whole(self, name: str, above: tuple[tuple[str, str], ...] = ()) -> Part:
        """Give a service with what it extends filled in.

        Raises:
            CommandFailed: There is no such service or file, or they extend one another in a circle.
        """
        part = self.services[name]
        extended = part.node.get("extends") if part.is_mapping else None
        if extended is None:
            return part
        here = (self.book.file, name)
        asked = Part(self.book, extended, f"{part.place}.extends")
        if here in above:
            asked.fail("these services extend one another in a circle")
        service = asked.text("service") if asked.is_mapping else asked.words
        file = asked.text("file") if asked.is_mapping else ""
        origin = self._of(file, asked) if file else self
        if service not in origin.services:
            asked.fail(f"there is no service {service!r} in {origin.book.file}")
        base = _moved(origin.whole(service, (*above, here)), Path(file).parent).node
        own = {k: v for k, v in part.node.mapping.items() if k != "extends"}
        return evolve(part, node=merged(base, evolve(part.node, value=own)))

    def _of(self, name: str, asked: Part) -> Services:
        """Read another file; what it names is found beside itself."""
        text, shown = self.files.text(name, asked)
        found = documents.documents(text, shown)
        book = Book(shown, self.book.remarks)
        whole = Part(book, found[0] if found else Node({}, 1), "")
        directory = Path(shown).parent
        services = self.variables.in_part(whole.part("services"))
        return Services(
            book,
            dict(services.items()),
            Files(directory, (self.files.directory, *self.files.allowed)),
            self.variables,
        )


def _moved(part: Part, directory: Path) -> Part:
    """Let the ``env_file`` of a service be found from the file that extends it."""
    files = part.node.get("env_file")
    if files is None:
        return part

    def moved(node: Node) -> Node:
        if path := node.get("path"):
            return evolve(node, value={**node.mapping, "path": moved(path)})
        return evolve(node, text=str(directory / node.text))

    entries = files.value if isinstance(files.value, list) else [files]
    value = evolve(files, value=[moved(one) for one in entries])
    return evolve(part, node=evolve(part.node, value={**part.node.mapping, "env_file": value}))


def merged(base: Node, over: Node, name: str = "") -> Node:
    """Lay one value over another: mappings by name, lists one after the other."""
    if name in _TABLES:
        base, over = as_table(base), as_table(over)
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        whole = dict(base.value)
        for key, value in over.value.items():
            whole[key] = merged(whole[key], value, key) if key in whole else value
        return evolve(over, value=whole)
    if isinstance(base.value, list) and isinstance(over.value, list) and name not in _REPLACED:
        texts = [one.text for one in over.value if one.text]
        kept = [one for one in base.value if not one.text or one.text not in texts]
        return evolve(over, value=[*kept, *over.value])
    return over


def as_table(node: Node) -> Node:
    """Give a list of ``NAME=VALUE`` as the mapping it stands for; ``NAME`` alone as null."""
    if not isinstance(node.value, list):
        return node
    table: dict[str, Node] = {}
    for one in node.value:
        name, equals, value = one.text.partition("=")
        table[name] = Node(value if equals else None, one.line, value)
    return evolve(node, value=table)
