"""The API, described: OpenAPI 3.1 made from the endpoints themselves.

Endpoints and the rules of roles enter, one JSON document leaves.  It cannot drift: bodies are read
and answers written by the very classes that are described here, by msgspec, in the words of their
docstrings.
Source: OpenAPI Specification 3.1.0; JSON Schema 2020-12.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from attrs import frozen

from ploinky.api.endpoints import Endpoint
from ploinky.api.forms import outside
from ploinky.errors import (
    BadJson,
    BadRequest,
    BodyTooLarge,
    Draining,
    Forbidden,
    InternalError,
    PloinkyError,
    PreconditionFailed,
    StateUnusable,
    Unauthenticated,
    ValidationFailed,
)
from ploinky.security.roles import RULES

_REFERENCE = "#/components/schemas/{name}"
_PART = re.compile(r"<(?:\w+:)?(\w+)>")
_FIELD = re.compile(r"^    (\w+): (.*(?:\n     +\S.*)*)", re.MULTILINE)
_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (pk_...) or the token of a session (ps_...)",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "authorizationToken",
        "description": "Changes take it from this server's own pages alone",
    },
}


_TEXTS: Mapping[str, Any] = {
    "text/event-stream": {
        "description": "Of each event",
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
    }
}
"""Media types whose schema is that of each thing that comes, not of a text."""

_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The ETag (or revision) that was seen: 412 where it has changed since",
}


@frozen
class Error:
    """What every error says.

    Attributes:
        error: For people, as `message`.
        details: One entry a field, or what else there is to know.
    """

    error: str
    message: str
    code: str
    request_id: str
    details: Any = None


def describe(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Give the document: of what clients may ask."""
    endpoints = [endpoint for endpoint in endpoints if not endpoint.internal]
    schemas = _Schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = _PART.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ploinky Cloud",
            "version": version("ploinky"),
            "description": "The management API. Every answer carries X-Request-Id.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas.components, "securitySchemes": _SCHEMES},
    }


def _operation(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    rule = RULES.get(endpoint.name)
    roles = sorted(role.value for role in rule.roles) if rule else []
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.name.partition(".")[0]],
        "summary": endpoint.about,
        "parameters": _parameters(endpoint, schemas),
        "responses": {**_successes(endpoint, schemas), **_failures(endpoint)},
        "security": [{name: []} for name in _SCHEMES] if roles else [],
        "x-roles": roles,
    }
    if endpoint.takes is not None:
        body = schemas.of(endpoint.takes)
        operation["requestBody"] = {
            "content": {"application/json": {"schema": body}},
            "required": endpoint.method != "DELETE" and schemas.requires(endpoint.takes),
        }
    return operation


def _parameters(endpoint: Endpoint, schemas: _Schemas) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PART.findall(endpoint.path)
    ]
    query = endpoint.parameters()
    if query is not None:
        found += _query_parameters(query, schemas)
    if endpoint.conditional:
        found.append(_IF_MATCH)
    if endpoint.method == "DELETE" and endpoint.takes is not None:
        named = _query_parameters(endpoint.takes, schemas)
        found += [{**one, "required": False} for one in named]
    return found


def _query_parameters(form: type[Any], schemas: _Schemas) -> list[dict[str, Any]]:
    schema = schemas.inline(form)
    found = []
    for name, kept in schema["properties"].items():
        about = {"description": kept["description"]} if "description" in kept else {}
        required = name in schema["required"]
        found.append({"name": name, "in": "query", "required": required, "schema": kept, **about})
    return found


