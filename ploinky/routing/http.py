"""Heads of HTTP/1.1 requests and answers, read in one way or refused (RFC 9110, 9112).

Whole heads enter, exactly as they came, up to and with their empty line; values
leave.  llhttp holds them to the grammar; this module adds what it leaves open:
one space between the parts of the request line, one length, one ``Host``, one
meaning of the target.  It knows no connection, no route and no agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from attrs import frozen
from httptools import (
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

from ploinky.errors import AgentBroken, BadRequest, ExpectationFailed, HeadTooLarge, TargetTooLong
from ploinky.routing.bodies import Body, ChunkedBody, LengthBody, UntilCloseBody

Field = tuple[bytes, bytes, bytes]
"""Name in lower case, name as sent, value."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that belong to one connection and never pass a gateway (RFC 9110, 7.6.1)."""

_ONCE = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"expect",
        b"authorization",
        b"x-api-key",
        b"idempotency-key",
    }
)
_JOINED = {b"connection": b",", b"cookie": b"; ", b"x-request-id": b",", b"prefer": b","}
NOTED = _ONCE | _JOINED.keys()
"""Fields that the gateway itself reads."""

_HOST = re.compile(
    rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?\Z"
)
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)\Z", re.IGNORECASE | re.DOTALL)
_DOT_SEGMENT = re.compile(
    rb"(?:/|\\|%2f|%5c)(?:\.|%2e){1,2}(?:\Z|/|\\|;|%2f|%5c|%3b)", re.IGNORECASE
)
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [0-9]{3}(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")
_NO_OPTIONS: frozenset[bytes] = frozenset()
_NO_FIELDS: tuple[Field, ...] = ()
_NOTHING_NOTED: Mapping[bytes, bytes] = {}
MOST_INTERIM = 16
"""Interim (1xx) answers before an agent's final one; all of them are dropped."""

_VERSIONS = {b"HTTP/1.1": True, b"HTTP/1.0": False}


@frozen
class Limits:
    """What a client may take up; see performance and contract for the reasons.

    Attributes:
        head_bytes: Of a request's or an answer's head.
        fields: In one head.
        target_bytes: Of a request's target.
        first_byte_seconds: From a connection's beginning to its first request.
        head_seconds: From a head's first byte to its last.
        idle_seconds: Between an answer and the next request.
        body_seconds: What a client may be behind with its body; it begins with so much.
        sending_seconds: After which a client that does not take its answer is looked at again.
        bytes_per_second: The least at which a body must come, and an answer be taken.
        tunnel_seconds: After which an upgraded connection ends on which nothing moves.
        half_tunnel_seconds: The same, where one side has ended already.
        lingering_seconds: For a client to read a refusal before the connection is closed.
    """

    head_bytes: int = 64 * 1024
    fields: int = 100
    target_bytes: int = 8 * 1024
    first_byte_seconds: float = 30.0
    head_seconds: float = 20.0
    idle_seconds: float = 75.0
    body_seconds: float = 30.0
    sending_seconds: float = 60.0
    bytes_per_second: float = 1024.0
    tunnel_seconds: float = 3600.0
    half_tunnel_seconds: float = 60.0
    lingering_seconds: float = 2.0


class RequestHead:
    """A request's head, valid and unambiguous.

    Attributes:
        method: As sent, such as ``b"GET"``.
        path: Still escaped, begins with ``/``, holds no dot segment.
        query: What follows the first ``?``, or None where there is none.
        host: The ``Host`` field's value; ``b""`` where an HTTP/1.0 client sent none.
        http_11: HTTP/1.1, else 1.0.
        keep_alive: Whether the client wants the connection to go on.
        length: Of the body in bytes; None where it is chunked.
        request_id: The client's own ``X-Request-Id``, if it is well-formed, else ``b""``.
        expects_continue: Whether the client waits for ``100 Continue`` before the body.
        options: Names that the `Connection` field lists, in lower case.
        fields: All fields in order.
        noted: Values of the fields that the gateway itself reads, by name in lower case.
    """

    __slots__ = (
        "expects_continue",
        "fields",
        "host",
        "http_11",
        "keep_alive",
        "length",
        "method",
        "noted",
        "options",
        "path",
        "query",
        "request_id",
    )

    method: bytes
    path: bytes
    query: bytes | None
    host: bytes
    http_11: bool
    keep_alive: bool
    length: int | None
    request_id: bytes
    expects_continue: bool
    options: frozenset[bytes]
    fields: Sequence[Field]
    noted: Mapping[bytes, bytes]

    def forget_fields(self) -> None:
        """Let go of what is not needed once it is known where the request goes."""
        self.fields = _NO_FIELDS
        self.noted = _NOTHING_NOTED


@frozen
class AnswerHead:
    """An agent's answer head, valid and unambiguous.

    Attributes:
        fields: End-to-end fields without ``Content-Length``, names as sent.
        length: Of the body in bytes, as announced; None where it was not.
        chunked: Whether the body comes in chunks.
        keep_alive: Whether the connection can carry another request afterwards.
    """

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    length: int | None
    chunked: bool
    keep_alive: bool


class _Events:
    """What llhttp calls back."""

    __slots__ = ("fields", "whole")

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), name, value))

    def on_headers_complete(self) -> None:
        self.whole = True


