"""Names for completion: what the server has, asked for briefly, kept briefly, never insisted on.

Shells and the interactive mode complete by the same functions.  A server that is away, slow, or
says no, has no names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from ploinky.cli.client import Client
from ploinky.cli.failures import CommandFailed
from ploinky.cli.shared import connection

PATIENCE_SECONDS = 1.0
"""Longer than that nobody waits at a prompt."""

_KEPT_SECONDS = 5.0
_MOST = 500

Ask = Callable[..., Mapping[str, Any]]
Given = Mapping[str, Any]
"""What stands on the line already, by parameter."""


def patient_client() -> Client:
    """A client that gives up soon, and says nothing amid what somebody types.

    Raises:
        CommandFailed: There is no connection that can be read.
    """
    return Client(connection(), PATIENCE_SECONDS, is_quiet=True)


class Names:
    """Gives names by their kind.

    Args:
        clock: Seconds, for how long an answer is kept.
        connect: Gives a client for each question; it may fail.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        connect: Callable[[], Client] = patient_client,
    ) -> None:
        self._clock = clock
        self._connect = connect
        self._kept: dict[Any, tuple[float, Mapping[str, Any]]] = {}

    def of(self, kind: str, given: Given) -> list[str]:
        """Give the names of a kind, sorted; none where they cannot be had now."""
        try:
            return sorted(set(_KINDS[kind](self._ask, given)))
        except (CommandFailed, LookupError, TypeError, AttributeError):
            return []

    def _ask(self, path: str, /, **query: Any) -> Mapping[str, Any]:
        client = self._connect()
        asked = (client.connection, path, *query.items())
        until, answer = self._kept.get(asked, (0.0, {}))
        if self._clock() < until:
            return answer
        try:
            answer = client.api("GET", path, timeout=PATIENCE_SECONDS, **query)
        except CommandFailed:
            answer = {}
        # Also that there is none: whoever types on must not wait again at each key.
        self._kept[asked] = (self._clock() + _KEPT_SECONDS, answer)
        return answer


def completing(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Give what a parameter takes as ``shell_complete``, for names of a kind that `Names` knows."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        names = context.find_object(Names) or Names()
        return [name for name in names.of(kind, context.params) if name.startswith(incomplete)]

    return complete


def _listed(path: str, name: str = "name") -> Callable[[Ask, Given], list[str]]:
    return lambda ask, given: [one[name] for one in ask(path, perPage=_MOST)[path]]


def _deployments(ask: Ask, given: Given) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = ask("deployments", perPage=_MOST)["deployments"]
    return found


def _paths(ask: Ask, given: Given) -> list[str]:
    return [d["path"] for d in _deployments(ask, given) if d["domain"] == given.get("domain")]


def _places(ask: Ask, given: Given) -> list[str]:
    return [d["domain"] + d["path"] for d in _deployments(ask, given)]


def _callable(ask: Ask, given: Given) -> list[str]:
    near = [d["path"] for d in _deployments(ask, given) if d["domain"] == "localhost"]
    return near + _places(ask, given)


def _releases(ask: Ask, given: Given) -> list[str]:
    found = ask("deployments/releases", domain=given["domain"], path=given["path"], perPage=_MOST)
    return [str(release["number"]) for release in found["releases"]]


def _commands(ask: Ask, given: Given) -> list[str]:
    domain, _, path = given["where"].partition("/")
    found = ask("deployments/commands", domain=domain or "localhost", path=f"/{path}")
    return [command["name"] for command in found["commands"]]


def _settings(ask: Ask, given: Given) -> list[str]:
    return [f"{name}=" for name in ask("settings")["settings"]]


_KINDS: Mapping[str, Callable[[Ask, Given], list[str]]] = {
    "agent": _listed("agents"),
    "command": _commands,
    "domain": _listed("domains"),
    "key": _listed("keys"),
    "path": _paths,
    "place": _places,
    "release": _releases,
    "repository": _listed("repositories"),
    "session": _listed("sessions", "id"),
    "setting": _settings,
    "task": _listed("tasks", "taskId"),
    "where": _callable,
}
