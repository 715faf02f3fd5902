"""Which part failed: of calls, durable tasks and deploys, on each runtime.

What is known beside that is kept, and told to those who may know it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.functional.conftest import Server, git_repository, until

SECRET = "needle-in-a-haystack"

AGENT = {
    "manifest.json": '{"container": "python:3.12-alpine", "engine": "python"}',
    "handlers/throws.py": "def handle(params, context):\n    raise ValueError('no')\n",
    "handlers/never.py": "import time\n\ndef handle(params, context):\n    time.sleep(60)\n",
    # The engine, wherever it runs handlers; never anybody outside of the agent.
    "handlers/dies.py": """
import os
import signal

def engines():
    for name in os.listdir("/proc"):
        try:
            said = open(f"/proc/{name}/cmdline", "rb").read() if name.isdigit() else b""
            ours = f"PLOINKY_PATH={os.environ['PLOINKY_PATH']}".encode()
            if b"agentcore" in said.lower() and ours in open(f"/proc/{name}/environ", "rb").read():
                yield int(name)
        except OSError:
            pass

def handle(params, context):
    print("these are the last words of", os.environ["TOKEN"], flush=True)
    for pid in sorted(engines(), key=lambda pid: pid == os.getpid()):
        os.kill(pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
""",
}

EATER = {
    "manifest.json": '{"container": "node:18-alpine", "engine": "node"}',
    "handlers/eats.js": """
const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
module.exports = async () => {
  const eaten = [];
  for (;;) { eaten.push(Buffer.alloc(8e6, 1)); await later(5); }
};
""",
}


@pytest.fixture(scope="module")
def deployed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server with an agent that fails in every way."""
    place = tmp_path_factory.mktemp("repository")
    url = git_repository(place, {f"app/{name}": text for name, text in AGENT.items()})
    answer = server.deploy("/fails", url, secrets={"TOKEN": SECRET}, timeout=2)
    assert answer.status_code == 200, answer.text
    return server


def called(
    server: Server, command: str, path: str = "/fails", *, as_admin: bool = False, **fields: str
) -> Any:
    """Call an agent once it serves; workers hear of that a moment later than the leader."""
    until(lambda: healthy(server, path), "it serves")
    sent = fields | ({"X-API-Key": server.key} if as_admin else {})
    url, body = server.url + path, {"command": command}

    def answered() -> list[requests.Response]:
        answer = requests.post(url, json=body, headers=sent, timeout=60)
        return [answer] if answer.json().get("code") != "NO_HEALTHY_INSTANCE" else []

    (answer,) = until(answered, "a worker knows it, too")
    return answer


def healthy(server: Server, path: str) -> bool:
    """Whether an instance serves."""
    known = server.api("GET", "deployments").json()["deployments"]
    (found,) = (one for one in known if one["path"] == path)
    return bool(found["healthyInstances"])


def part(answer: requests.Response) -> str | None:
    """The part that an answer says failed."""
    return answer.headers.get("X-Ploinky-Failed-At")


def test_calls_say_which_part_failed(deployed: Server) -> None:
    """The request, the agent's code, its time."""
    assert part(requests.post(f"{deployed.url}/nowhere", timeout=10)) == "client"
    assert part(called(deployed, "throws")) == "agent"
    late = called(deployed, "never")
    assert (late.status_code, part(late)) == (504, "timeout")


def test_a_call_that_its_instance_dies_of_says_so(deployed: Server) -> None:
    """With the exit code; the last words are for those who may read them, without the secret."""
    for as_admin in (False, True):
        answer = called(deployed, "dies", as_admin=as_admin)
        details = answer.json()["details"]
        assert (answer.status_code, answer.json()["code"]) == (502, "AGENT_UNREACHABLE")
        assert part(answer) == details["failedAt"] == "agent", answer.text
        assert (details["exitCode"], details["outOfMemory"]) == (137, False)
        assert ("these are the last words of ***" in answer.text) == as_admin
        assert SECRET not in answer.text
    place = "domain=localhost&path=/fails"
    (release,) = deployed.api("GET", f"deployments/releases?{place}").json()["releases"]
    death = release["deaths"][0]
    assert (death["failedAt"], death["exitCode"]) == ("agent", 137)
    assert death["output"].endswith("these are the last words of ***\n")
    said = deployed.api("GET", f"deployments/logs?{place}&release=1").text
    assert said.count("these are the last words of ***") == 2


def test_a_durable_task_that_its_instance_dies_of_says_so(deployed: Server) -> None:
    """In its error, and in the figures: it was not asked again."""
    answer = called(deployed, "dies", Prefer="wait=20")
    assert (answer.status_code, answer.json()["code"]) == (502, "INTERRUPTED")
    assert (part(answer), answer.json()["details"]["exitCode"]) == ("agent", 137)


def test_want_of_memory_is_told(server: Server, tmp_path: Path) -> None:
    """Where the engine tells it; a process is only refused more, by its own limit."""
    url = git_repository(tmp_path / "eater", {f"app/{name}": text for name, text in EATER.items()})
    answer = server.deploy("/eats", url, resources={"memory": "64m"})
    assert answer.status_code == 200, answer.text
    answer = called(server, "eats", "/eats")
    if server.runtime == "process":
        # Whether V8 or the handler is refused first is not ours to say: the one aborts, the other throws.
        code, exit_code = answer.json()["code"], answer.json().get("details", {}).get("exitCode")
        assert (code, exit_code) in {("HANDLER_FAILED", None), ("AGENT_UNREACHABLE", 134)}
        assert part(answer) == "agent", answer.text
        return
    details = answer.json()["details"]
    assert details["exitCode"] == 137, answer.text
    if server.runtime == "podman":  # it does not tell why it killed
        assert "perhaps for want of memory" in answer.json()["message"]
        return
    assert (part(answer), details["outOfMemory"]) == ("memory", True)
    task = called(server, "eats", "/eats", Prefer="wait=20")
    assert (part(task), task.json()["code"]) == ("memory", "INTERRUPTED")

    def counted() -> bool:
        figures = server.api("GET", "metrics?range=1h&agent=localhost/eats").json()
        return figures["agents"]["app"]["commands"]["eats"]["failedAt"] == {"memory": 2}

    until(counted, "both are counted")


SERVES = {"kind": "service", "port": 8000, "health": {"startPeriod": 60}}
NEVER_SERVES = {**SERVES, "health": {"startPeriod": 2, "timeout": 1}}


@pytest.mark.parametrize(
    ("manifest", "expected", "said"),
    [
        ({"install": "echo no compiler; exit 3"}, "install", "no compiler"),
        ({"command": "sleep 600", **NEVER_SERVES}, "probe", ""),
        ({"command": "echo cannot listen; exit 3", **SERVES}, "agent", "cannot listen"),
        ({"command": "no-such-program", **SERVES}, "start", ""),
        ({"container": "localhost/no-such-image:1"}, "image", ""),
    ],
)
def test_a_deploy_says_which_part_failed(
    server: Server, tmp_path: Path, manifest: dict[str, Any], expected: str, said: str
) -> None:
    """With what was printed; also afterwards, of the release that failed."""
    if server.runtime == "process" and expected == "image":
        pytest.skip("there are no images")
    whole = {"container": "python:3.12-alpine", "engine": "python"} | manifest
    files = {"manifest.json": json.dumps(whole), "handlers/a.py": "def handle(p, c):\n    pass\n"}
    url = git_repository(tmp_path / "one", {f"app/{name}": text for name, text in files.items()})
    answer = server.deploy("/deploy", url)
    try:
        assert answer.status_code >= 400, answer.text
        details = answer.json()["details"]
        assert details["failedAt"] == expected, answer.text
        assert said in details["output"]
        place = "domain=localhost&path=/deploy"
        release = server.api("GET", f"deployments/releases?{place}").json()["releases"][0]
        assert release["error"]["failedAt"] == expected
        assert said in server.api("GET", f"deployments/logs?{place}&release=1").text
    finally:
        server.api("DELETE", "deployments", {"domain": "localhost", "path": "/deploy"})


def test_a_source_that_is_not_there_fails_at_the_source(server: Server, tmp_path: Path) -> None:
    """Before anything else was begun."""
    answer = server.deploy("/deploy", f"file://{tmp_path}/nowhere")
    assert answer.json()["details"]["failedAt"] == "source", answer.text
