"""What a request costs inside: the functions that it goes through, and their interpreter steps.

Not a time, and so the same on every machine and in every run: a worker's own rooms in one
process (``python -m benchmarks.steps KIND``), a backend and clients on sockets beside them, and
the interpreter's own tracing counts the steps (bytecodes) of each function.  Calls into C, and
the kernel, count as one step each: about half of a request's time is theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from attrs import evolve

from benchmarks.bench import Bench
from benchmarks.report import Result
from benchmarks.rivals import BODY, TOKEN
from ploinky.tasks.frames import HELLO, LARGEST_PAYLOAD, PREFACE, RESULT

TITLE = "Inside: functions and interpreter steps of one request"

_CLIENTS = 32
_ROUNDS = 20
_KINDS = {
    "same": "equal heads",
    "heads": "traceparent and cookie differ",
    "targets": "targets differ",
    "routes": "another deployment each time",
    "anew": "another deployment and other fields each time",
    "tasks": "a task in a frame",
    "once": "a connection for each request",
}
_CALL = '{"command":"hello","params":["World"]}'
_SHOWN = 30


def run(bench: Bench) -> Result:
    """Count them."""
    found = {kind: _counted(kind) for kind in _KINDS}
    same = found["same"]
    names = sorted(same, key=lambda name: -same[name][1])[:_SHOWN]
    lines: list[list[str | float]] = [[name, *same[name]] for name in names]
    lines.append(["all, equal heads", *_sums(same)])
    lines += [[f"all, {_KINDS[kind]}", *_sums(found[kind])] for kind in _KINDS if kind != "same"]
    return Result(
        name="steps",
        title=TITLE,
        columns=["function", "calls", "steps"],
        lines=lines,
        notes=["Whoever makes the short way longer sees it here, whatever else the machine does."],
    )


def _counted(kind: str) -> dict[str, tuple[float, float]]:
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.steps", kind],
        check=True,
        capture_output=True,
        timeout=120,
        cwd=Path(__file__).parent.parent,
    )
    return {name: tuple(counts) for name, counts in json.loads(told.stdout).items()}


def _sums(found: dict[str, tuple[float, float]]) -> tuple[float, float]:
    return sum(calls for calls, _ in found.values()), sum(steps for _, steps in found.values())


class _Backend:
    """Answers whatever comes, between two turns of the reactor."""

    _ANSWER = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY.encode())
    )

    def __init__(self, path: str) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen(1024)
        self._listening.setblocking(False)
        self._epoll = select.epoll()
        self._open: dict[int, socket.socket] = {}

    def answer(self) -> int:
        """Answer what has come; give how much that was."""
        while True:
            try:
                accepted, _ = self._listening.accept()
            except BlockingIOError:
                break
            self._open[accepted.fileno()] = accepted
            self._epoll.register(accepted, select.EPOLLIN)
        return sum(self._reply(self._open[number]) for number, _ in self._epoll.poll(0))

    def _reply(self, to: socket.socket) -> int:
        to.recv(65536)
        to.send(self._ANSWER)
        return 1


class _Agent(_Backend):
    """Answers tasks, which come in frames."""

    def _reply(self, to: socket.socket) -> int:
        data = to.recv(1 << 20)
        if data.startswith(PREFACE):
            data = data[len(PREFACE) :]
            to.send(PREFACE + struct.pack(">IIBI", 4, 0, HELLO, LARGEST_PAYLOAD))
        answers = b""
        told = 0
        while data:
            size, number, _ = struct.unpack_from(">IIB", data)
            data = data[9 + size :]
            answers += struct.pack(">IIB", len(BODY), number, RESULT) + BODY.encode()
            told += 1
        to.send(answers)
        return told


class _Steps:
    """Counts, while it traces."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        name = f"{Path(code.co_filename).stem}.{getattr(code, 'co_qualname', code.co_name)}"
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            self.calls[name] += 1
        elif event == "opcode":
            self.steps[name] += 1
        return self.trace


