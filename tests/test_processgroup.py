"""What a leader may rely on about its sockets, its slots and its lock."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import field, frozen
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ploinky.errors import AlreadyRunning, PortInUse, SettingsInvalid, WorkerCouldNotBoot
from ploinky.processgroup import LeaderLock, WorkerRecords
from ploinky.processgroup.listeners import join_listeners, open_listeners
from ploinky.processgroup.processes import (
    COULD_NOT_BOOT,
    OUTPUT_BYTES,
    AdoptedProcess,
    ChildProcess,
    Exit,
    IWorkerProcess,
)
from ploinky.processgroup.slot import (
    ATTEMPTS,
    BOOT_SECONDS,
    DRAIN_SECONDS,
    LONGEST_WAIT_SECONDS,
    STEADY_SECONDS,
    Slot,
    wait_seconds,
)

CRASHED = Exit(None, "SIGKILL")


@implementer(IWorkerProcess)
@frozen
class FakeProcess:
    """Remembers which signals it got."""

    pid: int
    signals: list[int] = field(factory=list)

    def signal(self, number: int) -> None:
        """See `IWorkerProcess`."""
        self.signals.append(number)


class Stage:
    """A slot, its clock, and the processes that it started."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.started: list[FakeProcess] = []
        self.no_more_processes = False
        self.slot = Slot(self.clock, 3, self.launch)

    def launch(self, exited: Any) -> FakeProcess:
        """Start a fake."""
        if self.no_more_processes:
            raise OSError(11, "Resource temporarily unavailable")
        self.started.append(FakeProcess(100 + len(self.started)))
        return self.started[-1]

    @property
    def process(self) -> FakeProcess:
        """The newest."""
        return self.started[-1]

    def dies(self, exit: Exit = CRASHED) -> None:
        """Let the newest process end."""
        self.slot.exited(exit)


@pytest.fixture
def stage() -> Stage:
    """A slot that nobody has started."""
    return Stage()


@pytest.fixture
def serving(stage: Stage) -> Stage:
    """A slot whose worker serves."""
    stage.slot.start()
    stage.slot.serves()
    return stage


# --- a slot ---------------------------------------------------------------------


def test_a_start_is_done_when_the_worker_serves(stage: Stage) -> None:
    """Not when the process runs."""
    started = stage.slot.start()
    assert (stage.slot.state, started.called) == ("starting", False)
    stage.slot.serves()
    assert (stage.slot.state, started.called) == ("serving", True)
    assert stage.slot.describe() == {"slot": 3, "pid": 100, "state": "serving", "restarts": 0}
    assert stage.clock.getDelayedCalls() == []


def test_a_worker_that_could_not_boot_is_not_started_again(stage: Stage) -> None:
    """Whoever started it gets its reason."""
    started = stage.slot.start()
    stage.dies(Exit(COULD_NOT_BOOT, "", "no such module"))
    with pytest.raises(WorkerCouldNotBoot, match="no such module"):
        started.result.raiseException()  # type: ignore[union-attr]
    started.addErrback(lambda _: None)
    stage.clock.advance(LONGEST_WAIT_SECONDS)
    assert len(stage.started) == 1
    assert stage.slot.state == "stopped"
    assert stage.slot.stop().called


def test_a_worker_that_dies_at_boot_again_and_again_is_given_up(stage: Stage) -> None:
    """After three attempts, with what it said last."""
    failures: list[Any] = []
    stage.slot.start().addErrback(failures.append)
    for attempt in range(ATTEMPTS):
        assert failures == []
        stage.dies(Exit(1, "", f"attempt {attempt}"))
        stage.clock.advance(LONGEST_WAIT_SECONDS)
    assert "attempt 2" in failures[0].getErrorMessage()
    assert len(stage.started) == ATTEMPTS


def test_a_start_survives_one_death(stage: Stage) -> None:
    """The second attempt serves, and the start is done."""
    started = stage.slot.start()
    stage.dies()
    stage.clock.advance(wait_seconds(1))
    stage.slot.serves()
    assert started.called
    assert stage.slot.describe()["restarts"] == 1


