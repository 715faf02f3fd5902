"""The audit trail: every change that is asked for, written down before it is answered.

Also what was refused or failed.  Strangers who are refused over and over fill no disk: see
`ploinky.security.strangers`; the access log has the rest.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from ploinky.api import documents
from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.forms import outside_names, parse_json
from ploinky.api.requests import Call
from ploinky.api.shapes import Page, PageQuery, secret_fields
from ploinky.api.streams import Stream
from ploinky.errors import InternalError, PloinkyError
from ploinky.security.strangers import Strangers
from ploinky.store_interfaces import IAuditTrail
from ploinky.telemetry.redaction import Redactor
from ploinky.values import NOBODY, AuditEntry

_MOST_BODY = 4096
"""Characters kept of what was sent."""


class Auditor:
    """Writes down what is asked for, and what came of it.

    Args:
        clock: Its seconds are Unix time.
        strangers: Says how much of theirs is written down.
    """

    def __init__(self, clock: IReactorTime, trail: IAuditTrail, strangers: Strangers) -> None:
        self._clock = clock
        self._trail = trail
        self._strangers = strangers
        self._redact = Redactor()

    async def recorded(
        self,
        endpoint: Endpoint,
        call: Call,
        work: Callable[[Endpoint, Call], Awaitable[Answer | Stream]],
    ) -> Answer | Stream:
        """Give what ``work`` answers, once it is on record; a stream is before it begins.

        Raises:
            StateUnusable: It cannot be written down, whatever came of the change.
        """
        try:
            answer = await work(endpoint, call)
        except CancelledError:
            await self._write(endpoint, call, 503, "CANCELLED")
            raise
        except PloinkyError as error:
            await self._write(endpoint, call, error.status, error.code)
            raise
        except Exception:
            await self._write(endpoint, call, InternalError.status, InternalError.code)
            raise
        status = answer.status if isinstance(answer, Answer) else 200
        await self._write(endpoint, call, status, "")
        return answer

    async def _write(self, endpoint: Endpoint, call: Call, status: int, code: str) -> None:
        who = call.principal
        if who == NOBODY and code and not self._strangers.admits(call.peer.address):
            return
        place = call.request.path.decode("utf-8", "replace")
        entry = AuditEntry(
            at=self._clock.seconds(),
            user=who.id,
            role=who.role.value if who.role else "",
            address=call.peer.address,
            action=endpoint.name,
            subject=_written(", ".join(call.subjects) or place),
            status=status,
            code=code,
            request_id=call.request.request_id,
            body=self._redact(_shown(endpoint, call))[:_MOST_BODY],
        )
        await self._trail.append(entry)


def _shown(endpoint: Endpoint, call: Call) -> str:
    """Give the body as JSON: of fields that are secret or unknown the names alone."""
    if endpoint.takes is None:
        return ""
    try:
        document = parse_json(call.request.whole_body())
    except PloinkyError:
        return ""
    if not isinstance(document, Mapping) or not document:
        return ""
    known = {*outside_names(endpoint.takes), *endpoint.others} - secret_fields(endpoint.takes)
    shown = {name: value if name in known else _hidden(value) for name, value in document.items()}
    return json.dumps(shown)


def _hidden(value: Any) -> Any:
    return dict.fromkeys(value, documents.MASK) if isinstance(value, Mapping) else documents.MASK


def _written(text: str) -> str:
    """Give it as it can be stored: JSON may hold halves of characters."""
    return text.encode("utf-8", "replace").decode()[:300]


@frozen(kw_only=True)
class EntryDocument:
    """One change that somebody asked for."""

    number: int
    time: str | None
    user: str
    role: str
    address: str
    action: str
    subject: str
    status: int
    code: str
    request_id: str
    body: str
    hash: str


@frozen(kw_only=True)
class EntryList(Page):
    """A page of the audit trail, the newest first."""

    entries: list[EntryDocument]


@frozen
class ExpectedQuery:
    """A hash that was kept from an earlier check.

    Attributes:
        expect: A hash that must be in the chain.
    """

    expect: str = ""


@frozen(kw_only=True)
class Verdict:
    """Whether the chain holds; keep `head` elsewhere, to be given as ``expect`` later."""

    intact: bool
    entries: int
    head: str
    problem: str


class AuditRoutes:
    """Reads the trail."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        home = f"{API}/audit"
        return [
            Endpoint("audit.list", "GET", home, self._list, queries=PageQuery, gives=EntryList),
            Endpoint(
                "audit.verify",
                "GET",
                f"{home}/verify",
                self._verify,
                queries=ExpectedQuery,
                gives=Verdict,
            ),
        ]

    async def _list(self, call: Call) -> Answer:
        """List who did what, the newest first."""
        page = call.queries(PageQuery)
        skip = (page.page - 1) * page.per_page
        total, entries = await self._its.audit.entries(skip, page.per_page)
        return as_json(EntryList(entries=[_document(one) for one in entries], **page.at(total)))

    async def _verify(self, call: Call) -> Answer:
        """Check that the trail is as it was written."""
        found = await self._its.audit.verify(call.queries(ExpectedQuery).expect)
        return as_json(
            Verdict(
                intact=not found.problem,
                entries=found.entries,
                head=found.head,
                problem=found.problem,
            )
        )


def _document(entry: AuditEntry) -> EntryDocument:
    return EntryDocument(
        number=entry.number,
        time=documents.moment(entry.at),
        user=entry.user,
        role=entry.role,
        address=entry.address,
        action=entry.action,
        subject=entry.subject,
        status=entry.status,
        code=entry.code,
        request_id=entry.request_id,
        body=entry.body,
        hash=entry.hash,
    )
