"""A leader with nothing but its lock, its link and its workers.

Usage: small_leader.py DIRECTORY PORT WORKERS [BUILD].  Prints `ready PORT PID...` once every
worker serves; SIGHUP reloads, SIGUSR1 publishes a table (`published GENERATION`), SIGTERM stops.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from ploinky.errors import PloinkyError
from ploinky.link import WorkerLinks
from ploinky.processgroup import LeaderLock, ProcessGroup, WorkerCommand, WorkerRecords
from ploinky.testing.link import RecordedTally
from ploinky.values import DeploymentKey, Kind, Route

DIRECTORY, PORT, WORKERS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
BUILD = sys.argv[4] if len(sys.argv) > 4 else "1"


def say(*words: object) -> None:
    """Tell the test."""
    print(*words, flush=True)


async def lead() -> None:
    """Compose, start, and say so."""
    lock = LeaderLock(str(DIRECTORY / "leader.lock"))
    lock.take()
    links = WorkerLinks(reactor, BUILD, lambda *report: None, RecordedTally())
    socket_path = DIRECTORY / "link.sock"
    socket_path.unlink(missing_ok=True)
    reactor.listenUNIX(str(socket_path), links, mode=0o600)
    command = WorkerCommand(
        [sys.executable, str(Path(__file__).with_name("small_worker.py"))],
        dict(os.environ),
        {"build": BUILD, "run_directory": str(DIRECTORY), "log_directory": str(DIRECTORY)},
    )
    group = ProcessGroup(
        reactor, links, "127.0.0.1", PORT, WORKERS, command, WorkerRecords(DIRECTORY / "workers")
    )
    reactor.addSystemEventTrigger("before", "shutdown", group.stopService)
    await group.open()
    route = Route(DeploymentKey("*", "/management"), Kind.CONTROL)
    await links.publish([route])
    await group.start()

    def reload(*_: object) -> None:
        done = Deferred.fromCoroutine(group.reload())
        done.addCallback(lambda _: say("reloaded", *(e["pid"] for e in links.status())))
        done.addErrback(lambda failure: say("failed", failure.getErrorMessage()))

    def publish(*_: object) -> None:
        done = Deferred.fromCoroutine(links.publish([route]))
        done.addCallback(lambda generation: say("published", generation))

    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reload))
    signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(publish))
    say("ready", group.port, *(entry["pid"] for entry in links.status()))


def failed(failure: object) -> None:
    """Say why, and stop."""
    error = failure.value
    say("failed", type(error).__name__, str(error))
    if not isinstance(error, PloinkyError):
        failure.printTraceback()
    reactor.stop()


reactor.callWhenRunning(lambda: Deferred.fromCoroutine(lead()).addErrback(failed))
reactor.run()