def test_a_boot_that_takes_too_long_is_ended(stage: Stage) -> None:
    """And counts as a death."""
    stage.slot.start()
    stage.clock.advance(BOOT_SECONDS)
    assert stage.process.signals == [signal.SIGKILL]
    stage.dies()
    assert stage.slot.state == "waiting"


def test_a_process_that_cannot_even_be_started_is_tried_again(stage: Stage) -> None:
    """The machine has no processes left for a moment."""
    stage.no_more_processes = True
    started = stage.slot.start()
    stage.clock.advance(0)
    assert stage.slot.state == "waiting"
    stage.no_more_processes = False
    stage.clock.advance(wait_seconds(ATTEMPTS - 1))
    stage.slot.serves()
    assert started.called


def test_a_worker_that_dies_after_long_service_is_replaced_at_once(serving: Stage) -> None:
    """What waits in its socket's queue waits no longer than it must."""
    serving.clock.advance(STEADY_SECONDS)
    serving.dies()
    serving.clock.advance(0)
    assert len(serving.started) == 2
    assert serving.slot.state == "starting"


def test_a_worker_that_dies_soon_again_and_again_is_replaced_ever_later(serving: Stage) -> None:
    """But always at last, and at once again after a steady service."""
    waits = []
    for _ in range(12):
        serving.dies()
        (retry,) = serving.clock.getDelayedCalls()
        waits.append(retry.getTime() - serving.clock.seconds())
        serving.clock.advance(waits[-1])
        serving.slot.serves()
    assert waits == pytest.approx(sorted(waits))
    assert waits[0] == 0
    assert waits[-1] == pytest.approx(LONGEST_WAIT_SECONDS)
    serving.clock.advance(STEADY_SECONDS)
    serving.dies()
    assert serving.clock.getDelayedCalls()[0].getTime() == serving.clock.seconds()


def test_once_it_served_it_is_never_given_up(serving: Stage) -> None:
    """Also where its replacement cannot boot: the cause may go away."""
    for _ in range(ATTEMPTS + 2):
        serving.dies(Exit(COULD_NOT_BOOT))
        serving.clock.advance(LONGEST_WAIT_SECONDS)
    assert len(serving.started) == ATTEMPTS + 3
    assert serving.slot.state == "starting"


def test_an_unfit_worker_is_killed_and_replaced(serving: Stage) -> None:
    """It hangs, or has lost its link."""
    serving.slot.unfit()
    assert serving.process.signals == [signal.SIGKILL]
    serving.dies()
    serving.clock.advance(0)
    assert serving.slot.state == "starting"


def test_a_worker_taken_over_serves_at_once(stage: Stage) -> None:
    """And is replaced when it dies."""
    adopted = FakeProcess(77)
    stage.slot.adopt(adopted)
    assert (stage.slot.state, stage.slot.pid) == ("serving", 77)
    stage.slot.serves()
    stage.dies(Exit())
    stage.clock.advance(0)
    assert stage.slot.pid == 100


def test_stop_lets_it_finish_and_then_kills_it(serving: Stage) -> None:
    """SIGTERM now; SIGKILL after 30 s; done when it has ended."""
    stopped = serving.slot.stop()
    assert serving.process.signals == [signal.SIGTERM]
    serving.clock.advance(DRAIN_SECONDS - 0.1)
    assert serving.process.signals == [signal.SIGTERM]
    serving.clock.advance(0.2)
    assert serving.process.signals == [signal.SIGTERM, signal.SIGKILL]
    assert not stopped.called
    serving.dies()
    assert stopped.called
    assert serving.slot.state == "stopped"
    serving.clock.advance(LONGEST_WAIT_SECONDS)
    assert len(serving.started) == 1


def test_stop_may_come_twice(serving: Stage) -> None:
    """One SIGTERM; both are told."""
    both = [serving.slot.stop(), serving.slot.stop()]
    serving.dies(Exit(0))
    assert all(stopped.called for stopped in both)
    assert serving.process.signals == [signal.SIGTERM]
    assert serving.clock.getDelayedCalls() == []


