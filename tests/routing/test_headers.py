"""What agents are told about a request, and what they are not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ploinky.errors import (
    MethodNotAllowed,
    NoSuchRoute,
    Overloaded,
    SettingsInvalid,
    Unauthenticated,
)
from ploinky.routing.headers import (
    Dates,
    Peer,
    TrustedProxies,
    answer_head,
    failed_at,
    field_text,
    forwarded_head,
    refusal,
)
from ploinky.routing.http import Limits, read_request
from ploinky.values import NOBODY, Kind, Principal, Role

STRANGER = Peer("203.0.113.9", False)
PROXY = Peer("10.0.0.1", True)


def forwarded(
    make_route: Any,
    *fields: str,
    line: str = "GET /shop/cart?x=1 HTTP/1.1",
    place: str = "localhost/shop",
    kind: Kind = Kind.SERVICE,
    peer: Peer = STRANGER,
    principal: Principal = NOBODY,
    spent: bytes = b"",
) -> list[bytes]:
    raw = "\r\n".join((line, "Host: localhost:8000", *fields)).encode("latin-1") + b"\r\n\r\n"
    head = read_request(raw, Limits())
    given = forwarded_head(head, make_route(place, kind), principal, peer, spent)
    assert given.endswith(b"\r\nX-Request-Id: ")
    return given.split(b"\r\n")[:-1]


def named(lines: list[bytes], *names: bytes) -> list[bytes]:
    return [line for line in lines if line.lower().startswith(tuple(n + b":" for n in names))]


@pytest.mark.parametrize(
    ("line", "place", "kind", "target"),
    [
        ("GET /shop HTTP/1.1", "localhost/shop", Kind.SERVICE, b"/"),
        ("GET /shop/ HTTP/1.1", "localhost/shop", Kind.SERVICE, b"/"),
        ("GET /shop?x HTTP/1.1", "localhost/shop", Kind.SERVICE, b"/?x"),
        ("GET /shop/a%20b?x HTTP/1.1", "localhost/shop", Kind.EXTERNAL, b"/a%20b?x"),
        ("GET /shop/a HTTP/1.1", "localhost/", Kind.SERVICE, b"/shop/a"),
        ("GET / HTTP/1.1", "localhost/", Kind.SERVICE, b"/"),
        ("GET /?x HTTP/1.1", "localhost/", Kind.SERVICE, b"/?x"),
        ("GET /shop? HTTP/1.1", "localhost/shop", Kind.SERVICE, b"/?"),
        (
            "GET /shop/a%2Fb%3f/%E2%82%ac;v=1//c?d=%20+&/shop HTTP/1.1",
            "localhost/shop",
            Kind.SERVICE,
            b"/a%2Fb%3f/%E2%82%ac;v=1//c?d=%20+&/shop",
        ),
        ("GET /shop/shop HTTP/1.1", "localhost/shop", Kind.SERVICE, b"/shop"),
        ("GET /management/api HTTP/1.1", "*/management", Kind.CONTROL, b"/management/api"),
        ("GET http://localhost:8000/shop/a HTTP/1.1", "localhost/shop", Kind.SERVICE, b"/a"),
    ],
)
def test_an_agent_sees_paths_below_its_own(
    make_route: Any, line: str, place: str, kind: Kind, target: bytes
) -> None:
    """The prefix is stripped; the management API keeps its paths."""
    lines = forwarded(make_route, line=line, place=place, kind=kind)
    assert lines[0] == b"GET " + target + b" HTTP/1.1"


def test_hop_by_hop_fields_end_here(make_route: Any) -> None:
    """Those of RFC 9110 and those that `Connection` lists; `Host` cannot be listed away."""
    lines = forwarded(
        make_route,
        "Connection: Upgrade, X-Own, Host, X-Forwarded-For",
        "Upgrade: websocket",
        "Keep-Alive: timeout=1",
        "TE: trailers",
        "Trailer: X",
        "Proxy-Authorization: x",
        "Proxy-Connection: keep-alive",
        "X-Own: 1",
        "Accept: */*",
    )
    assert lines == [
        b"GET /cart?x=1 HTTP/1.1",
        b"Host: localhost:8000",
        b"Accept: */*",
        b"X-Forwarded-For: 203.0.113.9",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: localhost:8000",
        b"X-Forwarded-Prefix: /shop",
        b"X-Ploinky-User: InternetUser",
    ]


FORGED = (
    "X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: bank.example",
    "X-Forwarded-Prefix: /pre/",
    "x_forwarded_for: 127.0.0.1",
    "Forwarded: for=127.0.0.1",
    "X-Real-IP: 127.0.0.1",
    "X-Ploinky-User: Admin",
    "X_Ploinky_User: Admin",
    "X_Request_Id: x",
    "X-Ploinky-Task: x",
)


@pytest.mark.parametrize("kind", [Kind.SERVICE, Kind.CONTROL])
def test_a_stranger_cannot_forge_where_it_comes_from(make_route: Any, kind: Kind) -> None:
    """Not even in the spellings that CGI and WSGI take for the same."""
    lines = forwarded(make_route, *FORGED, kind=kind)
    text = b"\n".join(lines)
    for forged in (b"127.0.0.1", b"https", b"bank", b"/pre", b"Admin", b"x_", b"Task"):
        assert forged not in text
    assert named(lines, b"x-forwarded-for") == [b"X-Forwarded-For: 203.0.113.9"]


@pytest.mark.parametrize("field", ["X-Forwarded-For: x", "Forwarded: x", "Via: x", "X-Real-IP: x"])
def test_the_leader_learns_of_every_proxy(make_route: Any, field: str) -> None:
    """Not what one says that is not trusted, but that it is there: as one may be that is trusted
    and says nothing of whom it speaks for.  A client cannot say so, and agents do not hear."""

    def said(*fields: str, **how: Any) -> list[bytes]:
        return named(forwarded(make_route, *fields, **how), b"x-ploinky-proxied")

    assert said(field, kind=Kind.CONTROL) == [b"X-Ploinky-Proxied: 1"]
    assert said("X-Ploinky-Proxied: 1", kind=Kind.CONTROL) == []
    assert said(field, kind=Kind.CONTROL, peer=PROXY) == [b"X-Ploinky-Proxied: 1"]
    assert said(field) == []


def test_a_trusted_proxy_is_believed(make_route: Any) -> None:
    """And its own address is added to the way."""
    lines = forwarded(make_route, *FORGED, peer=PROXY)
    assert named(lines, b"x-forwarded-for", b"x-forwarded-proto") == [
        b"X-Forwarded-For: 127.0.0.1, 10.0.0.1",
        b"X-Forwarded-Proto: https",
    ]
    assert named(lines, b"x-forwarded-host", b"x-forwarded-prefix") == [
        b"X-Forwarded-Host: bank.example",
        b"X-Forwarded-Prefix: /pre/shop",
    ]
    assert named(lines, b"x-ploinky-user") == [b"X-Ploinky-User: InternetUser"]


@pytest.mark.parametrize(
    "cookie",
    [
        b"authorizationToken=ps_x; Path=/",
        b" authorizationToken =x",
        b"=authorizationToken=ps_x; Path=/management",
        b" = authorizationToken=ps_x",
    ],
)
def test_no_agent_logs_anybody_in(cookie: bytes) -> None:
    """Its own cookies pass; the server's session is set by the server alone."""
    fields = ((b"Set-Cookie", b"a=authorizationToken"), (b"set-cookie", cookie))
    for kind, passes in ((Kind.SERVICE, False), (Kind.CONTROL, True)):
        said = answer_head(kind, 200, fields, b"today")
        assert b"Set-Cookie: a=authorizationToken" in said
        assert (cookie in said) is passes


