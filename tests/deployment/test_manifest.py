"""What a manifest may say, what its deployment may say over it, and how it is told what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ploinky.deployment.documents import parse_manifest, read_manifest_file
from ploinky.deployment.manifest import (
    DEFAULT_IMAGE,
    Effective,
    Manifest,
    StaticFiles,
    check_environment,
    check_settings,
    effective,
)
from ploinky.errors import EnvironmentMissing, ManifestInvalid, ValidationFailed
from ploinky.instance_values import Health, Resources, Volume
from ploinky.values import CallAuth, Kind, RateLimit, Wire

# --- as a file ------------------------------------------------------------------


def located(text: str) -> tuple[int, int, str]:
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest(text.encode())
    details = caught.value.details
    assert f"line {details['line']}, column {details['column']}" in str(caught.value)
    return details["line"], details["column"], details["hint"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{\n  "about": "x",\n}', (2, 15, "remove the trailing comma")),
        ('{"a": [1,\n 2,\n]}', (2, 3, "remove the trailing comma")),
        ("{\n  'about': 1}", (2, 3, "JSON takes double quotes only")),
        ('{\n// hello\n"a": 1}', (2, 1, "JSON has no comments")),
        ('{"a": 1\n "b": 2}', (2, 2, "a comma is missing before this")),
        ('{"a": "x\ny"}', (1, 9, r"a line break inside a text is written \n")),
        ("", (1, 1, "")),
    ],
)
def test_bad_json_is_told_with_line_column_and_the_usual_slip(
    text: str, where: tuple[int, int, str]
) -> None:
    assert located(text) == where


@pytest.mark.parametrize(
    ("raw_manifest", "said"),
    [
        (b"[1]", "expected a JSON object"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"port": 1, "port": 2}', "'port' stands twice"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "nested over 16 levels"),
        (b'{"static": {"root": "\\ud800"}}', "half a character"),
        (b'{"a":' + b"9" * 5000 + b"}", "a number too long"),
        (b'{"a": 1e400}', "a number too long"),
    ],
)
def test_json_that_means_harm_or_two_things_is_refused(raw_manifest: bytes, said: str) -> None:
    with pytest.raises(ManifestInvalid, match=said):
        parse_manifest(raw_manifest)


def test_a_byte_order_mark_is_no_harm() -> None:
    assert parse_manifest(b'\xef\xbb\xbf{"about": "x"}') == {"about": "x"}


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(raw_manifest: bytes) -> None:
    with contextlib.suppress(ManifestInvalid):
        parse_manifest(raw_manifest)


def test_a_manifest_is_read_as_a_plain_file_only(tmp_path: Path) -> None:
    """A link could lead to a file of the host's, a pipe could hold the server up."""
    assert read_manifest_file(tmp_path) is None
    manifest = tmp_path / "manifest.json"
    manifest.symlink_to("/etc/passwd")
    with pytest.raises(ManifestInvalid, match="not a link"):
        read_manifest_file(tmp_path)
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(ManifestInvalid, match="not a regular file"):
        read_manifest_file(tmp_path)
    manifest.unlink()
    manifest.write_bytes(b" " * (256 * 1024 + 1))
    with pytest.raises(ManifestInvalid, match="over 256 KiB"):
        read_manifest_file(tmp_path)


# --- field by field -------------------------------------------------------------


def test_an_empty_manifest_is_a_task_agent_with_the_defaults() -> None:
    manifest = Manifest.of({})

    assert manifest == Manifest()
    assert (manifest.image, manifest.kind, manifest.wire) == (DEFAULT_IMAGE, Kind.TASK, Wire.HTTP)
    assert (manifest.replicas, manifest.concurrency, manifest.auth) == (1, 64, CallAuth.NONE)


