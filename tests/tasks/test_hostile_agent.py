"""Agents that put into their queue what is no answer: the worker neither reads, writes nor waits.

An agent can write in its own queue directory, and may be anybody's code.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ploinky.errors import AgentBroken, AgentUnreachable
from ploinky.tasks import queue_directory
from ploinky.tasks.file_transport import FileTransport
from ploinky.tasks.queue_directory import MOST_SWEPT
from tests.tasks.queues import Loop, Queue, answered, sent, started


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


def a_directory(path: Path) -> None:
    path.mkdir()


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def a_device(path: Path) -> None:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root can make a device")


@pytest.mark.parametrize("make", [a_directory, a_socket, a_device])
def test_what_is_no_file_is_the_agents_fault(
    transport: FileTransport,
    queue: Queue,
    loop: Loop,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], None],
) -> None:
    """Not a byte of it is read: a device may do anything when it is."""
    call, answer, _ = sent(transport, queue)
    monkeypatch.chdir(queue.root)  # a socket's path is short
    make(Path("tmp/it"))
    Path("tmp/it").rename(f"results/{call.task}")
    read: list[int] = []
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: read.append(size) or real(fd, size))
    loop.turn()
    assert isinstance(answer.error, AgentBroken)
    assert len(read) == 1  # inotify's
    answered(transport, queue, loop, 1)


@pytest.mark.parametrize("place", ["results", "tasks"])
def test_what_may_not_be_used_is_an_error_that_says_so(
    transport: FileTransport, queue: Queue, loop: Loop, place: str
) -> None:
    """A file or directory whose permissions the agent took away; root needs none."""
    if place == "tasks":
        (queue.root / place).chmod(0)
    call, answer, _ = sent(transport, queue)
    path = queue.put("results", call.task, {"id": call.task, "data": 1})
    if place == "results":
        path.chmod(0)
    loop.turn()
    (queue.root / place).chmod(0o700)
    if os.geteuid() == 0:
        assert answer.json() == 1
    else:
        assert isinstance(answer.error, AgentBroken if place == "results" else AgentUnreachable)
        assert "Permission denied" in answer.error.message


@pytest.mark.parametrize("place", ["tasks", "results", "errors", "tmp"])
@pytest.mark.parametrize("is_told", [True, False], ids=["inotify", "rescan"])
def test_a_directory_that_was_replaced_ends_its_tasks_and_no_others(
    transport: FileTransport, queue: Queue, loop: Loop, place: str, is_told: bool
) -> None:
    """Nobody waits for answers in a directory that the agent has moved away."""
    _, answer, _ = sent(transport, queue)
    (queue.root / place).rename(queue.root / "moved")
    (queue.root / place).mkdir()
    if is_told:
        loop.turn()
    else:
        loop.advance(1.1)
    assert isinstance(answer.error, AgentUnreachable)
    answered(transport, queue, loop, 1)


def test_a_result_that_is_moved_away_while_it_is_read_is_read(
    transport: FileTransport, queue: Queue, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the agent puts in its place is not taken for a part of it."""
    call, answer, _ = sent(transport, queue)
    path = queue.put("results", call.task, {"id": call.task, "data": "x" * 100})
    real = os.fstat

    def swapping(descriptor: int) -> os.stat_result:
        if path.exists():
            path.rename(queue.root / "moved")
            queue.put("results", call.task, {"id": call.task, "data": "another"})
        monkeypatch.setattr(os, "fstat", real)
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", swapping)
    loop.turn()
    assert answer.json() == "x" * 100
    answered(transport, queue, loop, 1)


def test_a_result_that_grows_without_end_is_read_to_where_it_ended(
    transport: FileTransport, queue: Queue, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that writes faster than the worker reads does not keep it reading."""
    call, answer, _ = sent(transport, queue)
    path = queue.put("results", call.task, {"id": call.task, "data": "x" * 200_000})
    real = os.read
    growths: list[int] = []

    def growing(descriptor: int, size: int) -> bytes:
        growths.append(size)
        if len(growths) < 20:
            with path.open("ab") as file:
                file.write(b" " * size)
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", growing)
    loop.turn()
    assert answer.json() == "x" * 200_000
    assert len(growths) < 5


def test_any_number_of_names_costs_no_more_than_a_few(
    transport: FileTransport, queue: Queue, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in flight is asked for by name; no directory of an agent's is listed for it."""
    call, answer, _ = sent(transport, queue)
    queue.put("results", call.task, {"id": call.task, "data": 1})
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, None)
    loop.advance(1.1)
    assert answer.json() == 1


def test_what_is_swept_at_a_time_has_a_bound(loop: Loop, queue: Queue) -> None:
    """The rest is swept later: an agent cannot keep a worker busy with old names."""
    for number in range(MOST_SWEPT + 10):
        os.utime(queue.put("results", f"junk{number}", b""), (1_000, 1_000))
    loop.advance(2_000)
    transport = started(loop)
    sent(transport, queue)
    assert len(list((queue.root / "results").iterdir())) == 10
    loop.advance(60.5)
    assert not list((queue.root / "results").iterdir())
    transport.stopService()


def test_what_an_agent_renames_without_end_delays_nobody_for_ever(
    transport: FileTransport, queue: Queue, loop: Loop
) -> None:
    """A turn of the loop takes one buffer of events, whatever number there are."""
    call, answer, _ = sent(transport, queue)
    for number in range(2_000):
        queue.put("errors", f"junk{number % 3}", b"")
    queue.put("results", call.task, {"id": call.task, "data": 1})
    loop.turn()
    assert not answer.whole.called
    loop.advance(1.1)
    assert answer.json() == 1
