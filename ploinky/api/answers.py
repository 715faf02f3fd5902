"""What a route gives back, before it is bytes on a wire."""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from ploinky.api.forms import plain


@frozen
class Answer:
    """Status, body and fields of one answer."""

    body: bytes
    content_type: str
    status: int = 200
    fields: tuple[tuple[str, str], ...] = ()


def as_json(document: Any, status: int = 200, fields: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Answer with a JSON document; attrs classes in it are objects."""
    body = json.dumps(plain(document), ensure_ascii=False).encode("utf-8", "replace")
    return Answer(body + b"\n", "application/json", status, fields)


def as_text(text: str) -> Answer:
    """Answer with plain text."""
    return Answer(text.encode("utf-8", "replace"), "text/plain; charset=utf-8")


def as_html(html: str, status: int = 200, fields: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Answer with a page."""
    return Answer(html.encode(), "text/html; charset=utf-8", status, fields)
