"""The engine's own word of containers that end, followed in a thread.

It only makes a look at the engine come sooner: an event that is missed costs a moment, so
there is no bookkeeping here.  Source: Docker Engine API 1.41, ``GET /events``; Podman leaves
labels and names as Docker has them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import docker.errors
import requests
import urllib3.exceptions

from ploinky.deploy_errors import EngineUnavailable
from ploinky.runtime import facts
from ploinky.runtime.blueprint import LABEL_INSTANCE
from ploinky.runtime.facts import Connection

DEATHS = frozenset({"die", "died"})
ENDS = DEATHS | {"oom", "destroy", "remove"}
SILENCE_SECONDS = 60.0
"""After which the stream is opened anew: an engine that died says nothing either."""
RETRY_SECONDS = 1.0


Ended = Callable[[str, int | None, bool], None]


def _exit_code(action: str, told: Mapping[str, str]) -> int | None:
    """Read it; the first name is Docker's, the second Podman's, which tells 0 with all else, too."""
    text = told.get("exitCode") or told.get("containerExitCode") or ""
    return int(text) if action in DEATHS and text.isdigit() else None


class EventStream:
    """Tells of each end of an instance's container.

    Args:
        ended: Called in the thread with the instance's id, the exit code where that is known,
            and whether it ran out of memory.
    """

    def __init__(self, connection: Connection, ended: Ended) -> None:
        self._connection = connection
        self._tell = ended
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
            for event in stream:
                told = (event.get("Actor") or {}).get("Attributes", {})
                instance, action = told.get(LABEL_INSTANCE), event.get("Action")
                if instance and action in ENDS:
                    self._tell(instance, _exit_code(action, told), action == "oom")
        finally:
            with self._guard:
                self._stream = None
            client.close()
