"""What engines say of a container's resources and output, read.  Pure.

Source: Docker Engine API 1.41, ``GET /containers/{id}/stats`` and ``/logs``.  Podman's statistics
lack caches, its times in logs are whole seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from ploinky.observations import InstanceUsage, OutputPart

PART_BYTES = 256 * 1024
"""Of output in one answer; who wants more asks again."""

_DROPPABLE = ("total_inactive_file", "inactive_file")  # cgroup v1, v2
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d) ?")


def read_usage(stats: Mapping[str, Any], host_memory_bytes: int) -> InstanceUsage | None:
    """Read statistics; None where the container does not run."""
    cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
    memory = stats.get("memory_stats") or {}
    if not cpu.get("total_usage") or "usage" not in memory:
        return None
    details = memory.get("stats") or {}
    droppable = next((details[name] for name in _DROPPABLE if name in details), 0)
    limit = memory.get("limit") or 0
    return InstanceUsage(
        cpu_seconds=cpu["total_usage"] / 1e9,
        memory_bytes=max(0, memory["usage"] - droppable),
        memory_limit_bytes=limit if 0 < limit < host_memory_bytes else None,
        processes=(stats.get("pids_stats") or {}).get("current"),
    )


def since_of(mark: str) -> int:
    """Give the second from which to ask for logs, so that nothing after the mark is missed."""
    found = _STAMP.match(mark.encode())
    if found is None:
        return 0
    zone = found[2].replace(b"Z", b"+00:00")
    return int(datetime.fromisoformat((found[1] + zone).decode()).timestamp())


def part_after(mark: str, chunks: Iterable[bytes]) -> OutputPart:
    """Give what comes after a mark, at most `PART_BYTES` of it.

    A mark is a line's time, and how many lines of that very time were given: many have the same.

    Args:
        chunks: Of a log with times, from `since_of` the mark on.
    """
    last, _, number = mark.rpartition("#")
    given = int(number) if number else 0
    seen, size, kept = 0, 0, []
    for line in _lines(chunks):
        found = _STAMP.match(line)
        stamp = found[0].rstrip().decode() if found else last
        if stamp < last:
            continue
        if stamp == last:
            seen += 1
            if seen <= given:
                continue
        else:
            last, seen = stamp, 1
        given = seen
        text = line[found.end() :] if found else line
        kept.append(text)
        size += len(text)
        if size >= PART_BYTES:
            break
    return OutputPart(b"".join(kept).decode(errors="replace"), f"{last}#{given}" if last else "")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest
