"""Which engine is taken, and what is said where none can serve the agent."""

from __future__ import annotations

import json
import os
import shutil
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agentcore.conftest import require
from tests.agentcore.running import PATIENCE_SECONDS, Agent

Make = Callable[..., Agent]


def test_broken_manifest_names_the_place(make: Make, engine: str) -> None:
    """By line and column; on stderr too."""
    agent = make(engine)
    agent.write("manifest.json", '{\n  "commands": {"a": "b"},\n}\n')
    failure = agent.spawn().failure()
    assert failure["code"] == "MANIFEST_INVALID"
    assert "line 3, column 1" in failure["message"]
    assert "MANIFEST_INVALID" in agent.log
    assert not (agent.queue / "ready").exists()


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("[]", "expected an object"),
        ('{"commands": []}', "commands: expected an object"),
        ('{"commands": {"a": 1}}', "commands.a: expected a string"),
        ('{"commands": {"../a": "b"}}', "../a"),
        ('{"runTask": ["a"]}', "runTask: expected a string"),
        ('{"timeout": "1"}', "timeout: expected a number"),
        ('{"concurrency": 0}', "concurrency: expected a"),
    ],
)
def test_wrong_manifest_names_the_field(
    make: Make, engine: str, manifest: str, message: str
) -> None:
    """And what was expected."""
    agent = make(engine)
    agent.write("manifest.json", manifest)
    failure = agent.spawn().failure()
    assert failure["code"] == "MANIFEST_INVALID"
    assert message in failure["message"]


@pytest.mark.parametrize(
    ("engine", "file", "text", "message"),
    [
        ("node", "index.js", "throw new Error('no good');", "no good"),
        ("node", "index.js", "module.exports = {", "index.js"),
        ("node", "index.mjs", "import './nothere.mjs';", "nothere.mjs"),
        ("node", "index.js", "process.exit(5)", "exit status 5"),
        ("python", "agent.py", "raise ValueError('no good')", "no good"),
        ("python", "agent.py", "def broken(:", "agent.py"),
        ("python", "agent.py", "import os; os._exit(5)", "os._exit(5)"),
    ],
)
def test_agent_that_cannot_be_loaded_says_why(
    make: Make, engine: str, file: str, text: str, message: str
) -> None:
    """The error that it raised."""
    agent = make(engine)
    agent.write(file, text)
    failure = agent.spawn().failure()
    assert failure["code"] == "AGENT_BROKEN"
    assert message in failure["message"]


def test_agent_without_anything_starts(make: Make, engine: str) -> None:
    """And has no commands."""
    agent = make(engine).start()
    answer = agent.client("file").call("hello")
    assert answer.code == "UNKNOWN_COMMAND"
    assert answer.body["details"] == {"commands": []}


@pytest.fixture
def blocked_queue(tmp_path: Path) -> Path:
    """A queue with something else where the socket belongs."""
    (tmp_path / "queue" / "agent.sock").mkdir(parents=True)
    return tmp_path / "queue"


@pytest.mark.parametrize("engine", ["node", "python"])
def test_socket_that_cannot_be_is_explained(make: Make, engine: str, blocked_queue: Path) -> None:
    """By its path, with the system's word."""
    agent = make(engine, PLOINKY_QUEUE=str(blocked_queue))
    agent.queue = blocked_queue
    failure = agent.spawn().failure()
    assert failure["code"] == "QUEUE_UNUSABLE"
    assert "agent.sock" in failure["message"]


@pytest.mark.parametrize("engine", ["node", "python"])
def test_port_serves_where_the_socket_cannot(make: Make, engine: str, blocked_queue: Path) -> None:
    """Also where it is the only way in."""
    with socket.socket() as kept:
        # Bound, it is given to nobody who asks for any port; not listened on, the engine may.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        agent = make(engine, "everything", PLOINKY_QUEUE=str(blocked_queue), PORT=str(port))
        agent.queue = blocked_queue
        agent.start()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20) as answer:
        assert json.load(answer) == {"status": "ok", "inflight": 0}


