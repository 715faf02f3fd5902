"""The API's description, as document and as page."""

from __future__ import annotations

import base64
import hashlib
import re

import jsonschema_rs
import pytest
import pytest_twisted

from ploinky.api.application import routes
from ploinky.api.endpoints import Endpoint
from ploinky.api.openapi import describe
from ploinky.security.roles import RULES


@pytest_twisted.ensureDeferred
async def test_the_document_has_every_route_with_its_roles(server):
    """By everybody to be read; what it says of roles is what is held."""
    document = (await server.ask("GET", "openapi.json", key=None)).json
    assert document["openapi"] == "3.1.0"
    found = {
        operation["operationId"]: operation
        for operations in document["paths"].values()
        for operation in operations.values()
    }
    public = [one for one in routes(server.collaborators) if not one.internal]
    assert set(found) == {endpoint.name for endpoint in public}
    for name, operation in found.items():
        assert operation["summary"], name
        assert set(operation["x-roles"]) == {role.value for role in RULES[name].roles}
        assert bool(operation["security"]) is bool(operation["x-roles"])
        assert "default" not in operation["responses"], f"{name} does not say what it gives"


@pytest_twisted.ensureDeferred
async def test_every_schema_is_one(server):
    """JSON Schema 2020-12, without a reference that leads nowhere."""
    document = (await server.ask("GET", "openapi.json", key=None)).json
    components = document["components"]
    for schema in components["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    for name in re.findall(r"#/components/schemas/(\w+)", str(document)):
        assert name in components["schemas"]


@pytest_twisted.ensureDeferred
async def test_forms_take_what_they_describe_and_nothing_else(server):
    """Secrets are described as written only."""
    schemas = (await server.ask("GET", "openapi.json", key=None)).json["components"]["schemas"]
    form = schemas["DeployForm"]
    assert form["additionalProperties"] is False
    assert {"subPath", "secrets", "health", "replicas"} <= set(form["properties"])
    assert form["properties"]["secrets"]["writeOnly"] is True
    assert form["properties"]["subPath"]["description"] == "Directory in the repository."


@pytest_twisted.ensureDeferred
async def test_the_page_needs_nothing_from_elsewhere(server):
    """No script at all, one style, and a policy that allows just that."""
    answer = await server.ask("GET", "docs", key=None)
    html = answer.body.decode()
    policy = answer.field("Content-Security-Policy")
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in policy
    assert re.findall(r"(?:src|href)=\S+?(?=>)", html) == ["href=openapi.json"]
    assert "<script" not in html
    assert "/management/api/deployments/{domain}/{path}" in html


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("deployments", "DELETE, GET, HEAD, OPTIONS, POST"),
        ("health", "GET, HEAD, OPTIONS"),
        ("/auth", "OPTIONS, POST"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_options_tell_what_is_possible(server, path, allow):
    """To everybody, and without a body."""
    answer = await server.ask("OPTIONS", path, key=None)
    assert (answer.status, answer.body, answer.field("Allow")) == (204, b"", allow)


def test_an_endpoint_that_says_nothing_of_itself_is_described_as_such():
    """Its path, method and usual errors; whatever else it answers is not foreseen."""

    async def answer(call):
        """Do something."""

    document = describe([Endpoint("health", "GET", "/x/<name>", answer)])
    operation = document["paths"]["/x/{name}"]["get"]
    assert operation["summary"] == "Do something."
    assert {"default", "400", "403", "500"} == set(operation["responses"])
