"""What is said onwards: the head that an agent gets, and the head that a client gets.

Values enter, bytes leave.  This is where hop-by-hop fields end, where forged
``X-Forwarded-*`` and ``X-Ploinky-*`` fields are dropped and true ones set.  It
knows no connection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from math import inf
from typing import Any
from urllib.parse import quote
from wsgiref.handlers import format_date_time

import msgspec
from attrs import frozen

from ploinky.errors import (
    AGENT,
    QUEUE,
    TIMEOUT,
    CallFailed,
    MethodNotAllowed,
    RangeNotSatisfiable,
    SettingsInvalid,
)
from ploinky.routing.http import HOP_BY_HOP, NOTED, RequestHead
from ploinky.values import Kind, Principal, Route

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SESSION_COOKIE = b"authorizationToken"
REQUEST_ID = b"\r\nX-Request-Id: "
FAILED_AT = b"X-Ploinky-Failed-At: "
_PREFIX = b"\r\nX-Forwarded-Prefix: "
_FAILED_AT = b"x-ploinky-failed-at"

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_OWN = frozenset({b"x-request-id", b"content-length", b"expect", b"forwarded", b"x-real-ip"})
_TASK_FIELDS = frozenset({b"x-ploinky-command", b"retry-after", b"location", b"preference-applied"})
_SESSION_CARRIERS = frozenset({b"cookie"})
_BY_AGENTCORE = {503: QUEUE, 504: TIMEOUT}
_JSON = b"\r\nContent-Type: application/json"
_EVENT_STREAM = (b"Content-Type", b"text/event-stream")
# No cache, and no proxy before this server that buffers, has any business with events.
_EVENTS = b"\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no"


@frozen
class Peer:
    """Who is at the other end of a client's connection.

    Attributes:
        address: IP address, or ``unix``.
        trusted: Whether what it says in ``X-Forwarded-*`` is believed.
    """

    address: str
    trusted: bool


class TrustedProxies:
    """The setting ``trustedProxies``: addresses and networks that may speak for others.

    Raises:
        SettingsInvalid: One of ``texts`` is neither.
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

    @lru_cache(maxsize=4096)  # noqa: B019 - there is one for the whole process
    def peer(self, host: str | None) -> Peer:
        """Say who `host` is; None is the other end of a Unix socket."""
        if host is None:
            return Peer("unix", False)
        address = _plain_address(host)
        return Peer(str(address), self._trusts(address))

    def sender(self, peer: Peer, head: RequestHead) -> str:
        """Say from which address a request came to the first proxy that is believed.

        ``X-Forwarded-For`` is read from its end, and only for as long as those who wrote it
        are trusted: what a client made up stands further to the front.
        """
        if not peer.trusted:
            return peer.address
        lines = [value for name, _, value in head.fields if name == b"x-forwarded-for"]
        return self._before(peer.address, b",".join(lines).decode("latin-1"))

    def sender_of(self, way: str) -> str:
        """Say the same from the ``X-Forwarded-For`` that the gateway sends; ``way`` is its value."""
        before, _, last = way.rpartition(",")
        last = last.strip()
        try:
            peer = self.peer(last)
        except ValueError:
            return last
        return self._before(peer.address, before) if peer.trusted else peer.address

    def _before(self, address: str, way: str) -> str:
        """Go back from a trusted proxy along what it and others say of the way before it."""
        for said in reversed(way.split(",")):
            try:
                before = _plain_address(said.strip(" \t").strip("[]"))
            except ValueError:
                break
            address = str(before)
            if not self._trusts(before):
                break
        return address

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _plain_address(text: str) -> _Address:
    """Read an IP address; one of version 4 in the clothes of version 6 is one of version 4.

    Raises:
        ValueError: It is none.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def forwarded_head(
    head: RequestHead, route: Route, principal: Principal, peer: Peer, spent: bytes
) -> bytes:
    """Give the request head that an agent gets, up to the value of its last field, the id.

    The caller adds that and an empty line.  Framing is that of the request: its
    ``Content-Length``, or chunked.

    Args:
        spent: The field (in lower case) whose credential named the principal, or ``b""``:
            it was meant for this server and goes no further.
    """
    to_control = route.kind is Kind.CONTROL
    prefix = _prefix(route)
    lines = [b"%b %b HTTP/1.1" % (head.method, onward_target(route, head.path, head.query))]
    options = head.options
    for name, shown, value in head.fields:
        if not _passes(name) or (name in options and name != b"host"):
            continue
        if not to_control:
            if name == spent:
                continue
            if name == b"cookie":
                value = _without_session(value)
                if not value:
                    continue
        lines.append(b"%b: %b" % (shown, value))
    user = "" if to_control else principal.id
    if peer.trusted:
        lines.append(_passed_on(head, prefix, peer.address, user))
    else:
        lines.append(_origin(peer.address, b"http", head.host, prefix.encode(), user))
    if to_control and any(_marks_a_proxy(name) for name, _, _ in head.fields):
        # What a proxy says that is not trusted is not believed, and one that is trusted may not
        # say whom it speaks for; but that it is there is: nobody behind passes for this machine.
        lines.append(b"X-Ploinky-Proxied: 1")
    if head.length is None:
        lines.append(b"Transfer-Encoding: chunked")
    elif head.length or b"content-length" in head.noted:
        lines.append(b"Content-Length: %d" % head.length)
    return b"\r\n".join(lines) + REQUEST_ID


def forwarded_elsewhere(
    forwarded: bytes, method: bytes, known: Route, route: Route, path: bytes, query: bytes | None
) -> bytes:
    """Give what an agent gets of a request that differs in its target alone.

    Args:
        forwarded: What the agent of ``known`` got of the other one, see `forwarded_head`.
        route: Where this one leads; neither is a built-in one.
    """
    rest = forwarded[forwarded.index(b"\r\n") :]
    if route is not known:
        # No client's field of this name stands before: see `_passes`.
        before, name, rest = rest.partition(_PREFIX)
        said, line_end, rest = rest.partition(b"\r\n")
        said = said.removesuffix(_prefix(known).encode()) + _prefix(route).encode()
        rest = before + name + said + line_end + rest
    return b"%b %b HTTP/1.1%b" % (method, onward_target(route, path, query), rest)


def onward_target(route: Route, path: bytes, query: bytes | None) -> bytes:
    """Give the target that an agent gets: without the route's own path."""
    target = path[len(_prefix(route)) :] or b"/"
    return target if query is None else b"%b?%b" % (target, query)


