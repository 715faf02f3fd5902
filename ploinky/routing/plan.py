"""What follows from a request's head alone, under one generation of the route table.

Who may call is decided here, and nowhere else.  This module knows no connection and no call.
"""

from __future__ import annotations

import msgspec

from ploinky.errors import BodyTooLarge, CallFailed, Forbidden, Unauthenticated
from ploinky.routing.access import Subject, subject
from ploinky.routing.attempts import Attempt, attempt_of
from ploinky.routing.forms import TaskForm, task_form
from ploinky.routing.headers import Peer, forwarded_elsewhere, forwarded_head
from ploinky.routing.http import RequestHead
from ploinky.routing.static import Asked, asked_of
from ploinky.routing.upgrades import protocols_asked
from ploinky.routing.uploads import UploadForm, upload_form
from ploinky.values import CallAuth, Kind, Principal, Role, Route


class Plan(msgspec.Struct, frozen=True, eq=False):
    """Where a request goes, and as what.  A ``Struct``, as one is made for each new head.

    Attributes:
        subject: What its record says of it.
        form: How a task is called; None for what is no task.
        forwarded: The head that an agent gets, up to its request id; ``b""`` where it gets none.
        upload: How a task brings its files; None where it brings none.
        asked: What is wanted of a static deployment; None for any other.
        most_body_bytes: None: no limit.
        upgrade: The protocols that it asks the agent for; ``b""`` for none.
        attempt: To be let in, of which there is a limit; None for what needs no such thing.
    """

    route: Route
    principal: Principal
    subject: Subject
    form: TaskForm | None = None
    forwarded: bytes = b""
    upload: UploadForm | None = None
    asked: Asked | None = None
    most_body_bytes: int | None = None
    upgrade: bytes = b""
    attempt: Attempt | None = None

    @property
    def travels_whole(self) -> bool:
        """Whether its body is read before anything is made of it."""
        return self.form is not None or self.attempt is Attempt.LOGIN

    @property
    def may_stream(self) -> bool:
        """Whether an answer that has begun may last for as long as it likes."""
        return self.form is None or self.form.to_events


def plan_of(
    head: RequestHead, peer: Peer, route: Route, principal: Principal, spent: bytes
) -> Plan:
    """Say what becomes of a request.

    Args:
        spent: See `forwarded_head`.

    Raises:
        CallFailed: It is refused.
    """
    admit(route, principal)
    form = upload = asked = attempt = None
    most: int | None = None
    if route.kind is Kind.TASK:
        form = task_form(head, route)
        upload = upload_form(head, form.command)
        most = route.max_body_bytes if upload is None else route.max_upload_bytes
    elif route.kind is Kind.STATIC:
        asked = asked_of(head, route)
    elif route.kind is Kind.CONTROL:
        most = route.max_body_bytes
        attempt = attempt_of(head)
    if most is not None and (head.length or 0) > most:
        raise BodyTooLarge(f"the body is over {most} bytes")
    forwarded = upgrade = b""
    if form is None and asked is None:
        forwarded = forwarded_head(head, route, principal, peer, spent)
        if head.options and route.kind is not Kind.CONTROL:
            upgrade = protocols_asked(head)
    who = _subject(head.method, route, principal)
    return Plan(route, principal, who, form, forwarded, upload, asked, most, upgrade, attempt)


def plan_elsewhere(
    plan: Plan, method: bytes, route: Route, path: bytes, query: bytes | None
) -> Plan | None:
    """Say what becomes of a request that differs in its target alone, which leads to `route`.

    Args:
        plan: Of the other one, whose head is remembered; not of one to a built-in route.

    Returns:
        None where more must be known than that.
    """
    known = plan.route
    if route.kind is not known.kind or route.rate_limit is not None:
        return None
    try:
        admit(route, plan.principal)
    except CallFailed:
        return None
    forwarded = forwarded_elsewhere(plan.forwarded, method, known, route, path, query)
    return Plan(route, plan.principal, _subject(method, route, plan.principal), forwarded=forwarded)


def plan_again(plan: Plan, method: bytes, route: Route) -> Plan:
    """Say what becomes of a task that was planned long ago, by the route that holds now.

    Raises:
        Unauthenticated, Forbidden: Who calls may not do so any more.
    """
    admit(route, plan.principal)
    who = _subject(method, route, plan.principal)
    return msgspec.structs.replace(plan, route=route, subject=who)


def admit(route: Route, principal: Principal) -> None:
    """Let in who may call; closed to whoever is not known to be let in.

    Raises:
        Unauthenticated, Forbidden: They may not.
    """
    if route.auth is CallAuth.NONE:
        return
    by_session = route.auth is CallAuth.SESSION
    if principal.role is None or principal.session is not by_session:
        how = "log in first" if by_session else "send an API key as Authorization: Bearer <key>"
        raise Unauthenticated(f"{route.key} takes no anonymous calls: {how}")
    if principal.role is Role.VIEWER or not in_scope(principal, route):
        raise Forbidden(f"{principal.id} may not call {route.key}")


def in_scope(principal: Principal, route: Route) -> bool:
    """Tell whether a principal may have to do with a route at all."""
    scope = principal.scope
    return not scope or route.key.domain in scope or str(route.key) in scope


def _subject(method: bytes, route: Route, principal: Principal) -> Subject:
    return subject(method, str(route.key), route.deployment, principal.id)
