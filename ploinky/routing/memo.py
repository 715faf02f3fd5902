"""What a client's connection remembers of its last head: clients send theirs again and again.

A valid head and the plan made of it enter.  They hold for the same bytes under the
same generation of the route table, so that nothing of them is read twice; a head
with anything unusual is never remembered.  This module knows no connection.
"""

from __future__ import annotations

from ploinky.routing.http import RequestHead
from ploinky.routing.plan import Plan

_LARGEST_BYTES = 2048
"""Of a head: an idle connection must stay small."""


class Memo:
    """A head, byte for byte, and all that follows from it.

    Attributes:
        raw: The head.
        size: Of the head with its body.
        generation: Of the route table that the plan was made under; under another it is void.
    """

    __slots__ = ("generation", "head", "plan", "raw", "size")

    def __init__(self, raw: bytes, head: RequestHead, plan: Plan, generation: int) -> None:
        self.raw = raw
        self.size = len(raw) + (head.length or 0)
        self.head = head
        self.plan = plan
        self.generation = generation
        head.forget_fields()


def may_be_remembered(raw: bytes, head: RequestHead, plan: Plan) -> bool:
    """Tell whether the same bytes mean the same thing for as long as the route table stands."""
    return (
        len(raw) <= _LARGEST_BYTES
        and head.length is not None
        and head.is_usual
        and not head.expects_continue
        and plan.principal.expires_at is None
    )
