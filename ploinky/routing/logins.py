"""Who guesses is refused by the worker, so that it costs the leader nothing.

Requests that try to be let in enter; those that are wrong are answered here, as the leader would
have answered them, and leave as records for the audit trail.  All else is the leader's: whatever
is not an ordinary login, and each that is right.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from ploinky.errors import CallFailed, TooManyRequests, Unauthenticated
from ploinky.interfaces import IRouter
from ploinky.limit_interfaces import ILoginThrottle
from ploinky.routing.attempts import Attempt
from ploinky.routing.call import Call
from ploinky.routing.headers import TrustedProxies
from ploinky.routing.http import RequestHead
from ploinky.routing.origins import OF_PAGES
from ploinky.routing.problem import EVERY_ANSWERS_FIELDS, document_of, fields_of
from ploinky.values import NOBODY, AuditEntry

_MOST_RECORDS = 200
"""Kept at once: so much of what strangers do is worth a record, and the access log has the rest."""

# As the leader writes it of what it answers.
_SENT = '{"command": "login", "params": "********"}'
_FIELDS = tuple(
    (name.encode(), value.encode())
    for name, value in (*EVERY_ANSWERS_FIELDS, ("Content-Type", "application/json"))
)


class _Login(msgspec.Struct, forbid_unknown_fields=True):
    command: Literal["login"]
    params: Annotated[list[str], msgspec.Meta(min_length=1, max_length=1)]


_read = msgspec.json.Decoder(_Login).decode


class Logins:
    """Answers who is wrong or comes too early.

    Args:
        wall_clock: Unix seconds.
        router: Knows all keys.
        trusted: Whose word for a client's address is taken.
        throttle: Shared with the leader and the other workers.
    """

    def __init__(
        self,
        wall_clock: Callable[[], float],
        router: IRouter,
        trusted: TrustedProxies,
        throttle: ILoginThrottle,
    ) -> None:
        self._wall_clock = wall_clock
        self._router = router
        self._trusted = trusted
        self._throttle = throttle
        self._records: list[AuditEntry] = []

    def answered(self, call: Call, attempt: Attempt) -> bool:
        """Answer a call that is wrong or too early; False: the leader is to answer it."""
        key = ""
        if attempt is Attempt.LOGIN:
            try:
                key = _read(call.body or b"").params[0]
            except (msgspec.DecodeError, UnicodeDecodeError):
                return False
        address = self._trusted.sender(call.peer, call.head)
        try:
            self._throttle.check(address)
            if attempt is Attempt.PUSH or self._opens(key) or _is_from_a_page(call.head):
                return False  # the leader counts it, and takes it back where it is right
            self._throttle.attempt(address)
        except TooManyRequests as error:
            if self._throttle.is_news(address):
                self._record(call, attempt, address, error)
            _refuse(call, error)
        else:
            wrong = Unauthenticated("this API key is not valid")
            self._record(call, attempt, address, wrong)
            _refuse(call, wrong)
        return True

    def drain(self) -> bytes:
        """Give the records since the last call, as lines of JSON."""
        records, self._records = self._records, []
        return b"".join(msgspec.json.encode(each) + b"\n" for each in records)

    def _opens(self, key: str) -> bool:
        principal = self._router.principal(key)
        return principal is not NOBODY and not principal.session

    def _record(self, call: Call, attempt: Attempt, address: str, error: CallFailed) -> None:
        if len(self._records) >= _MOST_RECORDS:
            return
        self._records.append(
            AuditEntry(
                at=self._wall_clock(),
                user=NOBODY.id,
                role="",
                address=address,
                action=attempt.value,
                subject=call.head.path.decode("ascii", "backslashreplace")[:300],
                status=error.status,
                code=error.code,
                request_id=call.id.decode(),
                body=_SENT if attempt is Attempt.LOGIN else "",
            )
        )


def _is_from_a_page(head: RequestHead) -> bool:
    """Tell whether a browser says that a page sends it: of another site it must count for nobody."""
    return any(name in OF_PAGES for name, _, _ in head.fields)


def _refuse(call: Call, error: CallFailed) -> None:
    document = document_of(error, call.id.decode())
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    more = tuple((name.encode(), value.encode()) for name, value in fields_of(error))
    call.complete(error.status, _FIELDS + more, body)
