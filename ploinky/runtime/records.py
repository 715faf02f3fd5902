"""What the process runtime keeps on disk of each instance: a record, and its output."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from attrs import asdict, frozen

from ploinky.runtime.places import QUEUE_DIRECTORY


@frozen
class Record:
    """What must be known of an instance when its process cannot tell any more.

    Attributes:
        port: Where a service listens; 0 for task agents.
        queue: Where the instance itself finds its queue.
        exit_code: With which it ended; None while it runs, or where nobody was there to see.
    """

    instance: str
    deployment: str
    release: int
    cluster: str
    port: int = 0
    exit_code: int | None = None
    queue: str = QUEUE_DIRECTORY


class Records:
    """One directory an instance: ``record.json`` and ``output.log``.

    Args:
        directory: Holds them all; made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def output(self, instance: str) -> Path:
        """Give where an instance prints to."""
        return self._directory / instance / "output.log"

    def all(self) -> list[Record]:
        """Every one that can be read."""
        if not self._directory.is_dir():
            return []
        found = (self.read(name) for name in sorted(os.listdir(self._directory)))
        return [each for each in found if each is not None]

    def read(self, instance: str) -> Record | None:
        """Give one; None where there is none."""
        try:
            document = json.loads((self._directory / instance / "record.json").read_bytes())
            return Record(**document)
        except (OSError, ValueError, TypeError):
            return None

    def write(self, record: Record) -> None:
        """Keep it, all or nothing."""
        place = self._directory / record.instance
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = place / "record.json.new"
        new.write_text(json.dumps(asdict(record)))
        new.replace(place / "record.json")

    def erase(self, instance: str) -> None:
        """Delete it with its output."""
        shutil.rmtree(self._directory / instance, ignore_errors=True)
