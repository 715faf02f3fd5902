"""Tasks through a queue directory: what callers get whatever happens to the files.

Real directories and real inotify; the clock is ours, and `turn` takes the place of the
reactor's loop: the kernel has an event ready as soon as the file was renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.testing import MemoryReactorClock

from ploinky.errors import AgentBroken, AgentUnreachable, Draining
from ploinky.interfaces import IExchange
from ploinky.tasks import queue_directory
from ploinky.tasks.file_transport import FileTransport
from ploinky.tasks.inotify import Inotify
from ploinky.testing.tasks import HeldLease, RecordedAnswer, a_call
from ploinky.values import Address, Target, TaskCall, Wire


class Queue:
    """A queue directory and whoever runs the tasks in it, by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("tasks", "results", "errors", "locks", "tmp"):
            (root / name).mkdir(parents=True)
        self.read: list[str] = []
        target = Target("one", Address(), Wire.FILE, str(root))
        self.lease = HeldLease(target)

    def tasks(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_bytes()) for path in (self.root / "tasks").iterdir()]

    def put(self, place: str, name: str, content: bytes | dict[str, Any]) -> Path:
        """Write elsewhere and rename into place, as the contract says."""
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        temporary = self.root / "tmp" / f"{name}.executor"
        temporary.write_bytes(content)
        if place != "tmp":
            self.read.append(name)
        return temporary.rename(self.root / place / name)

    def left(self) -> list[str]:
        """Every file that lies in the queue, but for spare ones."""
        files = (str(p.relative_to(self.root)) for p in self.root.rglob("*") if not p.is_dir())
        spare = {f"tmp/{name}" for name in self.read}
        return sorted(set(files) - spare)


class Loop:
    """A clock, and the readers that a reactor would read."""

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.advance: Callable[[float], None] = self.reactor.advance

    def turn(self) -> None:
        """Read every descriptor once."""
        for reader in self.reactor.getReaders():
            reader.doRead()


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


@pytest.fixture
def loop() -> Loop:
    return Loop()


def started(loop: Loop) -> FileTransport:
    transport = FileTransport(loop.reactor, Inotify(loop.reactor))
    transport.startService()
    return transport


@pytest.fixture
def transport(loop: Loop) -> Iterator[FileTransport]:
    transport = started(loop)
    yield transport
    if transport.running:
        transport.stopService()


def sent(
    transport: FileTransport, queue: Queue, call: TaskCall | None = None
) -> tuple[TaskCall, RecordedAnswer, IExchange]:
    call = call or a_call("hello", "world")
    answer = RecordedAnswer()
    return call, answer, transport.send(queue.lease, call, answer)


def test_a_task_is_a_file_with_all_that_the_agent_needs(
    transport: FileTransport, queue: Queue
) -> None:
    """The file is there, whole and readable by its owner alone, when `send` returns."""
    call, _, _ = sent(transport, queue, a_call("hello", {"a": 1}, user="Zoë", request_id="r-1"))
    assert queue.tasks() == [
        {
            "id": call.task,
            "command": "hello",
            "params": [{"a": 1}],
            "user": "Zoë",
            "deadline": call.deadline_ms,
            "requestId": "r-1",
        }
    ]
    assert (queue.root / "tasks" / call.task).stat().st_mode & 0o777 == 0o600
    assert queue.left() == [f"tasks/{call.task}"]


def test_a_result_is_passed_on_exactly_and_its_file_removed(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """Key order, spacing and number form are the agent's own."""
    call, answer, _ = sent(transport, queue)
    queue.put(
        "results", call.task, b'{"id":"%b","data":{"b": 1.0,  "a":[1e2]}}' % call.task.encode()
    )
    loop.turn()
    assert answer.status == 200
    assert answer.body == b'{"b": 1.0,  "a":[1e2]}'
    assert answer.length == len(answer.body)
    assert queue.left() == [f"tasks/{call.task}"]


def test_an_error_has_the_form_of_every_error_of_a_call(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """The caller cannot tell which wire brought it."""
    call, answer, _ = sent(transport, queue)
    error = {"status": 418, "code": "TEAPOT", "message": "no coffee", "details": [1]}
    queue.put("errors", call.task, {"id": call.task, "error": error})
    loop.turn()
    assert answer.status == 418
    assert answer.json() == {
        "error": True,
        "code": "TEAPOT",
        "message": "no coffee",
        "details": [1],
        "requestId": call.request_id,
    }
    assert queue.left() == [f"tasks/{call.task}"]


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("results", b""),
        ("results", b"hello"),
        ("results", b'{"id":"ID"}'),
        ("results", b'{"id":"ID","data":nul}'),
        ("results", b'{"id":"ID","data":"\xff"}'),
        ("results", b'{"id":"ID","data":1}{"id":"ID","data":2}'),
        ("results", b'{"id":"another","data":1}'),
        ("results", b'{"id":"ID","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("errors", b'{"id":"ID","error":"it broke"}'),
        ("errors", b'{"id":"ID","error":{"status":200,"message":"fine"}}'),
    ],
)
def test_junk_is_the_agents_fault_and_goes_away(
    transport: FileTransport, queue: Queue, loop: Loop, place: str, content: bytes
) -> None:
    """The caller is told that the agent is broken; the next call is not disturbed."""
    call, answer, _ = sent(transport, queue)
    queue.put(place, call.task, content.replace(b"ID", call.task.encode()))
    loop.turn()
    assert isinstance(answer.error, AgentBroken)
    assert queue.left() == []
    call, answer, _ = sent(transport, queue)
    queue.put("results", call.task, {"id": call.task, "data": 1})
    loop.turn()
    assert answer.json() == 1


def test_a_link_in_place_of_a_result_reads_no_file_of_the_host(
    transport: FileTransport, queue: Queue, loop: Loop, tmp_path: Path
) -> None:
    """An agent cannot have the server read a file for it."""
    call, answer, _ = sent(transport, queue)
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"id": call.task, "data": "secret"}))
    (queue.root / "tmp" / "link").symlink_to(secret)
    (queue.root / "tmp" / "link").rename(queue.root / "results" / call.task)
    loop.turn()
    assert isinstance(answer.error, AgentBroken)
    assert queue.left() == []
    assert secret.exists()