def test_every_field_of_the_contract_is_read() -> None:
    manifest = Manifest.of(
        {
            "container": "python:3.12-alpine",
            "about": "one\nline",
            "kind": "service",
            "install": "pip install .",
            "update": "pip install -U .",
            "command": ["python", "-m", "app"],
            "entrypoint": ["/entry.sh"],
            "commands": {"hello": "echo hello"},
            "runTask": "./run",
            "engine": "python",
            "env": {"A": "x", "B": 1, "C": True, "D": None},
            "port": 8080,
            "health": {
                "path": "/ready?x=1",
                "interval": "500ms",
                "timeout": 2,
                "retries": 5,
                "startPeriod": "2m",
            },
            "resources": {"memory": "256m", "cpus": 0.5, "pids": 200},
            "concurrency": 4,
            "timeout": 1.5,
            "transport": "http",
            "auth": "session",
            "rateLimit": {"requests": 100, "seconds": "1m"},
            "replicas": 3,
            "idle": "10m",
            "volumes": [{"name": "db", "path": "/var/lib/db/"}],
            "static": {"root": "./dist", "spa": True},
            "schedule": [{"cron": "*/5 * * * *", "command": "tick", "timezone": "Europe/Paris"}],
            "user": "1000:1000",
            "capabilities": ["CAP_NET_BIND_SERVICE", "chown"],
        }
    )

    assert manifest.image == "python:3.12-alpine"
    assert manifest.about == "one line"
    assert manifest.kind is Kind.SERVICE
    assert manifest.command == ("python", "-m", "app")
    assert manifest.entrypoint == ("/entry.sh",)
    assert manifest.env == {"A": "x", "B": "1", "C": "true", "D": None}
    assert manifest.health == Health("/ready?x=1", 0.5, 2.0, 5, 120.0)
    assert manifest.resources == Resources(256 * 1024**2, 0.5, 200)
    assert (manifest.timeout_seconds, manifest.idle_seconds) == (1.5, 600.0)
    assert manifest.volumes == (Volume("db", "/var/lib/db"),)
    assert manifest.static == StaticFiles("dist", True)
    assert manifest.schedule[0].timezone == "Europe/Paris"
    assert manifest.rate_limit == RateLimit(100, 60.0)
    assert manifest.capabilities == ("NET_BIND_SERVICE", "CHOWN")
    assert manifest.warnings == ()


@pytest.mark.parametrize(
    ("document", "path", "expected"),
    [
        ({"port": "80"}, "port", "a whole number from 1 to 65535, got '80'"),
        ({"port": True}, "port", "got true or false"),
        ({"port": 0}, "port", "got 0"),
        ({"kind": "external"}, "kind", "task, service or static"),
        ({"image": "--privileged"}, "image", "an image's name"),
        ({"image": "a b"}, "image", "an image's name"),
        ({"command": []}, "command", "at least one argument"),
        ({"commands": {"../x": "id"}}, "commands.../x", "a command's name"),
        ({"commands": {"x": ["id"]}}, "commands.x", "a shell command, got a list"),
        ({"env": ["A B"]}, "env[0]", "a variable's name"),
        ({"env": {"A": {}}}, "env.A", "text, a number or null"),
        ({"env": {"PLOINKY_RELEASE": "9"}}, "env.PLOINKY_RELEASE", "the server sets this"),
        ({"env": 5}, "env", "an object of defaults or a list of names"),
        ({"health": {"path": "/x\r\nHost: y"}}, "health.path", "a path such as /health"),
        ({"health": {"interval": "soon"}}, "health.interval", 'seconds such as 30 or "30s"'),
        ({"health": {"tries": 1}}, "health.tries", "expected one of path"),
        ({"resources": {"memory": "lots"}}, "resources.memory", 'a size such as "256m"'),
        ({"resources": {"memory": "1k"}}, "resources.memory", "a size from"),
        ({"resources": {"cpus": 0}}, "resources.cpus", "a number over 0"),
        ({"resources": {"cpus": float("inf")}}, "resources.cpus", "a number over 0"),
        ({"concurrency": 1.5}, "concurrency", "a whole number"),
        ({"transport": "carrier pigeon"}, "transport", "http or file"),
        ({"auth": ["key"]}, "auth", "none, session or key"),
        ({"rateLimit": 5}, "rateLimit", "an object"),
        ({"rateLimit": {"requests": 5}}, "rateLimit.seconds", "a value, got nothing"),
        ({"rateLimit": {"requests": 0, "seconds": 1}}, "rateLimit.requests", "a whole number"),
        ({"rateLimit": {"requests": 5, "seconds": 0}}, "rateLimit.seconds", "86400 seconds"),
        (
            {"rateLimit": {"requests": 20_000, "seconds": 1}},
            "rateLimit.requests",
            "at most 10,000 requests a second",
        ),
        ({"replicas": 0}, "replicas", "a whole number from 1"),
        ({"volumes": [{"name": "a"}]}, "volumes[0].path", "a value, got nothing"),
        ({"volumes": [{"name": "../a", "path": "/x"}]}, "volumes[0].name", "a name of letters"),
        ({"volumes": [{"name": "a", "path": "x"}]}, "volumes[0].path", "an absolute path"),
        ({"volumes": [{"name": "a", "path": "/x/../y"}]}, "volumes[0].path", "without . or .."),
        ({"volumes": [{"name": "a", "path": "/"}]}, "volumes[0].path", "a place of its own"),
        ({"volumes": [{"name": "a", "path": "/agent"}]}, "volumes[0].path", "a place of its own"),
        (
            {"volumes": [{"name": "a", "path": "/agent/.ploinky/queue"}]},
            "volumes[0].path",
            "a place of its own",
        ),
        ({"volumes": [{"name": "a", "path": "/x:ro"}]}, "volumes[0].path", "without colon"),
        ({"static": {"root": "../.."}}, "static.root", "below the agent's own"),
        ({"static": {"root": "/etc"}}, "static.root", "below the agent's own"),
        ({"schedule": [{"cron": "never", "command": "x"}]}, "schedule[0].cron", "five fields"),
        ({"schedule": [{"cron": "61 * * * *", "command": "x"}]}, "schedule[0].cron", "minute"),
        ({"schedule": [{"cron": "0 0 30 2 *", "command": "x"}]}, "schedule[0].cron", "five fields"),
        (
            {"schedule": [{"cron": "@daily", "command": "x", "timezone": "Mars/Base"}]},
            "schedule[0].timezone",
            "Europe/Paris",
        ),
        ({"user": "root; id"}, "user", "uid, uid:gid or a name"),
        ({"capabilities": "ALL"}, "capabilities", "a list"),
        ({"install": "a\0b"}, "install", "a shell command"),
        ({"about": 5}, "about", "text, got 5"),
    ],
)
def test_a_wrong_field_is_told_by_its_path_and_what_was_expected(
    document: dict[str, Any], path: str, expected: str
) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        Manifest.of(document)

    assert list(caught.value.details) == [path]
    assert expected in caught.value.details[path]
    assert f"{path}: " in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ManifestInvalid) as caught:
        Manifest.of({"port": 0, "auth": "maybe", "resources": {"pids": -1}})

    assert list(caught.value.details) == ["port", "resources.pids", "auth"]


