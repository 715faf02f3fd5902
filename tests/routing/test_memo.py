"""What is remembered of a head says the same as reading it anew, for any bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ploinky.errors import CallFailed
from ploinky.routing import plan as plans
from ploinky.routing.headers import Peer
from ploinky.routing.http import Limits, end_of_head, read_request
from ploinky.routing.memo import Memo, may_be_remembered
from ploinky.routing.plan import Plan
from ploinky.routing.table import RouteTable
from ploinky.values import (
    NOBODY,
    CallAuth,
    DeploymentKey,
    Kind,
    Principal,
    RateLimit,
    Role,
    Route,
    RouteSnapshot,
)

SERVICE = Route(DeploymentKey("localhost", "/shop"), Kind.SERVICE, "shop")
TASK = Route(DeploymentKey("localhost", "/demo"), Kind.TASK, "demo")
INNER = Route(DeploymentKey("localhost", "/shop/admin"), Kind.SERVICE, "admin")
KEYED = Route(DeploymentKey("localhost", "/keyed"), Kind.SERVICE, "keyed", auth=CallAuth.KEY)
RATED = Route(
    DeploymentKey("localhost", "/rated"), Kind.SERVICE, "rated", rate_limit=RateLimit(1, 1.0)
)
OUTER = Route(DeploymentKey("localhost", "/outer"), Kind.EXTERNAL, "outer")
BUILT_IN = Route(DeploymentKey("*", "/management"), Kind.CONTROL)
ROUTER = RouteTable(lambda: 0.0)
HEALTH = Route(DeploymentKey("*", "/health"), Kind.CONTROL, max_body_bytes=1)
ROUTER.adopt(RouteSnapshot(1, (SERVICE, INNER, TASK, KEYED, RATED, OUTER, BUILT_IN, HEALTH)))
PEER = Peer("192.0.2.1", False)
PROXY = Peer("192.0.2.2", True)
SHOPPER = Principal("Shopper", Role.DEPLOYER, "", scope=("localhost/shop", "localhost/keyed"))

FIELDS = (
    b"Host: localhost",
    b"User-Agent: test/1.0",
    b"traceparent: 00-aa-bb-01",
    b"Cookie: theme=dark",
    b"X-Own: one",
    b"X-Own: two",
)


def head_of(*fields: bytes, target: bytes = b"/shop/cart") -> bytes:
    return b"\r\n".join((b"POST " + target + b" HTTP/1.1", *fields, b"Content-Length: 2", b"", b""))


def plan_of(raw: bytes, principal: Principal = NOBODY, peer: Peer = PEER) -> tuple[Any, Plan]:
    """Read a head in the ordinary way."""
    head = read_request(raw, Limits())
    return head, plans.plan_of(head, peer, ROUTER.match(head.host, head.path), principal, b"")


def memo_of(raw: bytes, principal: Principal = NOBODY, peer: Peer = PEER) -> Memo:
    head, plan = plan_of(raw, principal, peer)
    assert may_be_remembered(raw, head, plan)
    return Memo(raw, head, plan, 1)


def says(plan: Plan) -> tuple[Any, ...]:
    """Give all that a plan says."""
    return (plan.route, plan.principal, plan.subject.text, plan.subject.deployment, plan.form)


def test_a_value_that_passes_unread_may_change() -> None:
    """The agent gets the new one, in the old one's place."""
    memo = memo_of(head_of(*FIELDS))
    changed = head_of(*FIELDS[:2], b"traceparent: 00-cc-dd-00", b"Cookie: theme=light", *FIELDS[4:])
    varied = memo.varied(changed + b"{}", ROUTER)
    assert varied is not None
    known, forwarded, body = varied
    assert known is memo
    assert forwarded == plan_of(changed)[1].forwarded
    assert b"traceparent: 00-cc-dd-00\r\nCookie: theme=light\r\n" in forwarded
    assert body == b"{}"


