"""`deploy --config`: JSON and YAML, and what is wrong with a file said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ploinky.cli.configs import read_config
from ploinky.cli.failures import CONFIGURATION, CommandFailed

GUIDE = """{
    "domain": "api.example.com",
    "path": "/v1",
    "agent": "my-service",
    "repository": "https://github.com/user/my-service.git",
    "branch": "production",
    "image": "node:18",
    "environment": {
        "NODE_ENV": "production",
        "API_KEY": "secret"
    }
}
"""


def config(place: Path, text: str, **environment: str) -> dict[str, Any]:
    path = place / "deployment.yml"
    path.write_text(text, encoding="utf-8")
    return read_config(path, environment)


def test_the_guides_own_file(tmp_path: Path) -> None:
    """As it stands there, and the same as YAML."""
    found = config(tmp_path, GUIDE)
    assert (found["domain"], found["image"]) == ("api.example.com", "node:18")
    assert found["environment"] == {"NODE_ENV": "production", "API_KEY": "secret"}
    yaml = "domain: api.example.com\npath: /v1\nagent: my-service\nimage: node:18\n"
    assert config(tmp_path, yaml).items() <= found.items()


def test_something_that_already_runs(tmp_path: Path) -> None:
    """A deployment may be external, which no manifest may."""
    found = config(tmp_path, "agent: wiki\nkind: external\ntarget: http://127.0.0.1:9000\n")
    assert (found["kind"], found["target"]) == ("external", "http://127.0.0.1:9000")


def test_variables_are_as_they_are_written(tmp_path: Path) -> None:
    """Numbers and words need no quotes, and are not rounded or turned."""
    text = "environment: {PORT: 8080, ON: on, VERSION: 1.10, YES: true, EMPTY: ''}\n"
    assert config(tmp_path, text)["environment"] == {
        "PORT": "8080",
        "ON": "on",
        "VERSION": "1.10",
        "YES": "true",
        "EMPTY": "",
    }


def test_a_secret_without_a_value_comes_from_the_environment(tmp_path: Path) -> None:
    """So that a file can be kept where others read it."""
    for text in ("secrets: {TOKEN: }\n", "secrets: [TOKEN]\n"):
        assert config(tmp_path, text, TOKEN="t0ps3cret")["secrets"] == {"TOKEN": "t0ps3cret"}
    with pytest.raises(CommandFailed, match=r"yml:1: secrets\.TOKEN: .*export it"):
        config(tmp_path, "secrets: [TOKEN]\n")


def test_every_problem_is_said_with_its_line(tmp_path: Path) -> None:
    """Unknown fields, wrong types, wrong settings; in the order of the file."""
    text = (
        "domain: 5\npth: /x\nreplicas: lots\nhealth:\n  path: ready\nvolumes:\n"
        "- {name: a, path: /a}\n- name: b\n  path: relative\n"
        "environment:\n  BAD-NAME: s3cret\n  NESTED: {a: s3cret}\n  PLOINKY_PATH: x\n"
    )
    with pytest.raises(CommandFailed) as caught:
        config(tmp_path, text)
    lines = [line.strip() for line in caught.value.message.splitlines()]
    assert [line.partition(": ")[0].rpartition(":")[2] for line in lines] == [
        "1",
        "2",
        "3",
        "5",
        "9",
        "11",
        "12",
        "13",
    ]
    assert "did you mean path?" in lines[1]
    assert "s3cret" not in caught.value.message
    assert caught.value.exit_status == CONFIGURATION


@pytest.mark.parametrize("text", ["", "[]", "a", "[{}, {}]", "a: 1\n---\nb: 2\n", "{"])
def test_a_file_that_is_no_deployment(tmp_path: Path, text: str) -> None:
    """Is named, with line."""
    with pytest.raises(CommandFailed, match=r"deployment\.yml:\d"):
        config(tmp_path, text)