def test_two_volumes_cannot_share_a_name_or_a_place() -> None:
    with pytest.raises(ManifestInvalid) as caught:
        Manifest.of({"volumes": [{"name": "a", "path": "/a"}, {"name": "a", "path": "/a"}]})

    assert list(caught.value.details) == ["volumes[1].name", "volumes[1].path"]


def test_unknown_fields_are_kept_and_warned_about() -> None:
    merged = effective({"replica": 2, "x-team": "blue"}, {}, {})

    assert merged.settings["x-team"] == "blue"
    assert merged.warnings == (
        "manifest.json: there is no field 'replica' (did you mean replicas?); it is ignored",
        "manifest.json: there is no field 'x-team'; it is ignored",
    )


@pytest.mark.parametrize(
    ("document", "image_only", "kind"),
    [
        ({}, False, Kind.TASK),
        ({"port": 80}, False, Kind.SERVICE),
        ({}, True, Kind.SERVICE),
        ({"static": {}}, False, Kind.STATIC),
        ({"static": {}, "port": 80}, False, Kind.STATIC),
        ({"kind": "task", "port": 80}, False, Kind.TASK),
        ({"kind": "task"}, True, Kind.TASK),
    ],
)
def test_the_kind_is_guessed_from_what_is_there(
    document: dict[str, Any], image_only: bool, kind: Kind
) -> None:
    assert Manifest.of(document, image_only=image_only).kind is kind


def test_a_task_agent_is_probed_at_agentcores_own_path_and_a_service_at_its_root() -> None:
    assert Manifest.of({"health": {"path": "/mine"}}).health.path == "/health"
    assert Manifest.of({"port": 80}).health.path == "/"


def test_a_shell_command_as_text_is_run_by_a_shell() -> None:
    assert Manifest.of({"command": "exec app --x"}).command == ("/bin/sh", "-c", "exec app --x")


# --- with the deployment's own settings -----------------------------------------


def test_the_deployment_wins_field_by_field() -> None:
    merged = effective(
        {
            "replicas": 2,
            "timeout": 5,
            "commands": {"a": "x", "b": "y"},
            "resources": {"memory": "64m", "cpus": 1},
            "volumes": [{"name": "a", "path": "/a"}],
        },
        {"replicas": 4, "commands": {"b": "z"}, "resources": {"cpus": 2}, "volumes": []},
        {},
    )

    assert merged.manifest.replicas == 4
    assert merged.manifest.timeout_seconds == 5
    assert merged.manifest.commands == {"a": "x", "b": "z"}
    assert merged.manifest.resources == Resources(64 * 1024**2, 2.0)
    assert merged.manifest.volumes == ()


