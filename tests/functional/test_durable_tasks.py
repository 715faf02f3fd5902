"""Calls that outlive their connection, on a real server with real engines: none lost, none twice.

Handlers append a line to a file of their release before they do anything else: what was run, and
how often, is what these files hold.
"""

from __future__ import annotations

import collections
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.functional.conftest import Server, git_repository, until

NODE_AGENT = {
    "manifest.json": '{"container": "node:18-alpine", "engine": "node", "timeout": 120}',
    "index.js": """
const fs = require('fs');
const note = (line) => fs.appendFileSync(`${process.env.AGENT_DIR}/log`, `${line}\\n`);
exports.work = ([name, ms], { signal }) => new Promise((resolve, reject) => {
  note(name);
  const timer = setTimeout(() => resolve({ name }), ms);
  signal.addEventListener('abort', () => { clearTimeout(timer); note(`aborted ${name}`); reject(signal.reason); });
});
exports.fails = () => { throw Object.assign(new Error('no paper'), { status: 500, code: 'NO_PAPER' }); };
""",
}
PYTHON_AGENT = {
    "manifest.json": '{"container": "python:3.12-alpine", "engine": "python", "timeout": 20}',
    "agent.py": """
import asyncio
import os


def note(line):
    with open(os.environ["AGENT_DIR"] + "/log", "a") as file:
        file.write(line + "\\n")


async def work(params, context):
    name, ms = params
    note(name)
    try:
        await asyncio.sleep(ms / 1000)
    except asyncio.CancelledError:
        note("aborted " + name)
        raise
    return {"name": name}
""",
}
SHELL_AGENT = {
    "manifest.json": '{"container": "busybox", "engine": "sh", "timeout": 20}',
    "handlers/work.sh": """#!/bin/sh
trap 'echo "aborted $1" >> "$AGENT_DIR/log"; exit 1' TERM
echo "$1" >> "$AGENT_DIR/log"
sleep "$(($2 / 1000)).$(($2 % 1000))" & wait $!
printf '{"name": "%s"}' "$1"
""",
}
AGENTS = {"node": NODE_AGENT, "python": PYTHON_AGENT, "sh": SHELL_AGENT}


class Agent:
    """A deployed agent, and what its handlers wrote down."""

    def __init__(self, server: Server, path: str, repository: Path) -> None:
        self.server = server
        self.path = path
        self.repository = repository

    def deploy(self, **settings: Any) -> None:
        """Deploy it, or deploy it again."""
        answer = self.server.deploy(self.path, f"file://{self.repository}", **settings)
        assert answer.status_code == 200, answer.text
        self.id = answer.json()["deployment"]["id"]

    def lines(self) -> list[str]:
        """What was written down, by all releases."""
        releases = self.server.directory / ".ploinky-cloud/deployments" / self.id / "releases"
        return [line for log in releases.glob("*/log") for line in log.read_text().splitlines()]

    def call(self, *params: Any, command: str = "work", **fields: str) -> requests.Response:
        """Call it; `fields` are header fields, with `_` for `-`."""
        return requests.post(
            self.server.url + self.path,
            json={"command": command, "params": list(params)},
            headers={name.replace("_", "-"): value for name, value in fields.items()},
            timeout=60,
        )

    def begin(self, *params: Any, command: str = "work") -> str:
        """Call it and do not wait; gives the task's id."""
        answer = self.call(*params, command=command, Prefer="respond-async")
        assert answer.status_code == 202, answer.text
        task: str = answer.json()["taskId"]
        return task

    def task(self, task: str, wait: int = 0) -> dict[str, Any]:
        """How a task stands."""
        query = {"wait": wait} if wait else {}
        url = f"{self.server.url}/_ploinky/tasks/{task}"
        found: dict[str, Any] = requests.get(url, params=query, timeout=60).json()
        return found


