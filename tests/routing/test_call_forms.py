"""The forms in which a task may be called, and what cannot be a call."""

from __future__ import annotations

from typing import Any

import pytest

from ploinky.errors import BadCommand, BadJson, MethodNotAllowed
from ploinky.routing.forms import task_form
from ploinky.routing.http import Limits, read_request


def called(
    make_route: Any, line: str, body: bytes = b"", place: str = "localhost/demo"
) -> tuple[str, bytes]:
    raw = f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    head = read_request(raw.encode(), Limits())
    return task_form(head, make_route(place)).read(body)[:2]


@pytest.mark.parametrize(
    ("line", "body", "command", "params"),
    [
        (
            "POST /demo",
            b'{"command":"hello","params":[1, {"a": "b"}]}',
            "hello",
            b'[1, {"a": "b"}]',
        ),
        ("POST /demo/", b'{"command":"hello"}', "hello", b"[]"),
        ("POST /demo", b'{"x":1,"params":[],"command":"a.b-c_D","y":[2]}', "a.b-c_D", b"[]"),
        ("POST /demo", b' {"command" : "h" , "params" : [ ] } ', "h", b"[ ]"),
        ("POST /demo", '{"command":"h","params":["\u00e9"]}'.encode(), "h", '["\u00e9"]'.encode()),
        ("POST /demo/hello", b"[1,2]", "hello", b"[1,2]"),
        ("POST /demo/hello", b' {"a": 1} ', "hello", b'[{"a": 1}]'),
        ("POST /demo/hello", b'"World"', "hello", b'["World"]'),
        ("POST /demo/hello", b"null", "hello", b"[null]"),
        ("POST /demo/hello", b"", "hello", b"[]"),
        ("POST /demo/hello?a=1", b"[2]", "hello", b"[2]"),
        ("GET /demo/hello", b"", "hello", b"[]"),
        ("GET /demo/hello?a=1&b=x%20y+z&c", b"", "hello", b'["1","x y z",""]'),
        ("GET /demo/hello?a=%C3%A9&a=%FF", b"", "hello", '["\u00e9","\ufffd"]'.encode()),
    ],
)
def test_every_form_is_the_same_call(
    make_route: Any, line: str, body: bytes, command: str, params: bytes
) -> None:
    """Contract, section 4; params travel exactly as they were sent."""
    assert called(make_route, line, body) == (command, params)


@pytest.mark.parametrize(
    ("line", "command", "params"),
    [
        ("GET /demo/subscribe?command=count", "count", b"[]"),
        ("GET /demo/subscribe?command=count&params=[1,%20%222%22]", "count", b'[1, "2"]'),
        ("GET /demo/subscribe?a=1&command=count&b=x+y", "count", b'["1","x y"]'),
        ("GET /demo/subscribe?command=count&params=[%22%C3%A9%22]", "count", '["é"]'.encode()),
    ],
)
def test_a_subscription_is_a_call_that_reads_events(
    make_route: Any, line: str, command: str, params: bytes
) -> None:
    """Its params are one JSON array, or values."""
    head = read_request(f"{line} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), Limits())
    form = task_form(head, make_route("localhost/demo"))
    assert form.to_events
    assert form.read(b"") == (command, params, None)


def test_a_command_may_be_called_subscribe(make_route: Any) -> None:
    """With POST, that is what it is."""
    assert called(make_route, "POST /demo/subscribe", b"[]") == ("subscribe", b"[]")


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", BadCommand),
        ("?params=[]", BadCommand),
        ("?command=../x", BadCommand),
        ("?command=a&params=1", BadJson),
        ("?command=a&params=", BadJson),
        ("?command=a&params=[", BadJson),
        ("?command=a&params={}", BadJson),
    ],
)
def test_what_cannot_be_a_subscription_is_refused(
    make_route: Any, query: str, error: type[Exception]
) -> None:
    """Before an agent sees it."""
    with pytest.raises(error):
        called(make_route, f"GET /demo/subscribe{query}")


def test_an_agent_at_the_root_is_called_alike(make_route: Any) -> None:
    """Its commands are the first segment."""
    assert called(make_route, "POST /hello", b"[1]", "localhost/") == ("hello", b"[1]")
    assert called(make_route, "POST /", b'{"command":"a"}', "localhost/") == ("a", b"[]")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"{",
        b"[]",
        b'{"params":[]}',
        b'{"command":1}',
        b'{"command":null}',
        b'{"command":"a","params":null}',
        b'{"command":"a","params":{}}',
        b'{"command":"a","params":"x"}',
        b'{"command":"a","params":[1,]}',
        b'{"command":"a","params":[NaN]}',
        b'{"command":"a","params":["\xff"]}',
        b'{"command":"a","other":"\xff"}',
        b'{"command":"a"} {}',
        b'{"command":"a","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: body[:30].decode("latin-1"),
)
def test_what_is_not_a_call_in_json_is_refused(make_route: Any, body: bytes) -> None:
    """With the reason, before an agent sees it."""
    with pytest.raises(BadJson):
        called(make_route, "POST /demo", body)


@pytest.mark.parametrize("body", [b"hello", b"[1", b"'a'", b"1 2", b'"\xff"', b"[" * 100_000])
def test_params_alone_must_be_json_too(make_route: Any, body: bytes) -> None:
    """Any JSON value, and nothing else."""
    with pytest.raises(BadJson):
        called(make_route, "POST /demo/hello", body)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "a/b",
        "",
        ".",
        "-a",
        "a b",
        "a\\u0000",
        "a\\n",
        "\\u00e9",
        "/hello",
        "a" * 129,
    ],
)
def test_a_command_is_a_name_and_never_a_path(make_route: Any, name: str) -> None:
    """Whether in the body or in the path."""
    with pytest.raises(BadCommand):
        called(make_route, "POST /demo", f'{{"command":"{name}"}}'.encode())


@pytest.mark.parametrize(
    "line", ["POST /demo/a/b", "GET /demo/a%2fb", "POST /demo/%68", "GET /demo/a;b"]
)
def test_a_path_names_one_command(make_route: Any, line: str) -> None:
    """Nothing in it is decoded."""
    with pytest.raises(BadCommand):
        called(make_route, line)


@pytest.mark.parametrize(
    ("line", "allow"),
    [
        ("GET /demo", ("POST",)),
        ("PUT /demo", ("POST",)),
        ("HEAD /demo/hello", ("GET", "POST")),
        ("DELETE /demo/hello", ("GET", "POST")),
        ("OPTIONS /demo/hello", ("GET", "POST")),
    ],
)
def test_other_methods_are_named_as_such(
    make_route: Any, line: str, allow: tuple[str, ...]
) -> None:
    """With those that would do."""
    with pytest.raises(MethodNotAllowed) as caught:
        called(make_route, line)
    assert caught.value.allow == allow
