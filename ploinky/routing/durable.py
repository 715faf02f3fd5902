"""Calls that shall outlive their connection: what their callers ask for, and the way to the leader.

A head enters; a `Wish` leaves, and later the request that hands the call to the leader, which
alone keeps durable tasks.  It travels to the leader's control socket at a path that no route of
the gateway leads to, so that no client can make such a request.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from attrs import frozen
from zope.interface import implementer

from ploinky.errors import (
    GATEWAY,
    AgentBroken,
    AgentUnreachable,
    BadRequest,
    CallFailed,
    Draining,
    TaskPending,
)
from ploinky.interfaces import IAnswer
from ploinky.routing.headers import field_text
from ploinky.values import NOBODY, Principal, Route, TaskCall

SUBMISSIONS = "/internal/tasks"
"""Of the control socket; outside of every built-in route."""

TASKS = "/_ploinky/tasks"
"""Where callers ask what became of one, by its id."""

LONGEST_WAIT_SECONDS = 300
SLACK_SECONDS = 15.0
"""The leader's own answer that time is up comes first where there is a leader."""

_KEY = re.compile(rb"[!-~](?:[ -~]{0,253}[!-~])?\Z")
_WAIT = re.compile(rb'wait[ \t]*=[ \t]*"?([0-9]{1,9})"?\Z')


@frozen
class Wish:
    """How a caller wants a durable task to be answered.

    Attributes:
        is_async: Answer 202 if it is not done in time; else the call waits as any other does.
        wait_seconds: What "in time" is; None: as long as a task may take.
        key: Digest of the caller's ``Idempotency-Key``; ``""`` without one.
        applied: The preferences that are honoured (RFC 7240), for ``Preference-Applied``.
    """

    is_async: bool = False
    wait_seconds: int | None = None
    key: str = ""
    applied: bytes = b""

    def patience(self, route: Route) -> float:
        """Tell how many seconds the leader may take to answer."""
        if self.wait_seconds is not None:
            return self.wait_seconds
        return 0.0 if self.is_async else route.timeout_seconds + SLACK_SECONDS


AT_ONCE = Wish(is_async=True)
"""What a body with ``"async": true`` asks for."""


def wish_of(noted: Mapping[bytes, bytes]) -> Wish | None:
    """Read ``Prefer`` and ``Idempotency-Key``; None where they ask for nothing special.

    Preferences that are not known, or not well-formed, are ignored (RFC 7240, 2).

    Raises:
        BadRequest: The key is empty, too long, or not printable ASCII.
    """
    raw_key, raw_preferences = noted.get(b"idempotency-key"), noted.get(b"prefer")
    if raw_key is None and raw_preferences is None:
        return None
    key = "" if raw_key is None else _key(raw_key)
    is_async, wait = False, None
    for preference in (raw_preferences or b"").lower().split(b","):
        said = preference.partition(b";")[0].strip()
        is_async = is_async or said == b"respond-async"
        found = _WAIT.match(said)
        if found is not None and wait is None:
            wait = min(int(found.group(1)), LONGEST_WAIT_SECONDS)
    applied = [b"respond-async"] * is_async + ([b"wait=%d" % wait] if wait is not None else [])
    if not (applied or key):
        return None
    return Wish(bool(applied), wait, key, b", ".join(applied))


def _key(raw_key: bytes) -> str:
    if _KEY.match(raw_key) is None:
        raise BadRequest("Idempotency-Key is 1 to 255 printable ASCII characters")
    return hashlib.sha256(raw_key).hexdigest()


def submission_head(
    task: TaskCall, route: Route, principal: Principal, wish: Wish, patience: float
) -> bytes:
    """Give the head of the request that hands a call to the leader; its body are the params."""
    said = [
        b"POST %b HTTP/1.1" % SUBMISSIONS.encode(),
        b"Host: localhost",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(task.params),
        b"X-Ploinky-Task: " + task.task.encode(),
        b"X-Ploinky-Deployment: " + route.deployment.encode(),
        b"X-Ploinky-Command: " + task.command.encode(),
        b"X-Ploinky-User: " + field_text(task.user),
        b"X-Ploinky-Wait: %.3f" % patience,
        b"X-Request-Id: " + task.request_id.encode(),
    ]
    if principal is NOBODY:
        said.append(b"X-Ploinky-Anonymous: 1")
    if wish.key:
        said.append(b"X-Ploinky-Key: " + wish.key.encode())
    if wish.is_async:
        said.append(b"X-Ploinky-Async: 1")
    if wish.applied:
        said.append(b"X-Ploinky-Preference: " + wish.applied)
    return b"\r\n".join(said) + b"\r\n\r\n"


def unknown_fate(task: str) -> TaskPending:
    """Say of a submission which the leader may have read that it did not say what it made of it."""
    href = f"{TASKS}/{task}"
    error = TaskPending(
        "the server did not say whether it took the task; repeat the call with the same"
        f" Idempotency-Key, or see {href}: where it is not found, it was not taken",
        details={"taskId": task, "href": href},
    )
    error.failed_at = GATEWAY
    return error


def _not_taken() -> Draining:
    return Draining(
        "durable tasks are not taken while this server restarts; send the call again,"
        " with an Idempotency-Key if it must not run twice",
        retry_after_seconds=2,
    )


@implementer(IAnswer)
class LeadersAnswer:
    """Passes on what the leader says of a submission; that there is no leader it says in words.

    Args:
        unknown: What to say where the leader goes with the submission in hand.
    """

    __slots__ = ("_answer", "_unknown")

    def __init__(self, answer: IAnswer, unknown: TaskPending) -> None:
        self._answer = answer
        self._unknown = unknown

    def started(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], length: int | None
    ) -> None:
        self._answer.started(status, fields, length)

    def data(self, chunk: bytes) -> None:
        self._answer.data(chunk)

    def ended(self) -> None:
        self._answer.ended()

    def complete(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self._answer.complete(status, fields, body)

    def failed(self, error: CallFailed) -> None:
        if isinstance(error, (AgentUnreachable, AgentBroken)):
            error = _not_taken() if error.got_nothing else self._unknown
        self._answer.failed(error)