@pytest.fixture(params=AGENTS)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine of AgentCore in turn."""
    return str(request.param)


@pytest.fixture
def agent(server: Server, engine: str, tmp_path: Path) -> Iterator[Agent]:
    """An agent of each engine, served."""
    git_repository(tmp_path / "agent", AGENTS[engine])
    agent = Agent(server, f"/{engine}", tmp_path / "agent")
    agent.deploy()
    yield agent
    server.api("DELETE", "deployments", {"domain": "localhost", "path": agent.path})


@pytest.fixture
def node(server: Server, tmp_path: Path) -> Iterator[Agent]:
    """The agent in Node alone."""
    git_repository(tmp_path / "node", NODE_AGENT)
    agent = Agent(server, "/node-alone", tmp_path / "node")
    agent.deploy()
    yield agent
    server.api("DELETE", "deployments", {"domain": "localhost", "path": agent.path})


def test_a_call_that_is_not_waited_for(agent: Agent) -> None:
    """202 at once, with a place to look; the result is there when it is done."""
    answer = agent.call("one", 200, Prefer="respond-async")
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"
    task = answer.json()["taskId"]
    assert answer.headers["Location"] == answer.json()["href"] == f"/_ploinky/tasks/{task}"
    found = agent.task(task, wait=10)
    assert (found["status"], found["attempts"]) == ("succeeded", 1)
    assert found["result"] == {"name": "one"}
    assert agent.lines() == ["one"]


def test_a_call_that_is_waited_for_so_long(agent: Agent) -> None:
    """The result if it comes in time, as any other call's; else 202."""
    quick = agent.call("quick", 10, Prefer="wait=10")
    assert (quick.status_code, quick.json()) == (200, {"name": "quick"})
    slow = agent.call("slow", 3000, Prefer="wait=1")
    assert slow.status_code == 202
    assert agent.task(slow.json()["taskId"], wait=10)["status"] == "succeeded"


def test_a_repeat_gets_the_first_answer(agent: Agent) -> None:
    """Eight at once on connections of their own, so through both workers: one run, one answer."""
    with ThreadPoolExecutor(8) as callers:
        calls = [callers.submit(agent.call, "once", 300, Idempotency_Key="k") for _ in range(8)]
        answers = [call.result() for call in calls]
    assert [(a.status_code, a.json()) for a in answers] == [(200, {"name": "once"})] * 8
    other = agent.call("twice", 300, Idempotency_Key="k")
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert agent.lines() == ["once"]


def test_cancelling_reaches_a_running_handler(agent: Agent) -> None:
    """The handler is told, the task is cancelled, and stays so."""
    task = agent.begin("long", 15_000)
    until(lambda: agent.lines() == ["long"], "the handler has begun")
    answer = requests.delete(f"{agent.server.url}/_ploinky/tasks/{task}", timeout=10)
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    until(lambda: agent.lines() == ["long", "aborted long"], "the handler was aborted")
    assert agent.task(task)["status"] == "cancelled"
    again = requests.delete(f"{agent.server.url}/_ploinky/tasks/{task}", timeout=10)
    assert again.json()["status"] == "cancelled"


def test_a_leader_that_is_killed_loses_no_task(agent: Agent) -> None:
    """kill -9 with tasks running: the next leader has every result, and each ran once."""
    tasks = {agent.begin(f"task-{number}", 1000): f"task-{number}" for number in range(20)}
    agent.server.kill_leader()
    refused = agent.call("late", 0, Prefer="respond-async")
    assert (refused.status_code, refused.json()["code"]) == (503, "DRAINING")
    agent.server.start()
    results = {task: agent.task(task, wait=20).get("result") for task in tasks}
    assert results == {task: {"name": name} for task, name in tasks.items()}
    assert sorted(agent.lines()) == sorted(tasks.values())


def test_an_engine_that_is_killed_interrupts_its_tasks(node: Agent, runtime: str) -> None:
    """They fail and say that their effect is not known, soon; they are not run again."""
    task = node.begin("lost", 15_000)
    until(lambda: node.lines() == ["lost"], "the handler has begun")
    began = time.monotonic()
    _kill_engine(node)
    found = node.task(task, wait=15)
    assert (found["status"], found["error"]["code"]) == ("failed", "INTERRUPTED")
    assert time.monotonic() - began < 12
    assert node.task(node.begin("next", 0), wait=15)["status"] == "succeeded"
    assert node.lines() == ["lost", "next"]


def test_an_agent_that_may_be_run_again_is(node: Agent) -> None:
    """With `retries` in the manifest, what was interrupted is run once more."""
    node.deploy(retries=1)
    task = node.begin("twice", 2000)
    until(lambda: node.lines() == ["twice"], "the handler has begun")
    _kill_engine(node)
    found = node.task(task, wait=30)
    assert (found["status"], found["attempts"]) == ("succeeded", 2)
    assert node.lines() == ["twice", "twice"]


def test_a_deploy_moves_what_has_not_begun(node: Agent) -> None:
    """Two hundred tasks, two deploys in their middle: every one is run, by one release, once."""
    node.deploy(concurrency=4)
    with ThreadPoolExecutor(8) as callers:
        names = [f"task-{number}" for number in range(200)]
        tasks = list(callers.map(lambda name: node.begin(name, 50), names))
        node.deploy(concurrency=4)
        node.deploy(concurrency=4)
        found = list(callers.map(lambda task: node.task(task, wait=60), tasks))
    assert collections.Counter(task["status"] for task in found) == {"succeeded": 200}
    assert [task["result"]["name"] for task in found] == names
    assert sorted(node.lines()) == sorted(names)