def test_null_takes_a_field_of_the_manifest_away() -> None:
    assert effective({"timeout": 5}, {"timeout": None}, {}).manifest.timeout_seconds is None


def test_the_deployments_image_wins() -> None:
    assert effective({"container": "a"}, {}, {}, image="b").settings["image"] == "b"
    assert effective({"image": "a"}, {"container": "b"}, {}).settings["image"] == "b"


def test_what_is_kept_reads_back_as_the_same_manifest() -> None:
    """A restart builds the release again from what is on record, as JSON."""
    merged = effective(
        {"port": 80, "x": 1, "user": "1000", "env": {"A": "1"}},
        {"replicas": 2},
        {},
        image="nginx",
        image_only=True,
    )

    assert Manifest.of(json.loads(json.dumps(merged.settings))) == merged.manifest
    assert "env" not in merged.settings


def test_variables_come_from_the_deployment_else_from_the_manifest() -> None:
    merged = effective(
        {"env": {"A": "default", "B": None, "C": "kept"}}, {"env": {"C": 3}}, {"A": "a", "B": "b"}
    )

    assert merged.environment == {"A": "a", "B": "b", "C": "3"}
    assert "environment" not in repr(merged)


def test_all_missing_variables_are_named_with_how_to_set_them() -> None:
    with pytest.raises(EnvironmentMissing) as caught:
        effective({"env": ["TOKEN", "URL"]}, {}, {"X": "1"})

    assert str(caught.value) == (
        "the agent needs TOKEN, URL; set with --env TOKEN=value --env URL=value"
    )
    assert caught.value.details == {"missing": ["TOKEN", "URL"]}


def test_settings_and_variables_of_a_deployment_are_checked_before_anything_else() -> None:
    check_settings({"replicas": 2, "timeout": None})
    with pytest.raises(ValidationFailed) as caught:
        check_settings({"replicas": "2", "colour": "red"})
    assert list(caught.value.problems) == ["replicas", "colour"]

    check_environment({"A": "", "B": "x"})
    with pytest.raises(ValidationFailed) as caught:
        check_environment({"A-B": "secret", "AGENT_DIR": "secret", "C": "sec\0ret"})
    assert list(caught.value.problems) == [
        "environment.A-B",
        "environment.AGENT_DIR",
        "environment.C",
    ]
    assert "secret" not in str(caught.value)
    assert "sec" not in str(caught.value).replace("secret", "")


# --- privileges -----------------------------------------------------------------


def told(merged: Effective) -> str:
    return " ".join(merged.warnings)


def test_a_task_agents_manifest_grants_itself_nothing() -> None:
    merged = effective({"user": "0", "capabilities": ["SYS_ADMIN"]}, {}, {})

    assert merged.manifest.user == ""
    assert merged.manifest.capabilities == ()
    assert "user '0' is ignored" in told(merged)
    assert "capabilities SYS_ADMIN are ignored" in told(merged)


def test_a_services_manifest_chooses_among_what_any_container_has() -> None:
    merged = effective({"port": 80, "user": "www", "capabilities": ["CHOWN", "SYS_ADMIN"]}, {}, {})

    assert merged.manifest.user == "www"
    assert merged.manifest.capabilities == ("CHOWN",)
    assert "SYS_ADMIN" in told(merged)


def test_a_deployment_that_asks_for_privileges_itself_gets_them() -> None:
    asked = {"user": "0", "capabilities": ["SYS_ADMIN"]}
    merged = effective({"user": "7"}, asked, {})

    assert (merged.manifest.user, merged.manifest.capabilities) == ("0", ("SYS_ADMIN",))
    assert merged.warnings == ()


def test_a_setting_that_is_not_acted_on_is_said() -> None:
    """Nobody waits for a schedule that never runs."""
    tick = {"schedule": [{"cron": "* * * * *", "command": "tick"}]}
    assert effective(tick, {}, {}).warnings == ()
    merged = effective(tick, {"idle": 60, "kind": "service"}, {})
    assert "schedule has no effect for a service" in told(merged)
    assert "idle is kept, but has no effect" in told(merged)