def _requests(kind: str) -> list[bytes]:
    made = []
    for number in range(_CLIENTS * 3):
        elsewhere = f"/app{number}"
        targets = {"targets": f"/app/{number}", "routes": elsewhere, "anew": elsewhere}
        target = targets.get(kind, "/app/hello")
        lines = [f"GET {target} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKEN}"]
        if kind == "heads":
            lines += [f"traceparent: 00-{number:032x}-{number:016x}-01"]
            lines += [f"Cookie: visitor={number:024x}; theme=dark"]
        if kind == "once":
            lines += ["Connection: close"]
        if kind == "anew":
            lines += [f"X-Field-{number}: {number}"]
        if kind == "tasks":
            lines[0] = "POST /app HTTP/1.1"
            lines += [f"Content-Length: {len(_CALL)}"]
        body = _CALL if kind == "tasks" else ""
        made.append("\r\n".join([*lines, "", body]).encode())
    return made


def main(kind: str, directory: str) -> None:
    """Run a worker's rooms here and print what one request took, as JSON."""
    from ploinky.routing.reactor import install

    reactor = install()
    from ploinky.sockets import SocketPaths
    from ploinky.values import (
        Address,
        CallAuth,
        DeploymentKey,
        Kind,
        Principal,
        Role,
        Route,
        RouteSnapshot,
        Target,
        Wire,
    )
    from ploinky.worker import WorkerConfiguration, build_rooms

    configuration = WorkerConfiguration(0, "", directory, directory)
    rooms = build_rooms(reactor, configuration, SocketPaths(directory))
    address = Address(path=f"{directory}/backend.sock")
    key = DeploymentKey("localhost", "/app")
    if kind == "tasks":
        backend: _Backend = _Agent(address.path)
        route_kind, target = Kind.TASK, Target("one", address, Wire.FRAMES)
    else:
        backend = _Backend(address.path)
        route_kind, target = Kind.EXTERNAL, Target("", address)
    route = Route(key, route_kind, "app", 1, (target,), auth=CallAuth.KEY)
    others = [
        evolve(route, key=DeploymentKey("localhost", f"/app{number}"))
        for number in range(_CLIENTS * 3)
    ]
    admin = Principal("Admin", Role.ADMIN, hashlib.sha256(TOKEN.encode()).hexdigest())
    snapshot = RouteSnapshot(1, (route, *others), (admin,))
    rooms.orchestrator.adopt(rooms.router.adopt(snapshot), rooms.router)
    port = reactor.listenTCP(0, rooms.gateway, interface="127.0.0.1", backlog=1024)
    reactor.startRunning(installSignalHandlers=False)
    place = ("127.0.0.1", port.getHost().port)
    clients = [socket.create_connection(place) for _ in range(_CLIENTS)]
    made = _requests(kind)
    steps = _Steps()

    def turn(traced: bool) -> None:
        sys.settrace(steps.trace if traced else None)
        reactor.runUntilCurrent()
        reactor.doIteration(0)
        sys.settrace(None)

    for number in range(_ROUNDS * 2):
        if kind == "once" and number:
            clients = [socket.create_connection(place) for _ in range(_CLIENTS)]
        for place_of, client in enumerate(clients):
            client.send(made[(place_of + number * 7) % len(made)])
        answered = 0
        while answered < _CLIENTS:
            turn(number >= _ROUNDS)
            answered += backend.answer()
        turn(number >= _ROUNDS)
        for client in clients:
            assert client.recv(65536).endswith(BODY.encode())
            if kind == "once":
                client.close()
    told = _CLIENTS * _ROUNDS
    found = {name: (steps.calls[name] / told, steps.steps[name] / told) for name in steps.steps}
    print(json.dumps(found), flush=True)
    os._exit(0)  # nothing here has to end in order


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="plb") as place:
        main(sys.argv[1], place)
