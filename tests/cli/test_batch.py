"""`p-cli cloud batch`: what a file may hold, when it stops, and what it ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.conftest import StandIn, ended

Typed = Callable[..., Result]
PATH = {"domain": "localhost", "path": "/demo"}
FAILS = (500, {"code": "START_FAILED", "message": "it did not start"})


def batch(typed: Typed, place: Path, text: str, *options: str, name: str = "b") -> Result:
    (place / name).write_text(text, encoding="utf-8")
    return typed("batch", name, *options)


def test_the_calls_of_the_guide(stand_in: StandIn, typed: Typed, tmp_path: Path) -> None:
    """A JSON list of agent, command and params; each result is a line of output."""
    calls = [
        {"agent": "/api", "command": "hello", "params": ["World"]},
        {"agent": "/api", "command": "calculate", "params": [1, 2, 3]},
    ]
    done = batch(typed, tmp_path, json.dumps(calls, indent=2), name="commands.json")
    assert ended(done) == (0, "")
    assert [path for _, path, _ in stand_in.asked] == ["/api", "/api"]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"said": ["hello", "World"]},
        {"said": ["calculate", 1, 2, 3]},
    ]
    assert "2 of 2 done." in done.stderr


def test_json_lines_yaml_and_command_lines_say_the_same(
    stand_in: StandIn, typed: Typed, tmp_path: Path
) -> None:
    """Whatever it is written in, and from input as well."""
    expected = [
        ("POST", "deployments", {**PATH, "agent": "demo", "environment": {"A": "two words"}}),
        ("POST", "deployments/scale", {**PATH, "replicas": 3}),
        ("DELETE", "deployments", PATH),
    ]
    yaml = (
        "- {domain: localhost, path: /demo, agent: demo, environment: {A: two words}}\n"
        "- scale: {domain: localhost, path: /demo, replicas: 3}\n"
        "- undeploy localhost /demo\n"
    )
    entry = {**PATH, "agent": "demo", "environment": {"A": "two words"}}
    lines = "\n\n".join(
        json.dumps(one)
        for one in ({"deploy": entry}, {"scale": {**PATH, "replicas": 3}}, {"undeploy": PATH})
    )
    commands = (
        "# as it is typed\np-cli cloud deploy localhost /demo demo \\\n   --env A='two words'\n"
        "scale localhost /demo 3 # three\nundeploy localhost /demo\n"
    )
    for text in (yaml, lines, commands):
        assert ended(batch(typed, tmp_path, text)) == (0, "")
        assert stand_in.asked == expected
        stand_in.asked.clear()
    assert ended(typed("batch", "-", stdin=commands)) == (0, "")
    assert stand_in.asked == expected


def test_nothing_is_done_where_a_line_is_wrong(
    stand_in: StandIn, typed: Typed, tmp_path: Path
) -> None:
    """Every wrong line is named before the first one is run."""
    text = (
        "undeploy localhost /demo\n"
        "frobnicate\n"
        "scale localhost /demo lots\n"
        "\n"
        "call /demo 'hello\n"
        "batch other\n"
        "deployments nothing\n"
        "cloud\n"
        "deploy --help\n"
    )
    status, message = ended(batch(typed, tmp_path, text))
    places = [line.strip().partition(": ")[0] for line in message.splitlines()]
    assert places == ["b:2", "b:3", "b:5", "b:6", "b:7", "b:8", "b:9"]
    assert status == 5
    assert stand_in.asked == []


def test_every_wrong_entry_is_named_with_its_line(
    stand_in: StandIn, typed: Typed, tmp_path: Path
) -> None:
    """In JSON and YAML, the line of the field."""
    text = (
        "- scale: {domain: localhost, path: /demo}\n"
        "- scale:\n    domain: localhost\n    path: /demo\n    replicas: 0\n"
        "- {frobnicate: {path: /x}}\n"
        "- {domain: localhost, path: /x, agent: x, replikas: 3}\n"
        "- call: {command: hello}\n"
        "- undeploy: {domain: localhost, path: /x, force: true}\n"
        "- deploy: {path: /x, agent: x}\n"
    )
    status, message = ended(batch(typed, tmp_path, text))
    places = [line.strip().partition(": ")[0] for line in message.splitlines()]
    assert places == ["b:1", "b:5", "b:6", "b:7", "b:8", "b:9", "b:10"]
    assert "replicas" in message
    assert status == 5
    assert stand_in.asked == []


def test_it_stops_at_the_first_failure(stand_in: StandIn, typed: Typed, tmp_path: Path) -> None:
    """With that one's exit status, and the count of what was not begun."""
    stand_in.refused["/bad"] = FAILS
    text = "undeploy localhost /a\nundeploy localhost /bad\nundeploy localhost /c\n"
    done = batch(typed, tmp_path, text)
    assert ended(done) == (4, "failed: b:2")
    assert [body["path"] for _, _, body in stand_in.asked] == ["/a", "/bad"]
    assert "1 of 3 done, 1 failed, 1 not begun." in done.stderr


