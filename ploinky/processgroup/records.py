"""``run/workers/<slot>.json``: by which a new leader knows workers that outlived the last one.

See `ploinky.pids` on what a pid alone is worth.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from ploinky.pids import start_time


@frozen
class Survivor:
    """A worker that runs now and that an earlier leader started."""

    slot: int
    pid: int


class WorkerRecords:
    """The records of one run directory.

    Args:
        directory: ``run/workers``; made if absent.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def write(self, slot: int, pid: int) -> None:
        """Remember who holds a slot; replaces whoever held it before."""
        record = {"slot": slot, "pid": pid, "started": start_time(pid)}
        path = self._path(slot)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(record), encoding="ascii")
        os.replace(fresh, path)

    def remove(self, slot: int, pid: int) -> None:
        """Forget who held a slot, unless another holds it already."""
        record = self._read(self._path(slot))
        if record and record["pid"] == pid:
            self._path(slot).unlink(missing_ok=True)

    def survivors(self) -> list[Survivor]:
        """Give the workers that still run; the records of others are removed."""
        found: list[Survivor] = []
        for path in sorted(self._directory.glob("*.json")):
            record = self._read(path)
            if record and record["started"] and start_time(record["pid"]) == record["started"]:
                found.append(Survivor(record["slot"], record["pid"]))
            else:
                path.unlink(missing_ok=True)
        return found

    def _path(self, slot: int) -> Path:
        return self._directory / f"{slot}.json"

    def _read(self, path: Path) -> dict[str, int] | None:
        with suppress(OSError, ValueError):
            record = json.loads(path.read_text(encoding="ascii"))
            if isinstance(record, dict) and {"slot", "pid", "started"} <= record.keys():
                return record
        return None
