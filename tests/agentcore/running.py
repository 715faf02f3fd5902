"""Real engines as child processes, and clients for both of their wires."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).parents[2]
RUN = ROOT / "agentcore" / "run.sh"
AGENTS = Path(__file__).parent / "agents"
FAULTS = Path(__file__).parent / "faults"

#: Long enough for a loaded machine; a test that works never waits so long.
PATIENCE_SECONDS = 20.0

_numbers = itertools.count(1)


@attrs.frozen
class Engine:
    """A way to run agents on this machine."""

    name: str
    shell: tuple[str, ...] = ("sh",)

    @property
    def is_in_process(self) -> bool:
        return self.name in ("node", "python")


ENGINES = {
    "node": Engine("node"),
    "python": Engine("python"),
    "dash": Engine("sh"),
    "busybox": Engine("sh", ("busybox", "sh")),
}


class Watched:
    """A directory whose changes can be waited for (inotify)."""

    def __init__(self, *directories: Path) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._descriptor >= 0, os.strerror(ctypes.get_errno())
        for directory in directories:
            # IN_CLOSE_WRITE, IN_MOVED_TO, IN_MOVED_FROM, IN_CREATE, IN_DELETE
            added = library.inotify_add_watch(self._descriptor, bytes(directory), 0x3C8)
            assert added >= 0, os.strerror(ctypes.get_errno())

    def until(self, condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
        """Wait until the condition gives something true, and give that."""
        limit = time.monotonic() + seconds
        try:
            while True:
                found = condition()
                if found:
                    return found
                left = limit - time.monotonic()
                assert left > 0, "it did not happen in time"
                select.select([self._descriptor], [], [], left)
                with contextlib.suppress(BlockingIOError):
                    os.read(self._descriptor, 65536)
        finally:
            os.close(self._descriptor)


def wait_for(path: Path, seconds: float = PATIENCE_SECONDS) -> Path:
    """Wait until a file is there."""
    Watched(path.parent).until(path.exists, seconds)
    return path


def wait_for_end(pid: int, seconds: float = PATIENCE_SECONDS) -> bool:
    """Wait until a process has ended; False if it did not in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


@attrs.frozen
class Answer:
    """What came of a call, whichever wire it took."""

    status: int
    body: Any
    headers: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def code(self) -> str:
        return str(self.body["code"])

    @property
    def message(self) -> str:
        return str(self.body["message"])


class HttpCall:
    """A call under way on a connection of its own."""

    def __init__(self, path: Path, body: bytes, headers: Mapping[str, str]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_SECONDS)
        self._socket.connect(str(path))
        head = f"POST /task HTTP/1.1\r\nHost: agent\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._socket.sendall(head.encode() + b"\r\n" + body)

    def cancel(self) -> None:
        self._socket.close()

    def answer(self) -> Answer:
        response = http.client.HTTPResponse(self._socket)
        response.begin()
        body = json.loads(response.read())
        self._socket.close()
        answer = Answer(response.status, body, {k.lower(): v for k, v in response.getheaders()})
        assert ("x-ploinky-error" in answer.headers) == (response.status != 200)
        return answer


class FileCall:
    """A call under way in the queue directory."""

    def __init__(self, queue: Path, name: str, body: bytes | None) -> None:
        self._queue = queue
        self.id = name
        if body is None:
            return  # queued before
        (queue / "tmp" / f"{name}.in").write_bytes(body)
        (queue / "tmp" / f"{name}.in").rename(queue / "tasks" / name)

    def cancel(self) -> None:
        (self._queue / "tasks" / self.id).unlink()

    def answer(self) -> Answer:
        result, error = self._queue / "results" / self.id, self._queue / "errors" / self.id
        watched = Watched(result.parent, error.parent)
        outcome = watched.until(lambda: next((p for p in (result, error) if p.exists()), None))
        document = json.loads(outcome.read_bytes())
        outcome.unlink()
        assert document.pop("id") == self.id
        if outcome == result:
            assert list(document) == ["data"]
            return Answer(200, document["data"])
        return Answer(document["error"].pop("status"), document["error"])


