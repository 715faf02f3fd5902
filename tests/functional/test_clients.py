"""Programs that people use, and what they get from services behind a real server."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_websocket
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websocket

from tests.functional.conftest import Server, until

PAGE = b"""<!doctype html><title>begun</title><script>
const said = [];
const step = (what) => {
    said.push(what);
    if (said.length === 4) { document.title = said.sort().join(' '); }
};
const events = new EventSource('events');
events.onmessage = async (event) => {
    step(event.data);
    if (event.data === 'first') { await fetch('seen', {method: 'POST'}); } else { events.close(); }
};
const socket = new WebSocket(`ws://${location.host}/ws/room?a=b`);
socket.onopen = () => socket.send('hello');
socket.onmessage = (event) => { step(event.data); socket.close(4001, 'enough'); };
socket.onclose = (event) => step(`closed-${event.code}`);
</script>"""


class Service(http.server.BaseHTTPRequestHandler):
    """Answers with what it got; sends events, the second once the first was seen."""

    protocol_version = "HTTP/1.1"
    seen = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/events":
            self._send_events()
        elif self.path == "/page":
            self._say(PAGE, "text/html")
        else:
            self._answer(b"")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if self.path == "/seen":
            Service.seen.set()
        if self.path == "/full":
            self.send_response(507)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
        else:
            self._answer(self._body())

    do_PUT = do_POST

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes) -> None:
        said = {"method": self.command, "path": self.path, "size": len(body)}
        self._say(json.dumps(said).encode(), "application/json")

    def _say(self, text: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _send_events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"data: first\n\n")
        self.wfile.flush()
        Service.seen.wait(30)
        self.wfile.write(b"data: second\n\n")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def echo(connection: ServerConnection) -> None:
    """Say everything back, and the path first where it is asked for."""
    for message in connection:
        connection.send(connection.request.path if message == "path" else message)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the service at /app and the WebSocket at /ws."""
    server = Server(tmp_path_factory.mktemp("server"), "process")
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as service,
        serve_websocket(echo, "127.0.0.1", 0, max_size=None) as sockets,
    ):
        service.daemon_threads = True
        for serving in (service, sockets):
            threading.Thread(target=serving.serve_forever, daemon=True).start()
        try:
            server.start()
            for path, port in (
                ("/app", service.server_port),
                ("/ws", sockets.socket.getsockname()[1]),
            ):
                body = {"domain": "localhost", "path": path, "agent": "there"}
                target = f"http://127.0.0.1:{port}"
                answer = server.api("POST", "deployments", {**body, "target": target})
                assert answer.status_code == 200, answer.text
            yield server
        finally:
            server.destroy()
            service.shutdown()


def run(*argv: str, stdin: bytes = b"") -> str:
    """Run a program that must succeed; give what it printed."""
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=60)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout.decode()


# --- curl


@pytest.mark.program("curl")
@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
def test_curl_asks_and_uploads(front: Server, tmp_path: Path, version: str) -> None:
    """Small, with a length (and `Expect`, which curl sends for it), and several in one go."""
    upload = tmp_path / "upload"
    upload.write_bytes(b"x" * 3_000_000)
    url = f"{front.url}/app/a?b=c"
    assert json.loads(run("curl", "-sS", version, url))["path"] == "/a?b=c"
    said = run("curl", "-sS", version, "-T", str(upload), f"{front.url}/app/put", url, url)
    assert said.startswith('{"method": "PUT", "path": "/put", "size": 3000000}')
    assert said.count('"/a?b=c"') == 2


@pytest.mark.program("curl")
def test_curl_uploads_in_chunks_and_looks_at_heads(front: Server) -> None:
    """From a pipe, whose length nobody knows; and a HEAD has a length and no body."""
    said = run("curl", "-sS", "-T", "-", f"{front.url}/app/put", stdin=b"y" * 500_000)
    assert json.loads(said)["size"] == 500_000
    head = run("curl", "-sSI", f"{front.url}/app/head").lower()
    assert "http/1.1 200 ok" in head
    assert "content-length: " in head


@pytest.mark.program("curl")
def test_curl_hears_an_early_refusal(front: Server, tmp_path: Path) -> None:
    """A service may refuse before it has read the body, and curl gets to know."""
    upload = tmp_path / "upload"
    upload.write_bytes(b"x" * 20_000_000)
    expect = ["-H", "Expect: 100-continue", "-o", "/dev/null", "-w", "%{http_code}"]
    for path, status in (("/app/full", "507"), ("/nowhere", "404")):
        url = f"{front.url}{path}"
        assert run("curl", "-sS", "--data-binary", f"@{upload}", *expect, url) == status


# --- Node, Python


@pytest.mark.program("node")
def test_fetch_of_node(front: Server) -> None:
    """With a body that streams, and connections that are used again."""
    script = f"""
    (async () => {{
        const get = await (await fetch('{front.url}/app/a')).json();
        const stream = new ReadableStream({{ start(c) {{
            for (let i = 0; i < 10; i++) {{ c.enqueue(new Uint8Array(10000)); }}
            c.close();
        }} }});
        const options = {{ method: 'POST', body: stream, duplex: 'half' }};
        const post = await (await fetch('{front.url}/app/b', options)).json();
        const many = await Promise.all([...Array(20).keys()].map(
            async (n) => (await (await fetch('{front.url}/app/' + n)).json()).path));
        console.log(JSON.stringify([get.path, post.size, many.join('')]));
    }})();"""
    numbers = "".join(f"/{n}" for n in range(20))
    assert json.loads(run("node", "-e", script)) == ["/a", 100_000, numbers]


