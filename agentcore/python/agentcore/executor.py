"""Runs tasks: who may run now, who waits, and what ends one.

Tasks enter from the wires; exactly one outcome leaves for each, or none where the
caller went away first.  Knows nothing of HTTP or files.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional

from .catalogue import Catalogue, Target
from .tasks import Abort, Done, Failure, Item, Task

# Beyond `concurrency`, tasks wait in line until their deadline: two gateway
# workers may each believe that the last place is free.
MAX_WAITING = 1024

# Runs a task and gives what ends it early, or None if it is over already.
Runner = Callable[[Task, Target, Done, Item], Optional[Abort]]


def now_ms() -> float:
    """Give the time in ms since 1970, as deadlines are."""
    return time.time() * 1000


class Executor:
    """The tasks in flight.

    Attributes:
        draining: True once the agent stops: nothing is taken any more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        catalogue: Catalogue,
        runners: Mapping[str, Runner],
        concurrency: int,
        timeout: float,
        max_result_bytes: int,
    ) -> None:
        self._loop = loop
        self._catalogue = catalogue
        self._runners = runners
        self._concurrency = concurrency
        self._timeout_ms = timeout * 1000
        self._max_result_bytes = max_result_bytes
        self._tasks: Dict[int, Task] = {}
        self._waiting: Deque[Task] = deque()
        self._running = 0
        self._timer: Optional[asyncio.TimerHandle] = None
        self._timer_at = float("inf")
        self._idle: List[asyncio.Future[None]] = []
        self.draining = False

    @property
    def inflight(self) -> int:
        """How many tasks run or wait."""
        return len(self._tasks)

    @property
    def busy(self) -> bool:
        """Whether another task would have to wait."""
        return self._running >= self._concurrency

    def submit(self, task: Task, done: Done) -> None:
        """Take a task; `done` is called once, or never after `cancel`."""
        now = now_ms()
        task.deadline = task.deadline or now + self._timeout_ms
        task.done = done
        task.target = self._catalogue.find(task.command)
        refusal = self._refusal(task, now)
        if refusal:
            task.finished = True
            done(None, refusal)
            return
        self._tasks[task.sequence] = task
        self._watch(task.deadline)
        if self.busy:
            self._waiting.append(task)
        else:
            self._start(task)

    def cancel(self, task: Task) -> None:
        """End a task whose caller went away: its handler is told, nobody is answered."""
        if not task.finished:
            self._end(task)
            if task.abort:
                task.abort("cancelled")

    async def wait_idle(self) -> None:
        """Return once nothing is in flight any more."""
        if self._tasks:
            idle: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(idle)
            await idle

    def abandon(self) -> None:
        """Fail what is still in flight, because the agent stops."""
        for task in self._youngest_first():
            reason = "The agent stopped before the task was done."
            self._finish(task, None, Failure(503, "DRAINING", reason))
            if task.abort:
                task.abort("cancelled")

    def _youngest_first(self) -> List[Task]:
        # Those that wait before those that run: none starts because another one is ended.
        return list(reversed(list(self._tasks.values())))

    def _refusal(self, task: Task, now: float) -> Optional[Failure]:
        if self.draining:
            return Failure(503, "DRAINING", "The agent is stopping.")
        if task.target is None:
            return self._catalogue.unknown(task.command)
        if task.deadline <= now:
            return _timed_out(task)
        if self.busy and len(self._waiting) >= MAX_WAITING:
            load = f"The agent runs {self._running} tasks and {MAX_WAITING} wait."
            return Failure(503, "OVERLOADED", load)
        return None

    def _start(self, task: Task) -> None:
        self._running += 1
        task.abort = _nothing
        if task.item is None:
            self._collect(task)
        run = self._runners[task.target.kind]
        abort = run(
            task,
            task.target,
            lambda raw, failed: self._finish(task, raw, failed),
            lambda raw: self._item(task, raw),
        )
        if abort:
            task.abort = abort

    def _item(self, task: Task, raw: bytes) -> None:
        # Who reads items as they come waits only for the first.
        if not task.finished:
            task.open_ended = task.to_events
            assert task.item is not None
            task.item(raw)

    def _collect(self, task: Task) -> None:
        """Make one result of a task's items."""
        items: List[bytes] = []
        size = 1
        done = task.done
        assert done is not None

        def item(raw: bytes) -> None:
            nonlocal size
            items.append(raw)
            size += len(raw) + 1
            if size <= self._max_result_bytes:
                task.taken(len(raw))
                return
            self._finish(task, None, _too_much(task, self._max_result_bytes))
            assert task.abort is not None
            task.abort("cancelled")

        def finish(raw: Optional[bytes], failed: Optional[Failure]) -> None:
            if raw is None and failed is None:
                raw = b"[%b]" % b",".join(items)
            done(raw, failed)

        task.item = item
        task.done = finish

    def _finish(self, task: Task, raw: Optional[bytes], failed: Optional[Failure]) -> None:
        if task.finished:
            return
        self._end(task)
        assert task.done is not None
        task.done(raw, failed)

    def _end(self, task: Task) -> None:
        task.finished = True
        del self._tasks[task.sequence]
        if task.abort:
            self._running -= 1
            while self._waiting and not self.busy:
                self._start(self._waiting.popleft())
        else:
            self._waiting.remove(task)
        if not self._tasks:
            while self._idle:
                self._idle.pop().set_result(None)

    def _watch(self, deadline: float) -> None:
        # One timer, for the earliest deadline: none is started or stopped per task.
        if deadline >= self._timer_at:
            return
        if self._timer:
            self._timer.cancel()
        self._timer_at = deadline
        delay = min(max(deadline - now_ms(), 0) / 1000, 86400)
        self._timer = self._loop.call_later(delay, self._expire)

    def _expire(self) -> None:
        self._timer_at = float("inf")
        now = now_ms()
        for task in self._youngest_first():
            if task.finished or task.open_ended or task.deadline > now:
                continue
            self._finish(task, None, _timed_out(task))
            if task.abort:
                task.abort("timeout")
        deadlines = [task.deadline for task in self._tasks.values() if not task.open_ended]
        if deadlines:
            self._watch(min(deadlines))


def _nothing(reason: str) -> Any:
    """Abort a task that cannot be told yet."""


def _too_much(task: Task, limit: int) -> Failure:
    message = (
        f"The items of {task.command} are more than {limit} bytes of JSON, the most that is taken "
        "over this wire. Return less, in pages, or raise PLOINKY_MAX_RESULT_BYTES."
    )
    return Failure(500, "HANDLER_FAILED", message)


def _timed_out(task: Task) -> Failure:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(task.deadline / 1000, 1e11)))
    message = f"{task.command} was not done by its deadline, {when}."
    return Failure(504, "TASK_TIMEOUT", message)