@pytest.mark.parametrize("engine", ["node", "python"])
def test_socket_may_lie_deep(make: Make, engine: str, tmp_path: Path) -> None:
    """Deeper than the path of a socket may be long."""
    queue = tmp_path / ("x" * 100)
    queue.mkdir()
    agent = make(engine, "everything", PLOINKY_QUEUE=str(queue))
    agent.queue = queue
    agent.start()
    place = os.open(queue, os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"/proc/self/fd/{place}/agent.sock")
        client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert client.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.0 200")
    os.close(place)


def test_engine_that_is_not_known_is_refused(make: Make) -> None:
    """By name."""
    failure = make("dash", PLOINKY_ENGINE="ruby").spawn().failure()
    assert failure["code"] == "ENGINE_UNKNOWN"
    assert "ruby" in failure["message"]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH with what busybox has, and nothing else."""
    for tool in ("sh", "od", "awk", "tr", "mkdir", "mv", "rm", "rmdir", "grep", "date", "dirname",
                 "sleep", "setsid", "cat", "wc", "mkfifo", "tail", "find", "sort", "sed"):  # fmt: skip
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    return tmp_path


def test_engine_that_is_missing_is_named(make: Make, programs: Path) -> None:
    """Where the agent asks for it."""
    agent = make("dash", PLOINKY_ENGINE="", PATH=str(programs))
    agent.write("manifest.json", '{"engine": "node"}')
    failure = agent.spawn().failure()
    assert failure["code"] == "ENGINE_MISSING"
    assert "node" in failure["message"]


def test_old_versions_are_passed_over(make: Make, programs: Path) -> None:
    """Node 12 and Python 3.7 are as good as none."""
    for name, version in (
        ("node", "v12.22.0"),
        ("python3", "Python 3.7.9"),
        ("python", "Python 2.7.18"),
    ):
        (programs / name).write_text(f"#!/bin/sh\necho '{version}'\n")
        (programs / name).chmod(0o755)
    agent = make("dash", "everything", PLOINKY_ENGINE="", PATH=str(programs)).start()
    assert agent.ready["engine"] == "sh"
    assert agent.client("file").call("hello", "World").body == {"message": "Hello World"}


def test_options_that_node_refuses_are_said(make: Make) -> None:
    """No other engine takes its place, which would not know the agent's functions."""
    require("node")
    options = {"NODE_OPTIONS": "--no-such-option"}
    agent = make("dash", "everything", PLOINKY_ENGINE="", **options).spawn()
    assert agent.process is not None
    assert agent.process.wait(PATIENCE_SECONDS) != 0
    assert "NODE_OPTIONS" in agent.log
    assert not (agent.queue / "ready").exists()


@pytest.mark.parametrize(
    ("files", "engine"),
    [
        ({"agent.py": ""}, "python"),
        ({"handlers/hello.py": ""}, "python"),
        ({"handlers/hello.py": "", "handlers/hello.js": ""}, "node"),
        ({"index.js": "", "agent.py": ""}, "node"),
        ({"handlers/hello.sh": ""}, "node"),
        ({"agent.py": "", "manifest.json": '{"engine": "node"}'}, "node"),
        ({"index.js": "", "manifest.json": '{"engine": "sh"}'}, "sh"),
    ],
)
def test_engine_follows_the_code(make: Make, files: dict[str, str], engine: str) -> None:
    """Where all are there: the one named, else Node, unless there is only Python."""
    require("node")
    agent = make("dash", PLOINKY_ENGINE="")
    for name, text in files.items():
        agent.write(name, text)
    assert agent.start().ready["engine"] == engine


def test_handler_in_another_language_is_pointed_out(make: Make, engine: str) -> None:
    """A Node handler in an image without Node is a mistake that is easy to make."""
    agent = make(engine)
    other = "handlers/hello.py" if engine == "node" else "handlers/hello.js"
    agent.write(other, "")
    answer = agent.start().client("file").call("hello")
    assert answer.code == "UNKNOWN_COMMAND"
    assert other in answer.message