def test_requests_and_urllib3(front: Server) -> None:
    """Sessions, generators as bodies, HEAD, and an answer that is read piece by piece."""
    with requests.Session() as session:
        for n in range(5):
            assert session.get(f"{front.url}/app/{n}", timeout=10).json()["path"] == f"/{n}"
        chunks = (b"z" * 1000 for _ in range(100))
        answer = session.post(f"{front.url}/app/up", data=chunks, timeout=10)
        assert answer.json()["size"] == 100_000
        assert session.head(f"{front.url}/app/h", timeout=10).text == ""
    pool = urllib3.PoolManager()
    answers = [pool.request("PUT", f"{front.url}/app/p", body=b"b" * 70_000) for _ in range(3)]
    assert [one.json()["size"] for one in answers] == [70_000] * 3


# --- load generators


@pytest.mark.program("ab")
@pytest.mark.parametrize("keep", [["-k"], []], ids=["keep-alive", "close"])
def test_ab(front: Server, keep: list[str]) -> None:
    """HTTP/1.0, with and without keep-alive: every request is answered."""
    said = run("ab", *keep, "-n", "200", "-c", "5", f"{front.url}/app/x")
    assert "Complete requests:      200" in said
    assert "Failed requests:        0" in said
    assert "Non-2xx" not in said
    assert not keep or "Keep-Alive requests:    200" in said


@pytest.mark.program("wrk")
def test_wrk(front: Server) -> None:
    """Pipelining aside, it is the client that most people measure with."""
    said = run("wrk", "-t1", "-c4", "-d1s", "--timeout", "30s", f"{front.url}/app/x")
    assert "requests in" in said
    assert "Non-2xx" not in said
    assert "Socket errors" not in said


# --- WebSockets and events


def websocket_url(server: Server) -> str:
    return server.url.replace("http:", "ws:") + "/ws/room"


def test_a_websocket(front: Server) -> None:
    """Text, binary, much of it, pings and a close code, both ways."""
    with connect_websocket(websocket_url(front) + "?a=b", max_size=None) as socket:
        socket.send("path")
        assert socket.recv() == "/room?a=b"
        for message in ("hello", b"\0\xff" * 10, os.urandom(5_000_000)):
            socket.send(message)
            assert socket.recv() == message
        assert socket.ping().wait(10)
        socket.close(4000, "done")
        assert socket.close_code == 4000
    line = until(lambda: _access_line(front, "/ws", 101), "the access line is written")
    assert line["mood"] == "served"
    assert line["bytesIn"] > 5_000_000


def test_a_websocket_that_is_refused(front: Server) -> None:
    """By a service that is none, and by the server where nothing is deployed."""
    for path, status in (("/app/x", 200), ("/nowhere", 404)):
        with pytest.raises(InvalidStatus) as refused:
            connect_websocket(front.url.replace("http:", "ws:") + path)
        assert refused.value.response.status_code == status


def test_events_come_as_they_are_sent(front: Server) -> None:
    """The second is sent only once the first was seen."""
    Service.seen.clear()
    with requests.get(f"{front.url}/app/events", stream=True, timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(lines) == b"data: first"
        requests.post(f"{front.url}/app/seen", timeout=10)
        assert [line for line in lines if line] == [b"data: second"]


@pytest.mark.program("chromium")
@pytest.mark.program("chromedriver")
def test_a_browsers_events_and_websocket(front: Server, tmp_path: Path) -> None:
    """Of one page, through one server."""
    from selenium import webdriver

    Service.seen.clear()
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", f"user-data-dir={tmp_path}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(shutil.which("chromedriver"))))
    try:
        driver.get(f"{front.url}/app/page")
        title = until(lambda: driver.title != "begun" and driver.title, "the page has it all")
    finally:
        driver.quit()
    assert title == "closed-4001 first hello second"


def _access_line(server: Server, route: str, status: int) -> Any:
    for log in (server.directory / ".ploinky-cloud/logs").glob("access*"):
        whole, _, _ = log.read_text().rpartition("\n")  # more is being written
        for line in whole.splitlines():
            record = json.loads(line)
            if str(record["route"]).endswith(route) and record["status"] == status:
                return record
    return None


# --- admission


def test_a_rate_limit_holds_over_all_workers(front: Server) -> None:
    """Exactly so many are let in, whichever worker each comes to; the rest know when to come."""
    app = front.api("GET", "deployments").json()["deployments"][0]
    body = {"domain": "localhost", "path": "/limited", "agent": "there", "target": app["target"]}
    limit = {"requests": 5, "seconds": 3600}
    answer = front.api("POST", "deployments", {**body, "rateLimit": limit})
    assert answer.status_code == 200, answer.text
    answers = [requests.get(f"{front.url}/limited/x", timeout=10) for _ in range(30)]
    assert [one.status_code for one in answers].count(200) == 5
    refused = answers[-1]
    assert (refused.status_code, refused.json()["code"]) == (429, "TOO_MANY_REQUESTS")
    assert 0 < int(refused.headers["Retry-After"]) <= 720
    odd = front.api("POST", "deployments", {**body, "rateLimit": {"requests": 0, "seconds": 1}})
    assert odd.status_code == 400
    assert "rateLimit.requests" in odd.text
    front.api("DELETE", "deployments", {"domain": "localhost", "path": "/limited"})