def _prefix(route: Route) -> str:
    return "" if route.kind is Kind.CONTROL or route.key.path == "/" else route.key.path


def _passed_on(head: RequestHead, prefix: str, address: str, user: str) -> bytes:
    """Say where a request comes from that a trusted proxy passed on."""
    said: dict[bytes, bytes] = {}
    for name, _, value in head.fields:
        if name.startswith(b"x-forwarded-"):
            value = value.rstrip(b" \t")
            said[name] = b"%b, %b" % (said[name], value) if name in said else value
    before = said.get(b"x-forwarded-for")
    return _origin(
        f"{before.decode('latin-1')}, {address}" if before else address,
        said.get(b"x-forwarded-proto", b"http"),
        said.get(b"x-forwarded-host", head.host),
        said.get(b"x-forwarded-prefix", b"").rstrip(b"/") + prefix.encode(),
        user,
    )


def _origin(way: str, scheme: bytes, host: bytes, prefix: bytes, user: str) -> bytes:
    said = (b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b") % (
        way.encode("latin-1"),
        scheme,
        host,
    )
    said += _PREFIX + prefix
    return said + b"\r\nX-Ploinky-User: " + field_text(user) if user else said


@lru_cache(maxsize=1024)
def _marks_a_proxy(name: bytes) -> bool:
    """Tell whether a field (name in lower case) is one that proxies add."""
    return name.startswith(b"x-forwarded-") or name in (b"forwarded", b"via", b"x-real-ip")


@lru_cache(maxsize=1024)
def _passes(name: bytes) -> bool:
    """Tell whether a client's field of this name (in lower case) goes on to an agent.

    What only this server says does not, nor what CGI and WSGI, which read ``_`` as ``-``,
    would take for it.
    """
    plain = name.replace(b"_", b"-")
    own = plain.startswith((b"x-forwarded-", b"x-ploinky-")) or plain in _OWN
    return not own and name not in HOP_BY_HOP


