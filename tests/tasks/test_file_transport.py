"""Tasks through a queue directory: what callers get whatever happens to the files.

Real directories and real inotify; the clock is ours, and `turn` takes the place of the
reactor's loop: the kernel has an event ready as soon as the file was renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

import attrs
import pytest

from ploinky.errors import AgentBroken, AgentLeft, AgentUnreachable, Draining
from ploinky.tasks.file_transport import FileTransport
from ploinky.testing.tasks import HeldLease, RecordedAnswer, a_call
from tests.tasks.queues import Loop, Queue, answered, sent, started


def held(queue: Queue) -> list[str]:
    """What this process has open of a queue, be it deleted or not."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of this list itself
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [place for place in found if place.startswith(str(queue.root))]


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


@pytest.mark.parametrize(
    ("written", "passed_on"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"a\uDE00\ud83d\ude00\ud83dz"', "a\ufffd😀\ufffdz"),
        (rb'{"\ud83d": "\\ud83d"}', {"\ufffd": "\\ud83d"}),
    ],
)
def test_half_a_surrogate_pair_costs_no_answer(
    transport: FileTransport, queue: Queue, loop: Loop, written: bytes, passed_on: object
) -> None:
    """Text that was cut amid an emoji has one: it stands for no character, and the rest holds."""
    call, answer, _ = sent(transport, queue)
    queue.put("results", call.task, b'{"id":"%b","data":%b}' % (call.task.encode(), written))
    loop.turn()
    assert (answer.status, answer.json()) == (200, passed_on)
    call, answer, _ = sent(transport, queue)
    error = b'{"status":409,"code":"CUT","message":"a\\ud83d"}'
    queue.put("errors", call.task, b'{"id":"%b","error":%b}' % (call.task.encode(), error))
    loop.turn()
    assert (answer.status, answer.json()["message"]) == (409, "a\ufffd")


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
    assert not answer.error.got_nothing
    exchange.cancel()