def end_of_head(data: bytes | bytearray, seen: int = 0) -> int:
    """Give where the head in ``data`` ends, or -1; its first ``seen`` bytes held no end."""
    found = data.find(b"\r\n\r\n", max(seen - 3, 0))
    return found + 4 if found >= 0 else -1


def read_request(raw_head: bytes, limits: Limits) -> RequestHead:
    """Read one whole request head.

    Raises:
        BadRequest: It is not HTTP, or can be read in more than one way.
        HeadTooLarge, TargetTooLong: It is over a limit.
        ExpectationFailed: It expects something other than ``100-continue``.
    """
    line = raw_head[: raw_head.index(b"\r\n")]
    parts = line.split(b" ")
    if len(parts) != 3 or parts[2] not in _VERSIONS or parts[0][:1] in b"\r\n":
        raise BadRequest("the request line is not METHOD TARGET HTTP/1.1, one space between each")
    if parts[0] == b"CONNECT":
        raise BadRequest("this server is no proxy to elsewhere: there is no CONNECT")
    if len(parts[1]) > limits.target_bytes:
        raise TargetTooLong(f"the request target is over {limits.target_bytes} bytes")
    events = _Events()
    try:
        HttpRequestParser(events).feed_data(raw_head)
    except HttpParserUpgrade:
        pass  # an upgrade is the client's wish and no framing: its body is framed like any other
    except HttpParserError as error:
        raise BadRequest(f"this is not a valid HTTP/1.1 request: {error}") from error
    if not events.whole:
        raise BadRequest("the request head ends too early")
    if len(events.fields) > limits.fields:
        raise HeadTooLarge(f"the request has over {limits.fields} fields")
    head = RequestHead()
    head.method = parts[0]
    head.http_11 = _VERSIONS[parts[2]]
    head.fields = events.fields
    head.noted = _noted(events.fields)
    own_id = head.noted.get(b"x-request-id", b"")
    head.request_id = own_id if _REQUEST_ID.match(own_id) is not None else b""
    _read_framing(head)
    _read_target(head, parts[1])
    return head


def unreadable_head() -> RequestHead:
    """Give what stands for the head of a request that is none, so that it can be refused."""
    head = RequestHead()
    head.method = b"-"
    head.path = b"/"
    head.query = None
    head.host = head.request_id = b""
    head.http_11 = True
    head.keep_alive = head.expects_continue = False
    head.length = 0
    head.options = _NO_OPTIONS
    head.forget_fields()
    return head


def _noted(fields: list[Field]) -> dict[bytes, bytes]:
    noted: dict[bytes, bytes] = {}
    for name, _, value in fields:
        if name in NOTED:
            value = value.rstrip(b" \t")
            if name in noted:
                if name in _ONCE:
                    raise BadRequest(f"the field {name.decode()} is given twice")
                value = noted[name] + _JOINED[name] + value
            noted[name] = value
    return noted


def _read_framing(head: RequestHead) -> None:
    noted = head.noted
    coding = noted.get(b"transfer-encoding")
    if coding is None:
        head.length = int(noted.get(b"content-length", b"0"))
    elif coding.lower() != b"chunked" or not head.http_11:
        raise BadRequest("the only transfer coding is chunked, in HTTP/1.1")
    else:
        head.length = None
    connection = noted.get(b"connection")
    head.options = options = options_of(connection) if connection is not None else _NO_OPTIONS
    head.keep_alive = b"close" not in options if head.http_11 else b"keep-alive" in options
    expect = noted.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        raise ExpectationFailed("the only expectation that can be met is 100-continue")
    head.expects_continue = expect is not None and head.http_11 and head.length != 0