def test_it_goes_on_where_that_is_asked_for(
    stand_in: StandIn, typed: Typed, tmp_path: Path
) -> None:
    """And ends with the highest status of those that failed."""
    stand_in.refused["/bad"] = FAILS
    stand_in.refused["/none"] = (404, {"code": "NOT_FOUND", "message": "it is not there"})
    text = "undeploy localhost /bad\nundeploy localhost /none\nundeploy localhost /c\n"
    done = batch(typed, tmp_path, text, "--keep-going", "--json")
    assert ended(done) == (4, "failed: b:1, b:2")
    results = json.loads(done.stdout)["results"]
    assert [one["ok"] for one in results] == [False, False, True]
    error = results[0]["error"]
    assert (error["code"], error["message"]) == ("START_FAILED", "it did not start")
    assert error["exitStatus"] == 4
    assert results[2]["operation"] == "cloud undeploy localhost /c"


def test_programs_get_one_document(stand_in: StandIn, typed: Typed, tmp_path: Path) -> None:
    """Also of lines that print tables or sentences."""
    done = batch(typed, tmp_path, "deployments\nhost list\nundeploy localhost /a\n", "--json")
    assert ended(done) == (0, "")
    answers = [one["answer"] for one in json.loads(done.stdout)["results"]]
    assert [next(iter(answer)) for answer in answers] == ["deployments", "domains", "deployment"]


def test_a_dry_run_shows_what_it_would_do(stand_in: StandIn, typed: Typed, tmp_path: Path) -> None:
    """Without what may be secret, and without a server."""
    text = "deploy localhost /a a --secret TOKEN=s3cret\nlogin s3cret\n"
    for options in (("--dry-run",), ("--dry-run", "--json")):
        done = batch(typed, tmp_path, text, *options)
        assert ended(done) == (0, "")
        assert "deploy localhost /a" in done.stdout
        assert "s3cret" not in done.output
    assert stand_in.asked == []


def test_what_asks_is_not_answered(stand_in: StandIn, typed: Typed, tmp_path: Path) -> None:
    """A line that would wait for an answer fails, and the rest of the file is not its answer."""
    done = typed("batch", "-", "--keep-going", stdin="destroy\ny\nundeploy localhost /a\n")
    assert ended(done)[0] == 5  # y is no command
    done = typed("batch", "-", "--keep-going", stdin="destroy\nundeploy localhost /a\n")
    assert ended(done) == (1, "failed: -:1")
    assert [path for _, path, _ in stand_in.asked] == ["deployments"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "5", "- 5\n"])
def test_a_file_without_anything_to_do(typed: Typed, tmp_path: Path, text: str) -> None:
    """Is a mistake, not a success."""
    status, message = ended(batch(typed, tmp_path, text))
    assert status == 5
    assert message.startswith("b:1: ")


def test_a_wrong_json_line_is_named_by_its_number(typed: Typed, tmp_path: Path) -> None:
    """Counted in the file, blank lines too."""
    text = '{"undeploy": {"domain": "a", "path": "/"}}\n\n{"scale": {"domain": "a", "path": "/"}}\n'
    status, message = ended(batch(typed, tmp_path, text))
    assert status == 5
    assert message.startswith("b:3: scale.replicas")


def test_an_update_takes_variables_away(stand_in: StandIn, typed: Typed, tmp_path: Path) -> None:
    """As the API has it: null; a deploy refuses that."""
    fields = "{domain: localhost, path: /demo, environment: {A: null, B: 2}, replicas: 2}"
    assert ended(batch(typed, tmp_path, f"- update: {fields}\n")) == (0, "")
    body = {**PATH, "environment": {"A": None, "B": "2"}, "replicas": 2}
    assert stand_in.asked == [("POST", "deployments/update", body)]
    status, message = ended(batch(typed, tmp_path, f"- deploy: {fields}\n"))
    assert (status, message) == (5, "b:1: environment.A: expected text")