def test_a_pipe_in_place_of_a_result_holds_nobody_up(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """Opening it does not wait for a writer."""
    call, answer, _ = sent(transport, queue)
    os.mkfifo(queue.root / "tmp" / "pipe")
    (queue.root / "tmp" / "pipe").rename(queue.root / "results" / call.task)
    loop.turn()
    assert isinstance(answer.error, AgentBroken)


def test_a_directory_that_became_a_link_leads_nowhere(
    transport: FileTransport, queue: Queue, tmp_path: Path
) -> None:
    """An agent cannot have the server write tasks outside its own queue."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (queue.root / "tasks").rmdir()
    (queue.root / "tasks").symlink_to(outside)
    _, answer, _ = sent(transport, queue)
    assert isinstance(answer.error, AgentUnreachable)
    assert not list(outside.iterdir())


def test_a_result_over_the_limit_is_not_read_into_memory(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """A file of a terabyte costs the server at most the limit."""
    call, answer, _ = sent(transport, queue)
    path = queue.root / "tmp" / "huge"
    path.touch()
    os.truncate(path, queue_directory.LARGEST_RESULT_BYTES * 1000)
    path.rename(queue.root / "results" / call.task)
    loop.turn()
    assert isinstance(answer.error, AgentBroken)
    assert str(queue_directory.LARGEST_RESULT_BYTES) in answer.error.message


def test_cancelling_takes_the_task_back(transport: FileTransport, queue: Queue, loop: Loop) -> None:
    """The executor sees its file vanish; a result that comes all the same is removed unread."""
    call, answer, exchange = sent(transport, queue)
    exchange.cancel()
    assert queue.left() == []
    queue.put("results", call.task, {"id": call.task, "data": "late"})
    loop.turn()
    assert not answer.whole.called
    assert queue.left() == []


def test_cancelling_after_the_end_does_nothing(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """A client that leaves just as its answer came costs nobody anything."""
    call, answer, exchange = sent(transport, queue)
    queue.put("results", call.task, {"id": call.task, "data": 1})
    loop.turn()
    exchange.cancel()
    assert answer.json() == 1


def test_a_result_is_found_without_inotify(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """The slow look finds, within a second, what inotify never told."""
    call, answer, _ = sent(transport, queue)
    other, other_answer, _ = sent(transport, queue)
    queue.put("results", call.task, {"id": call.task, "data": 1})
    queue.put("errors", other.task, {"id": other.task, "error": {"message": "no"}})
    loop.advance(1.1)
    assert answer.json() == 1
    assert other_answer.status == 500


def test_results_that_inotify_dropped_are_found_at_once(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """When the kernel says that its queue overflowed, every queue is looked at."""
    call, answer, _ = sent(transport, queue)
    queue.put("results", call.task, {"id": call.task, "data": 1})
    reader = next(iter(loop.reactor.getReaders()))
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    reader.doRead()
    assert answer.whole.called
    call, answer, _ = sent(transport, queue)
    for number in range(limit + 1):
        (queue.root / "tmp" / "x").touch()
        (queue.root / "tmp" / "x").rename(queue.root / "results" / f"x{number % 7}")
    queue.put("results", call.task, {"id": call.task, "data": 2})
    for _ in range(limit):
        if answer.whole.called:
            break
        reader.doRead()
    assert answer.json() == 2


def test_nothing_is_done_while_no_task_is_in_flight(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """An idle server does not wake up for its queues."""
    call, _, _ = sent(transport, queue)
    queue.put("results", call.task, {"id": call.task, "data": 1})
    loop.turn()
    loop.advance(1.1)
    assert not loop.reactor.getDelayedCalls()


def test_two_workers_share_a_queue(transport: FileTransport, queue: Queue, loop: Loop) -> None:
    """Each reads the results of its own tasks, and leaves the other's alone."""
    neighbour = started(loop)
    mine, my_answer, _ = sent(transport, queue)
    theirs, their_answer, _ = sent(neighbour, queue)
    queue.put("results", theirs.task, {"id": theirs.task, "data": "theirs"})
    queue.put("results", mine.task, {"id": mine.task, "data": "mine"})
    loop.turn()
    loop.advance(1.1)
    assert (my_answer.json(), their_answer.json()) == ("mine", "theirs")
    neighbour.stopService()


def test_what_a_worker_that_is_gone_left_is_swept(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """Old results that nobody waits for do not eat the disk; young ones may be a neighbour's."""
    for place in ("results", "errors", "tmp"):
        os.utime(queue.put(place, f"old-{place}", b"{}"), (1_000, 1_000))
        os.utime(queue.put(place, f"young-{place}", b"{}"), (2_000, 2_000))
    loop.advance(2_100)
    sent(transport, queue)
    assert [name for name in queue.left() if "old" in name] == []
    assert len([name for name in queue.left() if "young" in name]) == 3


def test_an_instance_that_is_removed_fails_its_tasks_at_once(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """Nobody waits out the time-out for an instance whose queue was deleted."""
    _, answer, exchange = sent(transport, queue)
    (queue.root / "results").rmdir()
    loop.turn()
    assert isinstance(answer.error, AgentUnreachable)
    exchange.cancel()


def test_a_queue_that_is_deleted_is_given_back(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """A server that has run for a year of deploys holds the descriptors of those that are alive."""
    call, _, _ = sent(transport, queue)
    queue.put("results", call.task, {"id": call.task, "data": 1})
    loop.turn()
    (queue.root / "tasks" / call.task).unlink()
    before = len(os.listdir("/proc/self/fd"))
    (queue.root / "results").rmdir()
    loop.turn()
    assert len(os.listdir("/proc/self/fd")) == before - 5


def test_a_queue_that_is_not_there_is_an_agent_that_cannot_be_reached(
    transport: FileTransport, queue: Queue, tmp_path: Path
) -> None:
    """The failure comes through the answer, names the cause and no path of this host."""
    target = attrs.evolve(queue.lease.target, queue_directory=str(tmp_path / "absent"))
    answer = RecordedAnswer()
    transport.send(HeldLease(target), a_call("hello"), answer).cancel()
    assert isinstance(answer.error, AgentUnreachable)
    assert "No such file" in answer.error.message
    assert str(tmp_path) not in answer.error.message


def test_stopping_takes_back_what_nobody_will_wait_for(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """Those who still wait are told, the queue is left clean, and so are the descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    _, answer, _ = sent(transport, queue)
    transport.stopService()
    assert isinstance(answer.error, Draining)
    assert queue.left() == []
    assert not loop.reactor.getReaders()
    assert not loop.reactor.getDelayedCalls()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def answered(transport: FileTransport, queue: Queue, loop: Loop, result: Any) -> TaskCall:
    """Have a task sent, run and read."""
    call, answer, _ = sent(transport, queue)
    queue.put("results", call.task, {"id": call.task, "data": result})
    loop.turn()
    assert answer.json() == result
    (queue.root / "tasks" / call.task).unlink()
    return call


def test_a_result_that_was_read_is_written_over_for_a_later_task(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """A busy queue makes no new files, and nothing of the old content shows in the new one."""
    call = answered(transport, queue, loop, "x" * 5000)
    inode = (queue.root / "tmp" / call.task).stat().st_ino
    call, _, _ = sent(transport, queue)
    assert (queue.root / "tasks" / call.task).stat().st_ino == inode
    assert [task["id"] for task in queue.tasks()] == [call.task]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_link_in_place_of_a_spare_file_writes_no_file_of_the_host(
    transport: FileTransport,
    queue: Queue,
    loop: Loop,
    tmp_path: Path,
    link: Callable[[Path, Path], None],
) -> None:
    """An agent cannot have the server write over a file for it; the task goes its way."""
    call = answered(transport, queue, loop, 1)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    spare = queue.root / "tmp" / call.task
    spare.unlink()
    link(spare, precious)
    call, _, _ = sent(transport, queue)
    assert precious.read_text() == "precious"
    assert [task["id"] for task in queue.tasks()] == [call.task]


def test_spare_files_end_with_the_worker(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """A worker that stops leaves an empty queue."""
    answered(transport, queue, loop, 1)
    assert list((queue.root / "tmp").iterdir())
    transport.stopService()
    assert not list((queue.root / "tmp").iterdir())


def test_a_caller_that_breaks_does_not_break_the_others(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """An answer that raises is logged; the next result is still read."""

    class Broken(RecordedAnswer):
        def data(self, chunk: bytes) -> None:
            raise ZeroDivisionError

    call = a_call("hello")
    transport.send(queue.lease, call, Broken())
    other, answer, _ = sent(transport, queue)
    for task in (call.task, other.task):
        queue.put("results", task, {"id": task, "data": 1})
    loop.turn()
    assert answer.json() == 1
