"""The server's settings: one frozen value, read once, from four sources.

Lowest first: defaults, ``<dir>/.ploinky-cloud/config.json``, ``PLOINKY_*``
variables, command-line options.  All problems are reported together, each
with its source.  Source: contract, section 7.  This module knows no room.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from ploinky.errors import SettingsInvalid

DATA_DIRECTORY = ".ploinky-cloud"
LOG_LEVELS = ("debug", "info", "warn", "error")
AUTO = "auto"


def _count(lowest: int, highest: int) -> Callable[[Any], int]:
    def read(raw_value: Any) -> int:
        if isinstance(raw_value, bool):
            raise ValueError("expected a whole number")
        try:
            value = int(raw_value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError("expected a whole number") from None
        if not lowest <= value <= highest:
            raise ValueError(f"expected {lowest} to {highest}")
        return value

    return read


def _workers(raw_value: Any) -> int:
    if raw_value == AUTO:
        return len(os.sched_getaffinity(0))
    try:
        return _count(1, 256)(raw_value)
    except ValueError:
        raise ValueError("expected auto, or 1 to 256") from None


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(raw_value: Any) -> str:
        if raw_value not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return str(raw_value)

    return read


def _flag(raw_value: Any) -> bool:
    if isinstance(raw_value, bool):
        return raw_value
    if str(raw_value).lower() not in ("yes", "no", "true", "false"):
        raise ValueError("expected yes or no")
    return str(raw_value).lower() in ("yes", "true")


def _text(raw_value: Any) -> str:
    if not isinstance(raw_value, str):
        raise ValueError("expected text")
    return raw_value


def _texts(raw_value: Any) -> tuple[str, ...]:
    """Read a JSON array of strings, or one string with commas between them."""
    if isinstance(raw_value, str):
        raw_value = [part.strip() for part in raw_value.split(",") if part.strip()]
    if not isinstance(raw_value, (list, tuple)) or not all(isinstance(x, str) for x in raw_value):
        raise ValueError("expected a list of texts")
    return tuple(raw_value)


def _setting(default: Any, name: str, read: Callable[[Any], Any], about: str) -> Any:
    return attrs.field(default=default, metadata={"name": name, "read": read, "about": about})


_MEBIBYTE = 1024 * 1024


@frozen
class Settings:
    """What the server runs by.  Build it with `read_settings`.

    Attributes:
        directory: Absolute path; everything is written below ``directory/.ploinky-cloud``.
    """

    directory: Path
    workers: int = _setting(1, "workers", _workers, "worker processes: auto = one per core")
    port: int = _setting(8000, "port", _count(0, 65535), "public port; 0 takes a free one")
    host: str = _setting("127.0.0.1", "host", _text, "address to listen on")
    runtime: str = _setting(AUTO, "runtime", _text, "docker, podman, process, a plugin's, or auto")
    task_timeout_ms: int = _setting(
        30_000, "taskTimeout", _count(1, 86_400_000), "milliseconds a task may take"
    )
    cache_time_ms: int = _setting(
        3_600_000, "cacheTime", _count(0, 2**40), "milliseconds a Git mirror is taken as fresh"
    )
    max_containers: int = _setting(100, "maxContainers", _count(1, 100_000), "instances at most")
    max_body_bytes: int = _setting(
        16 * _MEBIBYTE, "maxBodyBytes", _count(1024, 2**40), "largest task body in bytes"
    )
    max_upload_bytes: int = _setting(
        1024 * _MEBIBYTE, "maxUploadBytes", _count(1024, 2**50), "largest upload in bytes"
    )
    log_level: str = _setting(
        "info", "logLevel", _one_of(*LOG_LEVELS), "least level that is logged"
    )
    metrics_retention_days: int = _setting(
        30, "metricsRetention", _count(1, 3650), "days metrics are kept"
    )
    log_retention_days: int = _setting(30, "logRetention", _count(1, 3650), "days logs are kept")
    releases_kept: int = _setting(
        5, "releasesKept", _count(1, 1000), "releases kept per deployment"
    )
    task_retention_hours: int = _setting(
        24, "taskRetention", _count(1, 8760), "hours a durable task may wait, and is kept after"
    )
    tasks_kept: int = _setting(
        10_000, "tasksKept", _count(1, 1_000_000), "durable tasks kept at most, done and undone"
    )
    task_bytes: int = _setting(
        256 * _MEBIBYTE, "taskBytes", _count(1024, 2**40), "bytes durable tasks may take up"
    )
    auth: str = _setting("keys", "auth", _one_of("keys", "none"), "none: everybody is admin")
    everybody_is_admin: bool = _setting(
        False, "everybodyIsAdmin", _flag, "yes: auth none also for other machines (dangerous)"
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (), "trustedProxies", _texts, "addresses whose X-Forwarded-* fields are believed"
    )
    git_file_roots: tuple[str, ...] = _setting(
        (), "gitFileRoots", _texts, "directories that file: repository URLs may point below"
    )

    @property
    def data_directory(self) -> Path:
        """Everything the server writes lives here."""
        return self.directory / DATA_DIRECTORY

    @property
    def run_directory(self) -> Path:
        """Sockets, locks and instances' queues."""
        return self.data_directory / "run"


