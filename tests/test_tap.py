"""What whoever types `twistd ploinky` may rely on."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactor

from ploinky.rooms import new_id
from ploinky.routing.rates import FILE_NAME, LOGINS_FILE_NAME
from ploinky.settings import fields
from ploinky.tap import COULD_NOT_START, MISCONFIGURED, Leader, Options
from tests.functional.conftest import until

SECONDS = 60.0
TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"


class Server:
    """One run of `twistd ploinky` in the foreground, on the process runtime and a free port."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.run_directory = directory / ".ploinky-cloud" / "run"
        command = [sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", "ploinky"]
        command += [f"--dir={directory}", "--port=0", "--workers=1", "--runtime=process"]
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )

    def is_ready(self) -> dict[str, Any]:
        """Wait until it says so; gives what it says of itself."""
        announced = self.run_directory / "leader.json"
        until(announced.exists, "the server announces itself", SECONDS)
        found: dict[str, Any] = json.loads(announced.read_text())
        return found

    def ends(self) -> tuple[int, str, str]:
        """Wait for its end; gives status, standard output and standard error."""
        output, errors = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, output, errors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers on one directory; they are ended with the test."""
    started: list[Server] = []

    def begin(*arguments: str) -> Server:
        started.append(Server(tmp_path, *arguments))
        return started[-1]

    yield begin
    for server in started:
        if server.process.poll() is None:
            server.process.terminate()
            server.ends()


def test_every_setting_is_an_option() -> None:
    """By its name in the contract; what is not given is left to the other sources."""
    options = Options()
    options.parseOptions(["--port", "1"])
    assert set(options) == {"dir", *(name for _, name, _ in fields())}
    assert [name for name, value in options.items() if value is not None] == ["port"]


def test_ids_are_short_and_never_the_same() -> None:
    """Directories, labels and sockets derive from them."""
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(one) == 12 and one.isalnum() and one == one.lower() for one in ids)


@pytest_twisted.ensureDeferred
async def test_rooms_are_stopped_in_reverse_each_waited_for() -> None:
    """The second is not asked to stop before the last one has."""
    reactor, told, gate = MemoryReactor(), [], Deferred[None]()

    async def compose(rooms: AsyncExitStack) -> None:
        rooms.callback(told.append, "first")

        async def end() -> None:
            await gate
            told.append("last")

        rooms.push_async_callback(end)

    leader = Leader(reactor, compose)
    leader.startService()
    reactor.run()
    stopped = leader.stopService()
    assert (told, stopped.called) == ([], False)
    gate.callback(None)
    await stopped
    assert told == ["last", "first"]


@pytest_twisted.ensureDeferred
async def test_a_stop_during_the_start_ends_what_was_started() -> None:
    """The room that is being started is given up."""
    reactor, told, waits = MemoryReactor(), [], Deferred[None]()

    async def compose(rooms: AsyncExitStack) -> None:
        rooms.callback(told.append, "first")
        await waits
        told.append("never")

    leader = Leader(reactor, compose)
    leader.startService()
    reactor.run()
    await leader.stopService()
    assert told == ["first"]


def test_it_answers_and_says_where_and_leaves_nothing_behind(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    """`leader.json` stands while it answers; all that it writes is its user's alone."""
    server = start()
    leader = server.is_ready()
    assert leader["pid"] == server.process.pid
    assert set(leader) == {"pid", "start_time", "port", "host", "started_at", "version"}
    data = tmp_path / ".ploinky-cloud"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for name in ("control.sock", "link.sock", "leader.json"):
        assert stat.S_IMODE((server.run_directory / name).stat().st_mode) == 0o600
    (record,) = (server.run_directory / "workers").glob("*.json")
    worker = json.loads(record.read_text())["pid"]
    server.process.terminate()
    status, output, errors = server.ends()
    assert status == -signal.SIGTERM
    assert f"http://localhost:{leader['port']}\n" in output
    assert errors == ""
    assert sorted(path.name for path in server.run_directory.iterdir() if path.is_file()) == [
        "leader.lock",
        LOGINS_FILE_NAME,  # who guessed,
        FILE_NAME,  # and who called how often still counts at the next start
    ]
    assert not Path(f"/proc/{worker}").exists()


def test_its_id_stays_the_same(start: Callable[..., Server], tmp_path: Path) -> None:
    """By it engines know what is ours after a restart."""
    found = []
    for _ in range(2):
        server = start()
        server.is_ready()
        found.append((tmp_path / ".ploinky-cloud" / "cluster-id").read_text())
        server.process.terminate()
        server.ends()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--port=lots", "--workers=none"), MISCONFIGURED, ("port", "workers")),
        (("--dir=/dev/null/x",), MISCONFIGURED, ("/dev/null/x", "--dir")),
        (("--host=no.such.host.invalid",), MISCONFIGURED, ("no.such.host.invalid",)),
        (("--runtime=nosuch",), COULD_NOT_START, ("nosuch", "process")),
        (("--trustedProxies=my proxy",), MISCONFIGURED, ("my proxy",)),
    ],
)
def test_a_start_that_fails_says_why_and_leaves_nothing_running(
    start: Callable[..., Server],
    tmp_path: Path,
    arguments: tuple[str, ...],
    status: int,
    said: tuple[str, ...],
) -> None:
    """The reason is on standard error, without a traceback; the exit status tells its kind."""
    server = start(*arguments)
    ended, _, errors = server.ends()
    assert ended == status
    assert all(word in errors for word in said)
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == (2 if "--port=lots" in arguments else 1)
    assert not (server.run_directory / "leader.json").exists()
    mark = f'"run_directory": "{server.run_directory}"'.encode()
    assert not any(mark in _environment(pid) for pid in os.listdir("/proc") if pid.isdigit())


def test_a_start_that_fails_leaves_workers_of_an_earlier_leader_serving(
    start: Callable[..., Server],
) -> None:
    """What served before it came goes on serving, and a later start takes it over."""
    first = start()
    port = first.is_ready()["port"]
    (record,) = (first.run_directory / "workers").glob("*.json")
    worker = json.loads(record.read_text())["pid"]
    first.process.kill()
    first.ends()
    (first.run_directory / "leader.json").unlink()
    failing = start("--runtime=nosuch")
    assert failing.ends()[0] == COULD_NOT_START
    assert json.loads(record.read_text())["pid"] == worker
    last = start()
    assert last.is_ready()["port"] == port
    assert json.loads(record.read_text())["pid"] == worker


def _environment(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
