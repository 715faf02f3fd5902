"""Callers in the background: keep-alive clients that count what they got."""

from __future__ import annotations

import collections
import http.client
import json
import threading
from types import TracebackType
from urllib.parse import urlsplit


class Callers:
    """A context in which some clients call one command again and again.

    Attributes:
        outcomes: How often each status (or the name of an exception) came back.
        answers: How often each body came back with status 200.
    """

    def __init__(self, url: str, path: str, clients: int = 4, calls_per_second: int = 200) -> None:
        self._address = urlsplit(url).netloc
        self._path = path
        self._pause = clients / calls_per_second
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.answers: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def total(self) -> int:
        """How many calls have ended."""
        return sum(self.outcomes.values())

    def failures(self) -> dict[str, int]:
        """Every outcome but 200."""
        return {outcome: n for outcome, n in self.outcomes.items() if outcome != "200"}

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        body = json.dumps({"command": "hello", "params": ["World"]})
        while not self._over.wait(self._pause):
            try:
                connection.request("POST", self._path, body)
                answer = connection.getresponse()
                text = answer.read().decode()
                outcome = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                outcome, text = type(error).__name__, ""
                connection.close()
            with self._lock:
                self.outcomes[outcome] += 1
                if outcome == "200":
                    self.answers[text] += 1
