"""A worker that is killed between any two system calls for a queue's files.

A forked child does what a worker does, and ends without a word after the n-th call, for
every n until it gets through.  Whatever was left, the next worker goes on with it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ploinky.tasks.queue_directory import ERRORS, RESULTS, TASKS, TMP, QueueDirectory

CALLS = ("open", "fstat", "read", "write", "ftruncate", "close", "rename", "unlink")
KILLED = 9

CONTENT = json.dumps({"id": "victim", "command": "hello", "params": ["x" * 200]}).encode()
RESULT = json.dumps({"id": "victim", "data": "y" * 3000}).encode()

Act = Callable[[QueueDirectory], Any]


def queue_it(directory: QueueDirectory) -> None:
    directory.put("victim", CONTENT)


def queue_it_over(size: int) -> Act:
    """Queue it where a result of a size was read before."""

    def act(directory: QueueDirectory) -> None:
        (Path(directory.path) / RESULTS / "first").write_bytes(b"1".ljust(size))
        assert directory.take(RESULTS, "first")
        directory.put("victim", CONTENT)

    return act


def read_it(directory: QueueDirectory) -> None:
    assert directory.take(RESULTS, "victim") == RESULT


def take_it_back(directory: QueueDirectory) -> None:
    directory.put("victim", CONTENT)
    directory.discard(TASKS, "victim")


ACTS = {
    "queued": queue_it,
    "queued over a short file": queue_it_over(100),
    "queued over a longer file": queue_it_over(len(CONTENT) + 100),
    "queued over a long file": queue_it_over(20_000),
    "read": read_it,
    "taken back": take_it_back,
}


def ends(queue: Path, act: Act, after: int) -> bool:
    """Let a child act until its n-th call; give whether it was killed there."""
    child = os.fork()
    if child == 0:
        try:
            directory = QueueDirectory(str(queue))
            exit_after(after)
            act(directory)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def exit_after(last: int) -> None:
    """End this process after its n-th call."""
    calls = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal calls
            result = real(*given, **named)
            calls += 1
            if calls == last:
                os._exit(KILLED)
            return result

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def content(path: Path) -> bytes | None:
    return path.read_bytes().rstrip() if path.exists() else None


@pytest.mark.parametrize("what", ACTS)
def test_a_killed_worker_leaves_a_task_whole_or_not_at_all(tmp_path: Path, what: str) -> None:
    """And the next worker can queue it again, whatever the first one left of it."""
    after = 0
    killed = True
    while killed:
        after += 1
        queue = tmp_path / str(after)
        for name in (TASKS, RESULTS, ERRORS, "locks", TMP):
            (queue / name).mkdir(parents=True)
        result = queue / RESULTS / "victim"
        result.write_bytes(RESULT)
        killed = ends(queue, ACTS[what], after)

        assert content(queue / TASKS / "victim") in (None, CONTENT)
        assert content(result) in ((None, RESULT) if what == "read" else (RESULT,))
        directory = QueueDirectory(str(queue))
        directory.put("victim", CONTENT[::-1])
        assert content(queue / TASKS / "victim") == CONTENT[::-1]
        directory.sweep(time.time() + 60)
        assert [path for path in queue.rglob("*") if path.is_file()] == [queue / TASKS / "victim"]
        directory.close()
    assert after > 2
