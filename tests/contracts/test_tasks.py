"""The wires to agents, each against a real AgentCore, and the agent in memory."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ploinky.routing.streams import Outlet
from ploinky.routing.upstream import Upstream
from ploinky.routing.wheel import Wheel
from ploinky.sockets import SocketPaths
from ploinky.tasks.file_transport import FileTransport
from ploinky.tasks.frame_transport import FrameTransport
from ploinky.tasks.http_transport import HttpTransport
from ploinky.tasks.inotify import IN_MOVED_TO, Inotify
from ploinky.testing.contracts.tasks import AgentTransportContract, ConnectedAgent
from ploinky.testing.tasks import HandlerError, ScriptedTransport
from ploinky.values import Address, Target, TaskCall, Wire

RUN_SH = Path(__file__).parents[2] / "agentcore" / "run.sh"
STARTS_WITHIN_SECONDS = 30
ENDS_WITHIN_SECONDS = 10

NODE_AGENT = """
const fs = require('fs');
const mark = (what, task) => `${process.env.AGENT_DIR}/${what}-${task}`;
exports.echo = (params) => params;
exports.text = ([length]) => 'x'.repeat(length);
exports.count = function* ([number]) {
  for (let i = 0; i < number; i++) yield i;
};
exports.whoami = (params, { user, taskId, requestId, command }) => ({ user, taskId, requestId, command });
exports.fail = () => {
  throw Object.assign(new Error('short and stout'), { status: 418, code: 'TEAPOT', details: { spout: 1 } });
};
exports.hang = (params, { taskId, signal }) => new Promise((resolve, reject) => {
  signal.addEventListener('abort', () => {
    fs.writeFileSync(mark('aborted', taskId), '');
    reject(signal.reason);
  });
  fs.writeFileSync(mark('begun', taskId), '');
});
exports.begun = ([task]) => fs.existsSync(mark('begun', task));
exports.aborted = ([task]) => fs.existsSync(mark('aborted', task));
"""

PYTHON_AGENT = """
import asyncio
import os
import pathlib


def mark(what, task):
    return pathlib.Path(os.environ["AGENT_DIR"], what + "-" + task)


class Teapot(Exception):
    status = 418
    code = "TEAPOT"
    details = {"spout": 1}


def echo(params, context):
    return params


def text(params, context):
    return "x" * params[0]


def count(params, context):
    yield from range(params[0])


def whoami(params, context):
    return {
        "user": context.user,
        "taskId": context.taskId,
        "requestId": context.requestId,
        "command": context.command,
    }


def fail(params, context):
    raise Teapot("short and stout")


async def hang(params, context):
    try:
        mark("begun", context.taskId).touch()
        await asyncio.sleep(3600)
    finally:
        mark("aborted", context.taskId).touch()


def begun(params, context):
    return mark("begun", params[0]).exists()


def aborted(params, context):
    return mark("aborted", params[0]).exists()
