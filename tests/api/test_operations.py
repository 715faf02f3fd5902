"""Changes that outlive their request, and the doubles that the other tests rely on."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from ploinky.api.operations import REMEMBERED, Operation, Operations
from ploinky.errors import Conflict, Draining
from ploinky.interfaces import IDeploymentManager
from ploinky.leader_interfaces import IWorkerGroup
from ploinky.testing.api import MemoryDeploymentManager, RecordedWorkers
from ploinky.testing.store import MemoryDeploymentStore

DEPLOY = Operation("deployments.deploy", "localhost/demo", "Admin", "r-1")


@pytest.fixture
def operations() -> Operations:
    """Started, on a clock of its own."""
    started = Operations(Clock())
    started.startService()
    return started


async def waits(gate: Deferred) -> str:
    """Work that takes as long as `gate`."""
    await gate
    return "done"


def test_the_doubles_are_what_they_stand_for():
    """Whoever is given one can call all of its interface."""
    assert verifyObject(IDeploymentManager, MemoryDeploymentManager(MemoryDeploymentStore()))
    assert verifyObject(IWorkerGroup, RecordedWorkers())


@pytest_twisted.ensureDeferred
async def test_an_outcome_reaches_whoever_waits(operations):
    """A value or the error itself."""
    gate: Deferred[None] = Deferred()
    waiting = operations.begin(DEPLOY, waits(gate))
    gate.callback(None)
    assert await waiting == "done"
    gate = Deferred()
    waiting = operations.begin(DEPLOY, waits(gate))
    gate.errback(Conflict("taken"))
    with pytest.raises(Conflict):
        await waiting
    assert [one.error for one in operations.recent()] == ["taken", ""]


@pytest_twisted.ensureDeferred
async def test_giving_up_the_wait_does_not_end_the_work(operations):
    """It is finished, and remembered."""
    gate: Deferred[None] = Deferred()
    waiting = operations.begin(DEPLOY, waits(gate))
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    assert not gate.called
    gate.callback(None)
    assert [one.operation for one in operations.recent()] == [DEPLOY]


@pytest_twisted.ensureDeferred
async def test_stopping_waits_for_what_cleans_up_after_itself(operations):
    """Cancelled work may take its time to leave nothing behind."""
    cleaned: Deferred[None] = Deferred()

    async def careful() -> None:
        try:
            await Deferred()
        finally:
            await cleaned

    waiting = operations.begin(DEPLOY, careful())
    stopping = operations.stopService()
    assert not stopping.called
    cleaned.callback(None)
    await stopping
    with pytest.raises(CancelledError):
        await waiting
    with pytest.raises(Draining):
        operations.begin(DEPLOY, careful())


@pytest_twisted.ensureDeferred
async def test_memory_of_what_was_done_is_bounded(operations):
    """The last ones, newest first; what has no name leaves no trace."""
    for number in range(REMEMBERED + 3):
        gate: Deferred[None] = Deferred()
        gate.callback(None)
        await operations.begin(Operation("a", str(number), "u", "r"), waits(gate))
    gate = Deferred()
    gate.callback(None)
    assert await operations.begin(None, waits(gate)) == "done"
    recent = operations.recent()
    assert len(recent) == REMEMBERED
    assert recent[0].operation.subject == str(REMEMBERED + 2)
