"""What became of instances: what they printed, how they died, how long they took to start.

The runtime's room tells (`IInstanceHistory`); files below ``logs/instances`` keep it, by deployment
and release, after the instance and its container are gone.  An agent's output is its own: it is
kept as it came, and nothing in it is masked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.instance_values import InstanceSpec
from ploinky.leader_interfaces import IInstanceHistory
from ploinky.observations import LAST_WORDS_BYTES, InstanceDeath
from ploinky.threads import Blocking

MOST_BYTES = 256 * 1024 * 1024
"""Of all outputs together; the oldest go first."""

MOST_OUTPUTS = 50
"""Instances of one release whose output is kept; an agent that dies again and again has one."""

MOST_DEATHS = 20
"""Of one release; the last ones are kept."""

_OUTPUT = ".log"
_DEATHS = "deaths.jsonl"


HeardStart = Callable[[InstanceSpec, float], None]
HeardDeath = Callable[[InstanceDeath], None]


@frozen
class Starts:
    """Instances of one deployment that became ready.

    Attributes:
        seconds: That it took all of them together.
    """

    count: int = 0
    seconds: float = 0.0


@implementer(IInstanceHistory)
class InstanceHistory(Service):
    """Keeps it in files.  Stopping the service waits for what is being written.

    Args:
        blocking: Writes and reads.
        directory: ``logs/instances``; made where it is needed.
    """

    _log = Logger()

    def __init__(self, blocking: Blocking, directory: Path) -> None:
        self._blocking = blocking
        self._directory = directory
        self._writing: set[Deferred[None]] = set()
        self._starts: dict[str, Starts] = {}
        self._last: dict[str, InstanceDeath] = {}
        self._listeners: list[tuple[HeardStart, HeardDeath]] = []
        self._of_falls: list[HeardDeath] = []

    def stopService(self) -> Deferred[None]:
        """Fires once everything is written."""
        super().stopService()  # type: ignore[no-untyped-call]
        return DeferredList(list(self._writing)).addCallback(lambda _: None)

    def listen(self, started: HeardStart, died: HeardDeath) -> None:
        """Tell of each start and each death from now on."""
        self._listeners.append((started, died))

    def listen_to_falls(self, fell: HeardDeath) -> None:
        """Tell of each end from now on, before what was printed is known."""
        self._of_falls.append(fell)

    # --- IInstanceHistory

    def started(self, spec: InstanceSpec, seconds: float) -> None:
        """See `IInstanceHistory`."""
        before = self._starts.get(spec.deployment, Starts())
        self._starts[spec.deployment] = Starts(before.count + 1, before.seconds + seconds)
        self._log.info(
            "instance {instance} is ready after {seconds:.3f} s",
            instance=spec.instance,
            deployment=spec.deployment,
            release=spec.release,
            seconds=seconds,
        )
        for started, _ in self._listeners:
            started(spec, seconds)

    def fell(self, death: InstanceDeath) -> None:
        """See `IInstanceHistory`."""
        for fell in self._of_falls:
            fell(death)

    def died(self, death: InstanceDeath) -> None:
        """See `IInstanceHistory`."""
        self._last[death.deployment] = death
        self._log.warn(
            "instance {instance} died: {reason}",
            instance=death.instance,
            deployment=death.deployment,
            release=death.release,
            reason=death.reason,
            failedAt=death.failed_at,
        )
        self._write(_add_death, self._place(death.deployment, death.release), death)
        for _, died in self._listeners:
            died(death)

    def parted(self, deployment: str, release: int, instance: str, output: str) -> None:
        """See `IInstanceHistory`."""
        self._write(_add_output, self._place(deployment, release), instance, output)

    # --- what is asked for

    def starts(self) -> dict[str, Starts]:
        """Give by deployment id how many instances became ready since this leader began."""
        return dict(self._starts)

    def last_death(self, deployment: str) -> InstanceDeath | None:
        """Give the last death of a deployment's instances since this leader began."""
        return self._last.get(deployment)

    async def deaths(self, deployment: str, release: int) -> list[InstanceDeath]:
        """Give the last deaths of a release's instances, newest first."""
        return await self._blocking.run(_deaths, self._place(deployment, release))

    async def outputs(self, deployment: str, release: int, lines: int) -> list[tuple[str, str]]:
        """Give (instance, last lines) of each removed instance of a release, oldest first."""
        return await self._blocking.run(_outputs, self._place(deployment, release), lines)

    async def prune(self, oldest: float) -> None:
        """Delete what is older than that (Unix seconds), or is too much."""
        await self._blocking.run(_prune, self._directory, oldest)

    def _place(self, deployment: str, release: int) -> Path:
        return self._directory / deployment / str(release)

    def _write(self, work: Callable[..., None], *arguments: Any) -> None:
        writing = Deferred.fromCoroutine(self._blocking.run(work, *arguments))
        self._writing.add(writing)
        writing.addErrback(lambda failure: self._log.failure("what an instance left", failure))
        writing.addBoth(lambda _: self._writing.discard(writing))


def _add_output(place: Path, instance: str, output: str) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place / f"{instance}{_OUTPUT}"
    before = path.read_bytes() if path.exists() else b""
    _replace(path, (before + output.encode())[-LAST_WORDS_BYTES:])
    for old in _by_age(place.glob(f"*{_OUTPUT}"))[:-MOST_OUTPUTS]:
        old.unlink(missing_ok=True)


def _add_death(place: Path, death: InstanceDeath) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place / _DEATHS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    lines.append(json.dumps(attrs.asdict(death)))
    _replace(path, "".join(f"{line}\n" for line in lines[-MOST_DEATHS:]).encode())


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)


def _deaths(place: Path) -> list[InstanceDeath]:
    with suppress(FileNotFoundError):
        lines = (place / _DEATHS).read_text(encoding="utf-8").splitlines()
        return [InstanceDeath(**json.loads(line)) for line in reversed(lines)]
    return []


def _outputs(place: Path, lines: int) -> list[tuple[str, str]]:
    return [
        (path.stem, "".join(_text(path).splitlines(keepends=True)[-lines:]))
        for path in _by_age(place.glob(f"*{_OUTPUT}"))
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:  # pruned meanwhile
        return ""


def _by_age(paths: Iterator[Path]) -> list[Path]:
    """Sort files by when they were written, the oldest first."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(found)]


def _prune(directory: Path, oldest: float) -> None:
    files = _by_age(path for path in directory.glob("*/*/*") if path.is_file())
    size = sum(path.stat().st_size for path in files)
    for path in files:
        status = path.stat()
        if status.st_mtime >= oldest and size <= MOST_BYTES:
            break
        path.unlink(missing_ok=True)
        size -= status.st_size
    for place in sorted(directory.glob("*/*"), reverse=True) + sorted(directory.glob("*")):
        with suppress(OSError):  # only what is empty goes
            place.rmdir()
