from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.neighbours import Ground, Leader


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """What outlives a leader.  Whatever a test does, no request may be dropped by it."""
    ground = Ground(tmp_path)
    yield ground
    assert [leader.instances.dropped for leader in ground.leaders if leader.instances.dropped] == []


@pytest.fixture
def leader(ground: Ground) -> Leader:
    """A server with nothing deployed, recovered and ready."""
    leader = ground.leader()
    leader.begin(leader.manager.recover())
    return leader
