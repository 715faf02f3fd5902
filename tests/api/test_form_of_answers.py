"""What every answer has, and what every error looks like."""

from __future__ import annotations

import json
import re

import pytest
import pytest_twisted

from ploinky.deploy_errors import EngineUnavailable
from ploinky.source_values import Repository
from tests.api.conformance import fits


@pytest_twisted.ensureDeferred
async def test_every_answer_has_an_id(server):
    """The caller's own where it is well-formed, else a new one."""
    answer = await server.ask("GET", "health", fields={"X-Request-Id": "abc-1.2:3_4"})
    assert answer.field("X-Request-Id") == "abc-1.2:3_4"
    for bad in ("", "a b", "x" * 129, 'quote"', "ü"):
        answer = await server.ask("GET", "health", fields={"X-Request-Id": bad.encode("latin-1")})
        assert re.fullmatch(r"made-\d+", answer.field("X-Request-Id"))


@pytest_twisted.ensureDeferred
async def test_answers_are_not_kept_by_anyone(server):
    """Neither stored, nor guessed at, nor telling what software it is."""
    answer = await server.ask("GET", "deployments")
    assert answer.field("Cache-Control") == "no-store"
    assert answer.field("X-Content-Type-Options") == "nosniff"
    assert answer.field("Server") is None


@pytest.mark.parametrize(
    "path", ["nothing", "deployments/x", "repositories/a/b", "/management/nothing", "/client/x",
             "/management/api", "/%2e%2e/etc/passwd", "/nothing/at%2Fall"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_what_is_not_there_is_404(server, path):
    """In the same form as any other error."""
    assert fits(await server.ask("GET", path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "deployments", {"GET", "HEAD", "OPTIONS", "POST", "DELETE"}),
        ("POST", "health", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/auth", {"OPTIONS", "POST"}),
        ("GET", "deployments/restart", {"OPTIONS", "POST"}),
        ("BREW", "domains", {"GET", "HEAD", "OPTIONS", "POST", "DELETE"}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_wrong_method_is_told_the_right_ones(server, method, path, allow):
    """405 with `Allow`, also for who is not logged in."""
    answer = await server.ask(method, path, key=None)
    assert fits(answer, 405, "METHOD_NOT_ALLOWED")
    assert set(answer.field("Allow").split(", ")) == allow


@pytest_twisted.ensureDeferred
async def test_head_is_get_without_a_body(server):
    """With the length that the body would have."""
    answer = await server.ask("HEAD", "domains")
    whole = await server.ask("GET", "domains")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.field("Content-Length") == str(len(whole.body))


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [(b'{"domain": "x",}', 1, 16), (b'{\n  "a": 1\n  "b": 2\n}', 3, 3), (b"hello", 1, 1)],
)
@pytest_twisted.ensureDeferred
async def test_broken_json_is_pointed_at(server, data, line, column):
    """By line and column; Python's versions differ by a character at most."""
    answer = await server.ask("POST", "deployments", data=data)
    assert fits(answer, 400, "BAD_JSON")
    assert answer.json["details"]["line"] == line
    assert abs(answer.json["details"]["column"] - column) <= 1
    assert f"line {line}, column" in answer.json["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"\t",
        b"\xff\xfe",
        b"NaN",
        b'{"a": Infinity}',
        b"[" * 100_000,
        b'{"a": 1' + b"0" * 10_000 + b"}",
        b'{"target": "http://\\ud800:80"}',
        b'{"secrets": {"\\udfff": ""}}',
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_only_resembles_json_is_refused(server, data):
    """Other encodings, other numbers, depth without end, halves of characters."""
    assert fits(await server.ask("POST", "deployments", data=data), 400, "BAD_JSON")


@pytest.mark.parametrize(("levels", "fit"), [(60, True), (100, False), (600, False)])
@pytest_twisted.ensureDeferred
async def test_what_is_kept_can_be_shown(server, levels, fit):
    """Nobody hides all that is deployed behind something too deep to be listed."""
    params = json.loads("[" * levels + "]" * levels)
    schedule = [{"cron": "@daily", "command": "work", "params": params}]
    body = {"domain": "localhost", "path": "/demo", "agent": "demo", "schedule": schedule}
    answer = await server.ask("POST", "deployments", body)
    assert answer.status == 200 if fit else fits(answer, 400, "BAD_JSON")
    listed = await server.ask("GET", "deployments")
    assert (listed.status, listed.json["total"]) == (200, int(fit))


@pytest_twisted.ensureDeferred
async def test_the_content_type_does_not_matter(server):
    """What `curl -d` sends is read as what it is."""
    for kind in ("application/x-www-form-urlencoded", "text/plain", "application/json"):
        body = {"name": f"{kind.replace('/', '-')}.example"}
        answer = await server.ask("POST", "domains", body, fields={"Content-Type": kind})
        assert answer.status == 200, kind


@pytest_twisted.ensureDeferred
async def test_a_large_body_is_refused_and_not_kept(server):
    """Over one MiB, and never more than that in memory."""
    fitting = json.dumps({"name": "a.example"}).encode().ljust(1024 * 1024)
    assert (await server.ask("POST", "domains", data=fitting)).status == 200
    answer = await server.ask("POST", "domains", data=fitting + b" " * 5_000_000)
    assert fits(answer, 413, "BODY_TOO_LARGE")


@pytest_twisted.ensureDeferred
async def test_an_error_that_nobody_foresaw_tells_nothing_but_its_id(server):
    """The cause is in the log; the next request is served."""
    server.source.contents = None  # what it is asked to look into is not there any more
    await server.repositories.add_repository(Repository("demo", "https://git.example/x.git"))
    answer = await server.ask("POST", "repositories/demo/sync")
    assert fits(answer, 500, "INTERNAL_ERROR")
    assert answer.json["requestId"] in answer.json["message"]
    assert b"NoneType" not in answer.body
    assert b"Traceback" not in answer.body
    assert (await server.ask("GET", "health")).status == 200


@pytest_twisted.ensureDeferred
async def test_an_engine_that_is_away_is_503(server):
    """An error's own status is kept."""
    server.manager.refusal = EngineUnavailable("Docker does not answer; is it running?")
    body = {"domain": "localhost", "path": "/x", "agent": "demo"}
    assert fits(await server.ask("POST", "deployments", body), 503, "ENGINE_UNAVAILABLE")


@pytest.mark.parametrize("host", ["a" * 70, "x..y", "\u00fc.example"])
@pytest_twisted.ensureDeferred
async def test_a_strange_host_breaks_nothing(server, host):
    """It is refused or ignored, in the form of any other error."""
    answer = await server.ask("GET", "check-auth", host=host.encode())
    assert answer.status in (200, 400)
    assert answer.field("Content-Type") == "application/json"


@pytest_twisted.ensureDeferred
async def test_a_path_that_is_no_text_is_refused(server):
    """Bytes that are not UTF-8 are not a path of ours."""
    assert fits(await server.ask("GET", "/management/%ff%fe"), 400, "BAD_REQUEST")


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "9" * 5000])
@pytest.mark.parametrize("path", ["settings", "deployments"])
@pytest_twisted.ensureDeferred
async def test_a_number_that_is_too_large_is_no_number(server, path, number):
    """What reads it would fail, and what writes it again would write no JSON."""
    data = b'{"taskTimeout": %s}' % number.encode()
    assert fits(await server.ask("POST", path, data=data), 400, "BAD_JSON")
