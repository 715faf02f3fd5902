"""Every known way to be read twice, against a real agent: refused, or read in exactly one way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor

from ploinky.testing.routing import settled, turns
from tests.routing.corpus import ANSWERS, OK, REQUESTS, SMUGGLED


def until(is_so: Callable[[], Any]) -> Awaitable[None]:
    return settled(reactor, is_so)


REFUSED = {name: found for name, found in REQUESTS.items() if isinstance(found[1], int)}
READ = {name: found for name, found in REQUESTS.items() if not isinstance(found[1], int)}


@pytest.mark.parametrize("name", REFUSED)
@pytest_twisted.ensureDeferred
async def test_what_could_be_read_twice_is_refused(wires: Any, name: str) -> None:
    """With its status; what follows is not read, and no agent gets a request of it."""
    raw, status = REFUSED[name]
    client = await wires.connect()
    client.send(raw + SMUGGLED)
    answer = await client.answer()
    assert (answer.status, msgspec.json.decode(answer.body)["error"]) == (status, True)
    if status == 404:  # it was read, in one way, and leads nowhere
        return
    assert answer.field(b"connection") == b"close"
    await until(lambda: not wires.factory.connections)
    assert client.received == b""
    await turns(reactor, 3)
    for agent in wires.agents.accepted:  # it had begun to get the body
        assert b"smuggled" not in agent.received
        assert not agent.received.endswith(b"0\r\n\r\n")
        await until(lambda: agent.reason)  # noqa: B023


@pytest.mark.parametrize("name", READ)
@pytest_twisted.ensureDeferred
async def test_what_is_read_is_read_in_one_way(wires: Any, name: str) -> None:
    """The agent sees these bytes and no others; the next request is the next one."""
    raw, seen = READ[name]
    client = await wires.connect()
    client.send(raw + SMUGGLED)
    agent = await wires.agent()
    for number, request in enumerate(seen, 1):
        whole = request.raw(b"w1-%d" % number)
        await agent.until(lambda received: len(received) >= len(whole))  # noqa: B023
        assert agent.received == whole
        agent.received = b""
        agent.send(OK)
        assert (await client.answer()).body == b"ok"
    assert (await agent.take(b"\r\n\r\n")).startswith(b"GET /smuggled HTTP/1.1\r\n")
    assert agent.received == b""
    assert len(wires.agents.accepted) == 1


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("warm", [False, True], ids=["first", "later"])
@pytest_twisted.ensureDeferred
async def test_an_answer_is_one_answer_or_none(wires: Any, name: str, warm: bool) -> None:
    """Else 502 `AGENT_BROKEN`, or a connection that ends before its answer does."""
    raw, body = ANSWERS[name]
    client = await wires.connect()
    if warm:
        client.send(SMUGGLED)
        agent = await wires.agent()
        await agent.take(b"\r\n\r\n")
        agent.send(OK)
        await client.answer()
    client.send(SMUGGLED)
    agent = await wires.agent()
    await agent.take(b"\r\n\r\n")
    agent.send(raw)
    if body is not None:
        assert (await client.answer()).body == body
        client.send(SMUGGLED)
        await until(lambda: b"smuggled" in wires.agents.accepted[-1].received)
        wires.agents.accepted[-1].send(OK)
        assert (await client.answer()).body == b"ok"
        return
    await until(lambda: agent.reason)
    if "chunk s" in name or "broken chunk" in name:  # its head was valid, and is out already
        await until(lambda: client.reason)
        assert not client.received.endswith(b"0\r\n\r\n")
        return
    answer = await client.answer()
    assert (answer.status, msgspec.json.decode(answer.body)["code"]) == (502, "AGENT_BROKEN")
    assert b"Set-Cookie" not in answer.head