@attrs.frozen
class Client:
    """Calls an agent over one wire."""

    agent: Agent
    wire: str

    @property
    def engine(self) -> Engine:
        return self.agent.engine

    def send(self, body: bytes, name: str, headers: Mapping[str, str]) -> HttpCall | FileCall:
        """Send raw bytes as a task."""
        if self.wire == "http":
            return HttpCall(self.agent.queue / "agent.sock", body, headers)
        return FileCall(self.agent.queue, name, body)

    def begin(
        self, command: object, *params: object, timeout: float | None = None, **about: str
    ) -> HttpCall | FileCall:
        """Send a task, and give the call under way."""
        name = about.get("task_id") or f"t{next(_numbers)}"
        fields: dict[str, object] = {"command": command, "params": params}
        headers = {"X-Ploinky-Task": name}
        if timeout is not None:
            deadline = int((time.time() + timeout) * 1000)
            headers["X-Ploinky-Deadline"] = str(deadline)
            fields["deadline"] = deadline
        if "user" in about:
            headers["X-Ploinky-User"] = fields["user"] = about["user"]
        if "request_id" in about:
            headers["X-Request-Id"] = fields["requestId"] = about["request_id"]
        if self.wire == "file":
            fields["id"] = name
        else:
            fields = {"command": command, "params": params}
        return self.send(json.dumps(fields).encode(), name, headers)

    def call(self, command: object, *params: object, **about: Any) -> Answer:
        """Send a task and wait for what comes of it."""
        return self.begin(command, *params, **about).answer()

    def call_raw(self, body: bytes) -> Answer:
        """Send raw bytes as a task and wait for what comes of it."""
        return self.send(body, f"t{next(_numbers)}", {}).answer()


class Agent:
    """An agent that runs; its directory and queue are its own."""

    def __init__(self, engine: Engine, source: Path | None = None, **environment: str) -> None:
        self.engine = engine
        self.home = Path(tempfile.mkdtemp(prefix="ac"))
        self.directory = self.home / "agent"
        self.queue = self.home / "queue"
        self.queue.mkdir()
        if source:
            shutil.copytree(source, self.directory)
        else:
            self.directory.mkdir()
        self._environment = environment
        self._log = (self.home / "log").open("wb")
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, name: str, text: str) -> None:
        """Write a file of the agent's."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def spawn(self) -> Agent:
        """Start it, and do not wait for anything."""
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PORT"},
            "AGENT_DIR": str(self.directory),
            "PLOINKY_QUEUE": str(self.queue),
            "PLOINKY_TRANSPORT": "file",
            "PLOINKY_ENGINE": self.engine.name,
            **self._environment,
        }
        self.process = subprocess.Popen(
            [*self.engine.shell, str(RUN)], env=environment, stdout=self._log, stderr=self._log
        )
        return self

    def change_environment(self, **environment: str) -> None:
        """Set variables for its next start."""
        self._environment.update(environment)

    def start(self) -> Agent:
        """Start it and wait until it is ready."""
        self.spawn()
        outcomes = self.queue / "ready", self.queue / "failed"
        Watched(self.queue).until(lambda: any(outcome.exists() for outcome in outcomes))
        assert outcomes[0].exists(), self.log
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """What it printed so far."""
        return (self.home / "log").read_text()

    @property
    def ready(self) -> Any:
        return json.loads((self.queue / "ready").read_bytes())

    def failure(self) -> Any:
        """Wait until it gave up, and give the reason that it left."""
        assert self.process is not None
        assert self.process.wait(PATIENCE_SECONDS) == 1
        return json.loads((self.queue / "failed").read_bytes())

    def client(self, wire: str) -> Client:
        return Client(self, wire)

    def get(self, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        """Ask over HTTP for something that is no task."""
        connection = http.client.HTTPConnection("agent")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE_SECONDS)
        connection.sock.connect(str(self.queue / "agent.sock"))
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = Answer(
            response.status,
            json.loads(response.read()),
            {name.lower(): value for name, value in response.getheaders()},
        )
        connection.close()
        return answer

    def tell_to_stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait until it has ended, and give its exit status."""
        assert self.process is not None
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        """End it, whatever it does, and remove what it left."""
        if self.process and self.process.poll() is None:
            self.tell_to_stop()
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()
        shutil.rmtree(self.home, ignore_errors=True)


def faults(engine: str, place: Path) -> dict[str, str]:
    """Environment in which an engine never rescans, and ends where `FAULT_AFTER` says.

    Args:
        place: For commands that stand in for those of the sh engine, which does rescan.
    """
    if engine == "node":
        return {"NODE_OPTIONS": f"--require={FAULTS / 'kill.js'}"}
    if engine == "python":
        return {"PYTHONPATH": str(FAULTS / "python")}
    for command in ("mkdir", "mv", "rm", "rmdir"):
        (place / command).symlink_to(FAULTS / "kill.sh")
    return {"PATH": f"{place}:{os.environ['PATH']}"}
