"""Uploads to real agents: the file arrives where the handler can read it, and is gone afterwards."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.functional.conftest import Server, git_repository, until

EXAMPLE = Path(__file__).parents[2] / "examples/agents/demo/handlers"
UPLOADERS = {
    "node": {
        "manifest.json": '{"container": "node:18-alpine", "engine": "node"}',
        "handlers/upload.js": (EXAMPLE / "upload.js").read_text(),
        "handlers/wait.js": "module.exports = () => 1;",
    },
    "python": {
        "manifest.json": '{"container": "python:3.12-alpine", "engine": "python"}',
        "handlers/upload.py": (EXAMPLE / "upload.py").read_text(),
    },
    "file": {
        "manifest.json": (
            '{"container": "node:18-alpine", "engine": "sh", "transport": "file",'
            ' "maxUploadBytes": 100000, "commands": {"upload": "printf %s"}}'
        ),
    },
}
SLOW = {
    "manifest.json": '{"container": "node:18-alpine", "engine": "node"}',
    "handlers/upload.js": "module.exports = () => new Promise(() => {});",
    "handlers/hello.js": "module.exports = () => 'hello';",
}


@pytest.fixture(params=sorted(UPLOADERS))
def deployed(
    request: pytest.FixtureRequest, server: Server, tmp_path: Path
) -> Iterator[tuple[Server, str]]:
    """An agent that takes uploads, at `/up`; and which one."""
    engine: str = request.param
    url = git_repository(tmp_path / "agent", UPLOADERS[engine])
    answer = server.deploy("/up", url)
    assert answer.status_code == 200, answer.text
    yield server, engine
    server.api("DELETE", "deployments", {"domain": "localhost", "path": "/up"})


def left(server: Server) -> list[str]:
    """What uploads left on the server's disk."""
    run = server.directory / ".ploinky-cloud/run"
    # `Path.glob` fails on a directory that goes while it looks.
    return [path for place in ("uploads/*/*", "i/*/uploads/*") for path in glob(str(run / place))]


def test_an_upload_reaches_the_handler(deployed: tuple[Server, str]) -> None:
    """On every runtime, by every engine and wire, with the path as the agent sees it."""
    server, engine = deployed
    content = os.urandom(50_000)
    files = [("file", ("one.bin", content, "image/png")), ("file", ("two", b"2"))]
    answer = requests.post(
        f"{server.url}/up/upload", files=files, data={"metadata": '{"a": [1]}'}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["name"], said["size"], said["metadata"]) == ("one.bin", 50_000, {"a": [1]})
    if engine == "file":  # the command says what it was called with, and reads nothing
        assert said["type"] == "image/png"
        assert [one["size"] for one in said["files"]] == [50_000, 1]
    else:
        assert said["sha256"] == hashlib.sha256(content).hexdigest()
    until(lambda: not left(server), "the files are gone")


def test_a_manifest_may_allow_less(deployed: tuple[Server, str]) -> None:
    server, engine = deployed
    answer = requests.post(f"{server.url}/up/upload", files={"file": b"x" * 200_000}, timeout=60)
    assert answer.status_code == (413 if engine == "file" else 200)


@pytest.mark.program("curl")
def test_a_large_upload_leaves_others_alone(server: Server, tmp_path: Path) -> None:
    """Half a gigabyte, by curl, while another client is answered all the time."""
    answer = server.deploy("/up", git_repository(tmp_path / "agent", UPLOADERS["node"]))
    assert answer.status_code == 200, answer.text
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(512 * 1024 * 1024)
    sending = subprocess.Popen(
        ["curl", "-sS", "-F", f"file=@{large}", f"{server.url}/up/upload"], stdout=subprocess.PIPE
    )
    slowest = 0.0
    while sending.poll() is None:
        answer = server.call("/up", "wait")
        assert answer.json() == 1
        slowest = max(slowest, answer.elapsed.total_seconds())
    printed, _ = sending.communicate()
    assert b'"size":536870912' in printed
    assert slowest < 5
    server.api("DELETE", "deployments", {"domain": "localhost", "path": "/up"})


def test_an_agent_without_the_command_says_so(server: Server, tmp_path: Path) -> None:
    files = {name: text for name, text in SLOW.items() if "upload" not in name}
    assert server.deploy("/up", git_repository(tmp_path / "agent", files)).status_code == 200
    answer = requests.post(f"{server.url}/up/upload", files={"file": b"x"}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (404, "UNKNOWN_COMMAND")
    assert answer.json()["details"]["commands"] == ["hello"]
    until(lambda: not left(server), "the files are gone")
    server.api("DELETE", "deployments", {"domain": "localhost", "path": "/up"})


def test_a_killed_worker_leaves_no_files(server: Server, tmp_path: Path) -> None:
    """kill -9 with an upload in hand: the worker that takes its place sweeps."""
    assert server.deploy("/up", git_repository(tmp_path / "agent", SLOW)).status_code == 200
    workers = server.worker_pids()

    def send() -> Any:
        try:
            return requests.post(f"{server.url}/up/upload", files={"file": b"x"}, timeout=60)
        except requests.ConnectionError:
            return None

    with ThreadPoolExecutor(1) as sender:
        sending = sender.submit(send)
        until(lambda: left(server), "the agent has the file")
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        assert sending.result(30) is None
    until(lambda: not left(server), "the files are swept")
    until(lambda: len(set(server.worker_pids()) - set(workers)) == 2, "the workers are replaced")
    assert server.call("/up", "hello").json() == "hello"
    server.api("DELETE", "deployments", {"domain": "localhost", "path": "/up"})
