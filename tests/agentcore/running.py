"""Real engines as child processes, and clients for all of their wires."""

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
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs

ROOT = Path(__file__).parents[2]
RUN = ROOT / "agentcore" / "run.sh"
AGENTS = Path(__file__).parent / "agents"
FAULTS = Path(__file__).parent / "faults"

#: Long enough for a loaded machine; a test that works never waits so long.
PATIENCE_SECONDS = 20.0

#: Until a deadline that is waited out: a task has begun long before it, on a loaded machine too.
DEADLINE_SECONDS = 2.0

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
            # IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_TO, IN_MOVED_FROM, IN_CREATE, IN_DELETE
            added = library.inotify_add_watch(self._descriptor, bytes(directory), 0x3CA)
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


def wait_for_text(path: Path) -> str:
    """Wait until a file has been written, and give what it holds."""
    return str(Watched(path.parent).until(lambda: path.exists() and path.read_text()))


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


class CutOff(Exception):
    """An answer ended before it was whole."""


def read_body(body: bytes, kind: str) -> Any:
    """Read JSON, or events as a list of (name, data)."""
    if kind != "text/event-stream":
        return json.loads(body)
    events = []
    for text in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in text.split("\n") if not line.startswith(":"))
        if fields:
            events.append((fields.get("event", "message"), json.loads(fields["data"])))
    return events


