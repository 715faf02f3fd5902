"""Requests by which somebody tries to be let in, told by their heads: there is a limit to those."""

from __future__ import annotations

from enum import Enum

from ploinky.routing.http import RequestHead

_AUTH = frozenset({b"/auth", b"/auth/"})
_HOOKS = b"/management/api/hooks/"
_LARGEST_BYTES = 4096
"""Of a login; a larger one is no ordinary one."""


class Attempt(Enum):
    """What a request tries to be let in by; the value is the route's name in the audit trail."""

    LOGIN = "auth"
    PUSH = "hooks.push"


def attempt_of(head: RequestHead) -> Attempt | None:
    """Say what a request to the leader tries to be let in by, if it does."""
    if head.method == b"POST":
        is_short = 0 < (head.length or 0) <= _LARGEST_BYTES
        if head.path in _AUTH and head.query is None and is_short:
            return Attempt.LOGIN
        if head.path.startswith(_HOOKS):
            return Attempt.PUSH
    return None
