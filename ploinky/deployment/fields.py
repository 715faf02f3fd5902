"""The fields of ``manifest.json`` and what each takes (contract, section 2).

One table, `FIELDS`; pure data and the readers of the few values that have a shape of their own.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ploinky.deployment.readers import (
    MOST_ENTRIES,
    Misfit,
    Reader,
    flag,
    listing,
    number,
    one_of,
    record,
    seconds,
    size,
    table,
    text,
    whole,
)
from ploinky.values import COMMAND_NAME

SERVER_VARIABLES = frozenset(
    [
        "AGENT_DIR",
        "PLOINKY_QUEUE",
        "PLOINKY_AGENT",
        "PLOINKY_DOMAIN",
        "PLOINKY_PATH",
        "PLOINKY_RELEASE",
        "PLOINKY_TRANSPORT",
        "PLOINKY_ENGINE",
        "PLOINKY_CONCURRENCY",
    ]
)
"""Set for every agent by the server; nobody else's to choose."""

_DAY = 86_400.0
_MOST_PER_SECOND = 10_000
"""Of one client: beyond, intervals are shorter than their clock can tell."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?")
_CAPABILITY = re.compile(r"(?:CAP_)?[A-Z][A-Z_]{2,30}", re.IGNORECASE)
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_URL_PATH = re.compile(r"/[!-~]{0,1023}")
_CRON = re.compile(r"[0-9A-Za-z*/,\-?#]{1,64}(?: +[0-9A-Za-z*/,\-?#]{1,64}){4}|@[a-z]{4,16}")
_TIMEZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_SYSTEM_PLACES = ("/agent/.ploinky", "/agentCore", "/proc", "/sys", "/dev")


def _argv(raw_value: Any) -> tuple[str, ...]:
    """Take a list of arguments, or one shell command (as in a Dockerfile's CMD)."""
    if isinstance(raw_value, str):
        return ("/bin/sh", "-c", text()(raw_value))
    arguments = listing(text("text or a list of texts"))(raw_value)
    if not arguments:
        raise Misfit("expected at least one argument")
    return arguments


def _variable_name(raw_name: Any) -> str:
    name = text("a variable's name", pattern=_VARIABLE)(raw_name)
    if name in SERVER_VARIABLES:
        raise Misfit("expected another name: the server sets this one itself")
    return name


def _variable_value(raw_value: Any) -> str | None:
    if raw_value is None:
        return None
    if isinstance(raw_value, bool):
        return "true" if raw_value else "false"
    if isinstance(raw_value, (int, float)):
        return str(raw_value)
    if raw_value == "":
        return ""
    return text("text, a number or null")(raw_value)


def _env(raw_value: Any) -> dict[str, str | None]:
    """Take ``{NAME: default or null}`` or ``[NAME]``."""
    if isinstance(raw_value, list):
        return dict.fromkeys(listing(_variable_name)(raw_value))
    if not isinstance(raw_value, Mapping):
        raise Misfit("expected an object of defaults or a list of names")
    return table(_variable_name, _variable_value)(raw_value)


def _inner_path(raw_value: Any) -> str:
    """Take where a volume is mounted: a plain absolute path that hides nothing of the system's."""
    path = text("an absolute path", longest=1024)(raw_value)
    path = path.rstrip("/") or "/"
    if not path.startswith("/") or path.startswith("//") or posixpath.normpath(path) != path:
        raise Misfit("expected an absolute path without . or .. in it")
    if path in ("/", "/agent") or any(
        path == place or path.startswith(place + "/") for place in _SYSTEM_PLACES
    ):
        raise Misfit(f"expected a place of its own, not {path}")
    if ":" in path or "," in path or not path.isprintable():
        raise Misfit("expected a path without colon, comma or control characters")
    return path


def _code_path(raw_value: Any) -> str:
    """Take a directory below the code."""
    path = posixpath.normpath(text("a directory of the agent", longest=1024)(raw_value))
    if path.startswith("/") or path.split("/")[0] == "..":
        raise Misfit("expected a directory below the agent's own")
    return path


def _capabilities(raw_value: Any) -> tuple[str, ...]:
    names = listing(text('names such as "NET_BIND_SERVICE"', pattern=_CAPABILITY), 64)(raw_value)
    return tuple(dict.fromkeys(name.upper().removeprefix("CAP_") for name in names))


def _cron(raw_value: Any) -> str:
    """Take five fields, or a nickname such as ``@daily``, for them."""
    expected = 'five fields such as "*/5 * * * *"'
    cron = text(expected, pattern=_CRON)(raw_value)
    cron = _NICKNAMES.get(cron.lower(), cron)
    try:
        next(CronSim(cron, datetime(2000, 1, 1, tzinfo=timezone.utc)))
    except (CronSimError, StopIteration) as error:
        raise Misfit(f"expected {expected} ({error or 'this is never'})") from error
    return cron


def _timezone(raw_value: Any) -> str:
    expected = "a time zone such as Europe/Paris"
    name = text(expected, pattern=_TIMEZONE)(raw_value)
    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:  # some names are directories
        raise Misfit(f"expected {expected}") from error
    return name


def _json(raw_value: Any) -> Any:
    return raw_value


_RESOURCES = record(
    {"memory": size(6 * 1024**2, 2**50), "cpus": number(0, 4096), "pids": whole(1, 4_000_000)}
)


def _resources(raw_value: Any) -> dict[str, Any]:
    names = {"memory": "memory_bytes"}
    return {names.get(name, name): value for name, value in _RESOURCES(raw_value).items()}


_RATE_LIMIT = record(
    {"requests": whole(1, 1_000_000), "seconds": seconds(0.001, _DAY)},
    required=("requests", "seconds"),
)


def _rate_limit(raw_value: Any) -> dict[str, Any]:
    limit = _RATE_LIMIT(raw_value)
    if limit["requests"] > limit["seconds"] * _MOST_PER_SECOND:
        raise Misfit(f"expected at most {_MOST_PER_SECOND:,} requests a second", ".requests")
    return limit


_IMAGE_NAME = text("an image's name such as node:18-alpine", pattern=_IMAGE)
_COMMAND_NAME = text("a command's name", pattern=COMMAND_NAME, longest=128)

FIELDS: Mapping[str, Reader[Any]] = MappingProxyType(
    {
        "container": _IMAGE_NAME,
        "image": _IMAGE_NAME,
        "about": text(),
        "kind": one_of("task", "service", "static"),
        "install": text("a shell command"),
        "update": text("a shell command"),
        "command": _argv,
        "entrypoint": _argv,
        "commands": table(_COMMAND_NAME, text("a shell command")),
        "runTask": text("a shell command"),
        "engine": one_of("node", "python", "sh"),
        "env": _env,
        "port": whole(1, 65535),
        "health": record(
            {
                "path": text("a path such as /health", pattern=_URL_PATH),
                "interval": seconds(0.1, _DAY),
                "timeout": seconds(0.1, 3600),
                "retries": whole(1, 1000),
                "startPeriod": seconds(0, _DAY),
            }
        ),
        "resources": _resources,
        "concurrency": whole(1, 100_000),
        "timeout": seconds(0.001, _DAY),
        "maxUploadBytes": whole(1, 2**50),
        "retries": whole(0, 100),
        "transport": one_of("http", "file"),
        "auth": one_of("none", "session", "key"),
        "rateLimit": _rate_limit,
        "replicas": whole(1, 1000),
        "idle": seconds(0, 365 * _DAY),
        "volumes": listing(
            record(
                {
                    "name": text("a name of letters, digits, _ . -", pattern=_VOLUME),
                    "path": _inner_path,
                },
                required=("name", "path"),
            ),
            32,
        ),
        "static": record({"root": _code_path, "spa": flag}),
        "schedule": listing(
            record(
                {
                    "cron": _cron,
                    "command": _COMMAND_NAME,
                    "params": listing(_json, MOST_ENTRIES),
                    "timezone": _timezone,
                },
                required=("cron", "command"),
            ),
            100,
        ),
        "user": text("uid, uid:gid or a name", pattern=_USER),
        "capabilities": _capabilities,
    }
)
"""Every field by its name in the file, with what reads it."""
