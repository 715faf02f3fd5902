"""File transports on real directories and real inotify, with a clock of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ploinky.tasks.file_transport import FileTransport
from tests.tasks.queues import Loop, Queue, started


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def transport(loop: Loop) -> Iterator[FileTransport]:
    transport = started(loop)
    yield transport
    if transport.running:
        transport.stopService()