def test_a_queue_that_is_deleted_is_given_back(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """A server that has run for a year of deploys holds the descriptors of those that are alive."""
    call, _, _ = sent(transport, queue)
    queue.put("results", call.task, {"id": call.task, "data": 1})
    loop.turn()
    (queue.root / "tasks" / call.task).unlink()
    assert len(held(queue)) == 5
    (queue.root / "results").rmdir()
    loop.turn()
    assert held(queue) == []


def test_a_queue_that_is_not_there_is_an_agent_that_cannot_be_reached(
    transport: FileTransport, queue: Queue, tmp_path: Path
) -> None:
    """The failure comes through the answer, names the cause and no path of this host."""
    target = attrs.evolve(queue.lease.target, queue_directory=str(tmp_path / "absent"))
    answer = RecordedAnswer()
    transport.send(HeldLease(target), a_call("hello"), answer).cancel()
    assert isinstance(answer.error, AgentUnreachable)
    assert answer.error.got_nothing
    assert "No such file" in answer.error.message
    assert str(tmp_path) not in answer.error.message


def test_stopping_takes_back_what_nobody_will_wait_for(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """Those who still wait are told, the queue is left clean, and so are the descriptors."""
    _, answer, _ = sent(transport, queue)
    (reader,) = loop.reactor.getReaders()
    transport.stopService()
    assert isinstance(answer.error, Draining)
    assert queue.left() == []
    assert not loop.reactor.getReaders()
    assert not loop.reactor.getDelayedCalls()
    assert held(queue) == []
    assert reader.fileno() == -1


def test_a_result_that_was_read_is_written_over_for_a_later_task(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """A busy queue makes no new files, and nothing of the old content shows in the new one."""
    call = answered(transport, queue, loop, "x" * 5000)
    inode = (queue.root / "tmp" / call.task).stat().st_ino
    call, _, _ = sent(transport, queue)
    assert (queue.root / "tasks" / call.task).stat().st_ino == inode
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


def test_a_queue_in_which_nothing_is_in_flight_holds_nothing(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """Spare files are for the next moment, not for ever."""
    answered(transport, queue, loop, 1)
    loop.advance(1.1)
    assert not list((queue.root / "tmp").iterdir())


@pytest.mark.parametrize("size", [400, 5000])
def test_a_task_over_a_longer_file_is_the_same_json(
    transport: FileTransport, queue: Queue, loop: Loop, size: int
) -> None:
    """What is left over of the file is blank or cut."""
    answered(transport, queue, loop, "x" * size)
    call, _, _ = sent(transport, queue)
    assert [task["id"] for task in queue.tasks()] == [call.task]


def test_locks_of_tasks_that_are_over_are_swept(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """An engine that was killed leaves them; that of a task that waits still holds."""
    for make in (Path.mkdir, Path.touch):
        for name, age in (("over", 1_000), ("waiting", 1_000), ("young", 2_000)):
            lock = queue.root / "locks" / f"{name}-{make.__name__}"
            make(lock)
            os.utime(lock, (age, age))
        queue.put("tasks", f"waiting-{make.__name__}", b"{}")
    loop.advance(2_100)
    sent(transport, queue)
    left = {path.name for path in (queue.root / "locks").iterdir()}
    assert left == {"waiting-mkdir", "waiting-touch", "young-mkdir", "young-touch"}


def lock(queue: Queue, task: str, *, linked: bool = False) -> None:
    """Take a task as an engine does: by a directory, or by a further name for a file of its own."""
    if linked:
        own = queue.root / "tmp" / "lock-of-this-engine"
        own.touch()
        (queue.root / "locks" / task).hardlink_to(own)
    else:
        (queue.root / "locks" / task).mkdir()


def engine(queue: Queue, after: Path | None = None, *, speaks_http: bool = True) -> None:
    """Have an engine come up as a dead one's successor: it listens, or says that it is ready.

    Args:
        after: What the dead one left; file times are a tick of the kernel apart then.
    """
    for name in ("agent.sock", "ready"):
        (queue.root / name).unlink(missing_ok=True)
    if after is not None:
        os.utime(after, (0, 0))
    if speaks_http:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(queue.root / "agent.sock"))
    else:
        queue.put("tmp", "ready", {"transports": ["file"]}).rename(queue.root / "ready")


@pytest.mark.parametrize("speaks_http", [True, False])
@pytest.mark.parametrize("linked", [True, False])
def test_a_task_that_an_engine_died_with_fails_once_the_next_one_is_up(
    transport: FileTransport, queue: Queue, loop: Loop, linked: bool, speaks_http: bool
) -> None:
    """Nobody will ever answer it: the caller need not wait for its deadline to hear that."""
    engine(queue, speaks_http=speaks_http)
    call, answer, _ = sent(transport, queue)
    lock(queue, call.task, linked=linked)
    loop.turn()
    assert not answer.whole.called
    engine(queue, queue.root / "locks" / call.task, speaks_http=speaks_http)
    loop.turn()
    assert isinstance(answer.error, AgentLeft)
    assert not answer.error.got_nothing, "it was begun: nobody may run it again"
    assert not (queue.root / "tasks" / call.task).exists()
    assert os.listdir(queue.root / "locks") == []


def test_what_an_engine_answered_before_it_died_counts(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """It was killed between the answer and the end of its lock, and inotify lost the answer."""
    engine(queue)
    call, answer, _ = sent(transport, queue)
    lock(queue, call.task)
    whole = json.dumps({"id": call.task, "data": 1})
    (queue.root / "results" / call.task).write_text(whole)  # not renamed: no event
    engine(queue, queue.root / "locks" / call.task)
    loop.turn()
    assert answer.json() == 1
    assert os.listdir(queue.root / "locks") == []


def test_what_the_next_engine_has_begun_is_its_own(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """A task that the dead engine had not begun is run by the next one, and answered by it."""
    engine(queue)
    call, answer, _ = sent(transport, queue)
    engine(queue)
    lock(queue, call.task)
    loop.turn()
    loop.advance(1.1)
    assert not answer.whole.called
    queue.put("results", call.task, {"id": call.task, "data": 1})
    loop.turn()
    assert answer.json() == 1


def test_a_lock_of_the_engine_that_serves_holds_whatever_its_time_is(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """A clock that is put back makes a lock look older than its engine; nothing died."""
    engine(queue)
    call, answer, _ = sent(transport, queue)
    lock(queue, call.task)
    os.utime(queue.root / "locks" / call.task, (0, 0))
    loop.advance(1.1)
    assert not answer.whole.called
    assert (queue.root / "tasks" / call.task).exists()
