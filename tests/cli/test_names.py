"""Names for completion: asked for once in a while, by whoever types."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ploinky.cli.client import Client
from ploinky.cli.connection import Connection
from ploinky.cli.names import Names


class Elsewhere:
    """A server with two domains.

    Attributes:
        asked: How often.
        answer: What it says.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.answer: Any = {"domains": [{"name": "b.example"}, {"name": "a.example"}]}
        elsewhere = self

        class Door(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                elsewhere.asked += 1
                body = json.dumps(elsewhere.answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Door)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    server = Elsewhere()
    yield server
    server.stop()


def test_an_answer_is_kept_for_a_moment(elsewhere: Elsewhere) -> None:
    """Whoever types on does not ask at each key; whoever comes back sees what is new."""
    now = [0.0]
    names = Names(lambda: now[0], lambda: Client(Connection(elsewhere.url), 1.0))
    for _ in range(3):
        assert names.of("domain", {}) == ["a.example", "b.example"]
    assert elsewhere.asked == 1
    elsewhere.answer = {"domains": [{"name": "c.example"}]}
    now[0] = 60.0
    assert names.of("domain", {}) == ["c.example"]
    assert elsewhere.asked == 2


def test_another_server_has_other_names(elsewhere: Elsewhere) -> None:
    """Also right after it was connected to."""
    url = ["http://127.0.0.1:9"]
    names = Names(lambda: 0.0, lambda: Client(Connection(url[0]), 1.0))
    assert names.of("domain", {}) == []
    url[0] = elsewhere.url
    assert names.of("domain", {}) == ["a.example", "b.example"]


@pytest.mark.parametrize(
    "answer", [{}, {"domains": None}, {"domains": [{}]}, [], "x", {"domains": 5}]
)
def test_an_answer_that_makes_no_sense_has_no_names(elsewhere: Elsewhere, answer: Any) -> None:
    """A proxy's, say, or that of a server of another age."""
    elsewhere.answer = answer
    names = Names(lambda: 0.0, lambda: Client(Connection(elsewhere.url), 1.0))
    assert names.of("domain", {}) == []


def test_what_stands_on_the_line_decides(elsewhere: Elsewhere) -> None:
    """Paths are those of the domain before them; without it there are none to choose from."""
    elsewhere.answer = {
        "deployments": [
            {"domain": "localhost", "path": "/one"},
            {"domain": "a.example", "path": "/two"},
        ]
    }
    names = Names(lambda: 0.0, lambda: Client(Connection(elsewhere.url), 1.0))
    assert names.of("path", {"domain": "a.example"}) == ["/two"]
    assert names.of("path", {}) == []
    assert names.of("where", {}) == ["/one", "a.example/two", "localhost/one"]
    assert names.of("release", {"domain": "a.example"}) == []