def connected(path: Path) -> socket.socket:
    """Connect to an engine's socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE_SECONDS)
    connection.connect(str(path))
    return connection


class HttpCall:
    """A call under way on a connection of its own."""

    def __init__(self, path: Path, body: bytes, headers: Mapping[str, str]) -> None:
        self._socket = connected(path)
        head = f"POST /task HTTP/1.1\r\nHost: agent\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._socket.sendall(head.encode() + b"\r\n" + body)

    def cancel(self) -> None:
        self._socket.close()

    def until_begun(self) -> None:
        """Wait until some of the answer has come."""
        assert self._socket.recv(1) == b"H"

    def answer(self) -> Answer:
        response = http.client.HTTPResponse(self._socket)
        try:
            response.begin()
            raw = response.read()
        except (http.client.HTTPException, ConnectionError) as error:
            raise CutOff from error
        finally:
            self._socket.close()
        headers = {k.lower(): v for k, v in response.getheaders()}
        answer = Answer(response.status, read_body(raw, headers["content-type"]), headers)
        assert ("x-ploinky-error" in answer.headers) == (response.status != 200)
        return answer


class FrameCall:
    """A call under way on a connection that carries frames."""

    PREFACE = b"ploinky-frames/1\n"
    WINDOW = 262144

    def __init__(self, path: Path, call: Mapping[str, Any], params: bytes) -> None:
        lines = (call[name] for name in ("id", "command", "user", "requestId"))
        about = struct.pack(">BQ", call["toEvents"], call["deadline"])
        about += "".join(f"{quote(line)}\n" for line in lines).encode()
        self._socket = connected(path)
        self._received = b""
        self.send(1, about + params, preface=self.PREFACE)
        assert self._read(len(self.PREFACE)) == self.PREFACE
        assert self.receive() == (16, 0, struct.pack(">I", 65536))

    def send(self, kind: int, payload: bytes = b"", preface: bytes = b"") -> None:
        """Send one frame."""
        header = struct.pack(">IIB", len(payload), 7, kind)
        self._socket.sendall(preface + header + payload)

    def receive(self) -> tuple[int, int, bytes]:
        """Wait for the next frame: type, id, payload."""
        length, number, kind = struct.unpack(">IIB", self._read(9))
        return kind, number, self._read(length)

    def _read(self, size: int) -> bytes:
        while len(self._received) < size:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise CutOff
            self._received += chunk
        read, self._received = self._received[:size], self._received[size:]
        return read

    def cancel(self) -> None:
        self.send(2)
        while self.receive()[0] in (19, 20):
            pass
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def until_begun(self) -> None:
        """Wait until some of the answer has come."""
        assert self.receive()[0] == 19

    def answer(self) -> Answer:
        body = b""
        unpaid = 0
        headers = {"content-type": "application/json"}
        while True:
            kind, number, payload = self.receive()
            assert number == (0 if kind == 23 else 7)
            if kind == 17:
                return Answer(200, json.loads(payload))
            if kind == 18:
                return Answer(int.from_bytes(payload[:2], "big"), json.loads(payload[2:]))
            if kind == 19 and payload[0]:
                headers["content-type"] = "text/event-stream"
            elif kind == 20:
                body += payload
                unpaid += len(payload)
                if unpaid > self.WINDOW / 2:
                    self.send(3, struct.pack(">I", unpaid))
                    unpaid = 0
            elif kind == 21:
                return Answer(200, read_body(body, headers["content-type"]), headers)
            elif kind == 22:
                raise CutOff


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
        """Send raw bytes as a task; by HTTP where no frame can hold them."""
        if self.wire != "file":
            return HttpCall(self.agent.queue / "agent.sock", body, headers)
        return FileCall(self.agent.queue, name, body)

    def begin(
        self,
        command: object,
        *params: object,
        timeout: float | None = None,
        to_events: bool = False,
        **about: str,
    ) -> HttpCall | FileCall | FrameCall:
        """Send a task, and give the call under way."""
        name = about.get("task_id") or f"t{next(_numbers)}"
        fields: dict[str, object] = {"command": command, "params": params}
        headers = {"X-Ploinky-Task": name}
        if to_events:
            headers["Accept"] = "text/event-stream"
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
        elif (
            self.wire == "frames"
            and isinstance(command, str)
            and len(raw := json.dumps(params)) < 60000
        ):
            call = {
                "id": name,
                "command": command,
                "user": about.get("user", ""),
                "requestId": about.get("request_id", ""),
                "deadline": fields.get("deadline", 0),
                "toEvents": to_events,
            }
            return FrameCall(self.agent.queue / "agent.sock", call, raw.encode())
        else:
            fields = {"command": command, "params": params}
        return self.send(json.dumps(fields).encode(), name, headers)

    def call(self, command: object, *params: object, **about: Any) -> Answer:
        """Send a task and wait for what comes of it."""
        return self.begin(command, *params, **about).answer()

    def raw_frame(self, command: str, params: bytes) -> FrameCall:
        """Send raw bytes as the params of a task."""
        about = {"id": "", "user": "", "requestId": "", "deadline": 0, "toEvents": False}
        call = {"command": command, **about}
        return FrameCall(self.agent.queue / "agent.sock", call, params)

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

    def logged(self, text: str) -> str:
        """Wait until it has printed a line with a text in it, and give that line."""
        found = Watched(self.home).until(
            lambda: [line for line in self.log.split("\n")[:-1] if text in line]
        )
        return str(found[0])

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

    def connect(self) -> socket.socket:
        """Give a new connection to its socket."""
        return connected(self.queue / "agent.sock")

    def get(self, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        """Ask over HTTP for something that is no task."""
        connection = http.client.HTTPConnection("agent")
        connection.sock = self.connect()
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


def late(place: Path, seconds: float, program: str, when: str = "*") -> dict[str, str]:
    """Environment in which a program is late, as on a machine that has much else to do.

    Args:
        place: For what stands in for it.
        when: Which of its arguments, as a pattern of the shell, make it so.
    """
    real = shutil.which(program)
    (place / program).write_text(
        f"""#!/bin/sh
        now() {{ read -r time _ </proc/uptime; time=${{time%.*}}${{time#*.}}; }}
        now
        until=$((time + {seconds * 100:.0f}))
        case "$*" in {when}) while [ "$time" -lt "$until" ]; do now; done ;; esac
        exec {real} "$@"
        """
    )
    (place / program).chmod(0o755)
    return {"PATH": f"{place}:{os.environ['PATH']}"}


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
