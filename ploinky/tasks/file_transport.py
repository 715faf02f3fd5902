"""Tasks through an instance's queue directory (contract, section 3, *Wire, files*).

A lease and a task enter; the file that the agent writes goes to the caller's
answer in one piece.  Waiting is by inotify, one descriptor for all queues; while
tasks are in flight, their answers are also looked for once a second, because inotify
misses what came before it and drops events when its own queue is full.

Several workers share a queue directory.  Task ids are unique among them, each
reads the results of its own tasks alone, and what nobody has read for ten
minutes belonged to a worker that is gone: it is swept.

An engine that dies leaves its locks, and no later one runs what is locked.  Each says where it
listens, or that it is ready, before it takes a file: a lock that is older than that, of a task
that was queued before it, is a dead engine's, and the caller is told so.
"""

from __future__ import annotations

from functools import partial

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.errors import AgentLeft, AgentUnreachable, CallFailed, Draining
from ploinky.interfaces import IAgentTransport, IAnswer, IExchange, ILease
from ploinky.tasks.inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    Inotify,
)
from ploinky.tasks.messages import Outcome, error_outcome, result_outcome, task_file
from ploinky.tasks.queue_directory import ERRORS, RESULTS, SUBDIRECTORIES, TASKS, QueueDirectory
from ploinky.tasks.queue_engine import SIGNS, Engine, engine_of
from ploinky.values import TaskCall

RESCAN_SECONDS = 1.0
UNCLAIMED_SECONDS = 600.0
"""Age at which a result is taken for one that nobody waits for."""

SWEEP_SECONDS = 60.0
CANCELLED_SECONDS = 10.0
"""How long the result of a cancelled task may still come, and is then removed at once."""

_CHANGES = IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM
_TICK_NS = 10_000_000
"""By how much the times of two files may be wrong; no engine starts as fast."""

_OUTCOMES = {RESULTS: result_outcome, ERRORS: error_outcome}


class _Queue:
    """A queue directory that is open and watched, and who waits for what from it."""

    __slots__ = ("cancelled", "directory", "engine", "pending", "swept_at", "watches")

    def __init__(self, directory: QueueDirectory, now: float) -> None:
        self.directory = directory
        self.engine: Engine | None = None
        self.pending: dict[str, _FileExchange] = {}
        self.cancelled: dict[str, float] = {}
        self.watches: list[int] = []
        self.swept_at = now


@implementer(IExchange)
class _FileExchange:
    """One task in a queue.  Task and result come whole, so most of the interface is void."""

    __slots__ = ("_transport", "answer", "call", "engine", "queue")

    def __init__(
        self, transport: FileTransport, queue: _Queue | None, call: TaskCall, answer: IAnswer
    ) -> None:
        self._transport = transport
        self.queue = queue
        self.engine = queue.engine if queue is not None else None
        self.call = call
        self.answer = answer

    def write(self, chunk: bytes) -> None:
        """A task travels whole."""

    def finish(self) -> None:
        """A task travels whole."""

    def cancel(self) -> None:
        self._transport.cancel(self)

    def pause(self) -> None:
        """The result has come whole."""

    def resume(self) -> None:
        """The result has come whole."""