@pytest.mark.parametrize(
    "line",
    [
        b"Host: elsewhere",
        b"Authorization: Bearer other",
        b"Content-Length: 3",
        b"Connection: close",
        b"Connection: X-Own",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Upgrade: websocket",
        b"X-Forwarded-For: 203.0.113.9",
        b"X-Request-Id: own",
        b"Cookie: authorizationToken=stolen",
    ],
)
def test_what_the_gateway_reads_may_not_change(line: bytes) -> None:
    """Such a head is read anew, whether the field was there before or comes in another's place."""
    name = line.partition(b":")[0]
    usual = {b"Host": b"localhost", b"Content-Length": b"2", b"Connection": b"keep-alive"}
    first = name + b": " + usual.get(name, b"theme=dark" if name == b"Cookie" else b"first")
    fields = [field for field in FIELDS if not field.startswith(name + b":")]
    if name not in (b"Transfer-Encoding", b"Expect", b"Content-Length"):
        before = head_of(*([first, *fields] if name == b"Host" else [*fields, first]))
        assert memo_of(before).varied(before.replace(first, line) + b"{}", ROUTER) is None
    before = head_of(*FIELDS)
    assert memo_of(before).varied(before.replace(b"X-Own: two", line) + b"{}", ROUTER) is None


@pytest.mark.parametrize("target", [b"/demo", b"/shop"])
@pytest.mark.parametrize("field", [b"Origin", b"Sec-Fetch-Site"])
def test_the_page_that_a_session_comes_from_may_not_change(target: bytes, field: bytes) -> None:
    """It is read where there is a session, and there alone."""
    session = b"Cookie: authorizationToken=ps_1"
    before = head_of(*FIELDS, session, field + b": here", target=target)
    changed = before.replace(b": here", b": there")
    assert memo_of(before).varied(changed + b"{}", ROUTER) is None


@pytest.mark.parametrize("value", [b"a\nb", b"a\rb", b"a\0b", b" a", b"a ", b"a\x7f", b"\t"])
def test_a_value_outside_of_the_grammar_is_read_anew(value: bytes) -> None:
    """And so refused: what is remembered is no way past the grammar."""
    changed = head_of(*FIELDS).replace(b"00-aa-bb-01", value)
    assert memo_of(head_of(*FIELDS)).varied(changed + b"{}", ROUTER) is None


@pytest.mark.parametrize("field", [b"Prefer", b"Accept", b"Content-Type", b"Idempotency-Key"])
def test_a_call_is_read_anew_where_a_field_may_mean_something(field: bytes) -> None:
    """A task's answer depends on more fields than a service's way."""
    before = head_of(*FIELDS, field + b": one", target=b"/demo")
    memo = memo_of(before)
    changed = before.replace(b": one\r\nContent-L", b": two\r\nContent-L")
    assert memo.varied(changed + b"{}", ROUTER) is None
    varied = memo.varied(before.replace(b"theme=dark", b"theme=light") + b"{}", ROUTER)
    assert varied == (memo, b"", b"{}")


@pytest.mark.parametrize("target", [b"/shop", b"/shop/", b"/shop/a/b?c=d?e", b"/shop/%41;v=1"])
def test_another_target_of_the_same_route_needs_no_second_reading(target: bytes) -> None:
    """The agent gets it without the route's own path, and else the same head."""
    changed = head_of(*FIELDS, target=target)
    memo = memo_of(head_of(*FIELDS))
    varied = memo.varied(changed + b"{}", ROUTER)
    assert varied == (memo, plan_of(changed)[1].forwarded, b"{}")


@pytest.mark.parametrize("peer", [PEER, PROXY])
@pytest.mark.parametrize(
    ("principal", "before", "after"),
    [
        (NOBODY, b"/shop/cart", b"/shop/admin/users?all"),
        (SHOPPER, b"/shop/admin", b"/shop"),
        (SHOPPER, b"/keyed", b"/shop/a"),
        (SHOPPER, b"/shop", b"/keyed"),
    ],
)
def test_another_route_needs_no_second_reading(
    principal: Principal, before: bytes, after: bytes, peer: Peer
) -> None:
    """The other agent gets what it would have got, and the next such request is known."""
    fields = (*FIELDS, b"X-Forwarded-Prefix: /front", b"X-Forwarded-For: 203.0.113.9")
    raw = head_of(*fields, target=before)
    changed = head_of(*fields, target=after)
    varied = memo_of(raw, principal, peer).varied(changed + b"{}", ROUTER)
    assert varied is not None
    known, forwarded, body = varied
    _, anew = plan_of(changed, principal, peer)
    assert says(known.plan) == says(anew)
    assert forwarded == known.forwarded == anew.forwarded
    assert (known.raw, known.size, known.generation, body) == (changed, len(changed) + 2, 1, b"{}")
    assert known.varied(raw + b"{}", ROUTER) is not None