def fields() -> Iterator[tuple[str, str, str]]:
    """Give (attribute, contract's name, one line about it) for every setting."""
    for attribute in attrs.fields(Settings):
        if attribute.metadata:
            yield attribute.name, attribute.metadata["name"], attribute.metadata["about"]


def variable(name: str) -> str:
    """Give the environment variable of a setting: ``taskTimeout`` is ``PLOINKY_TASK_TIMEOUT``."""
    return "PLOINKY_" + "".join(f"_{c}" if c.isupper() else c.upper() for c in name)


def read_settings(
    directory: Path, environment: Mapping[str, str], options: Mapping[str, Any]
) -> Settings:
    """Merge the four sources.

    Args:
        directory: Where ``.ploinky-cloud`` lies or will lie.
        environment: Usually ``os.environ``; ``PORT`` and ``CONTAINER_RUNTIME`` count as
            ``PLOINKY_PORT`` and ``PLOINKY_RUNTIME``, which win over them.
        options: By contract name; None values count as not given.

    Raises:
        SettingsInvalid: One line a problem: source, name, what was expected.
    """
    directory = Path(os.path.abspath(directory))
    problems: list[str] = []
    path = config_path(directory)
    found = {name: (str(path), value) for name, value in _config_file(path, problems).items()}
    found |= overriding(environment, options)
    known = {name: attribute for attribute, name, _ in fields()}
    values: dict[str, Any] = {"workers": _workers(AUTO)}
    for name, (source, raw_value) in found.items():
        if name not in known:
            problems.append(f"{source}: there is no setting {name!r}")
            continue
        try:
            values[known[name]] = read_one(name, raw_value)
        except ValueError as error:
            problems.append(f"{source}: {name}: {error}, got {raw_value!r}")
    if problems:
        raise SettingsInvalid(problems)
    return Settings(directory=directory, **values)


def overriding(
    environment: Mapping[str, str], options: Mapping[str, Any]
) -> dict[str, tuple[str, Any]]:
    """Give the settings that win over the file's: by name, where from and what."""
    found: dict[str, tuple[str, Any]] = {}
    for alias, name in (("PORT", "port"), ("CONTAINER_RUNTIME", "runtime")):
        if environment.get(alias):
            found[name] = (f"variable {alias}", environment[alias])
    for _, name, _ in fields():
        if environment.get(variable(name)):
            found[name] = (f"variable {variable(name)}", environment[variable(name)])
    for name, value in options.items():
        if value is not None:
            found[name] = (f"option --{name}", value)
    return found


def read_one(name: str, raw_value: Any) -> Any:
    """Read one setting, by its name in the contract.

    Raises:
        ValueError: It does not fit; says what was expected.
    """
    readers = {a.metadata["name"]: a.metadata["read"] for a in attrs.fields(Settings) if a.metadata}
    return readers[name](raw_value)


def config_path(directory: Path) -> Path:
    """Say where the file lies."""
    return directory / DATA_DIRECTORY / "config.json"


def _config_file(path: Path, problems: list[str]) -> dict[str, Any]:
    """Read the file's object; the guide nests it under `settings`, which is accepted."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
        return {}
    except ValueError as error:
        problems.append(f"{path}: is not JSON: {error}")
        return {}
    if isinstance(document, dict) and isinstance(document.get("settings"), dict):
        document = document["settings"]
    if not isinstance(document, dict):
        problems.append(f"{path}: expected a JSON object")
        return {}
    return document
