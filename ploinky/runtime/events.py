"""The engine's own word of containers that end, followed in a thread.

It makes a look at the engine come sooner, and tells how one ended that the engine has started
again.  An event that is missed costs a moment, or that knowledge.  Source: Docker Engine API
1.41, ``GET /events``; Podman leaves labels and names as Docker has them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import docker.errors
import requests
import urllib3.exceptions
from attrs import frozen

from ploinky.deploy_errors import EngineUnavailable
from ploinky.runtime import facts
from ploinky.runtime.blueprint import LABEL_INSTANCE
from ploinky.runtime.facts import Connection

DEATHS = frozenset({"die", "died"})
REMOVALS = frozenset({"destroy", "remove"})
OUT_OF_MEMORY = "oom"
ENDS = DEATHS | REMOVALS | {OUT_OF_MEMORY}
SILENCE_SECONDS = 60.0
"""After which the stream is opened anew: an engine that died says nothing either."""
RETRY_SECONDS = 1.0


@frozen
class ContainerEvent:
    """What an engine tells of a container's end.

    Attributes:
        action: One of `ENDS`.
        at: Nanoseconds since 1970, by the engine's clock; 0 where it does not say.
        exit_code: None where that is not known.
    """

    instance: str
    container: str
    action: str
    at: int = 0
    exit_code: int | None = None


Heard = Callable[[ContainerEvent], None]


def _read(event: Mapping[str, Any]) -> ContainerEvent | None:
    """Read it; None where it is no end of an instance."""
    actor = event.get("Actor") or {}
    told = actor.get("Attributes") or {}
    instance, action = told.get(LABEL_INSTANCE), event.get("Action", "")
    if not instance or action not in ENDS:
        return None
    at = int(event.get("timeNano") or 0)
    return ContainerEvent(instance, actor.get("ID", ""), action, at, _exit_code(action, told))


def _exit_code(action: str, told: Mapping[str, str]) -> int | None:
    """Read it; the first name is Docker's, the second Podman's, which tells 0 with all else, too."""
    text = told.get("exitCode") or told.get("containerExitCode") or ""
    return int(text) if action in DEATHS and text.isdigit() else None


class EventStream:
    """Tells of each end of an instance's container.

    Args:
        heard: Called in the thread with each event.
    """

    def __init__(self, connection: Connection, heard: Heard) -> None:
        self._connection = connection
        self._tell = heard
        self._closed = threading.Event()
        self._guard = threading.Lock()
        self._stream: Any = None

    def follow(self) -> None:
        """Follow until `close`.  Blocking."""
        while not self._closed.is_set():
            # Away, silent for too long, or closed under our hands: open it anew, or return.
            with contextlib.suppress(
                EngineUnavailable,
                docker.errors.DockerException,
                requests.RequestException,
                urllib3.exceptions.HTTPError,
                OSError,
                ValueError,
            ):
                self._follow_once()
            self._closed.wait(RETRY_SECONDS)

    def close(self) -> None:
        """Let `follow` return, from any thread."""
        self._closed.set()
        with self._guard:
            if self._stream is not None:
                self._stream.close()

    def _follow_once(self) -> None:
        client = facts.connect(self._connection, SILENCE_SECONDS)
        try:
            stream = client.events(decode=True, filters={"type": "container"})
            with self._guard:
                self._stream = stream
            if self._closed.is_set():
                return
            for said in stream:
                event = _read(said)
                if event is not None:
                    self._tell(event)
        finally:
            with self._guard:
                self._stream = None
            client.close()