def passes_unread(name: bytes, options: frozenset[bytes]) -> bool:
    """Tell whether a client's field (name in lower case) goes on as it is and says nothing to us.

    Args:
        options: What the request's ``Connection`` field lists.
    """
    return _passes(name) and name not in NOTED - _SESSION_CARRIERS and name not in options


def _without_session(cookies: bytes) -> bytes:
    """Take the server's own session out of a ``Cookie`` field: agents have no use for it."""
    if SESSION_COOKIE not in cookies:
        return cookies
    kept = (c for c in cookies.split(b";") if c.partition(b"=")[0].strip() != SESSION_COOKIE)
    return b";".join(kept).strip()


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
    if kind is Kind.TASK:
        lines += [b"%b: %b" % field for field in fields if field[0].lower() in _TASK_FIELDS]
        lines.append(b"Date: %b" % date)
        if status >= 500:
            lines.append(FAILED_AT + failed_at(kind, status, fields).encode())
        return b"\r\n".join(lines) + (_EVENTS if _EVENT_STREAM in fields else _JSON)
    dated = False
    for field in fields:
        name = field[0].lower()
        if name == b"x-request-id" or (name == b"set-cookie" and _is_ours(kind, field[1])):
            continue
        dated = dated or name == b"date"
        lines.append(b"%b: %b" % field)
    if not dated:
        lines.append(b"Date: %b" % date)
    return b"\r\n".join(lines)


def persistence(http_11: bool, closes: bool) -> bytes:
    """Give the field of an answer that says whether its connection goes on (RFC 9112, 9.3).

    Args:
        http_11: Whether the request was; it goes without saying then.
    """
    if closes:
        return b"\r\nConnection: close"
    return b"" if http_11 else b"\r\nConnection: keep-alive"


def _is_ours(kind: Kind, cookie: bytes) -> bool:
    """Tell whether a cookie is the server's session, which no agent may put in place of another.

    Of one without a name browsers send the value alone, which then reads as a name and a value.
    """
    if kind is Kind.CONTROL:
        return False
    name, _, value = cookie.partition(b"=")
    return (name.strip() or value.partition(b"=")[0].strip()) == SESSION_COOKIE


def failed_at(kind: Kind, status: int, fields: Sequence[tuple[bytes, bytes]]) -> str:
    """Tell which part failed where an agent answered with 500 or more.

    Of a task, 503 and 504 are AgentCore's own words: no place, no time.  Of a durable one the
    leader says it in a field; no agent's field of that name comes as far as this.
    """
    if kind is Kind.TASK:
        for name, value in fields:
            if name.lower() == _FAILED_AT:
                return value.decode("ascii")
        if status in _BY_AGENTCORE:
            return _BY_AGENTCORE[status]
    return AGENT


def refusal(error: CallFailed, request_id: bytes, date: bytes) -> tuple[bytes, bytes]:
    """Give head (without framing and empty line) and body of an error of this server's own."""
    said: dict[str, Any] = {"error": True, "code": error.code, "message": error.message}
    said["details"] = {**(error.details or {}), "failedAt": error.failed_at}
    said["requestId"] = request_id.decode()
    head = b"HTTP/1.1 %d %b\r\nDate: %b" % (error.status, _REASONS[error.status], date) + _JSON
    head += b"\r\n%b%b" % (FAILED_AT, error.failed_at.encode())
    if error.retry_after_seconds is not None:
        head += b"\r\nRetry-After: %d" % error.retry_after_seconds
    if isinstance(error, MethodNotAllowed):
        head += b"\r\nAllow: " + ", ".join(error.allow).encode()
    if isinstance(error, RangeNotSatisfiable):
        head += b"\r\nContent-Range: bytes */%d" % error.size
    if error.status == 401:
        head += b'\r\nWWW-Authenticate: Bearer realm="ploinky"'
    return head, msgspec.json.encode(said)


class Dates:
    """The ``Date`` field's value, made once a second.

    Args:
        wall_clock: Unix seconds.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self.until = -inf
        self._text = b""

    def at(self, now: float) -> bytes:
        """Give the date; the same object for the whole second.

        Args:
            now: The present moment, by any clock that runs evenly.
        """
        if now >= self.until:
            wall = self._wall_clock()
            self.until = now + 1 - wall % 1
            self._text = format_date_time(int(wall)).encode()
        return self._text
