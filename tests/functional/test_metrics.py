"""What the server says it counted, against what callers counted."""

from __future__ import annotations

import collections
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.functional.agents import NODE
from tests.functional.conftest import Server, git_repository, until

pytestmark = pytest.mark.program("node")


@pytest.fixture
def counting(own_server: Server, tmp_path: Path) -> Server:
    """A server with two workers and an agent that sometimes fails."""
    own_server.start()
    url = git_repository(tmp_path / "repository", {f"app/{k}": v for k, v in NODE.items()})
    assert own_server.deploy("/demo", url).status_code == 200
    return own_server


class Caller:
    """Calls on fresh connections, so that both workers get some, and counts what came back."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.statuses: collections.Counter[int] = collections.Counter()

    def calls(self, number: int) -> None:
        """Call so many times; every fifth call fails in the agent."""
        for turn in range(number):
            command = "throws" if turn % 5 == 0 else "hello"
            self.statuses[self._server.call("/demo", command, "x").status_code] += 1


def counted(server: Server) -> collections.Counter[int]:
    """Read `/metrics` as Prometheus does: calls by status."""
    text = requests.get(f"{server.url}/metrics", timeout=10).text
    found: collections.Counter[int] = collections.Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "ploinky_requests_total":
                found[int(sample.labels["status"])] += int(sample.value)
    return found


def window(server: Server) -> dict[str, Any]:
    """The last hour."""
    found: dict[str, Any] = server.api("GET", "metrics?range=1h").json()
    return found


def test_figures_equal_what_callers_counted(counting: Server) -> None:
    """Over two workers, with errors, one worker ended in the middle, and the leader killed."""
    caller = Caller(counting)
    caller.calls(40)
    os.kill(counting.worker_pids()[0], signal.SIGTERM)
    caller.calls(40)
    until(lambda: counted(counting) == caller.statuses, "every call is counted")
    counting.kill_leader()
    caller.calls(20)
    counting.start()
    until(lambda: counted(counting) == caller.statuses, "each is counted once")
    caller.calls(20)
    until(lambda: counted(counting) == caller.statuses, "counting goes on")
    demo = window(counting)["agents"]["app"]
    assert demo["count"] == caller.statuses.total() == 120
    assert demo["errors"] == demo["failedAt"]["agent"] == caller.statuses[500] == 24
    assert {name: one["count"] for name, one in demo["commands"].items()} == {
        "hello": 96,
        "throws": 24,
    }
    assert sum(point["count"] for point in window(counting)["series"]) == 120
    assert counting.api("GET", "overview").json()["totalRequests"] == 120
    counting.stop()
    counting.start()
    assert counted(counting) == caller.statuses
