"""What is remembered of a head says the same as reading it anew, for any bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ploinky.routing.access import subject
from ploinky.routing.forms import task_form
from ploinky.routing.headers import Peer, forwarded_head
from ploinky.routing.http import Limits, end_of_head, read_request
from ploinky.routing.memo import Memo, may_be_remembered
from ploinky.routing.plan import Plan
from ploinky.values import NOBODY, DeploymentKey, Kind, Route

SERVICE = Route(DeploymentKey("localhost", "/shop"), Kind.SERVICE, "shop")
TASK = Route(DeploymentKey("localhost", "/demo"), Kind.TASK, "demo")
PEER = Peer("192.0.2.1", False)

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


def plan_of(raw: bytes, route: Route) -> tuple[Any, Plan]:
    """Read a head in the ordinary way."""
    head = read_request(raw, Limits())
    who = subject(head.method, str(route.key), route.deployment, NOBODY.id)
    if route.kind is Kind.TASK:
        return head, Plan(route, NOBODY, who, form=task_form(head, route))
    forwarded = forwarded_head(head, route, NOBODY, PEER, b"")
    return head, Plan(route, NOBODY, who, forwarded=forwarded)


def memo_of(raw: bytes, route: Route = SERVICE) -> Memo:
    head, plan = plan_of(raw, route)
    assert may_be_remembered(raw, head, plan)
    return Memo(raw, head, plan, 1)


def test_a_value_that_passes_unread_may_change() -> None:
    """The agent gets the new one, in the old one's place."""
    memo = memo_of(head_of(*FIELDS))
    changed = head_of(*FIELDS[:2], b"traceparent: 00-cc-dd-00", b"Cookie: theme=light", *FIELDS[4:])
    varied = memo.varied(changed + b"{}")
    assert varied is not None
    forwarded, body = varied
    assert forwarded == plan_of(changed, SERVICE)[1].forwarded
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
        assert memo_of(before).varied(before.replace(first, line) + b"{}") is None
    before = head_of(*FIELDS)
    assert memo_of(before).varied(before.replace(b"X-Own: two", line) + b"{}") is None


@pytest.mark.parametrize("field", [b"Prefer", b"Accept", b"Content-Type", b"Idempotency-Key"])
def test_a_call_is_read_anew_where_a_field_may_mean_something(field: bytes) -> None:
    """A task's answer depends on more fields than a service's way."""
    before = head_of(*FIELDS, field + b": one", target=b"/demo")
    memo = memo_of(before, TASK)
    assert memo.varied(before.replace(b": one\r\nContent-L", b": two\r\nContent-L") + b"{}") is None
    varied = memo.varied(before.replace(b"theme=dark", b"theme=light") + b"{}")
    assert varied == (b"", b"{}")


_BYTES = st.binary(max_size=12)
_HEADS = st.builds(
    lambda fields, target: head_of(b"Host: localhost", *fields, target=target),
    st.lists(
        st.builds(
            lambda name, value: name + b": " + value,
            st.sampled_from(
                [b"Cookie", b"traceparent", b"X-Own", b"x-own", b"Accept", b"Te", b"Connection"]
            ),
            st.from_regex(rb"\A[!-~](?:[ -~]*[!-~])?\Z") | st.just(b"keep-alive"),
        ),
        max_size=6,
    ),
    st.sampled_from([b"/shop", b"/shop/a?b=c", b"/demo", b"/demo/hello"]),
)
_CHANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 12), _BYTES), max_size=4)


@given(_HEADS, _CHANGES, st.sampled_from([SERVICE, TASK]))
def test_a_remembered_head_never_says_what_reading_it_would_not(
    raw: bytes, changes: list[tuple[int, int, bytes]], route: Route
) -> None:
    """Whatever bytes come: what the memo takes is valid, and means what it takes it for."""
    try:
        head, plan = plan_of(raw, route)
    except Exception:
        return
    if not may_be_remembered(raw, head, plan):
        return
    memo = Memo(raw, head, plan, 1)
    data = bytearray(raw + b"{}")
    for at, length, new in changes:
        data[at : at + length] = new
    varied = memo.varied(bytes(data))
    if varied is None:
        return
    forwarded, body = varied
    end = end_of_head(data)
    _, anew = plan_of(bytes(data[:end]), route)
    assert (anew.forwarded, anew.form) == (forwarded, plan.form)
    assert body == data[end:]
    assert len(body) == 2
