"""Asking an agent for its commands."""

from __future__ import annotations

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ploinky.errors import AgentBroken, AgentUnreachable, Conflict, NoHealthyInstance
from ploinky.tasks.commands import commands_of
from ploinky.testing.routing import FakeUpstream
from ploinky.testing.tasks import a_route
from ploinky.values import Address, Kind, Target, Wire

AGENT = Target("one", Address(path="/run/one/agent.sock"))


def listing(said: bytes, status: int = 200) -> FakeUpstream:
    """An agent that says this."""
    upstream = FakeUpstream()
    upstream.respond = lambda head, exchange: exchange.say(said, status)
    return upstream


@pytest.mark.parametrize("wire", [Wire.HTTP, Wire.FRAMES])
@pytest_twisted.ensureDeferred
async def test_they_come_as_the_agent_lists_them(wire: Wire) -> None:
    """Name, kind and what they are about; nothing else that it may say."""
    upstream = listing(
        b'[{"name":"a","kind":"handler","about":"A.","x":1},{"name":"b","kind":"k"}]'
    )
    found = await commands_of(Clock(), upstream, a_route(attrs.evolve(AGENT, wire=wire)))
    assert found == [
        {"name": "a", "kind": "handler", "about": "A."},
        {"name": "b", "kind": "k"},
    ]
    ((address, head, _),) = upstream.sent
    assert (address, head.split(b"\r\n")[0]) == (AGENT.address, b"GET /commands HTTP/1.1")


@pytest.mark.parametrize(
    ("said", "status"),
    [(b"{", 200), (b"7", 200), (b"[7]", 200), (b"[]", 404), (b"[" + b" " * 2**21 + b"]", 200)],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_list_is_the_agents_fault(said: bytes, status: int) -> None:
    """However large it is."""
    with pytest.raises(AgentBroken):
        await commands_of(Clock(), listing(said, status), a_route(AGENT))


@pytest_twisted.ensureDeferred
async def test_who_cannot_be_asked_is_told_apart() -> None:
    """A service, an agent without instances, one that takes files alone, one that is silent."""
    upstream = FakeUpstream()
    with pytest.raises(Conflict, match="service"):
        await commands_of(Clock(), upstream, a_route(AGENT, kind=Kind.SERVICE))
    with pytest.raises(NoHealthyInstance, match="stopped"):
        await commands_of(Clock(), upstream, a_route(reason="it is stopped"))
    with pytest.raises(Conflict, match="files"):
        await commands_of(Clock(), upstream, a_route(attrs.evolve(AGENT, wire=Wire.FILE)))
    clock = Clock()
    asking = Deferred.fromCoroutine(commands_of(clock, upstream, a_route(AGENT)))
    clock.advance(10)
    with pytest.raises(AgentUnreachable, match="10 s"):
        await asking
    assert upstream.sent[0][2].cancelled