def _successes(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    if isinstance(endpoint.gives, type):
        content = {"application/json": {"schema": schemas.of(endpoint.gives)}}
    elif endpoint.gives:
        kinds = (endpoint.gives,) if isinstance(endpoint.gives, str) else endpoint.gives
        content = {kind: {"schema": _TEXTS.get(kind, {"type": "string"})} for kind in kinds}
    else:  # whatever it answers
        return {"default": {"description": "Not described"}}
    return {
        str(status): {"description": HTTPStatus(status).phrase, "content": content}
        for status in endpoint.statuses
    }


def _failures(endpoint: Endpoint) -> dict[str, Any]:
    by_status: dict[int, list[type[PloinkyError]]] = {}
    for error in dict.fromkeys([*_usual(endpoint), *endpoint.errors]):
        by_status.setdefault(error.status, []).append(error)
    schema = {"$ref": _REFERENCE.format(name=Error.__name__)}
    return {
        str(status): {
            "description": "\n".join(f"- `{one.code}`: {_first_line(one)}" for one in errors),
            "content": {"application/json": {"schema": schema}},
        }
        for status, errors in sorted(by_status.items())
        if status not in endpoint.statuses
    }


def _usual(endpoint: Endpoint) -> Iterable[type[PloinkyError]]:
    """Give what every endpoint of this kind may raise."""
    rule = RULES.get(endpoint.name)
    yield BadRequest
    if endpoint.takes or endpoint.parameters() is not None or "<" in endpoint.path:
        yield ValidationFailed
    if endpoint.takes:
        yield from (BadJson, BodyTooLarge)
    if rule is None or rule.roles:
        yield Unauthenticated
    yield Forbidden  # a role too small; or, for whoever needs none, a page of another site
    if endpoint.conditional:
        yield PreconditionFailed
    if endpoint.changes:
        yield Draining
    yield from (StateUnusable, InternalError)


def _first_line(kind: type[Any]) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]


class _Schemas:
    """The schemas of all classes that endpoints name."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        inputs = {e.takes for e in endpoints if e.takes}
        inputs |= {query for e in endpoints if (query := e.parameters())}
        others = {e.takes.__name__: e.others for e in endpoints if e.takes and e.others}
        outputs = {e.gives for e in endpoints if isinstance(e.gives, type)} | {Error}
        self._named: dict[type[Any], dict[str, Any]] = {}
        found = self._described(outputs, False, {}) | self._described(inputs, True, others)
        self.components = dict(sorted(found.items()))

    def _described(
        self, kinds: Iterable[type[Any]], closed: bool, others: Mapping[str, Sequence[str]]
    ) -> dict[str, Any]:
        ordered = sorted(kinds, key=lambda kind: kind.__name__)
        named, found = msgspec.json.schema_components(ordered, ref_template=_REFERENCE)
        self._named.update(zip(ordered, named, strict=True))
        words = {kind.__name__: _words(kind) for kind in ordered}
        return {
            name: _outward(one, words.get(name, {}), closed, others.get(name, ()))
            for name, one in found.items()
        }

    def of(self, kind: type[Any]) -> dict[str, Any]:
        """Give the schema of a class, or where it is."""
        return self._named[kind]

    def inline(self, kind: type[Any]) -> Mapping[str, Any]:
        """Give a class's schema itself."""
        found: Mapping[str, Any] = self.components[kind.__name__]
        return found

    def requires(self, kind: type[Any]) -> bool:
        """Tell whether a body of this class cannot be left out."""
        return bool(self.inline(kind)["required"])


def _words(kind: type[Any]) -> dict[str, str]:
    """Give what the docstrings of a class and those above it say of its fields."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        found |= _of_fields(one.__doc__ or "")
    return found


def _of_fields(docstring: str) -> dict[str, str]:
    section = inspect.cleandoc(docstring).partition("Attributes:\n")[2]
    return {
        name: " ".join(about.split()).replace("`", "") for name, about in _FIELD.findall(section)
    }


def _outward(
    schema: dict[str, Any], words: Mapping[str, str], closed: bool, others: Sequence[str]
) -> dict[str, Any]:
    """Name fields as they are called outside, and describe them."""
    said = {**_of_fields(schema.get("description", "")), **words}
    if "description" in schema:
        schema["description"] = schema["description"].strip().partition("\n")[0]
    if "properties" not in schema:
        return schema
    schema["properties"] = {
        outside(name): {**kept, **({"description": said[name]} if name in said else {})}
        for name, kept in schema["properties"].items()
    }
    schema["required"] = [outside(name) for name in schema["required"]]
    for name in others:
        schema["properties"].setdefault(name, {"description": "As in manifest.json"})
    if closed:
        schema["additionalProperties"] = False
    return schema
