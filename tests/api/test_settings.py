"""`settings` and `config`: changed while the server runs, or not at all."""

from __future__ import annotations

import json
import stat

import pytest
import pytest_twisted


@pytest_twisted.ensureDeferred
async def test_some_hold_at_once_and_others_after_a_restart(server, short_directory):
    """Each is told apart, and all are in the file, which is the owner's alone."""
    body = {"taskTimeout": 1234, "port": 9000}
    answer = await server.ask("POST", "settings", body)
    assert answer.json == {
        "success": True,
        "applied": ["taskTimeout"],
        "needsRestart": ["port"],
        "overridden": {},
    }
    path = short_directory / ".ploinky-cloud" / "config.json"
    assert json.loads(path.read_text()) == body
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = (await server.ask("GET", "config")).json
    assert (config["settings"]["taskTimeout"], config["settings"]["port"]) == (1234, 8000)
    assert config["waiting"] == {"port": 9000}
    assert config["origins"]["taskTimeout"] == str(path)
    assert config["origins"]["host"] == "default"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"taskTimeout": 5, "port": "x", "logLevel": "loud"}, {"port", "logLevel"}),
        ({"taskTimeout": 5, "taskTimeuot": 5}, {"taskTimeuot"}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_bad_value_changes_nothing(server, short_directory, body, fields):
    """Every problem is told; the good ones are not applied either."""
    answer = await server.ask("POST", "settings", body)
    assert (answer.status, set(answer.json["details"])) == (400, fields)
    assert not (short_directory / ".ploinky-cloud" / "config.json").exists()
    assert (await server.ask("GET", "settings")).json["settings"]["taskTimeout"] == 30_000


@pytest_twisted.ensureDeferred
async def test_null_leads_back_to_the_default(server):
    """As if it had never been set."""
    await server.ask("POST", "settings", {"taskTimeout": 5})
    await server.ask("POST", "settings", {"taskTimeout": None})
    config = (await server.ask("GET", "config")).json
    assert config["settings"]["taskTimeout"] == 30_000
    assert config["origins"]["taskTimeout"] == "default"


@pytest_twisted.ensureDeferred
async def test_two_admins_do_not_overwrite_each_others_settings(server):
    """The second is told that they have changed."""
    fields = {"If-Match": (await server.ask("GET", "settings")).field("ETag")}
    assert (await server.ask("POST", "settings", {"port": 1}, fields=fields)).status == 200
    answer = await server.ask("POST", "settings", {"port": 2}, fields=fields)
    assert (answer.status, answer.code) == (412, "PRECONDITION_FAILED")