def test_stop_while_it_boots(stage: Stage) -> None:
    """Whoever waits for it to serve is told; its end is waited for."""
    failures: list[Any] = []
    stage.slot.start().addErrback(failures.append)
    stopped = stage.slot.stop()
    assert failures[0].check(WorkerCouldNotBoot)
    assert not stopped.called
    stage.slot.serves()
    stage.dies(Exit(COULD_NOT_BOOT))
    assert stopped.called
    assert stage.clock.getDelayedCalls() == []


def test_stop_while_it_waits_for_another_attempt(serving: Stage) -> None:
    """There is none."""
    serving.dies()
    assert serving.slot.stop().called
    assert serving.clock.getDelayedCalls() == []


def test_stop_before_a_start(stage: Stage) -> None:
    """Nothing is there to end."""
    assert stage.slot.stop().called
    assert stage.started == []


def test_news_of_a_process_that_was_done_with_changes_nothing(serving: Stage) -> None:
    """An acknowledgement, or the loss of a link, that comes late."""
    serving.slot.stop()
    serving.slot.serves()
    serving.slot.unfit()
    assert serving.process.signals == [signal.SIGTERM]
    serving.dies()
    serving.slot.serves()
    serving.slot.unfit()
    assert serving.slot.state == "stopped"


def test_whoever_is_told_may_ask_for_the_next_thing_at_once(stage: Stage) -> None:
    """A start that is done may be followed by a stop in the same breath."""
    stops: list[Deferred[None]] = []
    stage.slot.start().addCallback(lambda _: stops.append(stage.slot.stop()))
    stage.slot.serves()
    assert stage.slot.state == "stopping"
    stage.dies()
    assert stops[0].called


# --- processes ------------------------------------------------------------------


def test_a_child_says_how_it_ended() -> None:
    """Status or signal, and the last of what it printed."""
    ends: list[Exit] = []
    for reason in (
        ProcessDone(0),
        ProcessTerminated(exitCode=78, status=0),
        ProcessTerminated(signal=signal.SIGKILL, status=9),
    ):
        child = ChildProcess(ends.append)
        child.errReceived(b"x" * OUTPUT_BYTES)
        child.errReceived(b" the end\n")
        child.processEnded(Failure(reason))
    assert [(end.status, end.signal) for end in ends] == [(0, ""), (78, ""), (None, "SIGKILL")]
    assert all(end.output.endswith("x the end") for end in ends)
    assert str(Exit(78, "", "why")) == "exit status 78: why"
    assert str(Exit(None, "SIGKILL")) == "SIGKILL"
    assert str(Exit()) == "unknown"
    verifyObject(IWorkerProcess, FakeProcess(1))


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


@pytest_twisted.ensureDeferred
async def test_the_end_of_a_process_that_is_no_child_is_noticed(sleeper: Any) -> None:
    """By its pidfd; signals reach it the same way, and none reaches its successor."""
    ended: Deferred[Exit] = Deferred()
    process = AdoptedProcess(real_reactor, sleeper.pid, ended.callback)
    verifyObject(IWorkerProcess, process)
    process.signal(signal.SIGTERM)
    assert await ended.addTimeout(10, real_reactor) == Exit()
    process.signal(signal.SIGTERM)


def test_a_process_that_has_ended_cannot_be_taken_over(sleeper: Any) -> None:
    """Its pid means nothing any more."""
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(ProcessLookupError):
        AdoptedProcess(real_reactor, sleeper.pid, lambda _: None)


# --- sockets --------------------------------------------------------------------


