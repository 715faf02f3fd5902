"""``GET openapi.json`` and ``docs``: the API's own description, for programs and for people.

The page is made here and needs nothing from elsewhere: no script, one style, a policy that says so.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from ploinky.api.answers import Answer, as_html, as_json
from ploinky.api.endpoints import API, Endpoint
from ploinky.api.openapi import describe
from ploinky.api.requests import Call

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { margin-top: 2rem; text-transform: capitalize }
summary { cursor: pointer; padding: .3rem 0 } summary code { font-weight: bold }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884;
  vertical-align: top; overflow-wrap: anywhere; white-space: pre-line }
.method { display: inline-block; width: 4.5rem } .roles { opacity: .7 }
"""


class ReferenceRoutes:
    """Describes the endpoints that it is told of.

    Args:
        endpoints: Gives all of them, these two among them.
    """

    def __init__(self, endpoints: Callable[[], Sequence[Endpoint]]) -> None:
        self._endpoints = endpoints

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint("openapi", "GET", f"{API}/openapi.json", self._document, gives=dict),
            Endpoint("docs", "GET", f"{API}/docs", self._page, gives="text/html"),
        ]

    async def _document(self, call: Call) -> Answer:
        """Give this description, as OpenAPI 3.1."""
        return as_json(describe(self._endpoints()))

    async def _page(self, call: Call) -> Answer:
        """Show this description as a page."""
        policy = (
            f"default-src 'none'; style-src {_digest(_STYLE)}; base-uri 'none';"
            " form-action 'none'; frame-ancestors 'none'"
        )
        html = _html(describe(self._endpoints()))
        return as_html(html, fields=(("Content-Security-Policy", policy),))


def _html(document: Mapping[str, Any]) -> str:
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append(_section(path, method, operation))
    sections = "".join(f"<h2>{escape(tag)}</h2>{''.join(by_tag[tag])}" for tag in sorted(by_tag))
    schemas = "".join(_schema(*one) for one in document["components"]["schemas"].items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Ploinky Cloud API</title><style>{_STYLE}</style></head><body>"
        f"<h1>Ploinky Cloud API {escape(document['info']['version'])}</h1>"
        "<p>For programs: <a href=openapi.json>openapi.json</a> (OpenAPI 3.1). Send a key as"
        " <code>Authorization: Bearer pk_...</code> or <code>X-API-Key</code>.</p>"
        f"{sections}<h2>Schemas</h2>{schemas}</body></html>\n"
    )


def _section(path: str, method: str, operation: Mapping[str, Any]) -> str:
    roles = ", ".join(operation["x-roles"]) or "everybody"
    parameters = [
        (one["name"], one["in"], one.get("description", "")) for one in operation["parameters"]
    ]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        parameters.append((_type(schema), "body", ""))
    answers = [
        (status, _held(one), one["description"]) for status, one in operation["responses"].items()
    ]
    return (
        f"<details><summary><code><span class=method>{method.upper()}</span> {escape(path)}</code>"
        f" {escape(operation['summary'])} <span class=roles>({escape(roles)})</span></summary>"
        f"{_table(('takes', 'in', ''), parameters)}{_table(('answers', 'with', ''), answers)}"
        "</details>"
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (
            field,
            _type(kept) + (" (required)" if field in required else ""),
            kept.get("description", ""),
        )
        for field, kept in schema.get("properties", {}).items()
    ]
    about = escape(schema.get("description", ""))
    return (
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code> {about}</summary>'
        f"{_table(('field', 'holds', ''), rows)}</details>"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _held(response: Mapping[str, Any]) -> str:
    """Say what an answer holds."""
    return next((_type(one["schema"]) for one in response.get("content", {}).values()), "")


def _type(schema: Mapping[str, Any]) -> str:
    """Say in a few words what a schema holds."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(str(one) for one in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _digest(text: str) -> str:
    """Name an inline style for a ``Content-Security-Policy``."""
    encoded = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{encoded}'"
