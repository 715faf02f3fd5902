"""Heads: read in one way, or refused."""

from __future__ import annotations

import pytest

from ploinky.errors import (
    AgentBroken,
    BadRequest,
    CallFailed,
    ExpectationFailed,
    HeadTooLarge,
    TargetTooLong,
)
from ploinky.routing.bodies import ChunkedBody, LengthBody, UntilCloseBody
from ploinky.routing.http import (
    AnswerHead,
    Limits,
    RequestHead,
    body_of,
    end_of_head,
    read_answer,
    read_request,
)

LIMITS = Limits()


def request(line: str = "GET / HTTP/1.1", *fields: str, host: str | None = "Host: a") -> bytes:
    lines = [line, *([host] if host is not None else []), *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def read(raw: bytes) -> RequestHead:
    return read_request(raw, LIMITS)


AMBIGUOUS = {
    "both lengths": request("POST / HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked"),
    "both lengths, other order": request(
        "POST / HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 5"
    ),
    "two lengths": request("POST / HTTP/1.1", "Content-Length: 5", "Content-Length: 6"),
    "the same length twice": request("POST / HTTP/1.1", "Content-Length: 5", "Content-Length: 5"),
    "a list of lengths": request("POST / HTTP/1.1", "Content-Length: 5, 5"),
    "a signed length": request("POST / HTTP/1.1", "Content-Length: +5"),
    "a negative length": request("POST / HTTP/1.1", "Content-Length: -5"),
    "a hexadecimal length": request("POST / HTTP/1.1", "Content-Length: 0x5"),
    "a length that only Python reads": request("POST / HTTP/1.1", "Content-Length: 1_0"),
    "an empty length": request("POST / HTTP/1.1", "Content-Length:"),
    "a length beyond 64 bits": request("POST / HTTP/1.1", f"Content-Length: {2**64}"),
    "another coding": request("POST / HTTP/1.1", "Transfer-Encoding: gzip"),
    "chunked and another coding": request("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked"),
    "chunked twice": request("POST / HTTP/1.1", "Transfer-Encoding: chunked, chunked"),
    "chunked in two fields": request(
        "POST / HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"
    ),
    "chunked, then identity": request(
        "POST / HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"
    ),
    "nearly chunked": request("POST / HTTP/1.1", "Transfer-Encoding: xchunked"),
    "chunked in quotes": request("POST / HTTP/1.1", 'Transfer-Encoding: "chunked"'),
    "chunked after a vertical tab": request("POST / HTTP/1.1", "Transfer-Encoding: \x0bchunked"),
    "an empty coding": request("POST / HTTP/1.1", "Transfer-Encoding:"),
    "chunked in HTTP/1.0": request("POST / HTTP/1.0", "Transfer-Encoding: chunked"),
    "a bare line feed after the request line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "a bare line feed after a field": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "a folded field": request("GET / HTTP/1.1", "X: y\r\n folded"),
    "a space before the colon": request("GET / HTTP/1.1", "Transfer-Encoding : chunked"),
    "a tab before the colon": request("GET / HTTP/1.1", "Content-Length\t: 5"),
    "a space before the name": request("GET / HTTP/1.1", " X: y"),
    "a field without a colon": request("GET / HTTP/1.1", "X"),
    "a field without a name": request("GET / HTTP/1.1", ": y"),
    "a bracket in a name": request("GET / HTTP/1.1", "X(: y"),
    "a NUL in a value": request("GET / HTTP/1.1", "X: \x00"),
    "a control character in a value": request("GET / HTTP/1.1", "X: \x01"),
    "no Host": request(host=None),
    "two Hosts": request("GET / HTTP/1.1", "Host: b"),
    "an empty Host": request(host="Host:"),
    "a Host with a path": request(host="Host: a/b"),
    "a Host with a user": request(host="Host: u@a"),
    "a Host with a space": request(host="Host: a b"),
    "a Host with a comma": request(host="Host: a,b"),
    "a Host with a word for a port": request(host="Host: a:http"),
    "a Host that is not ASCII": request(host="Host: \xe4"),
    "two spaces after the method": request("GET  / HTTP/1.1"),
    "two spaces after the target": request("GET /  HTTP/1.1"),
    "a tab after the method": request("GET\t/ HTTP/1.1"),
    "a space after the version": request("GET / HTTP/1.1 "),
    "a space in the target": request("GET /a b HTTP/1.1"),
    "no version": request("GET /"),
    "HTTP/0.9": request("GET / HTTP/0.9"),
    "HTTP/1.2": request("GET / HTTP/1.2"),
    "HTTP/2.0": request("GET / HTTP/2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "lower-case http": request("GET / http/1.1"),
    "a method that is none": request("G@T / HTTP/1.1"),
    "a method in lower case": request("get / HTTP/1.1"),
    "a method nobody knows": request("FETCH / HTTP/1.1"),
    "another protocol": request("DESCRIBE / RTSP/1.0"),
    "CONNECT": request("CONNECT a:1 HTTP/1.1"),
    "the asterisk form": request("OPTIONS * HTTP/1.1"),
    "a relative target": request("GET a HTTP/1.1"),
    "an absolute target for another host": request("GET http://b/ HTTP/1.1"),
    "an absolute target for another port": request("GET http://a:81/ HTTP/1.1"),
    "an absolute target with a user": request("GET http://u@a/ HTTP/1.1"),
    "an absolute target of another scheme": request("GET ftp://a/ HTTP/1.1"),
    "a fragment": request("GET /a#b HTTP/1.1"),
    "a control character in the target": request("GET /\x01 HTTP/1.1"),
    "a target that is not ASCII": request("GET /\xe4 HTTP/1.1"),
    "two authorizations": request("GET / HTTP/1.1", "Authorization: a", "Authorization: b"),
    "two API keys": request("GET / HTTP/1.1", "X-API-Key: a", "X-API-Key: b"),
}

DOT_SEGMENTS = [
    "/..",
    "/.",
    "/a/..",
    "/a/../b",
    "/a/./b",
    "/a/%2e%2e/b",
    "/a/.%2E/b",
    "/a/%2e",
    "/a/..%2fb",
    "/a/..%2Fb",
    "/a%2f..%2fb",
    "/a/..;x/b",
    "/a/..%3bx/b",
    "/a\\..\\b",
    "/a/..%5cb",
    "/a/..?x",
]


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_can_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    """Each of these has meant different things to different servers."""
    with pytest.raises(BadRequest):
        read(raw)


@pytest.mark.parametrize("path", DOT_SEGMENTS)
def test_dot_segments_are_refused_before_anything_is_routed(path: str) -> None:
    """In any spelling that some recipient might resolve."""
    with pytest.raises(BadRequest, match="segment"):
        read(request(f"GET {path} HTTP/1.1"))


@pytest.mark.parametrize("path", ["/...", "/a..b", "/.well-known/x", "/a.", "/x?/../y", "/a..%2f"])
def test_dots_in_names_are_fine(path: str) -> None:
    """Only whole segments of one or two dots are refused."""
    assert read(request(f"GET {path} HTTP/1.1")).path == path.partition("?")[0].encode()


def test_a_head_says_what_matters() -> None:
    """Target, host, framing and persistence."""
    head = read(
        request(
            "POST /a/b%20c?x=1?2 HTTP/1.1",
            "content-length: 5 ",
            "X-Request-Id: abc.1_2-3",
            "Connection: Keep-Alive, X-Own",
            host="hOST: Example.com:8000",
        )
    )
    assert (head.method, head.path, head.query) == (b"POST", b"/a/b%20c", b"x=1?2")
    assert (head.host, head.length, head.http_11) == (b"Example.com:8000", 5, True)
    assert (head.keep_alive, head.expects_continue) == (True, False)
    assert head.request_id == b"abc.1_2-3"
    assert head.options == {b"keep-alive", b"x-own"}
    assert (b"content-length", b"content-length", b"5 ") in head.fields


@pytest.mark.parametrize(
    ("line", "fields", "keep_alive"),
    [
        ("GET / HTTP/1.1", [], True),
        ("GET / HTTP/1.1", ["Connection: close"], False),
        ("GET / HTTP/1.1", ["Connection: x", "Connection: y, CLOSE"], False),
        ("GET / HTTP/1.1", ["Connection: closed"], True),
        ("GET / HTTP/1.0", [], False),
        ("GET / HTTP/1.0", ["Connection: keep-alive"], True),
    ],
)
def test_persistence_follows_version_and_connection(
    line: str, fields: list[str], keep_alive: bool
) -> None:
    """RFC 9112, section 9.3."""
    assert read(request(line, *fields)).keep_alive is keep_alive


def test_http_10_needs_no_host() -> None:
    """It had none."""
    assert read(request("GET / HTTP/1.0", host=None)).host == b""


@pytest.mark.parametrize("host", ["a", "a.b:1", "A-b_c.", "127.0.0.1:8000", "[::1]", "[::1]:80"])
def test_hosts_are_names_or_addresses(host: str) -> None:
    """With or without a port."""
    assert read(request(host=f"Host: {host}")).host == host.encode()


def test_the_absolute_form_for_the_same_host_is_the_same_request() -> None:
    """RFC 9112, section 3.2.2: a server must take it."""
    head = read(request("GET HTTP://A:80/x?y HTTP/1.1", host="Host: a:80"))
    assert (head.path, head.query) == (b"/x", b"y")
    assert read(request("GET http://a HTTP/1.1")).path == b"/"
    head = read(request("GET http://a?y HTTP/1.1"))
    assert (head.path, head.query) == (b"/", b"y")


def test_an_upgrade_is_a_wish_and_changes_no_framing() -> None:
    """A body after it is a body, not bytes of another protocol."""
    head = read(
        request("POST / HTTP/1.1", "Connection: upgrade", "Upgrade: x", "Content-Length: 3")
    )
    assert head.length == 3


def test_an_ill_formed_request_id_is_not_the_clients() -> None:
    """It would end up in logs and in fields."""
    for value in ("", "a b", "a\tb", "ä", "x" * 129, 'a"b'):
        assert read(request("GET / HTTP/1.1", f"X-Request-Id: {value}")).request_id == b""
    two = request("GET / HTTP/1.1", "X-Request-Id: a", "X-Request-Id: b")
    assert read(two).request_id == b""


def test_only_one_expectation_can_be_met() -> None:
    """And only where there is a body to wait with."""
    waiting = request("POST / HTTP/1.1", "Expect: 100-Continue", "Content-Length: 1")
    assert read(waiting).expects_continue
    assert not read(request("GET / HTTP/1.1", "Expect: 100-continue")).expects_continue
    with pytest.raises(ExpectationFailed):
        read(request("POST / HTTP/1.1", "Expect: 200-ok", "Content-Length: 1"))


def test_limits_are_named() -> None:
    """Too many fields and too long a target each have a status of their own."""
    read(request("GET / HTTP/1.1", *["X: y"] * 99))
    with pytest.raises(HeadTooLarge) as too_large:
        read(request("GET / HTTP/1.1", *["X: y"] * 100))
    read(request(f"GET /{'a' * 8191} HTTP/1.1"))
    with pytest.raises(TargetTooLong) as too_long:
        read(request(f"GET /{'a' * 8192} HTTP/1.1"))
    assert (too_large.value.status, too_long.value.status) == (431, 414)


def test_the_end_of_a_head_is_found_across_reads() -> None:
    """Looking only at what is new, and never missing an end that was split."""
    data = b"GET / HTTP/1.1\r\n\r\nX"
    for seen in range(len(data) - 4):
        assert end_of_head(data, seen) == len(data) - 1
    assert end_of_head(b"GET / HTTP/1.1\r\n\r") == -1


# --- answers


def answer(line: str = "HTTP/1.1 200 OK", *fields: str) -> AnswerHead:
    raw = "\r\n".join((line, *fields)).encode("latin-1") + b"\r\n\r\n"
    return read_answer(raw, LIMITS)


@pytest.mark.parametrize(
    "lines",
    [
        ["junk"],
        ["HTTP/1.1 20 OK"],
        ["HTTP/1.1 099 OK"],
        ["HTTP/1.1 600 OK"],
        ["HTTP/2.0 200 OK"],
        ["ICY 200 OK"],
        ["HTTP/1.1 101 Switching", "Connection: upgrade", "Upgrade: x"],
        ["HTTP/1.1 200 OK", "Content-Length: 1", "Content-Length: 1"],
        ["HTTP/1.1 200 OK", "Content-Length: 1", "Transfer-Encoding: chunked"],
        ["HTTP/1.1 200 OK", "Transfer-Encoding: gzip"],
        ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["HTTP/1.0 200 OK", "Transfer-Encoding: chunked"],
        ["HTTP/1.1 200 OK", "X : y"],
        ["HTTP/1.1 200 OK", "X: y\r\n folded"],
        ["HTTP/1.1 200 OK", "X: y\nZ: w"],
        ["HTTP/1.1 200 OK", *["X: y"] * 101],
    ],
    ids=lambda lines: " | ".join(lines)[:60],
)
def test_agents_are_read_as_strictly_as_clients(lines: list[str]) -> None:
    """An answer that can be read in two ways reaches nobody."""
    with pytest.raises(AgentBroken):
        answer(*lines)


def test_only_end_to_end_fields_pass() -> None:
    """Neither the connection's own fields nor those that it lists."""
    head = answer(
        "HTTP/1.1 200 OK",
        "Content-Length: 2",
        "Connection: Keep-Alive, X-Own",
        "Keep-Alive: timeout=5",
        "X-Own: 1",
        "Trailer: X",
        "Upgrade: h2c",
        "Proxy-Connection: x",
        "X-Kept: 2",
    )
    assert head.fields == ((b"X-Kept", b"2"),)
    assert (head.status, head.length, head.chunked, head.keep_alive) == (200, 2, False, True)


@pytest.mark.parametrize(
    ("lines", "to_head", "body"),
    [
        (["HTTP/1.1 200 OK", "Content-Length: 2"], False, LengthBody),
        (["HTTP/1.1 200 OK", "Transfer-Encoding: chunked"], False, ChunkedBody),
        (["HTTP/1.1 200 OK"], False, UntilCloseBody),
        (["HTTP/1.1 200 OK", "Content-Length: 0"], False, None),
        (["HTTP/1.1 200 OK", "Content-Length: 2"], True, None),
        (["HTTP/1.1 204 No Content"], False, None),
        (["HTTP/1.1 304 Not Modified", "Content-Length: 2"], False, None),
    ],
)
def test_an_answers_body_is_framed_as_its_head_says(
    lines: list[str], to_head: bool, body: type | None
) -> None:
    """RFC 9112, section 6.3."""
    framed = body_of(answer(*lines), to_head)
    assert (framed if framed is None else type(framed)) is body


def test_every_error_here_is_a_failed_call() -> None:
    """So that the gateway has one way to answer them."""
    for error in (BadRequest, HeadTooLarge, TargetTooLong, ExpectationFailed, AgentBroken):
        assert issubclass(error, CallFailed)
