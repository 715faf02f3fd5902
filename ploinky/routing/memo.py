"""What a client's connection remembers of its last head: clients send theirs again and again.

A valid head and the plan made of it enter.  They hold for the same bytes; for heads
that differ in nothing but values that the gateway passes on unread (a trace's id, a
visitor's cookie); and for those that differ in nothing but the target, which may lead to
another route; all under the same generation of the route table.  A head with anything
unusual is never remembered.  This module knows no connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from ploinky.errors import NoSuchRoute
from ploinky.interfaces import IRouter
from ploinky.routing.headers import SESSION_COOKIE, forwarded_elsewhere, passes_unread
from ploinky.routing.http import RequestHead, has_dot_segment
from ploinky.routing.origins import OF_PAGES
from ploinky.routing.plan import Plan, plan_elsewhere
from ploinky.values import Kind

_LARGEST_BYTES = 2048
"""Of a head that is remembered: an idle connection must stay small."""

_LARGEST_VARIED_BYTES = 8192
"""Of what is held against it, with its body; no limit of a head or a target is below."""

_VALUE = (
    rb"(?!.*" + SESSION_COOKIE + rb")"
    rb"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?\Z"
)
"""A field's value, not empty and without white space around it (RFC 9110, 5.5)."""

_TARGET = re.compile(rb"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?\Z")
"""An ordinary target (RFC 3986, 3.3 and 3.4); one with anything else in it is read anew."""

_MEANINGLESS = frozenset(
    {
        b"accept-language",
        b"cookie",
        b"origin",
        b"referer",
        b"traceparent",
        b"tracestate",
        b"user-agent",
    }
)
"""Fields that say nothing to whatever here answers a call itself, and not an agent's own server."""


class Memo:
    """A head, byte for byte, and all that follows from it.

    Attributes:
        raw: The head.
        head: What it says, but for its target: it may be that of one which differed in that.
        head_size: Of it, in bytes.
        size: Of the head with its body.
        forwarded: See `Plan.forwarded`.
        short: Whether such requests may take a short way.
        generation: Of the route table that the plan was made under; under another it is void.
        expires_at: Unix seconds at which it is void, as who calls is known no longer; None: never.
    """

    __slots__ = (
        "_line",
        "_roams",
        "_variety",
        "expires_at",
        "forwarded",
        "generation",
        "head",
        "head_size",
        "plan",
        "raw",
        "short",
        "size",
    )

    def __init__(self, raw: bytes, head: RequestHead, plan: Plan, generation: int) -> None:
        self.raw = raw
        self.head_size = len(raw)
        self.size = len(raw) + (head.length or 0)
        self.head = head
        self.plan = plan
        self.forwarded = plan.forwarded
        is_task = plan.form is not None and not plan.form.to_events
        self.short = (is_task or bool(plan.forwarded)) and not head.request_id
        self.generation = generation
        self.expires_at = plan.principal.expires_at
        self._roams = bool(plan.forwarded) and plan.route.kind is not Kind.CONTROL
        self._line = raw[: raw.index(b"\r\n") + 2]
        self._variety: _Variety | None = None
        head.forget_fields()

    def varied(self, data: bytes, router: IRouter) -> tuple[Memo, bytes, bytes] | None:
        """Read a whole request that is not, byte for byte, the one that is remembered.

        Returns:
            What to remember from now on, which is this unless the target leads to another route;
            what the agent gets in place of `Plan.forwarded`; and the body.  None where the
            request may mean something else.
        """
        if len(data) > _LARGEST_VARIED_BYTES:
            return None
        if not data.startswith(self._line):
            return self._elsewhere(data, router)
        end = data.find(b"\r\n\r\n") + 4
        if len(data) - end != (self.head.length or 0):
            return None
        variety = self._variety
        if variety is None:
            variety = self._variety = _Variety(self.raw, self.head, self.plan)
        forwarded = variety.forwarded(data[:end])
        return None if forwarded is None else (self, forwarded, data[end:])

    def _elsewhere(self, data: bytes, router: IRouter) -> tuple[Memo, bytes, bytes] | None:
        """Read a request with another target, and else the same head.

        What the target of a built-in route means is not for here to say.
        """
        raw, plan = self.raw, self.plan
        before = len(self._line)
        line_end = data.find(b"\r\n") + 2
        end = line_end + len(raw) - before
        if not self._roams or len(data) - end != (self.head.length or 0):
            return None
        if data[line_end:end] != raw[before:]:
            return None
        method = self.head.method
        if not data.startswith(method + b" /") or not data.startswith(b" HTTP/1.1", line_end - 11):
            return None
        target = data[len(method) + 1 : line_end - 11]
        if _TARGET.match(target) is None:
            return None
        path, question_mark, rest = target.partition(b"?")
        query = rest if question_mark else None
        if has_dot_segment(path):
            return None
        try:
            route = router.match(self.head.host, path)
        except NoSuchRoute:
            return None
        if route is plan.route:
            forwarded = forwarded_elsewhere(plan.forwarded, method, route, route, path, query)
            return self, forwarded, data[end:]
        there = plan_elsewhere(plan, method, route, path, query)
        if there is None:
            return None
        return Memo(data[:end], self.head, there, self.generation), there.forwarded, data[end:]


