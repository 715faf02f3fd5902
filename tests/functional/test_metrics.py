"""What the server says it counted, against what callers counted."""

from __future__ import annotations

import collections
import gzip
import json
import os
import signal
import time
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


def test_a_call_shows_as_soon_as_it_is_answered(counting: Server) -> None:
    """In every figure alike, whichever worker had it and whichever is asked."""
    for number in range(1, 31):
        counting.call("/demo", "hello", "x")
        found = window(counting)
        figures = (
            found["totalRequests"],
            sum(agent["count"] for agent in found["agents"].values()),
            sum(point["count"] for point in found["series"]),
            sum(counted(counting).values()),
            counting.api("GET", "overview").json()["totalRequests"],
        )
        assert figures == (number,) * 5


def test_streams_pass_the_gateway_and_end_with_the_server(counting: Server) -> None:
    """What is followed comes at once, through a worker; a server that stops does not wait for it."""
    log = counting.api("GET", "logs?follow=1&lines=1", stream=True)
    output = counting.api(
        "GET", "deployments/logs?domain=localhost&path=/demo&follow=1", stream=True
    )
    events = counting.api("GET", "events", stream=True)
    assert "retry" in next(events.iter_lines()).decode()
    assert next(log.iter_lines())
    counting.call("/demo", "junk")
    assert next(line for line in output.iter_lines() if b"<<< junk" in line)
    began = time.monotonic()
    counting.stop()
    assert time.monotonic() - began < 20, "it waited for streams"
    for stream in (log, output, events):
        assert stream.raw.read() is not None


def test_why_an_instance_died_is_told_after_it_is_gone(counting: Server, tmp_path: Path) -> None:
    """With its exit code and last words: in the deploy's error, releases and logs."""
    files = {"manifest.json": '{"engine": "node", "runTask": "true"}', "index.js": "boom("}
    url = git_repository(tmp_path / "broken", {f"app/{k}": v for k, v in files.items()})
    answer = counting.deploy("/demo", url)
    assert answer.status_code == 422
    details = answer.json()["details"]
    assert (details["step"], details["failedAt"]) == ("probe", "agent")
    place = "domain=localhost&path=/demo"
    releases = counting.api("GET", f"deployments/releases?{place}").json()["releases"]
    assert releases[0]["error"]["failedAt"] == "agent"
    (death,) = releases[0]["deaths"]
    assert death["failedAt"] == "agent"
    assert "SyntaxError" in death["output"]
    output = counting.api("GET", f"deployments/logs?{place}&release=2").text
    assert "SyntaxError" in output


def test_what_instances_use_is_told(counting: Server) -> None:
    """For people, and for Prometheus."""
    place = "deployments/stats?domain=localhost&path=/demo"
    (one,) = counting.api("GET", place).json()["instances"]
    assert one["running"]
    assert one["memoryBytes"] > 1_000_000
    assert one["cpuSeconds"] > 0
    text = requests.get(f"{counting.url}/metrics", timeout=10).text
    assert f'instance="{one["instance"]}"' in text


def test_the_command_line_shows_it(counting: Server) -> None:
    """Metrics as a table and a line of bars, logs, days of logs, and what instances use."""
    type_ = counting.p_cli
    Caller(counting).calls(10)
    until(lambda: sum(counted(counting).values()) == 10, "every call is counted")
    shown = type_("cloud", "metrics", "1h").stdout
    assert "10 in 1h" in shown
    assert "█" in shown
    assert "agent 2" in shown
    as_json = json.loads(type_("cloud", "metrics", "--agent", "app", "--json").stdout)
    assert as_json["agents"]["app"]["commands"]["hello"]["count"] == 8
    assert "running" in type_("cloud", "deployments", "stats", "localhost", "/demo").stdout
    assert "serves release 1" in type_("cloud", "logs", "50", "--about", "localhost/demo").stdout
    day, *_ = type_("cloud", "logs", "list").stdout.split()
    place = type_("cloud", "logs", "download", day).stdout.strip()
    kept = gzip.decompress((counting.directory / place).read_bytes())
    assert all(json.loads(line) for line in kept.splitlines())
    again = type_("cloud", "logs", "download", day, check=False)
    assert (again.returncode, "is there already" in again.stderr) == (5, True)
    assert "hello: 200 served" in type_("cloud", "logs", "1000", "--access").stdout
    counting.call("/demo", "junk")
    output = ("cloud", "logs", "--deployment", "localhost/demo")
    until(lambda: "<<< junk" in type_(*output).stdout, "what the handler printed")
    wrong = type_("cloud", "logs", "yesterday", check=False)
    assert (wrong.returncode, "p-cli cloud logs download" in wrong.stderr) == (5, True)
    assert type_("cloud", "metrics", "1y", check=False).returncode == 1
