"""Durable tasks on their way through instances' queues, across restarts of either side.

A queue's path, a name and a content enter; an `Errand` leaves that fires when something came of
it.  Unlike the ordinary file transport, this one removes nothing before it is told to: what was
read is on record first.  It knows queues, and nothing of tasks, routes or records.

What really happens here, and is told apart:

- the engine answers: a file in ``results/`` or ``errors/``;
- the engine dies with the task in hand.  Its lock stays, and the next engine leaves the task
  alone.  Every engine listens (or, without HTTP, says ``ready``) before it takes a file, so a lock
  that was seen under one engine's socket and still holds under another's is a dead one's;
- nobody has begun it, and it shall run elsewhere: who takes the lock first decides;
- the queue is deleted with the task in it, since its instance is gone;
- this process dies at any of these points: the files say how far it had come.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ploinky.errors import AgentBroken
from ploinky.task_values import DURABLE_PREFIX
from ploinky.tasks.inotify import IN_CREATE, IN_DELETE, IN_MOVED_TO, Inotify
from ploinky.tasks.queue_directory import (
    ERRORS,
    LOCKS,
    RESULTS,
    SUBDIRECTORIES,
    TASKS,
    QueueDirectory,
)
from ploinky.tasks.queue_engine import SIGNS, Engine, engine_of

RESCAN_SECONDS = 1.0
MOST_TIDIED = 4096
"""Names in each place of a queue that a start looks at; far more than one leaves that was killed."""

_ANSWERS = (RESULTS, ERRORS)


@frozen
class Answered:
    """The engine wrote this.

    Attributes:
        place: ``results`` or ``errors``.
    """

    place: str
    content: bytes


@frozen
class Broken:
    """The engine put something there that cannot be read."""

    error: AgentBroken


@frozen
class Lost:
    """No answer will come.

    Attributes:
        begun: Whether an engine had it, or may have had; else it was surely never begun.
    """

    begun: bool


Ending = Answered | Broken | Lost


class _Queue:
    """A queue with errands in it, open and watched."""

    def __init__(self, directory: QueueDirectory) -> None:
        self.directory = directory
        self.errands: dict[str, Errand] = {}
        self.watches: list[int] = []


class Errand:
    """One task in a queue.

    Attributes:
        ended: Fires once with an `Ending`.
    """

    def __init__(self, queues: DurableQueues, queue: _Queue, name: str) -> None:
        self.ended: Deferred[Ending] = Deferred()
        self._queues = queues
        self._queue = queue
        self._name = name
        self._begun = False
        self._engine: Engine | None = None
        self._over = False

    def withdraw(self) -> bool:
        """Take it back if nobody has begun it: `ended` fires with `Lost`, not begun."""
        directory, name = self._queue.directory, self._name
        if self._over or self._begun or not directory.lock(name):
            return False
        # Whoever ran it removed the task before the lock: ours proves nothing without the task.
        waits = directory.has(TASKS, name)
        directory.discard(TASKS, name)
        directory.unlock(name)
        if waits:
            self._end(Lost(begun=False))
        else:
            self.look()
        return waits

    def give_up(self) -> None:
        """Wait no longer: `ended` fires with what is there, else with `Lost`."""
        if not self.withdraw():
            self.look()
            self._end(Lost(begun=True))

    def clear(self) -> None:
        """Remove every trace.  An engine that still runs it aborts it."""
        directory, name = self._queue.directory, self._name
        with contextlib.suppress(KeyError):  # the queue was closed: the next start clears
            for place in (TASKS, *_ANSWERS):
                directory.discard(place, name)
            directory.unlock(name)
        self._end(Lost(begun=True))
        self._queues.forget(self._queue, name)

    def look(self) -> None:
        """See how far it has come."""
        if self._over:
            return
        directory, name = self._queue.directory, self._name
        engine = engine_of(self._queue.directory.path)
        try:
            for place in _ANSWERS:
                content = directory.peek(place, name)
                if content is not None:
                    self._end(Answered(place, content))
                    return
        except AgentBroken as error:
            self._end(Broken(error))
            return
        if self._engine is None:
            self._note_lock(engine)
        elif engine is not None and engine != self._engine:
            self._end(Lost(begun=True))

    def locked(self) -> None:
        """Somebody took its lock, and may have given it back by now."""
        self._begun = True
        self.look()

    def _note_lock(self, engine: Engine | None) -> None:
        if self._queue.directory.has(LOCKS, self._name):
            self._begun = True
            # Only if no other engine came up meanwhile was it surely this one's lock.
            self._engine = engine if engine == engine_of(self._queue.directory.path) else None

    def deleted(self, certain: bool) -> None:
        """The queue is gone.

        Args:
            certain: Whether all that happened in it before is known.
        """
        self._end(Lost(begun=self._begun or not certain))

    def _end(self, ending: Ending) -> None:
        if not self._over:
            self._over = True
            self.ended.callback(ending)


class DurableQueues(Service):
    """Every queue with a durable task in it.

    Stopping leaves all files where they are: `find` takes them up at the next start.

    Args:
        clock: Paces the looks that make up for lost events.
        inotify: Its own from now on: started and stopped with it.
        open_queue: Opens a queue by its path, or raises ``OSError``.
    """

    def __init__(
        self,
        clock: IReactorTime,
        inotify: Inotify,
        open_queue: Callable[[str], QueueDirectory] = QueueDirectory,
    ) -> None:
        self._clock = clock
        self._inotify = inotify
        self._open_queue = open_queue
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
        """Let go of every queue; no errand is told anything more."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._rescan is not None:
            self._rescan.cancel()
            self._rescan = None
        for queue in list(self._queues.values()):
            self._close(queue)
        self._inotify.stop()

    def deliver(self, path: str, name: str, content: bytes) -> Errand:
        """Put a task into a queue.

        Raises:
            OSError: It cannot be written; nothing was.
        """
        queue = self._opened(path)
        try:
            queue.directory.put(name, content)
        except OSError:
            self.forget(queue, name)
            raise
        return self._new_errand(queue, name)

    def find(self, path: str, name: str) -> Errand | None:
        """Take up a task that an earlier leader may have put into a queue.

        Returns:
            None where it never was in it: there is neither a task nor an answer.

        Raises:
            OSError: The queue is gone.
        """
        queue = self._opened(path)
        # In this order: an answer is there before its task goes.
        if queue.directory.has(TASKS, name) or any(
            queue.directory.has(place, name) for place in _ANSWERS
        ):
            errand = self._new_errand(queue, name)
            errand.look()
            return errand
        self.forget(queue, name)
        return None

    def tidy(self, parent: str, known: Mapping[str, frozenset[str]]) -> None:
        """Remove what earlier leaders had done with, in all queues of a directory.

        That is what was in hand when one was killed.  Where an agent has put more names than
        `MOST_TIDIED` the rest is its own trouble: no start waits for it.

        Args:
            known: Names that are not done with, by the path of their queue.
        """
        for path in _directories(parent):
            try:
                directory = self._open_queue(path)
            except OSError:
                continue
            kept = known.get(path, frozenset())
            for place in (TASKS, *_ANSWERS):
                for name in directory.names(place, MOST_TIDIED):
                    if name.startswith(DURABLE_PREFIX) and name not in kept:
                        directory.discard(place, name)
                        directory.unlock(name)
            directory.close()

    # --- queues come and go -------------------------------------------------

    def _new_errand(self, queue: _Queue, name: str) -> Errand:
        errand = queue.errands[name] = Errand(self, queue, name)
        if self._rescan is None:
            self._rescan = self._clock.callLater(RESCAN_SECONDS, self._look_again)
        return errand

    def _opened(self, path: str) -> _Queue:
        queue = self._queues.get(path)
        if queue is not None:
            return queue
        queue = _Queue(self._open_queue(path))
        try:
            self._watch(queue, RESULTS, IN_MOVED_TO, self._answered)
            self._watch(queue, ERRORS, IN_MOVED_TO, self._answered)
            self._watch(queue, LOCKS, IN_CREATE, self._locked)
            changed = partial(self._changed, queue)
            mask = IN_CREATE | IN_MOVED_TO | IN_DELETE
            queue.watches.append(self._inotify.watch(path, mask, changed))
        except OSError:
            self._close(queue)
            raise
        self._queues[path] = queue
        return queue

    def _watch(
        self, queue: _Queue, place: str, mask: int, told: Callable[[_Queue, str], None]
    ) -> None:
        directory = queue.directory.watchable(place)
        queue.watches.append(self._inotify.watch(directory, mask, partial(told, queue)))

    def forget(self, queue: _Queue, name: str) -> None:
        """Forget an errand, and its queue with the last one; called by errands alone."""
        queue.errands.pop(name, None)
        if not queue.errands and self._queues.get(queue.directory.path) is queue:
            self._close(queue)

    def _close(self, queue: _Queue) -> None:
        self._queues.pop(queue.directory.path, None)
        for watch in queue.watches:
            self._inotify.forget(watch)
        queue.watches.clear()
        queue.directory.close()

    # --- what happens in them -----------------------------------------------

    def _answered(self, queue: _Queue, name: str) -> None:
        if name in queue.errands:
            queue.errands[name].look()

    def _locked(self, queue: _Queue, name: str) -> None:
        if name in queue.errands:
            queue.errands[name].locked()

    def _changed(self, queue: _Queue, name: str) -> None:
        if name in (*SIGNS, *SUBDIRECTORIES):
            self._look(queue, certain=True)

    def _delete(self, queue: _Queue, certain: bool) -> None:
        for errand in list(queue.errands.values()):
            errand.deleted(certain)
        self._close(queue)

    def _look(self, queue: _Queue, certain: bool) -> None:
        if queue.directory.is_gone():
            self._delete(queue, certain)
            return
        for errand in list(queue.errands.values()):
            errand.look()

    def _look_everywhere(self) -> None:
        for queue in list(self._queues.values()):
            self._look(queue, certain=False)

    def _look_again(self) -> None:
        self._rescan = None
        try:
            self._look_everywhere()
        finally:  # one look that breaks must not be the last
            if self._queues:
                self._rescan = self._clock.callLater(RESCAN_SECONDS, self._look_again)


def _directories(parent: str) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.path