@implementer(IAgentTransport)
class FileTransport(Service):
    """Sends tasks as files to the lease's queue directory.

    A service: started before the first `send`; stopping fails what is in flight with
    `Draining` and takes it back out of the queues.

    Args:
        clock: Its seconds are Unix time.
        inotify: This transport's own from now on: started and stopped with it.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, inotify: Inotify) -> None:
        self._clock = clock
        self._inotify = inotify
        self._queues: dict[str, _Queue] = {}
        self._rescan: IDelayedCall | None = None

    def startService(self) -> None:
        """Open inotify.

        Raises:
            OSError: This user has no inotify instance left.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._inotify.start(self._look_everywhere)

    def stopService(self) -> None:
        """Give everything back; whoever still waits is told `Draining`."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._rescan is not None:
            self._rescan.cancel()
            self._rescan = None
        for queue in list(self._queues.values()):
            for task in queue.pending:
                queue.directory.discard(TASKS, task)
            self._close(queue, Draining("the server is shutting down", retry_after_seconds=1))
        self._inotify.stop()

    def send(self, lease: ILease, request: TaskCall, answer: IAnswer) -> IExchange:
        """Queue the task; see `IAgentTransport`."""
        path = lease.target.queue_directory
        queue = self._queues.get(path)
        try:
            if queue is None:
                queue = self._open(path)
            queue.directory.put(request.task, task_file(request))
        except OSError as error:
            self._log.warn(
                "Cannot queue a task for {instance} in {path}: {error}",
                instance=lease.target.instance,
                path=path,
                error=error,
                request_id=request.request_id,
            )
            why = f"the agent's queue cannot be written: {error.strerror}"
            answer.failed(AgentUnreachable(why, got_nothing=True))
            return _FileExchange(self, None, request, answer)
        exchange = queue.pending[request.task] = _FileExchange(self, queue, request, answer)
        if self._rescan is None:
            self._rescan = self._clock.callLater(RESCAN_SECONDS, self._look_again)
        return exchange

    def cancel(self, exchange: _FileExchange) -> None:
        """Take the task back; the executor that runs it sees that and aborts it."""
        queue, task = exchange.queue, exchange.call.task
        if queue is None or queue.pending.pop(task, None) is None:
            return
        queue.cancelled[task] = self._clock.seconds()
        queue.directory.discard(TASKS, task)

    # --- queues come and go -------------------------------------------------

    def _open(self, path: str) -> _Queue:
        directory = QueueDirectory(path)
        queue = _Queue(directory, self._clock.seconds())
        try:
            for place in (RESULTS, ERRORS):
                told = partial(self._arrived, queue, place)
                queue.watches.append(
                    self._inotify.watch(directory.watchable(place), IN_MOVED_TO, told)
                )
            changed = partial(self._changed, queue)
            queue.watches.append(self._inotify.watch(path, _CHANGES, changed))
            queue.engine = engine_of(path)
            directory.sweep(queue.swept_at - UNCLAIMED_SECONDS)
        except OSError:
            self._release(queue)
            raise
        self._queues[path] = queue
        return queue

    def _changed(self, queue: _Queue, name: str) -> None:
        if name in SIGNS:
            self._look_for_engine(queue)
        elif name in SUBDIRECTORIES:
            self._close(queue, AgentLeft("the instance was removed with the task in hand"))

    def _release(self, queue: _Queue) -> None:
        for watch in queue.watches:
            self._inotify.forget(watch)
        queue.watches.clear()
        queue.directory.close()

    def _close(self, queue: _Queue, reason: CallFailed) -> None:
        self._queues.pop(queue.directory.path, None)
        self._release(queue)
        queue.cancelled.clear()
        pending, queue.pending = queue.pending, {}
        for exchange in pending.values():
            exchange.queue = None
            self._tell(exchange.answer, reason)

    # --- results arrive -----------------------------------------------------

    def _arrived(self, queue: _Queue, place: str, task: str) -> None:
        exchange = queue.pending.get(task)
        if exchange is None:
            if queue.cancelled.pop(task, None) is not None:
                queue.directory.discard(place, task)
            return  # another worker's, or swept later
        try:
            content = queue.directory.take(place, task)
            if content is None:
                return
            del queue.pending[task]
            outcome = _OUTCOMES[place](content, exchange.call)
        except CallFailed as error:
            queue.pending.pop(task, None)
            queue.directory.discard(TASKS, task)
            self._tell(exchange.answer, error)
            return
        self._tell(exchange.answer, outcome)

    def _look_for_engine(self, queue: _Queue) -> None:
        """See whether another engine serves a queue; if so, what a dead one had will not come."""
        engine = engine_of(queue.directory.path)
        if engine is None:
            return
        queue.engine = engine
        for task, exchange in list(queue.pending.items()):
            if exchange.engine != engine and queue.directory.locked_before(
                task, engine.came_ns - _TICK_NS
            ):
                self._lost(queue, exchange)

    def _lost(self, queue: _Queue, exchange: _FileExchange) -> None:
        """Tell a caller that the engine ended, unless it had answered before it did."""
        task = exchange.call.task
        for place in _OUTCOMES:
            self._arrived(queue, place, task)
        # In this order: nobody begins a task that has gone.
        queue.directory.discard(TASKS, task)
        queue.directory.unlock(task)
        if queue.pending.pop(task, None) is not None:
            self._tell(exchange.answer, AgentLeft("the agent ended with the task in hand"))

    def _tell(self, answer: IAnswer, outcome: Outcome | CallFailed) -> None:
        try:
            if isinstance(outcome, CallFailed):
                answer.failed(outcome)
                return
            answer.started(outcome.status, outcome.fields, len(outcome.body))
            answer.data(outcome.body)
            answer.ended()
        except Exception:
            # One caller's bug must not cost all others the descriptor: Twisted drops a
            # reader that raises.
            self._log.failure("A caller could not take the outcome of its task")

    def _look_again(self) -> None:
        self._rescan = None
        try:
            self._look_everywhere()
        finally:  # one look that breaks must not be the last
            if any(queue.pending or queue.cancelled for queue in self._queues.values()):
                self._rescan = self._clock.callLater(RESCAN_SECONDS, self._look_again)

    def _look_everywhere(self) -> None:
        now = self._clock.seconds()
        for queue in list(self._queues.values()):
            if not (queue.pending or queue.cancelled):
                queue.directory.rest()
                continue
            try:
                self._look(queue, now)
            except OSError as error:
                reason = f"the agent's queue cannot be read: {error.strerror}"
                self._close(queue, AgentUnreachable(reason))

    def _look(self, queue: _Queue, now: float) -> None:
        queue.directory.check()
        if now - queue.swept_at > SWEEP_SECONDS:
            queue.swept_at = now
            queue.directory.sweep(now - UNCLAIMED_SECONDS)
        for task, since in list(queue.cancelled.items()):
            if now - since > CANCELLED_SECONDS:
                del queue.cancelled[task]
            for place in _OUTCOMES:
                queue.directory.discard(place, task)
        # Not listed: an agent may have put any number of names there.
        for task in list(queue.pending):
            for place in _OUTCOMES:
                self._arrived(queue, place, task)
        self._look_for_engine(queue)
