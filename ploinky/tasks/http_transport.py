"""Tasks over HTTP/1.1 to AgentCore's socket: ``POST /task`` (contract, section 3).

A lease and a task enter; what the agent says goes straight to the caller's
answer.  Connections, framing and back-pressure are the upstream's; this module
knows the form of a task and what AgentCore promises about its answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from ploinky.errors import AgentBroken, CallFailed
from ploinky.interfaces import IAgentTransport, IAnswer, IExchange, ILease, IUpstream
from ploinky.tasks.messages import (
    EVENT_BEGIN,
    EVENT_END,
    EVENTS_FIELD,
    JSON_FIELD,
    LAST_EVENT,
    field_text,
    http_body,
    on_one_line,
)
from ploinky.values import TaskCall

_INTERNAL = b"x-ploinky-"
_SHOWN = b"x-ploinky-command"


@implementer(IAgentTransport)
class HttpTransport:
    """Sends tasks as requests to the lease's address.

    Args:
        upstream: Where connections come from; it stays its owner's.
    """

    def __init__(self, upstream: IUpstream) -> None:
        self._upstream = upstream

    def send(self, lease: ILease, request: TaskCall, answer: IAnswer) -> IExchange:
        """Begin an exchange; see `IAgentTransport`."""
        body = http_body(request)
        checked = _CheckedAnswer(answer, request.to_events)
        exchange = self._upstream.exchange(
            lease.target.address, task_head(request, len(body)), body, checked
        )
        checked.sent(exchange)
        return exchange


def task_head(call: TaskCall, length: int) -> bytes:
    """Give request line and fields of ``POST /task`` for a body of ``length`` bytes."""
    accept = "Accept: text/event-stream\r\n" if call.to_events else ""
    return (
        "POST /task HTTP/1.1\r\n"
        "Host: agent\r\n"
        "Content-Type: application/json\r\n"
        f"{accept}"
        f"Content-Length: {length}\r\n"
        f"X-Ploinky-Task: {field_text(call.task)}\r\n"
        f"X-Ploinky-User: {field_text(call.user)}\r\n"
        f"X-Ploinky-Deadline: {call.deadline_ms:d}\r\n"
        f"X-Request-Id: {field_text(call.request_id)}\r\n\r\n"
    ).encode("ascii")


@implementer(IAnswer)
class _CheckedAnswer:
    """Holds the agent to the contract and keeps internal fields from the caller.

    Where the caller reads events and the agent has but one result, it becomes one.
    """

    __slots__ = ("_answer", "_broken", "_exchange", "_to_events", "_wraps")

    def __init__(self, answer: IAnswer, to_events: bool) -> None:
        self._answer = answer
        self._to_events = to_events
        self._exchange: IExchange | None = None
        self._broken = False
        self._wraps = False

    def sent(self, exchange: IExchange) -> None:
        """Take the exchange, which may have failed already, so that it can be broken off."""
        self._exchange = exchange
        if self._broken:
            exchange.cancel()

    def started(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> None:
        shown = self._checked(status, fields)
        if shown is None:
            return
        if self._wraps:
            self._answer.started(status, shown, None)
            self._answer.data(EVENT_BEGIN)
        else:
            self._answer.started(status, shown, length)

    def data(self, chunk: bytes) -> None:
        if not self._broken:
            self._answer.data(on_one_line(chunk) if self._wraps else chunk)

    def ended(self) -> None:
        if not self._broken:
            if self._wraps:
                self._answer.data(EVENT_END + LAST_EVENT)
            self._answer.ended()

    def complete(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        shown = self._checked(status, fields)
        if shown is None:
            return
        if self._wraps:
            body = EVENT_BEGIN + on_one_line(body) + EVENT_END + LAST_EVENT
        self._answer.complete(status, shown, body)

    def failed(self, error: CallFailed) -> None:
        if not self._broken:
            self._answer.failed(error)

    def _checked(
        self, status: int, fields: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[tuple[bytes, bytes]] | None:
        """Give what a caller may see of the head; None where it breaks the contract."""
        shown = []
        kind = b""
        has_events = self._to_events and status == 200
        for field in fields:
            name = field[0].lower()
            if name == b"content-type":
                kind = field[1].partition(b";")[0].strip().lower()
                if has_events:
                    continue
            elif name.startswith(_INTERNAL) and name != _SHOWN:
                continue
            shown.append(field)
        is_json = kind == JSON_FIELD[1]
        if not is_json and not (has_events and kind == EVENTS_FIELD[1]):
            self._break_off(f"status {status} without Content-Type: application/json")
        elif status != 200 and not 400 <= status <= 599:
            self._break_off(f"status {status}; 200 and 400 to 599 can be")
        else:
            self._wraps = has_events and is_json
            return [EVENTS_FIELD, *shown] if has_events else shown
        return None

    def _break_off(self, what: str) -> None:
        self._broken = True
        if self._exchange is not None:
            self._exchange.cancel()
        self._answer.failed(AgentBroken(f"the agent answered a task with {what}"))
