"""A person who types, and the small HTTP server that stands for a Ploinky Cloud."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ploinky.cli.main import cli


class StandIn:
    """What it was asked, and what it answers.

    Attributes:
        asked: Method, path without query, and body, in their order; questions of how a deploy goes
            are left out.
        refused: By path of a body, the answer to a change of it.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.refused: dict[str, tuple[int, dict[str, Any]]] = {}
        self.agents: list[str] = []

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        lists = {"domains": [{"name": "localhost", "enabled": True}], "deployments": []}
        lists["agents"] = [{"name": name, "repository": "demo"} for name in self.agents]
        name = path.rpartition("/")[2]
        if method == "GET":
            return 200, {name: lists[name], "total": len(lists[name]), "page": 1, "perPage": 500}
        self.asked.append((method, path.replace("/management/api/", ""), body))
        where = body.get("path", path)
        if where in self.refused:
            return self.refused[where]
        if "command" in body and "domain" not in body:
            return 200, {"said": [body["command"], *body["params"]]}
        return 200, {"deployment": {**body, "release": 1, "agent": body.get("agent", "x")}}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Listens, and is what `p-cli` is connected to."""
    known = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            status, answer = known.answer(self.command, self.path.partition("?")[0], body)
            raw = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_DELETE = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("PLOINKY_URL", f"http://127.0.0.1:{server.server_port}")
        yield known
        server.shutdown()
        thread.join()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Types a command below ``p-cli cloud``, in a directory of its own; gives what came of it."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, stdin: str = "") -> Result:
        return CliRunner().invoke(cli, ["cloud", *words], input=stdin, standalone_mode=False)

    return run


def ended(result: Result) -> tuple[int, str]:
    """Give the exit status that `main` would end with, and the message it would show."""
    error = result.exception
    if error is None:
        return 0, ""
    return getattr(error, "exit_status", result.exit_code), str(getattr(error, "message", error))