def test_a_prefix_is_what_was_taken_off(make_route: Any) -> None:
    """Nothing for a deployment at the root; a trusted proxy's own stands before it."""
    at_root = {"line": "GET /a HTTP/1.1", "place": "localhost/"}
    assert named(forwarded(make_route, **at_root), b"x-forwarded-prefix") == [
        b"X-Forwarded-Prefix: "
    ]
    lines = forwarded(make_route, "X-Forwarded-Prefix: /pre", peer=PROXY, **at_root)
    assert named(lines, b"x-forwarded-prefix") == [b"X-Forwarded-Prefix: /pre"]


def test_an_agent_never_sees_the_servers_session(make_route: Any) -> None:
    """An agent on the same domain could otherwise act as its visitors; cookies of its own pass."""
    both = forwarded(make_route, "Cookie: a=1; authorizationToken=ps_x; b=2")
    assert named(both, b"cookie") == [b"Cookie: a=1; b=2"]
    assert named(forwarded(make_route, "Cookie: authorizationToken=ps_x"), b"cookie") == []
    other = forwarded(make_route, "Cookie: xauthorizationToken=1")
    assert named(other, b"cookie") == [b"Cookie: xauthorizationToken=1"]
    control = forwarded(make_route, "Cookie: authorizationToken=ps_x", kind=Kind.CONTROL)
    assert named(control, b"cookie") == [b"Cookie: authorizationToken=ps_x"]


def test_a_credential_that_was_for_this_server_goes_no_further(make_route: Any) -> None:
    """One that was not is the agent's own business."""
    fields = ("Authorization: Bearer pk_x", "X-API-Key: other")
    somebody = Principal("key", Role.CALLER)
    lines = forwarded(make_route, *fields, principal=somebody, spent=b"authorization")
    assert named(lines, b"authorization", b"x-api-key") == [b"X-API-Key: other"]
    assert named(lines, b"x-ploinky-user") == [b"X-Ploinky-User: key"]
    lines = forwarded(make_route, *fields)
    assert len(named(lines, b"authorization", b"x-api-key")) == 2


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ((), []),
        (("Content-Length: 0",), [b"Content-Length: 0"]),
        (("Content-Length: 007",), [b"Content-Length: 7"]),
        (("Transfer-Encoding: Chunked",), [b"Transfer-Encoding: chunked"]),
    ],
)
def test_framing_is_said_anew(
    make_route: Any, fields: tuple[str, ...], framing: list[bytes]
) -> None:
    """In one spelling, so that an agent reads what was read here."""
    lines = forwarded(make_route, *fields, line="POST /shop HTTP/1.1")
    assert named(lines, b"content-length", b"transfer-encoding") == framing


