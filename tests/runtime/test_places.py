"""Directories around an instance."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ploinky.deploy_errors import StartFailed
from ploinky.instance_values import InstanceSpec
from ploinky.runtime import places
from ploinky.values import DeploymentKey, Kind, Wire


def a_spec(directory: Path, **given: Any) -> InstanceSpec:
    settings: dict[str, Any] = {
        "instance": "aaaaaaaaaaaa",
        "deployment": "dddddddddddd",
        "release": 3,
        "cluster": "c",
        "key": DeploymentKey("localhost", "/demo"),
        "agent": "demo",
        "kind": Kind.TASK,
        "image": "i",
        "queue_directory": str(directory / "i" / "aaaaaaaaaaaa"),
        "code_directory": str(directory / "code"),
    }
    (directory / "code").mkdir(exist_ok=True)
    return InstanceSpec(**{**settings, **given})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_queue_is_the_agents_alone(tmp_path: Path) -> None:
    """All its directories are there, and nobody else may look into them."""
    spec = a_spec(tmp_path)
    places.prepare_queue(spec)
    queue = Path(spec.queue_directory)
    for directory in (queue, *(queue / x for x in ("tasks", "results", "errors", "locks", "tmp"))):
        assert mode(directory) == 0o700
        assert directory.stat().st_uid == os.getuid()


def test_what_an_earlier_run_said_is_taken_away(tmp_path: Path) -> None:
    """A stale `ready` would have a dead agent called; tasks are kept."""
    spec = a_spec(tmp_path)
    places.prepare_queue(spec)
    queue = Path(spec.queue_directory)
    for name in ("ready", "failed", "agent.sock", "tasks/t1"):
        (queue / name).write_text("{}")
    places.prepare_queue(spec)
    assert [(queue / x).exists() for x in ("ready", "failed", "agent.sock", "tasks/t1")] == [
        False,
        False,
        False,
        True,
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give directories away")
def test_a_queue_belongs_to_whom_the_agent_runs_as(tmp_path: Path) -> None:
    """Where that is another user by number."""
    spec = a_spec(tmp_path, user="1234:2345")
    places.prepare_queue(spec)
    found = Path(spec.queue_directory, "tasks").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o700)


def test_a_user_by_name_can_write_to_its_queue(tmp_path: Path) -> None:
    """Only the image knows its number."""
    spec = a_spec(tmp_path, user="node")
    places.prepare_queue(spec)
    assert mode(Path(spec.queue_directory, "tasks")) == 0o777


def test_the_mountpoint_in_the_checkout_is_ours(tmp_path: Path) -> None:
    """An engine would make it as root."""
    spec = a_spec(tmp_path)
    places.prepare_mountpoint(spec)
    places.prepare_mountpoint(spec)
    assert (tmp_path / "code" / ".ploinky" / "queue").is_dir()


@pytest.mark.parametrize("name", [".ploinky", ".ploinky/queue"])
def test_a_checkout_cannot_lead_us_elsewhere(tmp_path: Path, name: str) -> None:
    """A link, or a file, where the queue has to be mounted is refused by its name."""
    spec = a_spec(tmp_path)
    place = tmp_path / "code" / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(tmp_path)
    with pytest.raises(StartFailed, match=f"remove {name} from it"):
        places.prepare_mountpoint(spec)
    place.unlink()
    place.write_text("")
    with pytest.raises(StartFailed, match=f"remove {name} from it"):
        places.prepare_mountpoint(spec)


def test_the_environment_of_an_agent(tmp_path: Path) -> None:
    """The contract's variables; the deployment's own win, except over where things lie."""
    given = {"TOKEN": "t", "PLOINKY_CONCURRENCY": "2", "AGENT_DIR": "/elsewhere"}
    spec = a_spec(tmp_path, environment=given, wire=Wire.FILE, concurrency=9)
    assert places.environment(spec, "/agent", "/agent/.ploinky/queue") == {
        "PLOINKY_AGENT": "demo",
        "PLOINKY_DOMAIN": "localhost",
        "PLOINKY_PATH": "/demo",
        "PLOINKY_RELEASE": "3",
        "PLOINKY_TRANSPORT": "file",
        "PLOINKY_CONCURRENCY": "2",
        "TOKEN": "t",
        "AGENT_DIR": "/agent",
        "PLOINKY_QUEUE": "/agent/.ploinky/queue",
    }


def test_agentcore_is_found_beside_the_package() -> None:
    """In a checkout as in an installed wheel."""
    assert (places.agentcore_directory() / "run.sh").is_file()