"""

AGENTS = {"node": ("index.js", NODE_AGENT), "python": ("agent.py", PYTHON_AGENT)}


class AgentCore(ProcessProtocol):
    """One AgentCore as a child process, as the process runtime would start it."""

    def __init__(self, directory: Path, engine: str, wire: Wire) -> None:
        self.queue = directory / "queue"
        self._agent = directory / "agent"
        self._engine = engine
        self._wire = wire
        self._output = b""
        self._ready: Deferred[None] = Deferred()
        self._ended: Deferred[None] = Deferred()

    async def start(self) -> None:
        self._agent.mkdir()
        for name in ("tasks", "results", "errors", "locks", "tmp"):
            (self.queue / name).mkdir(parents=True)
        name, code = AGENTS[self._engine]
        (self._agent / name).write_text(code)
        (self._agent / "manifest.json").write_text("{}")
        inotify = Inotify(reactor)
        inotify.start(lambda: None)
        inotify.watch(str(self.queue), IN_MOVED_TO, self._moved_in)
        environment = {
            "PATH": os.environ["PATH"],
            "AGENT_DIR": str(self._agent),
            "PLOINKY_QUEUE": str(self.queue),
            "PLOINKY_AGENT": "contract",
            "PLOINKY_DOMAIN": "localhost",
            "PLOINKY_PATH": "/contract",
            "PLOINKY_RELEASE": "1",
            "PLOINKY_TRANSPORT": self._wire.value,
            "PLOINKY_ENGINE": self._engine,
        }
        self._process = reactor.spawnProcess(
            self,
            "/bin/sh",
            ["sh", str(RUN_SH)],
            env=environment,
            path=str(self._agent),
            usePTY=False,
        )
        try:
            await self._ready.addTimeout(STARTS_WITHIN_SECONDS, reactor)
        finally:
            inotify.stop()

    async def stop(self) -> None:
        if not self._ended.called:
            os.kill(self._process.pid, signal.SIGTERM)
            overdue = reactor.callLater(
                ENDS_WITHIN_SECONDS, os.kill, self._process.pid, signal.SIGKILL
            )
            await self._ended
            if overdue.active():
                overdue.cancel()

    def _moved_in(self, name: str) -> None:
        if name == "ready" and not self._ready.called:
            self._ready.callback(None)

    def outReceived(self, data: bytes) -> None:
        self._output += data

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        if not self._ready.called:
            self._ready.errback(AssertionError(f"AgentCore ended: {self._output.decode()}"))
        self._ended.callback(None)

    def target(self) -> Target:
        return Target(
            instance="contract",
            address=Address(path=str(self.queue / "agent.sock")),
            wire=self._wire,
            queue_directory=str(self.queue),
        )


def absent(directory: Path, wire: Wire) -> Target:
    nowhere = directory / "absent"
    return Target(
        instance="absent",
        address=Address(path=str(nowhere / "agent.sock")),
        wire=wire,
        queue_directory=str(nowhere),
    )


@pytest.fixture(params=[pytest.param("node", marks=pytest.mark.program("node")), "python"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestFileTransport(AgentTransportContract):
    @pytest_twisted.async_yield_fixture
    async def agent(self, engine: str, short_directory: Path) -> AsyncIterator[ConnectedAgent]:
        core = AgentCore(short_directory, engine, Wire.FILE)
        await core.start()
        transport = FileTransport(reactor, Inotify(reactor))
        transport.startService()
        yield ConnectedAgent(transport, core.target(), absent(short_directory, Wire.FILE))
        transport.stopService()
        await core.stop()


class TestHttpTransport(AgentTransportContract):
    @pytest_twisted.async_yield_fixture
    async def agent(self, engine: str, short_directory: Path) -> AsyncIterator[ConnectedAgent]:
        core = AgentCore(short_directory, engine, Wire.HTTP)
        await core.start()
        paths = SocketPaths(str(short_directory))
        upstream = Upstream(reactor, Wheel(reactor), paths)
        yield ConnectedAgent(
            HttpTransport(upstream), core.target(), absent(short_directory, Wire.HTTP)
        )
        upstream.close()
        paths.close()
        await core.stop()


class TestFrameTransport(AgentTransportContract):
    @pytest_twisted.async_yield_fixture
    async def agent(self, engine: str, short_directory: Path) -> AsyncIterator[ConnectedAgent]:
        core = AgentCore(short_directory, engine, Wire.FRAMES)
        await core.start()
        paths = SocketPaths(str(short_directory))
        upstream = Upstream(reactor, Wheel(reactor), paths)
        frames = FrameTransport(reactor, paths, Outlet, HttpTransport(upstream))
        yield ConnectedAgent(frames, core.target(), absent(short_directory, Wire.FRAMES))
        frames.close()
        upstream.close()
        paths.close()
        await core.stop()


class TestScriptedTransport(AgentTransportContract):
    @pytest.fixture
    def agent(self) -> Iterator[ConnectedAgent]:
        begun, aborted = set(), set()

        def hang(call: TaskCall) -> Deferred[Any]:
            begun.add(call.task)

            def note(_: Deferred[Any]) -> None:
                aborted.add(call.task)

            late = HandlerError("the deadline has passed", 504, "TASK_TIMEOUT")
            timer: Deferred[Any] = Deferred(note)
            if call.deadline_ms < 2**52:
                timer = deferLater(reactor, 0.01, lambda: None)
                timer.addCallback(lambda _: Failure(late))
            return timer

        def fail(call: TaskCall) -> None:
            raise HandlerError("short and stout", 418, "TEAPOT", {"spout": 1})

        def whoami(call: TaskCall) -> dict[str, str]:
            return {
                "user": call.user,
                "taskId": call.task,
                "requestId": call.request_id,
                "command": call.command,
            }

        transport = ScriptedTransport(
            {
                "echo": lambda call, *params: params,
                "text": lambda call, length: "x" * length,
                "count": lambda call, number: iter(range(number)),
                "whoami": whoami,
                "fail": fail,
                "hang": hang,
                "begun": lambda call, task: task in begun,
                "aborted": lambda call, task: task in aborted,
            },
            absent=frozenset({"absent"}),
        )
        here = Address(path="memory")
        return ConnectedAgent(transport, Target("contract", here), Target("absent", here))