def test_what_failed_is_listed_and_can_be_retried(node: Agent) -> None:
    """A dead letter has its error; a retry is another attempt."""
    task = node.begin(command="fails")
    found = node.task(task, wait=10)
    assert (found["status"], found["error"]["code"]) == ("failed", "NO_PAPER")
    dead = node.server.api("GET", f"tasks/dead?path={node.path}").json()
    assert dead["tasks"][0]["taskId"] == task
    assert node.server.api("POST", f"tasks/{task}/retry").json()["status"] in ("queued", "running")
    found = node.task(task, wait=10)
    assert (found["status"], found["attempts"]) == ("failed", 2)


def test_nobody_hands_in_tasks_but_workers(node: Agent) -> None:
    """What looks like a worker's own request is a client's, and goes nowhere."""
    fields = {
        "X-Ploinky-Task": "t-forged",
        "X-Ploinky-Deployment": node.id,
        "X-Ploinky-Command": "work",
        "X-Ploinky-User": "Admin",
        "X-Ploinky-Wait": "0",
        "X-Ploinky-Async": "1",
    }
    for path in ("/internal/tasks", "/_ploinky/internal/tasks", "/management/internal/tasks"):
        answer = requests.post(node.server.url + path, "[]", headers=fields, timeout=10)
        assert answer.status_code == 404, path
    assert node.task("t-forged")["code"] == "NOT_FOUND"


def test_p_cli_follows_a_task(node: Agent) -> None:
    """`client task`, `task-status`, `call`, and `cloud call --async`."""
    p_cli = node.server.p_cli
    task = p_cli("client", "task", node.path, "work", "--params", '["cli", 10]').stdout.strip()
    shown = p_cli("client", "task-status", task, "--wait", "10").stdout
    assert "succeeded" in shown
    assert '{"name": "cli"}' in shown
    receipt = p_cli("cloud", "call", node.path, "work", "--params", '["x", 1]', "--async").stdout
    assert '"taskId"' in receipt
    listed = p_cli("client", "methods", node.path, "--json").stdout
    assert [one["name"] for one in json.loads(listed)["commands"]] == ["fails", "work"]
    failed = p_cli("client", "task", node.path, "fails").stdout.strip()
    ended = p_cli("client", "task-status", failed, "--wait", "10", check=False)
    assert (ended.returncode, "no paper" in ended.stderr) == (4, True)


def test_p_cli_shows_tasks_to_who_looks_after_them(node: Agent) -> None:
    """In pages, by state and deployment; dead letters, one with its error, cancel and retry."""
    p_cli = node.server.p_cli
    here = ("--deployment", f"localhost{node.path}")
    failed = node.begin(command="fails")
    assert node.task(failed, wait=10)["status"] == "failed"
    lost = node.begin("lost", 600_000)
    until(lambda: node.task(lost)["status"] == "running", "it has begun")
    page = p_cli("cloud", "tasks", "list", *here, "--lines", "1")
    assert page.stdout.splitlines()[1].split()[:4] == [lost, here[1], "work", "running"]
    assert re.fullmatch(r"\d+ more: --page 2\n", page.stderr)  # others here made tasks too
    assert failed in p_cli("cloud", "tasks", "list", *here, "--lines", "1", "--page", "2").stdout
    chosen = p_cli("cloud", "tasks", "list", *here, "--state", "failed", "--state", "queued").stdout
    assert failed in chosen
    assert lost not in chosen
    assert "1 attempts" not in chosen
    assert failed in p_cli("cloud", "tasks", "dead", *here).stdout
    assert "no paper" in p_cli("cloud", "tasks", "show", failed).stdout
    assert "is cancelled" in p_cli("cloud", "tasks", "cancel", lost).stdout
    assert node.task(lost)["status"] == "cancelled"
    assert "queued again" in p_cli("cloud", "tasks", "retry", failed).stdout
    assert node.task(failed, wait=10)["attempts"] == 2
    none = p_cli("cloud", "tasks", "show", "t-none", check=False)
    assert (none.returncode, "no task t-none" in none.stderr) == (1, True)


def _kill_engine(agent: Agent) -> None:
    """kill -9 every process of the agent's, from outside of its container."""
    mark = f"PLOINKY_PATH={agent.path}\0".encode()
    killed = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(process.name)
        except OSError:
            continue
    assert killed