@pytest.mark.parametrize(
    "target",
    [
        b"/elsewhere",
        b"/keyed",
        b"/rated",
        b"/outer",
        b"/demo",
        b"/management/api",
        b"/shop/../demo",
        b"/shop/%2e%2e/demo",
        b"/shop/a#b",
        b"/shop/a\\b",
        b"http://localhost/shop/a",
        b"*",
        b"/shop/a b",
        b"/shop/a\0",
        b"/shop/" + b"a" * 9000,
    ],
)
def test_a_target_that_may_lead_elsewhere_is_read_anew(target: bytes) -> None:
    """To none, to one of another kind, one that may refuse, or nowhere that is told at a glance."""
    changed = head_of(*FIELDS, target=target)
    assert memo_of(head_of(*FIELDS)).varied(changed + b"{}", ROUTER) is None


def test_another_built_in_route_is_read_anew() -> None:
    """It may take smaller bodies."""
    memo = memo_of(head_of(*FIELDS, target=b"/management/api"))
    assert memo.varied(head_of(*FIELDS, target=b"/health") + b"{}", ROUTER) is None


@pytest.mark.parametrize("change", [(b"POST", b"PUT"), (b"HTTP/1.1", b"HTTP/1.0")])
def test_another_method_or_version_is_read_anew(change: tuple[bytes, bytes]) -> None:
    """Both decide how a request is framed and answered."""
    changed = head_of(*FIELDS, target=b"/shop/b").replace(*change)
    assert memo_of(head_of(*FIELDS)).varied(changed + b"{}", ROUTER) is None


_NAMES = st.sampled_from(
    [
        b"Cookie",
        b"traceparent",
        b"X-Own",
        b"x-own",
        b"Accept",
        b"Te",
        b"Connection",
        b"X-Request-Id",
    ]
)
_VALUES = st.from_regex(rb"\A[!-~](?:[ -~]{0,8}[!-~])?\Z") | st.sampled_from(
    [b"keep-alive", b"x-own", b"theme=dark", b"authorizationToken=x", b"\xc3\xa9"]
)
_ODD_VALUES = _VALUES | st.binary(max_size=6)
_TARGETS = st.sampled_from([b"/shop", b"/shop/a?b=c", b"/demo", b"/demo/hello", b"/shop/admin/x"])
_ODD_TARGETS = _TARGETS | st.from_regex(rb"\A/shop/[!-~ ]{0,6}\Z") | st.just(b"/shop/../demo")


@given(
    st.lists(st.tuples(_NAMES, _VALUES, st.none() | _ODD_VALUES), max_size=6),
    _TARGETS,
    st.none() | _ODD_TARGETS,
    st.sampled_from([b"{}", b"", b"{}GET"]),
)
@settings(max_examples=1000)
def test_a_remembered_head_never_says_what_reading_it_would_not(
    fields: list[tuple[bytes, bytes, bytes | None]],
    target: bytes,
    other_target: bytes | None,
    body: bytes,
) -> None:
    """Whatever comes: what the memo takes is valid, and means what it takes it for."""

    def head_with(values: list[tuple[bytes, bytes]], target: bytes) -> bytes:
        lines = [name + b": " + value for name, value in values]
        return head_of(b"Host: localhost", *lines, target=target)

    raw = head_with([(name, value) for name, value, _ in fields], target)
    try:
        head, plan = plan_of(raw)
    except CallFailed:
        return
    if not may_be_remembered(raw, head, plan):
        return
    changed = [(name, value if other is None else other) for name, value, other in fields]
    data = head_with(changed, target if other_target is None else other_target) + body
    varied = Memo(raw, head, plan, 1).varied(data, ROUTER)
    if varied is None:
        return
    end = end_of_head(data)
    known, forwarded, rest = varied
    _, anew = plan_of(data[:end])
    assert (says(anew), anew.forwarded) == (says(known.plan), forwarded)
    assert rest == data[end:] == b"{}"