def _read_target(head: RequestHead, target: bytes) -> None:
    host = head.noted.get(b"host")
    if host is None:
        if head.http_11:
            raise BadRequest("the field Host is missing")
        host = b""
    elif not _is_host(host):
        raise BadRequest("the field Host is not a host name with or without a port")
    if target[:1] != b"/":
        target = _origin_form(target, host)
    if b"#" in target:
        raise BadRequest("the request target has a fragment")
    path, question_mark, query = target.partition(b"?")
    if has_dot_segment(path):
        raise BadRequest("the path has a segment . or ..")
    head.host = host
    head.path = path
    head.query = query if question_mark else None


def has_dot_segment(path: bytes) -> bool:
    """Tell whether a segment of a path is ``.`` or ``..`` to anybody, in whatever spelling."""
    return (b"." in path or b"%" in path) and _DOT_SEGMENT.search(path) is not None


@lru_cache(maxsize=1024)
def _is_host(host: bytes) -> bool:
    return _HOST.match(host) is not None


def _origin_form(target: bytes, host: bytes) -> bytes:
    """Take scheme and authority off an absolute target, which must be for the same host."""
    found = _ABSOLUTE.match(target)
    if found is None:
        raise BadRequest("the request target does not begin with /")
    if found.group(1).lower() != host.lower():
        raise BadRequest("the request target names another host than the field Host")
    rest = found.group(2)
    return rest if rest[:1] == b"/" else b"/" + rest


@lru_cache(maxsize=64)
def options_of(value: bytes) -> frozenset[bytes]:
    """Give what a ``Connection`` field lists, in lower case."""
    return frozenset(option.strip(b" \t") for option in value.lower().split(b","))


def read_answer(raw_head: bytes, limits: Limits) -> AnswerHead:
    """Read one whole answer head, interim (1xx) ones included.

    Raises:
        AgentBroken: It is not HTTP, can be read in more than one way, or switches protocols,
            which nobody asked for.
    """
    status, http_11, fields = answer_parts(raw_head, limits)
    if status == 101:
        raise AgentBroken("the agent switched protocols, and nobody had asked for that")
    return answer_of(status, http_11, fields)


def answer_parts(raw_head: bytes, limits: Limits) -> tuple[int, bool, list[Field]]:
    """Read one whole answer head: its status (100 to 599), whether it is HTTP/1.1, its fields.

    Raises:
        AgentBroken: It is not HTTP.
    """
    if len(raw_head) > limits.head_bytes:
        raise AgentBroken("the head of the agent's answer is too large")
    if _STATUS_LINE.match(raw_head) is None:
        raise AgentBroken("the agent's answer does not begin with HTTP/1.1 and a status")
    events = _Events()
    parser = HttpResponseParser(events)
    try:
        parser.feed_data(raw_head)
    except HttpParserUpgrade:
        pass  # refused below, by its status
    except HttpParserError as error:
        raise AgentBroken(f"the agent's answer is not valid HTTP/1.1: {error}") from error
    status = parser.get_status_code()
    if not events.whole:
        raise AgentBroken("the head of the agent's answer ends too early")
    if not 100 <= status <= 599:
        raise AgentBroken(f"the agent answered with status {status}")
    if len(events.fields) > limits.fields:
        raise AgentBroken(f"the agent's answer has over {limits.fields} fields")
    return status, raw_head[7:8] == b"1", events.fields


def answer_of(status: int, http_11: bool, fields: list[Field]) -> AnswerHead:
    """Say what an answer's parts mean.

    Raises:
        AgentBroken: Its framing can be read in more than one way.
    """
    length: int | None = None
    coding = b""
    options: frozenset[bytes] = frozenset()
    for name, _, value in fields:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            coding += value.strip(b" \t").lower()
        elif name == b"connection":
            options |= options_of(value)
    if coding not in (b"", b"chunked") or (coding and not http_11):
        raise AgentBroken("the agent's answer has a transfer coding other than chunked")
    return AnswerHead(
        status,
        tuple(
            (shown, value)
            for name, shown, value in fields
            if name != b"content-length" and name not in HOP_BY_HOP and name not in options
        ),
        length,
        bool(coding),
        b"close" not in options if http_11 else b"keep-alive" in options,
    )


def body_of(head: AnswerHead, to_head_request: bool) -> Body | None:
    """Say how the body after an answer's head is framed; None: there is none."""
    if to_head_request or head.status in (204, 304) or head.length == 0:
        return None
    if head.chunked:
        return ChunkedBody()
    if head.length is not None:
        return LengthBody(head.length)
    return UntilCloseBody()
