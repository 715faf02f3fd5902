"""Leader and workers as real processes, with signals, crashes and real sockets.

The corridor is a stand-in (`small_worker.py`); what is tested is who lives, who answers, and that
clients notice as little as can be.
"""

from __future__ import annotations

import collections
import http.client
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType

import pytest

from tests.functional.conftest import until
from tests.functional.load import Callers

HERE = Path(__file__).parent
SECONDS = 30.0


class Leader:
    """One run of `small_leader.py`."""

    def __init__(self, directory: Path, port: int = 0, workers: int = 2, build: str = "1") -> None:
        command = [sys.executable, HERE / "small_leader.py", directory, port, workers, build]
        self.directory = directory
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
        )
        self.port = 0
        self.workers: list[int] = []

    def says(self, word: str) -> list[str]:
        """Read what it prints until a line begins with `word`; give that line's other words."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + SECONDS
        while True:
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            assert ready, f"the leader never said {word!r}"
            line = self.process.stdout.readline().decode()
            assert line, f"the leader ended before it said {word!r}"
            words = line.split()
            if words[:1] == [word]:
                return words[1:]

    def is_ready(self) -> Leader:
        """Wait until every worker serves."""
        port, *pids = self.says("ready")
        self.port, self.workers = int(port), [int(pid) for pid in pids]
        return self

    def crash(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(SECONDS)

    def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        self.process.terminate()
        return self.process.wait(SECONDS)


class Newcomers:
    """A client that makes a new connection for every request.

    Attributes:
        outcomes: How often each status, or exception, came back.
        by: How often each worker answered.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.by: collections.Counter[int] = collections.Counter()

    def __enter__(self) -> Newcomers:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(SECONDS)

    def _run(self) -> None:
        while not self._over.wait(0.002):
            try:
                pid, _ = ask(self._port)
                self.by[pid] += 1
                self.outcomes["200"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[type(error).__name__] += 1


def ask(port: int, path: str = "/", timeout: float = SECONDS) -> tuple[int, int]:
    """Give (pid, generation) of whoever answers on a new connection."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        connection.request("GET", path)
        pid, generation = connection.getresponse().read().split()
    return int(pid), int(generation)


def lives(pid: int) -> bool:
    """Tell whether a process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.fixture
def leaders(short_directory: Path) -> Iterator[list[Leader]]:
    """The leaders that a test starts; whatever they leave behind is ended."""
    started: list[Leader] = []
    yield started
    for leader in started:
        leader.process.terminate()
    for leader in started:
        try:
            leader.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            leader.crash()
        assert leader.process.stdout is not None
        leader.process.stdout.close()
    mark = f'"run_directory": "{short_directory}"'.encode()
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


@pytest.fixture
def leader(leaders: list[Leader], short_directory: Path) -> Leader:
    """A leader with two workers that serve."""
    leaders.append(Leader(short_directory))
    return leaders[0].is_ready()


def test_both_workers_answer(leader: Leader) -> None:
    """Connections are shared between the workers of one port."""
    answered = {ask(leader.port)[0] for _ in range(50)}
    assert answered == set(leader.workers)


def test_every_worker_serves_a_table_before_its_publication_returns(leader: Leader) -> None:
    """After `publish` no connection, to whichever worker, meets the table before."""
    for _ in range(5):
        leader.process.send_signal(signal.SIGUSR1)
        (generation,) = leader.says("published")
        assert {ask(leader.port)[1] for _ in range(30)} == {int(generation)}


def test_what_waits_before_a_killed_worker_is_served_by_the_next(
    leaders: list[Leader], short_directory: Path
) -> None:
    """kill -9 of the only worker: connections made while nobody is there wait, and are served."""
    leaders.append(Leader(short_directory, workers=1))
    port = leaders[0].is_ready().port
    os.kill(leaders[0].workers[0], signal.SIGSTOP)
    waiting = [socket.create_connection(("127.0.0.1", port), SECONDS) for _ in range(20)]
    for connection in waiting:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    os.kill(leaders[0].workers[0], signal.SIGKILL)
    answers = [connection.recv(4096) for connection in waiting]
    for connection in waiting:
        connection.close()
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert ask(port)[0] != leaders[0].workers[0]


def test_a_killed_worker_is_replaced_while_others_answer(leader: Leader) -> None:
    """kill -9 of one of two workers under load: new connections notice nothing."""
    with Newcomers(leader.port) as clients:
        until(lambda: clients.outcomes["200"] > 50, "the clients call")
        victim = leader.workers[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(clients.by) == 3, "another worker answers")
    failed = sum(clients.outcomes.values()) - clients.outcomes["200"]
    assert failed <= 1, clients.outcomes  # the call that it had in hand


def test_a_worker_that_hangs_is_replaced_at_the_next_publication(leader: Leader) -> None:
    """Its loop does not turn, so it cannot acknowledge; the publication does not wait for ever."""
    os.kill(leader.workers[0], signal.SIGSTOP)
    leader.process.send_signal(signal.SIGUSR1)
    (generation,) = leader.says("published")
    # Its link is closed by now; the kernel has more to take down before it is no process any more.
    until(lambda: not lives(leader.workers[0]), "the worker that hung has ended")
    assert lives(leader.workers[1])
    assert {ask(leader.port)[1] for _ in range(20)} == {int(generation)}


def test_a_start_fails_with_the_reason_of_a_worker_that_cannot_boot(
    leaders: list[Leader], short_directory: Path
) -> None:
    """It is not tried again and again; nothing stays behind, and the port is free again."""
    (short_directory / "fails").write_text("there is no such thing")
    broken = Leader(short_directory)
    leaders.append(broken)
    said = " ".join(broken.says("failed"))
    assert "WorkerCouldNotBoot" in said
    assert "there is no such thing" in said
    assert broken.process.wait(SECONDS) == 0
    assert list((short_directory / "workers").iterdir()) == []


def test_a_reload_replaces_every_worker_and_no_request_notices(leader: Leader) -> None:
    """All workers are new ones, on the same port; every connection was answered."""
    with Newcomers(leader.port) as clients:
        until(lambda: clients.outcomes["200"] > 50, "the clients call")
        leader.process.send_signal(signal.SIGHUP)
        new = {int(pid) for pid in leader.says("reloaded")}
        until(lambda: new & set(clients.by), "a new worker answers")
    assert not new & set(leader.workers)
    assert set(clients.outcomes) == {"200"}
    assert not any(lives(pid) for pid in leader.workers)


def test_a_reload_that_fails_leaves_the_old_workers_serving(leader: Leader) -> None:
    """New ones that cannot boot take nobody's place, and the reason is told."""
    (leader.directory / "fails").write_text("there is no such thing")
    with Newcomers(leader.port) as clients:
        leader.process.send_signal(signal.SIGHUP)
        assert "there is no such thing" in " ".join(leader.says("failed"))
        before = clients.outcomes["200"]
        until(lambda: clients.outcomes["200"] > before + 50, "the old ones answer on")
    assert set(clients.outcomes) == {"200"}
    assert set(clients.by) <= set(leader.workers)
    assert all(lives(pid) for pid in leader.workers)


def test_workers_outlive_a_crashed_leader_and_the_next_one_takes_them_over(
    leader: Leader, leaders: list[Leader]
) -> None:
    """kill -9 of the leader: the same workers answer on, before, during and after its successor's
    start, on old connections and on new ones; the successor's tables reach them.
    """
    url = f"http://127.0.0.1:{leader.port}"
    with Newcomers(leader.port) as clients, Callers(url, "/") as callers:
        until(lambda: clients.outcomes["200"] > 50, "the clients call")
        leader.crash()
        before = clients.outcomes["200"]
        until(lambda: clients.outcomes["200"] > before + 50, "the workers answer without it")
        leaders.append(Leader(leader.directory, leader.port))
        successor = leaders[-1].is_ready()
        before = clients.outcomes["200"]
        until(lambda: clients.outcomes["200"] > before + 50, "the workers answer on")
    assert successor.port == leader.port
    assert successor.workers == leader.workers
    assert set(clients.outcomes) == {"200"}
    assert callers.failures() == {}
    successor.process.send_signal(signal.SIGUSR1)
    (generation,) = successor.says("published")
    assert {ask(leader.port)[1] for _ in range(20)} == {int(generation)}
    assert successor.stop() == 0
    assert not any(lives(pid) for pid in leader.workers)


def test_a_worker_taken_over_is_replaced_when_it_dies(
    leader: Leader, leaders: list[Leader]
) -> None:
    """It is no child of the new leader, which learns of its end all the same."""
    leader.crash()
    leaders.append(Leader(leader.directory, leader.port))
    successor = leaders[-1].is_ready()
    os.kill(successor.workers[0], signal.SIGKILL)
    until(lambda: len({ask(leader.port)[0] for _ in range(20)} - {*leader.workers}) == 1, "a new")


def test_workers_of_another_build_are_replaced_by_a_new_leader(
    leader: Leader, leaders: list[Leader]
) -> None:
    """Their sockets are kept, so no request notices the upgrade."""
    with Newcomers(leader.port) as clients:
        until(lambda: clients.outcomes["200"] > 50, "the clients call")
        leader.crash()
        leaders.append(Leader(leader.directory, leader.port, build="2"))
        successor = leaders[-1].is_ready()
        until(lambda: set(successor.workers) & set(clients.by), "the new ones answer")
    assert not set(successor.workers) & set(leader.workers)
    assert set(clients.outcomes) == {"200"}
    until(lambda: not any(lives(pid) for pid in leader.workers), "the old ones have gone")


def test_a_worker_that_hangs_does_not_keep_a_new_leader_from_starting(
    leader: Leader, leaders: list[Leader]
) -> None:
    """It is ended, as it would hold on to the port."""
    os.kill(leader.workers[0], signal.SIGSTOP)
    leader.crash()
    leaders.append(Leader(leader.directory, leader.port))
    successor = leaders[-1].is_ready()
    assert successor.workers[1] == leader.workers[1]
    assert not lives(leader.workers[0])


def test_a_worker_that_died_without_a_leader_is_replaced_by_the_next(
    leader: Leader, leaders: list[Leader]
) -> None:
    """On the same port, beside the one that lived on; and there may be more of them than before."""
    leader.crash()
    os.kill(leader.workers[0], signal.SIGKILL)
    until(lambda: not lives(leader.workers[0]), "it has gone")
    leaders.append(Leader(leader.directory, leader.port, workers=3))
    successor = leaders[-1].is_ready()
    assert successor.port == leader.port
    assert successor.workers[1] == leader.workers[1]
    assert {ask(leader.port)[0] for _ in range(100)} == set(successor.workers)


def test_fewer_workers_are_wanted_than_live_on(leader: Leader, leaders: list[Leader]) -> None:
    """They are kept: what waits before a socket that is closed would be lost."""
    leader.crash()
    leaders.append(Leader(leader.directory, leader.port, workers=1))
    assert leaders[-1].is_ready().workers == leader.workers


def test_a_new_leader_on_another_port_ends_the_old_workers(
    leader: Leader, leaders: list[Leader]
) -> None:
    """Nobody is told any more to come to the old port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    leader.crash()
    leaders.append(Leader(leader.directory, port))
    successor = leaders[-1].is_ready()
    assert successor.port == port
    assert ask(port)[0] in successor.workers
    until(lambda: not any(lives(pid) for pid in leader.workers), "the old ones have gone")


def test_sigterm_finishes_what_is_in_hand(leader: Leader) -> None:
    """A request that takes half a second is answered, though the server is told to stop."""
    with closing(socket.create_connection(("127.0.0.1", leader.port), SECONDS)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert slow.recv(4096).startswith(b"HTTP/1.1 200")
        slow.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
        assert slow.recv(4096) == b"HTTP/1.1 102 Processing\r\n\r\n"
        leader.process.terminate()
        assert slow.recv(4096).startswith(b"HTTP/1.1 200")
    assert leader.process.wait(SECONDS) == 0
    assert not any(lives(pid) for pid in leader.workers)


def test_a_port_in_use_is_named_with_what_to_do(
    leaders: list[Leader], short_directory: Path
) -> None:
    """Also where the other program would share it (`SO_REUSEPORT`)."""
    for shared in (0, 1):
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            leaders.append(Leader(short_directory, port))
            said = " ".join(leaders[-1].says("failed"))
            leaders[-1].process.wait(SECONDS)
        assert "PortInUse" in said
        assert f"lsof -i :{port}" in said
        assert "--port" in said


def test_a_second_leader_on_the_same_directory_is_refused(
    leader: Leader, leaders: list[Leader]
) -> None:
    """The message names the first one's pid, and the first one is not disturbed."""
    leaders.append(Leader(leader.directory))
    said = " ".join(leaders[-1].says("failed"))
    assert "AlreadyRunning" in said
    assert str(leader.process.pid) in said
    assert ask(leader.port)[0] in leader.workers
