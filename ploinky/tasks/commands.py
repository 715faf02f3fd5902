"""Asks an agent which commands it has (docs/protocols.md, section 4, ``GET /commands``).

A route enters, what AgentCore lists leaves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ploinky.errors import AgentBroken, AgentUnreachable, CallFailed, Conflict, NoHealthyInstance
from ploinky.interfaces import IAnswer, IUpstream
from ploinky.values import Kind, Route, Wire

ANSWER_SECONDS = 10.0
LARGEST_BYTES = 1024 * 1024

_QUESTION = b"GET /commands HTTP/1.1\r\nHost: agent\r\n\r\n"


@implementer(IAnswer)
class _Collected:
    """An answer of a sane size, whole."""

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred()
        self._status = 0
        self._body = b""

    def started(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> None:
        self._status = status

    def data(self, chunk: bytes) -> None:
        if len(self._body) <= LARGEST_BYTES:
            self._body += chunk

    def ended(self) -> None:
        if self._status == 200 and len(self._body) <= LARGEST_BYTES:
            self._tell(self._body)
        else:
            self._tell(AgentBroken("the agent does not list its commands"))

    def complete(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.started(status, fields, len(body))
        self.data(body)
        self.ended()

    def failed(self, error: CallFailed) -> None:
        self._tell(error)

    def _tell(self, outcome: Any) -> None:
        if not self.whole.called:
            if isinstance(outcome, CallFailed):
                self.whole.errback(outcome)
            else:
                self.whole.callback(outcome)


async def commands_of(
    clock: IReactorTime, upstream: IUpstream, route: Route
) -> list[dict[str, Any]]:
    """Give ``{name, kind, about?}`` for each command of a task agent, sorted by name.

    Raises:
        Conflict: It is no task agent, or its engine takes files alone and lists nothing.
        NoHealthyInstance: None of its instances can be asked.
        AgentUnreachable: The one that was asked did not answer.
        AgentBroken: What it answered is no list of commands.
    """
    if route.kind is not Kind.TASK:
        raise Conflict(f"{route.key} is a {route.kind.value}, which has no commands")
    if not route.targets:
        raise NoHealthyInstance(route.reason, retry_after_seconds=1)
    target = next((one for one in route.targets if one.wire is not Wire.FILE), None)
    if target is None:
        raise Conflict(f"{route.key} takes tasks from files alone; that wire lists no commands")
    collected = _Collected()
    exchange = upstream.exchange(target.address, _QUESTION, b"", collected)
    collected.whole.addTimeout(ANSWER_SECONDS, clock)
    try:
        return _read(await collected.whole)
    except TimeoutError:
        raise AgentUnreachable(f"no answer within {ANSWER_SECONDS:g} s") from None
    finally:
        exchange.cancel()


def _read(body: bytes) -> list[dict[str, Any]]:
    try:
        listed = json.loads(body)
        shown = ("name", "kind", "about")
        return [{name: str(one[name]) for name in shown if name in one} for one in listed]
    except (ValueError, TypeError, RecursionError) as error:
        raise AgentBroken("the agent lists its commands in no way that can be read") from error
