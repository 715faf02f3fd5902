"""What a client's connection remembers of its last head: clients send theirs again and again.

A valid head and the plan made of it enter.  They hold for the same bytes, and for
heads that differ in nothing but values that the gateway passes on unread (a trace's
id, a visitor's cookie), under the same generation of the route table.  A head with
anything unusual is never remembered.  This module knows no connection.
"""

from __future__ import annotations

import re

from ploinky.routing.headers import SESSION_COOKIE, passes_unread
from ploinky.routing.http import RequestHead
from ploinky.routing.plan import Plan

_LARGEST_BYTES = 2048
"""Of a head that is remembered: an idle connection must stay small."""

_LARGEST_VARIED_BYTES = 8192
"""Of a head that is held against it, with its body; below every limit of a head."""

_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?\Z")
"""A field's value without white space around it (RFC 9110, 5.5), as llhttp takes it too."""

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
        size: Of the head with its body.
        generation: Of the route table that the plan was made under; under another it is void.
    """

    __slots__ = ("_begins", "_variety", "generation", "head", "plan", "raw", "size")

    def __init__(self, raw: bytes, head: RequestHead, plan: Plan, generation: int) -> None:
        self.raw = raw
        self.size = len(raw) + (head.length or 0)
        self.head = head
        self.plan = plan
        self.generation = generation
        self._begins = raw[: raw.index(b"\n")]
        self._variety: _Variety | None = None
        head.forget_fields()

    def varied(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Read a whole request that is not, byte for byte, the one that is remembered.

        Returns:
            What the agent gets in place of `Plan.forwarded`, and the body; None where the
            request differs in more than values of fields that pass unread.
        """
        if not data.startswith(self._begins):
            return None
        end = data.find(b"\r\n\r\n") + 4
        if len(data) - end != (self.head.length or 0) or len(data) > _LARGEST_VARIED_BYTES:
            return None
        variety = self._variety
        if variety is None:
            variety = self._variety = _Variety(self.raw, self.head, self.plan)
        forwarded = variety.forwarded(data[:end])
        return None if forwarded is None else (forwarded, data[end:])


class _Variety:
    """The lines of a head, and which of them may have another value."""

    __slots__ = ("_forwarded", "_lines", "_places")

    def __init__(self, raw: bytes, head: RequestHead, plan: Plan) -> None:
        self._lines = raw.split(b"\r\n")
        self._forwarded = plan.forwarded.split(b"\r\n") if plan.forwarded else []
        self._places = _places(self._lines, self._forwarded, head.options)

    def forwarded(self, raw: bytes) -> bytes | None:
        """Give what an agent gets for a head; None where it differs in what matters."""
        lines = raw.split(b"\r\n")
        if len(lines) != len(self._lines):
            return None
        forwarded = self._forwarded.copy()
        for number, known in enumerate(self._lines):
            line = lines[number]
            if line != known:
                place = self._places.get(number)
                if place is None:
                    return None
                at, name = place
                if (
                    not line.startswith(name)
                    or _VALUE.match(line, len(name)) is None
                    or SESSION_COOKIE in line
                ):
                    return None
                if at:
                    forwarded[at] = line
        return b"\r\n".join(forwarded)


def may_be_remembered(raw: bytes, head: RequestHead, plan: Plan) -> bool:
    """Tell whether the same bytes mean the same thing for as long as the route table stands."""
    return (
        len(raw) <= _LARGEST_BYTES
        and head.length is not None
        and head.is_usual
        and not head.expects_continue
        and plan.principal.expires_at is None
        and plan.upload is None
        and not plan.upgrade
        and plan.route.rate_limit is None
    )


def _places(
    lines: list[bytes], forwarded: list[bytes], options: frozenset[bytes]
) -> dict[int, tuple[int, bytes]]:
    """Say which lines of a valid head may have another value.

    Returns:
        By the line's number: where it stands in what the agent gets (0 where it gets nothing of
        the head, a task), and how it begins.
    """
    places: dict[int, tuple[int, bytes]] = {}
    after = 0
    for number, line in enumerate(lines[1:-2], 1):
        shown, separator, value = line.partition(b": ")
        name = shown.lower()
        if not separator or _VALUE.match(value) is None or SESSION_COOKIE in line:
            continue
        if not forwarded:
            if name in _MEANINGLESS:
                places[number] = (0, shown + separator)
        elif passes_unread(name, options) and line in forwarded[after + 1 :]:
            after = forwarded.index(line, after + 1)
            places[number] = (after, shown + separator)
    return places