def test_expectations_are_met_here(make_route: Any) -> None:
    """The agent need not be asked."""
    lines = forwarded(
        make_route, "Expect: 100-continue", "Content-Length: 1", line="POST /shop HTTP/1.1"
    )
    assert named(lines, b"expect") == []


def test_no_name_breaks_out_of_its_field() -> None:
    """A principal's name may hold anything."""
    assert field_text("ci key") == b"ci key"
    assert field_text("a\r\nX: y") == b"a%0D%0AX: y"
    assert field_text("Zo\xeb 100%") == b"Zo%C3%AB 100%25"


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("192.168.0.7", True),
        ("192.168.0.8", False),
        ("fd00::1", True),
        ("fe80::1%eth0", False),
        (None, False),
    ],
)
def test_proxies_are_trusted_by_address_or_network(host: str | None, trusted: bool) -> None:
    """IPv4 in IPv6's clothes counts as what it is."""
    assert TrustedProxies(["10.0.0.0/8", "192.168.0.7", "fd00::/8"]).peer(host).trusted is trusted


def test_a_proxy_that_is_no_address_is_reported() -> None:
    """All of them at once, by name."""
    with pytest.raises(SettingsInvalid) as caught:
        TrustedProxies(["nginx", "10.0.0.0/8", "10.0.0.0/33"])
    assert len(caught.value.problems) == 2
    assert "trustedProxies: 'nginx'" in caught.value.problems[0]


def test_an_agents_answer_keeps_its_fields() -> None:
    """A service says what it likes, except for the request id."""
    fields = [(b"Content-Type", b"text/html"), (b"x-request-id", b"mine"), (b"DATE", b"then")]
    head = answer_head(Kind.SERVICE, 418, fields, b"now")
    assert head == b"HTTP/1.1 418 I'm a Teapot\r\nContent-Type: text/html\r\nDATE: then"
    assert answer_head(Kind.SERVICE, 599, [], b"now") == b"HTTP/1.1 599 \r\nDate: now"


def test_a_task_answers_json_and_nothing_else() -> None:
    """A task agent has no say in the cookies of its domain."""
    fields = [
        (b"Content-Type", b"text/html"),
        (b"Set-Cookie", b"authorizationToken=x"),
        (b"X-Ploinky-Command", b"hello"),
    ]
    assert answer_head(Kind.TASK, 200, fields, b"now") == (
        b"HTTP/1.1 200 OK\r\nX-Ploinky-Command: hello\r\nDate: now\r\n"
        b"Content-Type: application/json"
    )


def test_refusals_are_json_with_code_and_request_id() -> None:
    """The form of the contract, section 4."""
    head, body = refusal(NoSuchRoute("not here", details={"a": 1}), b"id-1", b"now")
    assert head == (
        b"HTTP/1.1 404 Not Found\r\nDate: now\r\nContent-Type: application/json"
        b"\r\nX-Ploinky-Failed-At: client"
    )
    assert msgspec.json.decode(body) == {
        "error": True,
        "code": "NO_SUCH_ROUTE",
        "message": "not here",
        "details": {"a": 1, "failedAt": "client"},
        "requestId": "id-1",
    }


@pytest.mark.parametrize(
    ("kind", "status", "part"),
    [
        (Kind.TASK, 500, "agent"),
        (Kind.TASK, 503, "queue"),
        (Kind.TASK, 504, "timeout"),
        (Kind.SERVICE, 503, "agent"),
    ],
)
def test_an_agents_error_is_attributed(kind: Kind, status: int, part: str) -> None:
    """AgentCore's own words are told from those of the agent's code."""
    assert failed_at(kind, status, ()) == part
    if kind is Kind.TASK:
        assert f"\r\nX-Ploinky-Failed-At: {part}\r\n".encode() in answer_head(
            kind, status, (), b"n"
        )


def test_refusals_say_what_to_do_next() -> None:
    """When to come again, which methods there are, how to say who one is."""
    busy, _ = refusal(Overloaded("busy", retry_after_seconds=3), b"i", b"now")
    assert b"\r\nRetry-After: 3" in busy
    method, _ = refusal(MethodNotAllowed("no", allow=["GET", "POST"]), b"i", b"now")
    assert b"\r\nAllow: GET, POST" in method
    who, _ = refusal(Unauthenticated("who?"), b"i", b"now")
    assert b"\r\nWWW-Authenticate: Bearer" in who


def test_dates_are_made_once_a_second() -> None:
    """In the form of RFC 9110, section 5.6.7."""
    wall = 784111777.75
    dates = Dates(lambda: wall)
    first = dates.at(5.0)
    assert first == b"Sun, 06 Nov 1994 08:49:37 GMT"
    wall += 0.25
    assert dates.at(5.2) is first
    assert dates.at(5.25) == b"Sun, 06 Nov 1994 08:49:38 GMT"
