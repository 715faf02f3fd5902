"""Settings: four sources, one value, all problems at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ploinky.errors import SettingsInvalid
from ploinky.settings import fields, read_settings, variable


def write_config(directory: Path, text: str) -> None:
    """Put a config.json where the server reads it."""
    (directory / ".ploinky-cloud").mkdir()
    (directory / ".ploinky-cloud" / "config.json").write_text(text)


def test_zero_configuration(tmp_path: Path) -> None:
    """Nothing set: port 8000 on loopback, a worker for each core, the first engine that answers."""
    settings = read_settings(tmp_path, {}, {})
    assert (settings.port, settings.host, settings.runtime) == (8000, "127.0.0.1", "auto")
    assert settings.workers >= 1
    assert settings.data_directory == tmp_path / ".ploinky-cloud"


def test_later_sources_win(tmp_path: Path) -> None:
    """The file loses to variables, and these to options."""
    write_config(tmp_path, json.dumps({"port": 1, "workers": 1, "taskTimeout": 1}))
    settings = read_settings(
        tmp_path, {"PLOINKY_PORT": "2", "PLOINKY_WORKERS": "2"}, {"port": "3", "host": None}
    )
    assert (settings.port, settings.workers, settings.task_timeout_ms) == (3, 2, 1)


def test_the_guides_own_variables(tmp_path: Path) -> None:
    """`PORT` and `CONTAINER_RUNTIME` count, and `PLOINKY_PORT` wins over the former."""
    settings = read_settings(tmp_path, {"PORT": "8080", "CONTAINER_RUNTIME": "podman"}, {})
    assert (settings.port, settings.runtime) == (8080, "podman")
    assert read_settings(tmp_path, {"PORT": "1", "PLOINKY_PORT": "2"}, {}).port == 2


def test_the_guides_config_file(tmp_path: Path) -> None:
    """The guide nests the settings; its example is accepted as it stands."""
    example = {
        "settings": {
            "workers": "auto",
            "taskTimeout": 30000,
            "cacheTime": 3600000,
            "maxContainers": 100,
        }
    }
    write_config(tmp_path, json.dumps(example))
    assert read_settings(tmp_path, {}, {}).max_containers == 100


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    """Each with the source to look in, what was expected, and what was found."""
    write_config(tmp_path, json.dumps({"prot": 1, "taskTimeout": True}))
    with pytest.raises(SettingsInvalid) as caught:
        read_settings(tmp_path, {"PLOINKY_WORKERS": "some"}, {"port": 70000})
    said = caught.value.message.splitlines()
    assert len(said) == 4
    assert "config.json" in said[0]
    assert "'prot'" in said[0]
    assert "whole number" in said[1]
    assert "PLOINKY_WORKERS" in said[2]
    assert "0 to 65535" in said[3]
    assert "70000" in said[3]


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"port": 1e400}', '{"port": %s}' % ("1" * 5000)])
def test_a_config_file_that_is_not_one(tmp_path: Path, text: str) -> None:
    """It is named, and nothing starts."""
    write_config(tmp_path, text)
    with pytest.raises(SettingsInvalid, match=r"config\.json"):
        read_settings(tmp_path, {}, {})


def test_every_setting_has_a_variable_and_a_line_of_help() -> None:
    """What `--help` and the docs are made of."""
    assert variable("taskTimeout") == "PLOINKY_TASK_TIMEOUT"
    assert all(about for _, _, about in fields())
