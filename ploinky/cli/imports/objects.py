"""The objects of a Kubernetes file, and what they say of one another."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence

from attrs import define, field, frozen

from ploinky.cli.documents import Node
from ploinky.cli.imports.parts import Book, Part

WORKLOADS = (
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "ReplicationController",
    "Pod",
)


@frozen
class Object:
    """One object of the file."""

    kind: str
    name: str
    namespace: str
    part: Part

    @property
    def title(self) -> str:
        """Kind and name."""
        return f"{self.kind}/{self.name}"


@frozen
class Value:
    """A value from a ConfigMap or a Secret."""

    text: str = field(repr=False)
    is_secret: bool


@define
class Objects:
    """All objects of a file.

    Attributes:
        used: ConfigMaps and Secrets that something took a value from.
    """

    all: Sequence[Object]
    used: set[str] = field(factory=set)

    def of(self, *kinds: str, namespace: str | None = None) -> list[Object]:
        """Give those of these kinds, in their order."""
        return [one for one in self.all if one.kind in kinds and namespace in (None, one.namespace)]

    def table(self, kind: str, namespace: str, name: str) -> dict[str, Value] | None:
        """Give what a ConfigMap or Secret holds; None where it is not in the file.

        Raises:
            CommandFailed: It holds something else than texts.
        """
        found = [one for one in self.of(kind, namespace=namespace) if one.name == name]
        if not found:
            return None
        self.used.add(found[0].title)
        return dict(_values(found[0]))


def read_objects(nodes: Sequence[Node], book: Book) -> Objects:
    """Take the objects of a file's documents, those of lists one by one.

    Raises:
        CommandFailed: A document is no object, or two have one name.
    """
    found: list[Object] = []
    seen: dict[tuple[str, str, str], Object] = {}
    for node in nodes:
        for one in _objects(Part(book, node, "")):
            first = seen.setdefault((one.kind, one.namespace, one.name), one)
            if first is not one:
                one.part.fail(f"is there twice, first in line {first.part.line}")
            found.append(one)
    return Objects(found)


def _objects(part: Part) -> Iterator[Object]:
    if not part.is_mapping:
        part.fail("expected an object with apiVersion and kind")
    kind = part.text("kind")
    if not kind or not part.text("apiVersion"):
        part.fail("expected an object with apiVersion and kind")
    if kind.endswith("List") and part.node.get("items") is not None:
        for item in part.listed("items"):
            yield from _objects(item)
        return
    about = part.part("metadata")
    name = about.text("name") or about.text("generateName").rstrip("-")
    if not name:
        part.fail(f"{kind}: expected metadata.name")
    namespace = about.text("namespace")
    part.ignore("apiVersion", "kind", "metadata", "status")
    yield Object(kind, name, namespace, part.called(f"{kind}/{name}"))


def _values(one: Object) -> Iterator[tuple[str, Value]]:
    is_secret = one.kind == "Secret"
    for name, part in one.part.part("data").items():
        if not is_secret:
            yield name, Value(part.words, False)
            continue
        try:
            raw = base64.b64decode("".join(part.words.split()), validate=True)
        except (binascii.Error, ValueError):
            part.fail("expected base64")
        try:
            yield name, Value(raw.decode(), True)
        except UnicodeDecodeError:
            part.remark("is no text, and cannot be a variable")
    for name, part in one.part.part("stringData").items():
        yield name, Value(part.words, is_secret)
    if binary := one.part.take("binaryData"):
        binary.remark("is no text, and cannot be a variable")
