"""The HTTP wire as the server's gateway, and curl, see it."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest

from tests.agentcore.running import PATIENCE_SECONDS, Agent

TASK = b'{"command": "hello", "params": ["World"]}'
ANSWER = b'{"message":"Hello World"}'


def exchange(agent: Agent, request: bytes, until: bytes) -> bytes:
    """Send bytes on one connection, and read until some have come, or the end."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(str(agent.queue / "agent.sock"))
        connection.sendall(request)
        received = b""
        while until not in received:
            chunk = connection.recv(65536)
            if not chunk:
                break
            received += chunk
        return received


def test_answer_names_its_command(served: Agent) -> None:
    """And is JSON of a known length."""
    answer = served.get("/task", "POST", TASK)
    assert answer.status == 200
    assert answer.headers["x-ploinky-command"] == "hello"
    assert answer.headers["content-type"] == "application/json"
    assert "x-ploinky-error" not in answer.headers


def test_error_is_told_from_a_result(served: Agent) -> None:
    """By a header, and it carries the request's id."""
    headers = {"X-Request-Id": "r-1"}
    answer = served.get("/task", "POST", b'{"command": "nothere"}', **headers)
    assert answer.headers["x-ploinky-error"] == "1"
    assert answer.headers["x-ploinky-command"] == "nothere"
    assert answer.body["error"] is True
    assert answer.body["requestId"] == "r-1"


def test_health_counts_what_is_in_flight(served: Agent) -> None:
    """Nothing, here."""
    assert served.get("/health").body == {"status": "ok", "inflight": 0}


def test_commands_are_listed(served: Agent) -> None:
    """By name and kind, with what they say about themselves."""
    commands = {entry["name"]: entry for entry in served.get("/commands").body}
    assert commands["hello"] == {
        "name": "hello",
        "kind": "handler",
        "about": "Greets whoever is named.",
    }
    assert commands["say"] == {"name": "say", "kind": "command"}
    assert commands["patient"]["kind"] == "script"
    assert commands["patient"]["about"].startswith("Works until it is told")
    assert commands["fourth"] == {"name": "fourth", "kind": "script"}
    assert commands["fifth"] == {"name": "fifth", "kind": "function", "about": "The fifth."}


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/task", 405, "POST"),
        ("POST", "/health", 405, "GET"),
        ("DELETE", "/commands", 405, "GET"),
        ("GET", "/", 404, None),
        ("GET", "/health/x", 404, None),
    ],
)
def test_other_requests_are_refused(
    served: Agent, method: str, path: str, status: int, allow: str | None
) -> None:
    """With the methods that there are."""
    answer = served.get(path, method)
    assert answer.status == status
    assert answer.headers.get("allow") == allow


def test_requests_on_one_connection_are_answered_in_turn(served: Agent) -> None:
    """Also where they were sent together."""
    head = b"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    tasks = [
        json.dumps({"command": c, "params": p}).encode()
        for c, p in [("giveLater", [1]), ("give", [2]), ("say", ["3"])]
    ]
    request = b"".join(head % len(task) + task for task in tasks)
    received = exchange(served, request + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"inflight")
    bodies = [part.split(b"HTTP/1.1")[0] for part in received.split(b"\r\n\r\n")[1:]]
    assert [json.loads(body) for body in bodies[:3]] == [1, 2, 3]


def test_chunked_body_is_read(served: Agent) -> None:
    """However it is cut."""
    chunks = b"".join(b"%x;ext=1\r\n%c\r\n" % (1, byte) for byte in TASK)
    head = b"POST /task HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert exchange(served, head + chunks + b"0\r\nTrailer: x\r\n\r\n", ANSWER).endswith(ANSWER)


def test_client_that_waits_for_100_continue_gets_it(served: Agent) -> None:
    """And then its answer."""
    head = b"POST /task HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    received = exchange(served, head % len(TASK) + TASK, ANSWER)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 16777217\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1000001\r\n" + b"x" * 0x1000001,
    ],
)
def test_body_without_measure_is_refused(served: Agent, framing: bytes) -> None:
    """As soon as it is known."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(str(served.queue / "agent.sock"))
        # It may be refused before all of it was sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(b"POST /task HTTP/1.1\r\nHost: x\r\n" + framing)
        received = connection.recv(65536)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"BODY_TOO_LARGE" in received


def test_body_of_the_largest_size_is_taken(served: Agent) -> None:
    """16 MiB to the byte."""
    body = b'{"command": "nothing", "params": ["' + b"x" * (16 * 1024 * 1024 - 38) + b'"]}'
    assert len(body) == 16 * 1024 * 1024
    assert served.get("/task", "POST", body).status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        b"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}",
        b"POST /task HTTP/1.1\r\nHost: x\r\nNoColon\r\n\r\n",
        b"POST /task HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(served: Agent, request_bytes: bytes) -> None:
    """And the connection is closed."""
    received = exchange(served, request_bytes, b"\0never")
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1
    assert served.get("/health").status == 200
