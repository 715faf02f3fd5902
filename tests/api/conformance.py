"""Whether an answer is one that the API's description foresees."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs


class Description:
    """An OpenAPI document, as something to hold answers against."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._components = document["components"]
        self._operations = [
            (method.upper(), re.compile(_pattern(path)), path, operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]
        # Those without variable parts come first, as the server matches them first.
        self._operations.sort(key=lambda one: "{" in one[2])

    def check(self, method: str, url: str, status: int, media: str | None, body: bytes) -> None:
        """See that the description has this answer; what it does not describe is left alone."""
        operation = self._find("GET" if method == "HEAD" else method, urlsplit(url).path)
        if operation is None or status == 405:
            return
        responses = operation["responses"]
        said = responses.get(str(status), responses.get("default"))
        place = f"{method} {url} -> {status}"
        assert said is not None, f"{place} is not described: {body!r}"
        if method == "HEAD" or "content" not in said:
            return
        kind = (media or "").partition(";")[0]
        assert kind in said["content"], f"{place} is {kind}"
        if kind == "application/json":
            schema = {**said["content"][kind]["schema"], "components": self._components}
            jsonschema_rs.validate(schema, json.loads(body))

    def name_of(self, method: str, path: str) -> str:
        """Give the name of a route; `""` for what is none."""
        operation = self._find(method, path)
        return operation["operationId"] if operation else ""

    def _find(self, method: str, path: str) -> Any:
        for known, pattern, _, operation in self._operations:
            if known == method and pattern.fullmatch(path):
                return operation
        return None


def _pattern(path: str) -> str:
    parts = re.split(r"(\{\w+\})", path)
    return "".join(
        (".*" if part == "{path}" else "[^/]+") if part.startswith("{") else re.escape(part)
        for part in parts
    )


_ERROR_FIELDS = {"error", "message", "code", "requestId"}


def fits(answer: Any, status: int, code: str) -> bool:
    """Whether an answer is an error of the contract's form (section 5)."""
    document = answer.json
    return (
        (answer.status, document["code"]) == (status, code)
        and _ERROR_FIELDS <= set(document) <= _ERROR_FIELDS | {"details"}
        and document["error"] == document["message"] != ""
        and document["requestId"] == answer.field("X-Request-Id") != ""
        and answer.field("Content-Type") == "application/json"
    )