class _Variety:
    """The lines of a head, and which of them may have another value."""

    __slots__ = ("_forwarded", "_free", "_lines")

    def __init__(self, raw: bytes, head: RequestHead, plan: Plan) -> None:
        self._lines = raw.split(b"\r\n")
        self._forwarded = plan.forwarded.split(b"\r\n") if plan.forwarded else []
        self._free = _free(self._lines, self._forwarded, head.options)

    def forwarded(self, raw: bytes) -> bytes | None:
        """Give what an agent gets for a head; None where it differs in what matters."""
        lines = raw.split(b"\r\n")
        if len(lines) != len(self._lines):
            return None
        forwarded = self._forwarded.copy()
        for number, known, at, fits in self._free:
            line = lines[number]
            if line != known:
                if fits(line) is None:
                    return None
                lines[number] = known
                if at:
                    forwarded[at] = line
        return b"\r\n".join(forwarded) if lines == self._lines else None


def may_be_remembered(raw: bytes, head: RequestHead, plan: Plan) -> bool:
    """Tell whether the same bytes mean the same thing while the route table and the key stand."""
    return (
        len(raw) <= _LARGEST_BYTES
        and head.length is not None
        and head.method != b"HEAD"
        and not head.expects_continue
        and plan.upload is None
        and not plan.upgrade
        and plan.attempt is None
        and plan.route.rate_limit is None
    )


_Fits = Callable[[bytes], object]


def _free(
    lines: list[bytes], forwarded: list[bytes], options: frozenset[bytes]
) -> list[tuple[int, bytes, int, _Fits]]:
    """Say which lines of a valid head may have another value.

    Returns:
        Of each: its number; itself; where it stands in what the agent gets (0 where it gets
        nothing of the head); and what finds out whether another one can stand in its place.
    """
    free: list[tuple[int, bytes, int, _Fits]] = []
    after = 0
    fixed = OF_PAGES if any(SESSION_COOKIE in line for line in lines) else frozenset()
    for number, line in enumerate(lines[1:-2], 1):
        shown, separator, _ = line.partition(b": ")
        name = shown.lower()
        if not separator or name in fixed or _fits(shown)(line) is None:
            continue
        if not forwarded:
            if name in _MEANINGLESS:
                free.append((number, line, 0, _fits(shown)))
        elif passes_unread(name, options) and line in forwarded[after + 1 :]:
            after = forwarded.index(line, after + 1)
            free.append((number, line, after, _fits(shown)))
    return free


@lru_cache(maxsize=512)
def _fits(name: bytes) -> _Fits:
    return re.compile(re.escape(name + b": ") + _VALUE).match
