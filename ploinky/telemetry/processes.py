"""What a process of this host has used, from ``/proc``.  Source: proc(5)."""

from __future__ import annotations

import os

from attrs import frozen

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@frozen
class ProcessUsage:
    """Processor time since its start, and memory that is resident now."""

    cpu_seconds: float
    memory_bytes: int


def usage_of(pid: int) -> ProcessUsage | None:
    """Look at one process; None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before may hold anything
    except OSError:
        return None
    user, system, resident = int(fields[11]), int(fields[12]), int(fields[21])
    return ProcessUsage((user + system) / _TICKS, resident * _PAGE_BYTES)