def test_all_listeners_share_one_port() -> None:
    """Port 0: the first takes a free one, the others join it; none is inherited by accident."""
    listeners = open_listeners("127.0.0.1", 0, 3)
    listeners += join_listeners(listeners[0], 1)
    assert len({listener.getsockname() for listener in listeners}) == 1
    assert not any(listener.get_inheritable() for listener in listeners)
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("shares", [0, 1])
def test_a_port_of_another_program_is_named_with_what_to_do(shares: int) -> None:
    """Also where that program would share it: half of our clients would reach it."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"lsof -i :{port}.*--port"):
            open_listeners("127.0.0.1", port, 2)


def test_a_port_that_was_just_in_use_is_free() -> None:
    """A restart need not wait for old connections to be forgotten."""
    (first,) = open_listeners("127.0.0.1", 0, 1)
    port = first.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)), first.accept()[0]:
        first.close()
    (again,) = open_listeners("127.0.0.1", port, 1)
    again.close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_here_is_named(host: str) -> None:
    """As a setting that does not fit."""
    with pytest.raises(SettingsInvalid, match=host):
        open_listeners(host, 0, 1)


# --- lock and records -----------------------------------------------------------


def test_there_is_one_leader_at_a_time(tmp_path: Path) -> None:
    """The other is told who and where; after the first has gone it may."""
    path = str(tmp_path / "run" / "leader.lock")
    os.mkdir(tmp_path / "run")
    first, second = LeaderLock(path), LeaderLock(path)
    first.take()
    with pytest.raises(AlreadyRunning, match=rf"{tmp_path}.*{os.getpid()}.*--dir"):
        second.take()
    first.release()
    first.release()
    second.take()
    second.release()


_HOLDER = """
import os, sys
from ploinky.processgroup import LeaderLock
lock = LeaderLock(sys.argv[1])
lock.take()
child = os.fork()
if child:
    print(child, flush=True)
sys.stdin.read()
"""


def test_what_is_left_of_a_killed_leader_is_waited_for(tmp_path: Path) -> None:
    """It has ended, and the kernel has not given its lock back yet; it is not said to run."""
    (tmp_path / "run").mkdir()
    path = str(tmp_path / "run" / "leader.lock")
    command = [sys.executable, "-c", _HOLDER, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as leader:
        assert leader.stdout is not None
        remains = int(leader.stdout.readline())
        with pytest.raises(AlreadyRunning, match=f"runs on .*process {leader.pid}"):
            LeaderLock(path).take()
        leader.kill()
        os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)  # nobody has asked how it ended
        paused: list[float] = []
        with pytest.raises(AlreadyRunning, match=f"process {leader.pid}.*gone.*{path}"):
            LeaderLock(path).take(paused.append)
        assert sum(paused) == pytest.approx(20.0)

        def end(seconds: float) -> None:
            paused.append(seconds)
            with suppress(ProcessLookupError):
                os.kill(remains, signal.SIGKILL)
            time.sleep(seconds)

        paused.clear()
        lock = LeaderLock(path)
        lock.take(end)
        assert paused
        lock.release()


def test_a_lock_is_not_inherited(tmp_path: Path) -> None:
    """A worker that outlives its leader does not hold the next one off."""
    lock = LeaderLock(str(tmp_path / "leader.lock"))
    lock.take()
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        lock.release()
        with open(tmp_path / "leader.lock") as again:
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        child.communicate(b"\n")


def test_workers_that_still_run_are_found_again(tmp_path: Path, sleeper: Any) -> None:
    """Those that have ended are not, nor another process with an old worker's pid."""
    records = WorkerRecords(tmp_path / "workers")
    records.write(0, sleeper.pid)
    records.write(1, os.getpid())
    (tmp_path / "workers" / "2.json").write_text("{")
    stolen = json.loads((tmp_path / "workers" / "1.json").read_text())
    stolen["started"] += 1
    (tmp_path / "workers" / "3.json").write_text(json.dumps(stolen))
    found = WorkerRecords(tmp_path / "workers").survivors()
    assert [(one.slot, one.pid) for one in found] == [(0, sleeper.pid), (1, os.getpid())]
    sleeper.kill()
    sleeper.wait()
    assert [one.slot for one in records.survivors()] == [1]
    assert [path.name for path in (tmp_path / "workers").iterdir()] == ["1.json"]


def test_a_record_is_removed_with_its_own_worker_only(tmp_path: Path) -> None:
    """The one that came after it stays on record."""
    records = WorkerRecords(tmp_path / "workers")
    records.write(0, os.getpid())
    records.remove(0, os.getpid() + 1)
    assert len(records.survivors()) == 1
    records.remove(0, os.getpid())
    assert records.survivors() == []
