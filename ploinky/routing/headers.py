"""What is said onwards: the head that an agent gets, and the head that a client gets.

Values enter, bytes leave.  This is where hop-by-hop fields end, where forged
`X-Forwarded-*` and `X-Ploinky-*` fields are dropped and true ones set.  It
knows no connection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from wsgiref.handlers import format_date_time

import msgspec
from attrs import frozen

from ploinky.errors import CallFailed, MethodNotAllowed, SettingsInvalid
from ploinky.routing.http import HOP_BY_HOP, Field, RequestHead
from ploinky.values import Kind, Principal, Route

SESSION_COOKIE = b"authorizationToken"
REQUEST_ID = b"\r\nX-Request-Id: "

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_FORGEABLE = frozenset({b"forwarded", b"x-real-ip"})
_OWN = frozenset({b"x-request-id", b"content-length", b"expect"})
_TASK_FIELDS = frozenset({b"x-ploinky-command", b"retry-after"})
_JSON = b"\r\nContent-Type: application/json"


@frozen
class Peer:
    """Who is at the other end of a client's connection.

    Attributes:
        address: IP address, or `unix`.
        trusted: Whether what it says in `X-Forwarded-*` is believed.
    """

    address: str
    trusted: bool


class TrustedProxies:
    """The setting `trustedProxies`: addresses and networks that may speak for others.

    Raises:
        SettingsInvalid: One of `texts` is neither.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        problems = []
        self._networks = []
        for text in texts:
            try:
                self._networks.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                problems.append(f"trustedProxies: {text!r} is neither an address nor a network")
        if problems:
            raise SettingsInvalid(problems)

    def peer(self, host: str | None) -> Peer:
        """Say who `host` is; None is the other end of a Unix socket."""
        if host is None:
            return Peer("unix", False)
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return Peer(str(address), any(address in network for network in self._networks))


def forwarded_head(
    head: RequestHead, route: Route, principal: Principal, peer: Peer, spent: bytes
) -> bytes:
    """Give the request head that an agent gets, up to and with `X-Request-Id: `.

    The caller adds the id and an empty line.  Framing is that of the request: its
    `Content-Length`, or chunked.

    Args:
        spent: The field (in lower case) whose credential named the principal, or `b""`:
            it was meant for this server and goes no further.
    """
    lines = [b"%b %b HTTP/1.1" % (head.method, _target(head, route))]
    options = head.connection_options
    to_control = route.kind is Kind.CONTROL
    for name, shown, value in head.fields:
        if name in HOP_BY_HOP or name in _OWN or _is_reserved(name):
            continue
        if name in options and name != b"host":
            continue
        if not to_control:
            if name == spent:
                continue
            if name == b"cookie":
                value = _without_session(value)
                if not value:
                    continue
        lines.append(shown + b": " + value)
    lines += _forwarding(head, route, peer)
    if not to_control:
        lines.append(b"X-Ploinky-User: " + field_text(principal.id))
    if head.length is None:
        lines.append(b"Transfer-Encoding: chunked")
    elif head.length or b"content-length" in head.noted:
        lines.append(b"Content-Length: %d" % head.length)
    return b"\r\n".join(lines) + REQUEST_ID


def _target(head: RequestHead, route: Route) -> bytes:
    path = head.path
    if route.kind is not Kind.CONTROL and route.key.path != "/":
        path = path[len(route.key.path) :] or b"/"
    return path if head.query is None else path + b"?" + head.query


def _is_reserved(name: bytes) -> bool:
    """Tell whether only this server says it; CGI and WSGI read `_` as `-`, so both count."""
    plain = name.replace(b"_", b"-")
    return (
        plain.startswith((b"x-forwarded-", b"x-ploinky-"))
        or plain in _FORGEABLE
        or (plain in _OWN and plain != name)
    )


def _without_session(cookies: bytes) -> bytes:
    """Take the server's own session out of a `Cookie` field: agents have no use for it."""
    if SESSION_COOKIE not in cookies:
        return cookies
    kept = (c for c in cookies.split(b";") if c.partition(b"=")[0].strip() != SESSION_COOKIE)
    return b";".join(kept).strip()


def _forwarding(head: RequestHead, route: Route, peer: Peer) -> list[bytes]:
    said = _said_by_proxy(head.fields) if peer.trusted else {}
    address = peer.address.encode()
    prefix = b"" if route.key.path == "/" or route.kind is Kind.CONTROL else route.key.path.encode()
    before = said.get(b"x-forwarded-for")
    return [
        b"X-Forwarded-For: " + (before + b", " + address if before else address),
        b"X-Forwarded-Proto: " + said.get(b"x-forwarded-proto", b"http"),
        b"X-Forwarded-Host: " + said.get(b"x-forwarded-host", head.host),
        b"X-Forwarded-Prefix: " + said.get(b"x-forwarded-prefix", b"").rstrip(b"/") + prefix,
    ]


def _said_by_proxy(fields: Sequence[Field]) -> dict[bytes, bytes]:
    said: dict[bytes, bytes] = {}
    for name, _, value in fields:
        if name.startswith(b"x-forwarded-"):
            value = value.rstrip(b" \t")
            said[name] = said[name] + b", " + value if name in said else value
    return said


def field_text(text: str) -> bytes:
    """Give `text` as it may stand in a field: all but printable ASCII percent-encoded."""
    if text.isascii() and text.isprintable() and "%" not in text:
        return text.encode()
    return quote(text, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}~", errors="replace").encode()


def answer_head(
    kind: Kind, status: int, fields: Sequence[tuple[bytes, bytes]], date: bytes
) -> bytes:
    """Give the status line and fields of an agent's answer, without framing and empty line."""
    lines = [b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b""))]
    dated = False
    for name, value in fields:
        lowered = name.lower()
        if kind is Kind.TASK and lowered not in _TASK_FIELDS:
            continue
        if lowered == b"x-request-id":
            continue
        dated = dated or lowered == b"date"
        lines.append(name + b": " + value)
    if not dated:
        lines.append(b"Date: " + date)
    head = b"\r\n".join(lines)
    return head + _JSON if kind is Kind.TASK else head


def refusal(error: CallFailed, request_id: bytes, date: bytes) -> tuple[bytes, bytes]:
    """Give head (without framing and empty line) and body of an error of this server's own."""
    said: dict[str, Any] = {"error": True, "code": error.code, "message": error.message}
    if error.details is not None:
        said["details"] = error.details
    said["requestId"] = request_id.decode()
    head = b"HTTP/1.1 %d %b\r\nDate: %b" % (error.status, _REASONS[error.status], date) + _JSON
    if error.retry_after_seconds is not None:
        head += b"\r\nRetry-After: %d" % error.retry_after_seconds
    if isinstance(error, MethodNotAllowed):
        head += b"\r\nAllow: " + ", ".join(error.allow).encode()
    if error.status == 401:
        head += b'\r\nWWW-Authenticate: Bearer realm="ploinky"'
    return head, msgspec.json.encode(said)


class Dates:
    """The `Date` field's value, made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def at(self, seconds: float) -> bytes:
        """Give the date at `seconds` (Unix)."""
        second = int(seconds)
        if second != self._second:
            self._second = second
            self._text = format_date_time(second).encode()
        return self._text
