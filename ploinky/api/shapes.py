"""What the fields of requests may hold, said once: for those who read and for those who describe."""

from __future__ import annotations

from typing import Annotated, Any, get_type_hints

from attrs import frozen
from msgspec import Meta

from ploinky.api.forms import outside

MOST_PER_PAGE = 1000
PER_PAGE = 100


SECRET = Meta(extra={"secret": True}, extra_json_schema={"writeOnly": True, "format": "password"})
"""Marks what is taken, and never given or written down in the clear."""


def whole(lowest: int, highest: int) -> Meta:
    """A whole number within bounds."""
    return Meta(ge=lowest, le=highest)


def secret_fields(form: type[Any]) -> frozenset[str]:
    """Name the fields of a form that hold secrets, as they are called outside."""
    found = set()
    for name, kind in get_type_hints(form, include_extras=True).items():
        notes = [note for note in getattr(kind, "__metadata__", ()) if isinstance(note, Meta)]
        if any((note.extra or {}).get("secret") for note in notes):
            found.add(outside(name))
    return frozenset(found)


Domain = Annotated[str, Meta(description="Host name without port, such as localhost")]
Place = Annotated[str, Meta(description="Path prefix, such as /demo")]


@frozen
class KeyForm:
    """Which deployment is meant."""

    domain: Domain
    path: Place


@frozen
class NameForm:
    """Which one is meant, by its name."""

    name: str


@frozen
class PageQuery:
    """Which part of a list.

    Attributes:
        page: Counted from 1.
        per_page: Entries of one page.
    """

    page: Annotated[int, whole(1, 1000000)] = 1
    per_page: Annotated[int, whole(1, MOST_PER_PAGE)] = PER_PAGE

    def of(self, entries: list[Any]) -> list[Any]:
        """Give this page of them."""
        return entries[(self.page - 1) * self.per_page : self.page * self.per_page]

    def at(self, total: int) -> dict[str, Any]:
        """Give the fields of a `Page` in a list of so many entries."""
        return {"total": total, "page": self.page, "per_page": self.per_page}


@frozen(kw_only=True)
class Page:
    """Where a page stands in its list.

    Attributes:
        total: Entries of the whole list.
    """

    total: int
    page: int
    per_page: int


@frozen
class Success:
    """It is done."""

    success: bool = True
