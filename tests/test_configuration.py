"""Settings that change while the server runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from ploinky.configuration import Configuration
from ploinky.errors import PreconditionFailed, SettingsInvalid, ValidationFailed
from ploinky.settings import config_path


class InThisThread:
    """`Blocking` without threads."""

    async def run(self, work: Any, *args: Any) -> Any:
        return work(*args)


HERE = InThisThread()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """With a file of an earlier change, in the form that the guide shows."""
    config_path(tmp_path).parent.mkdir()
    config_path(tmp_path).write_text('{"settings": {"port": 9000, "taskTimeout": 1}}')
    return tmp_path


@pytest_twisted.ensureDeferred
async def test_the_source_of_each_value_is_known(directory):
    """The last of default, file, variable and option."""
    environment = {"PLOINKY_LOG_LEVEL": "warn", "PORT": "7000"}
    configuration = Configuration(directory, environment, {"host": "::1", "runtime": None})
    origins = configuration.origins()
    assert origins["host"] == "option --host"
    assert origins["port"] == "variable PORT"
    assert origins["logLevel"] == "variable PLOINKY_LOG_LEVEL"
    assert origins["taskTimeout"] == str(config_path(directory))
    assert origins["runtime"] == "default"


@pytest_twisted.ensureDeferred
async def test_what_something_else_decides_is_told(directory):
    """It is written down, and without effect as long as that wins."""
    configuration = Configuration(directory, {"PORT": "7000"}, {})
    made = await configuration.change(HERE, {"port": 1, "taskTimeout": 2}, "")
    assert made.applied == ("taskTimeout",)
    assert made.overridden == {"port": "variable PORT"}
    assert (configuration.settings.port, configuration.settings.task_timeout_ms) == (7000, 2)
    assert json.loads(config_path(directory).read_text()) == {"port": 1, "taskTimeout": 2}


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_written_is_not_in_force(directory):
    """Neither a bad value, nor one that came too late, nor one that the disk does not take."""
    configuration = Configuration(directory, {}, {})
    seen = configuration.revision()
    with pytest.raises(ValidationFailed):
        await configuration.change(HERE, {"taskTimeout": "soon"}, seen)
    await configuration.change(HERE, {"taskTimeout": 5}, seen)
    with pytest.raises(PreconditionFailed):
        await configuration.change(HERE, {"taskTimeout": 6}, seen)
    config_path(directory).parent.rename(directory / "elsewhere")
    with pytest.raises(SettingsInvalid, match="cannot be written"):
        await configuration.change(HERE, {"taskTimeout": 7}, "")
    assert configuration.settings.task_timeout_ms == 5


@pytest_twisted.ensureDeferred
async def test_what_waits_is_in_force_after_the_next_start(directory):
    """And nothing waits then."""
    configuration = Configuration(directory, {}, {})
    await configuration.change(HERE, {"port": 7777}, "")
    assert configuration.waiting() == {"port": 7777}
    again = Configuration(directory, {}, {})
    assert (again.settings.port, again.waiting()) == (7777, {})
