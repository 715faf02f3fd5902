"""Heads that are not whole yet: what there is of them may show already that they never will be.

Beginnings enter; nothing leaves, or the error that refuses them.  This module knows no connection.
"""

from __future__ import annotations

import re

from ploinky.errors import AgentBroken, BadRequest, HeadTooLarge, TargetTooLong
from ploinky.routing.http import Limits

_ODD_LINE_END = re.compile(rb"(?<!\r)\n|\r[^\n]")
_NO_REQUEST = re.compile(rb"(?<!\r)\n|\r[^\n]|\A[^A-Z\r]")
_REQUEST_LINE_REST = 64


def refuse_no_request(data: bytes | bytearray, seen: int, limits: Limits) -> None:
    """Look at what may become a request's head.

    Args:
        seen: How much of it was looked at before.

    Raises:
        TargetTooLong, HeadTooLarge: It is over a limit.
        BadRequest: It is something else.
    """
    longest_line = limits.target_bytes + _REQUEST_LINE_REST
    if len(data) > longest_line and data.find(b"\r\n", 0, longest_line) < 0:
        raise TargetTooLong(f"the request target is over {limits.target_bytes} bytes")
    if len(data) > limits.head_bytes:
        raise HeadTooLarge(f"the request head is over {limits.head_bytes} bytes")
    if _NO_REQUEST.search(data, max(seen - 1, 0)) is not None:
        raise BadRequest("this is not an HTTP/1.1 request with lines ending in CRLF")


def refuse_no_answer(data: bytes, seen: int, limits: Limits) -> None:
    """Look at what may become the head of an agent's answer; as `refuse_no_request`.

    Raises:
        AgentBroken: It is over a limit, or something else.
    """
    if len(data) > limits.head_bytes:
        raise AgentBroken("the head of the agent's answer is too large")
    if _ODD_LINE_END.search(data, max(seen - 1, 0)) is not None:
        raise AgentBroken("the agent's answer has lines that do not end in CRLF")
