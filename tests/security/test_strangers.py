"""What strangers are refused comes into the audit trail, and fills no disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import msgspec
import pytest
import pytest_twisted
from twisted.internet.task import Clock

from ploinky.errors import StateUnusable
from ploinky.routing.rates import SharedRates
from ploinky.security.strangers import AT_ONCE, SECONDS_EACH, Strangers
from ploinky.testing.store import MemoryAuditTrail
from ploinky.values import AuditEntry

REFUSED = AuditEntry(
    at=1.0,
    user="InternetUser",
    role="",
    address="203.0.113.9",
    action="auth",
    subject="/auth",
    status=401,
    code="UNAUTHENTICATED",
)
OTHERS = " more refusals; the access log has each"


class Scene:
    """Strangers, and the trail."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.trail = MemoryAuditTrail()
        self.rates = SharedRates(directory, lambda: round(self.clock.seconds() * 1e9))
        self.strangers = Strangers(self.clock, self.trail, self.rates)

    def take(self, count: int) -> None:
        """Let a worker report so many."""
        self.strangers.take((msgspec.json.encode(REFUSED) + b"\n") * count)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A new server's."""
    scene = Scene(tmp_path)
    yield scene
    scene.rates.close()


@pytest_twisted.ensureDeferred
async def test_what_workers_report_is_written_down(scene):
    """As it was, in order, and once."""
    scene.take(2)
    await scene.strangers.write()
    await scene.strangers.write()
    plain = [attrs.evolve(one, number=0, hash="") for one in scene.trail.written]
    assert plain == [REFUSED] * 2


@pytest_twisted.ensureDeferred
async def test_however_many_there_are_they_fill_no_disk(scene):
    """So many at once, then one in ten seconds; how many others there were is written, too."""
    scene.take(AT_ONCE + 500)
    await scene.strangers.write()
    assert len(scene.trail.written) == AT_ONCE
    for _ in range(60):
        scene.take(100)
        scene.clock.advance(1)
        await scene.strangers.write()
    assert len(scene.trail.written) == AT_ONCE + 60 / SECONDS_EACH
    scene.clock.advance(SECONDS_EACH)
    await scene.strangers.write()
    numbers = [one for one in scene.trail.written if one.subject != REFUSED.subject]
    assert {(one.status, one.code) for one in numbers} == {(429, "TOO_MANY_REQUESTS")}
    others = sum(int(one.subject.removesuffix(OTHERS)) for one in numbers)
    assert others + len(scene.trail.written) - len(numbers) == AT_ONCE + 500 + 6000


def test_one_address_has_its_share_and_all_together_theirs(scene):
    """Ten at once of one; and no more of all than there is room for."""
    assert [scene.strangers.admits("203.0.113.9") for _ in range(11)] == [True] * 10 + [False]
    others = [scene.strangers.admits(f"10.0.{n // 250}.{n % 250}") for n in range(AT_ONCE)]
    assert others == [True] * (AT_ONCE - 10) + [False] * 10


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_written_now_is_written_later(scene):
    """A disk that is full for a while loses nothing."""
    scene.take(1)
    scene.trail.refusal = StateUnusable("disk full")
    await scene.strangers.write()
    scene.take(1)
    scene.trail.refusal = None
    await scene.strangers.write()
    assert len(scene.trail.written) == 2
