"""Stand-ins for the tasks room's neighbours, and an agent in memory.

`ScriptedTransport` is an `IAgentTransport` whose agent is a mapping of Python
functions; it passes the same contract tests as the real wires.  The recorders
are what a test holds in place of the gateway's answer and lease.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from ploinky.errors import AgentUnreachable, CallFailed
from ploinky.interfaces import IAgentTransport, IAnswer, IExchange, ILease
from ploinky.values import DeploymentKey, Kind, Route, Target, TaskCall

Command = Callable[..., Any]
"""Takes the `TaskCall` and the params; gives a result or a Deferred of one."""


class HandlerError(Exception):
    """What a command of `ScriptedTransport` raises in order to choose its error."""

    def __init__(
        self, message: str, status: int = 500, code: str = "HANDLER_FAILED", details: Any = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.details = details


def a_call(
    command: str,
    *params: Any,
    user: str = "InternetUser",
    deadline_ms: int = 2**52,
    request_id: str = "request-1",
    to_events: bool = False,
) -> TaskCall:
    """Give a task with an id of its own and, unless told otherwise, no deadline to speak of."""
    return TaskCall(
        task=secrets.token_hex(8),
        command=command,
        params=msgspec.json.encode(params),
        user=user,
        deadline_ms=deadline_ms,
        request_id=request_id,
        to_events=to_events,
    )


def a_route(*targets: Target, **changes: Any) -> Route:
    """Give a task route at ``localhost/demo``."""
    given: dict[str, Any] = {
        "key": DeploymentKey("localhost", "/demo"),
        "kind": Kind.TASK,
        "deployment": "deployment-1",
        "release": 1,
        "targets": targets,
    }
    return Route(**(given | changes))


@implementer(ILease)
class HeldLease:
    """A lease on one target that remembers how it was given back.

    Attributes:
        released: None while it is held, else the `failed` it was released with.
    """

    def __init__(self, target: Target, route: Route | None = None) -> None:
        self.target = target
        self.route = route or a_route(target)
        self.released: bool | None = None

    def release(self, failed: bool = False) -> None:
        """Give the place back."""
        if self.released is None:
            self.released = failed


@implementer(IAnswer)
class RecordedAnswer:
    """An answer that keeps what it is told, and asserts the order that `IAnswer` promises.

    Attributes:
        status: None until `started`.
        fields: As the transport gave them.
        body: What has come so far.
        error: What it failed with, or None.
        whole: Fires with this object once it ended or failed.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.fields: list[tuple[bytes, bytes]] = []
        self.length: int | None = None
        self.body = b""
        self.error: CallFailed | None = None
        self.whole: Deferred[RecordedAnswer] = Deferred()
        self._over = False

    def started(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> None:
        """Keep the head."""
        assert self.status is None, "started twice"
        assert not self._over, "started after the end"
        self.status, self.fields, self.length = status, list(fields), length

    def data(self, chunk: bytes) -> None:
        """Keep the bytes."""
        assert self.status is not None, "data before the head"
        assert not self._over, "data after the end"
        self.body += chunk

    def complete(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Keep it and fire `whole`."""
        self.started(status, fields, len(body))
        self.data(body)
        self.ended()

    def ended(self) -> None:
        """Fire `whole`."""
        assert self.status is not None, "ended before the head"
        self._finish()

    def failed(self, error: CallFailed) -> None:
        """Keep the error and fire `whole`."""
        self.error = error
        self._finish()

    def _finish(self) -> None:
        assert not self._over, "ended twice"
        self._over = True
        self.whole.callback(self)

    def field(self, name: bytes) -> bytes | None:
        """Give the value of the first field of this name, in any case."""
        return next((value for n, value in self.fields if n.lower() == name.lower()), None)

    def json(self) -> Any:
        """Decode the body; a failed answer raises its error instead."""
        if self.error is not None:
            raise self.error
        return msgspec.json.decode(self.body)


@implementer(IExchange)
class _ScriptedExchange:
    def __init__(self, answer: IAnswer) -> None:
        self._answer: IAnswer | None = answer
        self._running: Deferred[Any] | None = None

    def run(self, call: TaskCall, command: Command | None) -> None:
        if command is None:
            problem = f"there is no command {call.command}"
            self._give_error(call, HandlerError(problem, 404, "UNKNOWN_COMMAND"))
            return
        params = msgspec.json.decode(call.params)
        self._running = maybeDeferred(command, call, *params)
        self._running.addCallbacks(
            lambda result: self._give_result(call, result),
            lambda failure: self._give_failure(call, failure),
        )

    def _give_failure(self, call: TaskCall, failure: Failure) -> None:
        if failure.check(CancelledError) and self._answer is None:
            return
        error = failure.value
        if isinstance(error, CallFailed):
            self._over().failed(error)
        elif isinstance(error, HandlerError):
            self._give_error(call, error)
        else:
            self._give_error(call, HandlerError(str(error)))

    def _give_error(self, call: TaskCall, error: HandlerError) -> None:
        body = {"error": True, "code": error.code, "message": error.message}
        if error.details is not None:
            body["details"] = error.details
        self._give(error.status, call, body | {"requestId": call.request_id})

    def _give_result(self, call: TaskCall, result: Any) -> None:
        streams = hasattr(result, "__next__")
        if not call.to_events:
            self._give(200, call, list(result) if streams else result)
            return
        items = [*result] if streams else [result]
        events = [b"data: %b\n\n" % msgspec.json.encode(item) for item in items]
        body = b"".join(events) + b"event: end\ndata: null\n\n"
        self._give_body(200, call, b"text/event-stream", body)

    def _give(self, status: int, call: TaskCall, document: Any) -> None:
        self._give_body(status, call, b"application/json", msgspec.json.encode(document))

    def _give_body(self, status: int, call: TaskCall, kind: bytes, body: bytes) -> None:
        if self._answer is None:
            return
        answer = self._over()
        fields = [(b"Content-Type", kind)]
        if status == 200:
            fields.append((b"X-Ploinky-Command", call.command.encode()))
        answer.started(status, fields, len(body))
        answer.data(body)
        answer.ended()

    def _over(self) -> IAnswer:
        answer, self._answer = self._answer, None
        assert answer is not None
        return answer

    def write(self, chunk: bytes) -> None:
        """A task travels whole."""

    def finish(self) -> None:
        """A task travels whole."""

    def cancel(self) -> None:
        if self._answer is not None:
            self._answer = None
            if self._running is not None:
                self._running.cancel()

    def pause(self) -> None:
        """The result comes whole."""

    def resume(self) -> None:
        """The result comes whole."""


@implementer(IAgentTransport)
class ScriptedTransport:
    """An agent in memory.

    Args:
        commands: By name.  One that gives an iterator streams; one that raises `HandlerError` or `CallFailed` fails with it; one
            that gives a Deferred is cancelled with its exchange.
        absent: Instances that cannot be reached.

    Attributes:
        sent: Every (lease, task) so far.
    """

    def __init__(
        self, commands: Mapping[str, Command], absent: frozenset[str] = frozenset()
    ) -> None:
        self._commands = commands
        self._absent = absent
        self.sent: list[tuple[ILease, TaskCall]] = []

    def send(self, lease: ILease, request: TaskCall, answer: IAnswer) -> IExchange:
        """Run the command; it may have answered when this returns."""
        self.sent.append((lease, request))
        exchange = _ScriptedExchange(answer)
        if lease.target.instance in self._absent:
            why = f"{lease.target.instance} is not there"
            answer.failed(AgentUnreachable(why, got_nothing=True))
        else:
            exchange.run(request, self._commands.get(request.command))
        return exchange
