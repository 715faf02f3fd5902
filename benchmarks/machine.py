"""What this machine is and what its processes take, read from ``/proc``."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")

ALL_CORES = tuple(sorted(os.sched_getaffinity(0)))
GATEWAY_CORE = ALL_CORES[:1]
"""Every gateway, this one and its rivals, runs on this core alone."""
LOAD_CORE = ALL_CORES[-1:]
"""The client and the backend share this one."""


def cpu_seconds(pids: Iterable[int]) -> float:
    """Give user and system time that these processes have taken; one that is gone took none."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            user, system = _stat(pid)[11:13]
            total += int(user) + int(system)
    return total / _TICKS


def busy_seconds() -> float:
    """Give the time that all cores together were not idle, by whoever's doing."""
    user, nice, system, _idle, _waiting, irq, softirq, stolen, *_ = map(
        int, _PROC.joinpath("stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + stolen) / _TICKS


def resident_bytes(pids: Iterable[int]) -> int:
    """Give the memory that these processes hold."""
    return sum(
        int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES for pid in pids
    )


def tree(pid: int) -> list[int]:
    """Give a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def pin(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Move running processes, with all their threads, to these cores."""
    for pid in pids:
        for thread in (_PROC / str(pid) / "task").iterdir():
            with suppress(OSError):  # it has ended, or belongs to another user
                os.sched_setaffinity(int(thread.name), cores)


def connections(pids: Iterable[int], port: int) -> list[int]:
    """Count, for each process, its established connections to this local TCP port."""
    inodes = set()
    for line in (_PROC / "net" / "tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "01" and int(fields[1].rpartition(":")[2], 16) == port:
            inodes.add(f"socket:[{fields[9]}]")
    counts = []
    for pid in pids:
        held = 0
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                held += os.readlink(descriptor) in inodes
        counts.append(held)
    return counts


def description() -> str:
    """Give one line on the machine itself."""
    model = "unknown processor"
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES / 2**30
    return f"{len(ALL_CORES)} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}"


def file_system(place: Path) -> str:
    """Give the file system that a directory lies in, with what decides how fast it is."""
    device = os.stat(place).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in (_PROC / "self" / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == number:
            kind, source, options = after.split()
            break
    else:
        return "unknown"
    if kind == "ext4":
        journals = _PROC.glob(f"fs/jbd2/{Path(source).name}-*")
        kind += " with a journal" if any(journals) else " without a journal"
    return kind + (", discard" if "discard" in options.split(",") else "")


def version(*command: str) -> str:
    """Give the first word with a digit that a program says of its version; ``-`` if none."""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        for word in (done.stdout + done.stderr).replace("/", " ").split():
            if any(letter.isdigit() for letter in word):
                return word.strip(",;[]")
    return "-"


def _stat(pid: int) -> list[str]:
    """Give the fields of ``stat`` from the third (state) on: a name may hold spaces."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
