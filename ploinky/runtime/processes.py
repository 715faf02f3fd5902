"""Finds the processes of instances by what only they have in their environment.

An instance's processes may start sessions and leave their parents; the variables that they
were given stay.  Only this user's own processes are looked at.  Source: proc(5).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator

from attrs import frozen

from ploinky.observations import InstanceUsage

CLUSTER = "PLOINKY_CLUSTER"
INSTANCE = "PLOINKY_INSTANCE"

PATIENCE_SECONDS = 0.5
"""For all environments together that are not there yet when processes are looked through."""
PAUSE_SECONDS = 0.0001

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@frozen
class Member:
    """One process of an instance."""

    pid: int
    parent: int
    cluster: str
    instance: str


def members(cluster: str = "", instance: str = "") -> list[Member]:
    """Give the processes that belong to a cluster, or to one instance, lowest pid first."""
    return [
        each
        for each in _all()
        if (not cluster or each.cluster == cluster) and (not instance or each.instance == instance)
    ]


def topmost(family: Iterable[Member]) -> Member | None:
    """Give the one whose parent is none of them: it was started first, the rest came from it."""
    known = {each.pid: each for each in family}
    return next((each for each in known.values() if each.parent not in known), None)


def payload(family: Iterable[Member], top: int, depth: int) -> int:
    """Give the descendant of ``top`` so many generations below it, or ``top`` where there is none."""
    parents = {each.parent: each.pid for each in sorted(family, key=lambda each: -each.pid)}
    found = top
    for _ in range(depth):
        if found not in parents:
            return top
        found = parents[found]
    return found


def kill(family: Iterable[Member], number: signal.Signals) -> None:
    """Send a signal to each; those that are gone do not matter."""
    for each in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each.pid, number)


def usage(top: int) -> InstanceUsage | None:
    """Add up what a process and its descendants use; None where it is gone."""
    ticks, pages, number, waiting = 0, 0, 0, [top]
    while waiting:
        pid = waiting.pop()
        try:
            fields = _fields(f"/proc/{pid}")
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    waiting += map(int, file.read().split())
        except OSError:
            continue  # gone meanwhile
        # Its own time, and that of children that it has waited for.
        ticks += sum(map(int, fields[11:15]))
        pages += int(fields[21])
        number += 1
    if not number:
        return None
    return InstanceUsage(ticks / _TICKS, pages * _PAGE_BYTES, processes=number)


def _all() -> Iterator[Member]:
    mine = os.getuid()
    until = time.monotonic() + PATIENCE_SECONDS
    for entry in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        place = f"/proc/{entry}"
        try:
            if os.stat(place).st_uid != mine:
                continue
            environment = _environment(place, until)
            if environment.get(CLUSTER) and environment.get(INSTANCE):
                yield Member(entry, _parent(place), environment[CLUSTER], environment[INSTANCE])
        except OSError:
            continue  # gone meanwhile, or not ours to read after all


def _environment(place: str, until: float) -> dict[str, str]:
    """Read what it was given; of a process in the midst of execve(2), what it will have.

    Args:
        until: When that is waited for no longer, by the monotonic clock.
    """
    while not (raw := _raw_environment(place)):
        if _has_no_environment(place) or time.monotonic() >= until:
            break
        time.sleep(PAUSE_SECONDS)
    if CLUSTER.encode() not in raw:
        return {}
    pairs = (each.partition(b"=") for each in raw.split(b"\0"))
    wanted = {CLUSTER.encode(), INSTANCE.encode()}
    return {k.decode(): v.decode(errors="replace") for k, _, v in pairs if k in wanted}


def _raw_environment(place: str) -> bytes:
    with open(f"{place}/environ", "rb") as file:
        return file.read()


def _has_no_environment(place: str) -> bool:
    """Tell whether it was given none.

    execve(2) puts an empty address space in place and fills it, which takes some
    microseconds, or as long as others have the processor; where the program's text begins is
    told last.  Kernel threads and what has ended have no address space at all.
    """
    fields = _fields(place)
    space, text, start, end = (int(fields[each]) for each in (20, 23, 47, 48))
    return space == 0 or (text > 0 and start == end)


def _parent(place: str) -> int:
    return int(_fields(place)[1])


def _fields(place: str) -> list[bytes]:
    """Read the third field and those after; the second, in parentheses, may hold any character."""
    with open(f"{place}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()
