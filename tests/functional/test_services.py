"""What a service is told of a request, and what of its answer is left alone, on a real server."""

from __future__ import annotations

import http.client
import http.server
import json
import select
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.functional.conftest import Server, until


class Echo(http.server.BaseHTTPRequestHandler):
    """Says what it was asked, and leads elsewhere from `/away`."""

    protocol_version = "HTTP/1.1"

    def do_ANY(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        said = {
            "method": self.command,
            "target": self.path,
            "fields": {name.lower(): value for name, value in self.headers.items()},
            "body": self.rfile.read(length).decode(),
        }
        body = json.dumps(said).encode()
        self.send_response(302 if self.path == "/away" else 200)
        if self.path == "/away":
            self.send_header("Location", "/elsewhere?x=1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_DELETE = do_PROPFIND = do_ANY

    def log_message(self, format: str, *args: object) -> None:
        pass

    def address_string(self) -> str:
        return "somebody"


class UnixServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """The same on a Unix socket."""

    address_family = socket.AF_UNIX
    daemon_threads = True

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "unix", 0


@contextmanager
def running(server: http.server.HTTPServer) -> Iterator[http.server.HTTPServer]:
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(params=["tcp", "unix"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Something that runs already, as a deployment names it."""
    if request.param == "tcp":
        with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)) as server:
            yield f"http://127.0.0.1:{server.server_port}"
    else:
        path = tmp_path / "echo.sock"
        with running(UnixServer(str(path), Echo)):  # type: ignore[arg-type]
            yield f"unix:{path}"


FORGED = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example",
    "X-Forwarded-Prefix": "/outer",
    "Forwarded": "for=203.0.113.7",
    "X-Ploinky-User": "Admin",
}


def deploy(server: Server, path: str, target: str) -> None:
    body = {"domain": "localhost", "path": path, "agent": "echo", "target": target}
    answer = server.api("POST", "deployments", body)
    assert answer.status_code == 200, answer.text


def ask(server: Server, method: str, path: str, **how: Any) -> dict[str, Any]:
    answer = requests.request(method, server.url + path, timeout=10, **how)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def test_a_service_is_told_the_truth(own_server: Server, target: str) -> None:
    """Its own paths, where the request came from, and nothing that a stranger made up."""
    own_server.start()
    deploy(own_server, "/a/svc", target)
    for asked, seen in (
        ("/a/svc", "/"),
        ("/a/svc?", "/?"),
        ("/a/svc?x=/a/svc", "/?x=/a/svc"),
        ("/a/svc/", "/"),
        ("/a/svc/b%2Fc%20d/%e2%82%ac?e=%20+", "/b%2Fc%20d/%e2%82%ac?e=%20+"),
        ("/a/svc/a/svc", "/a/svc"),
    ):
        with closing(http.client.HTTPConnection(own_server.url[7:], timeout=10)) as client:
            client.request("GET", asked)  # as it stands, not as it is usually written
            assert json.load(client.getresponse())["target"] == seen
    said = ask(own_server, "PUT", "/a/svc/x", data="body", headers=FORGED)
    assert (said["method"], said["body"]) == ("PUT", "body")
    host = own_server.url.removeprefix("http://")
    fields = {name: value for name, value in said["fields"].items() if "forwarded" in name}
    assert fields == {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": host,
        "x-forwarded-prefix": "/a/svc",
    }
    assert said["fields"]["host"] == host
    assert said["fields"]["x-ploinky-user"] == "InternetUser"
    assert ask(own_server, "PROPFIND", "/a/svc/x")["method"] == "PROPFIND"
    deploy(own_server, "/", target)
    said = ask(own_server, "DELETE", "/q?x")
    assert (said["target"], said["fields"]["x-forwarded-prefix"]) == ("/q?x", "")


def test_a_trusted_proxy_speaks_for_its_clients(own_server: Server, target: str) -> None:
    """With `trustedProxies`: what it says goes on, with itself added; `Forwarded` never does."""
    place = own_server.directory / ".ploinky-cloud"
    place.mkdir()
    (place / "config.json").write_text('{"trustedProxies": ["127.0.0.0/8"]}')
    own_server.start()
    deploy(own_server, "/svc", target)
    fields = ask(own_server, "GET", "/svc/x", headers=FORGED)["fields"]
    assert {name: value for name, value in fields.items() if "forwarded" in name} == {
        "x-forwarded-for": "203.0.113.7, 127.0.0.1",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "shop.example",
        "x-forwarded-prefix": "/outer/svc",
    }
    assert fields["x-ploinky-user"] == "InternetUser"


def test_a_services_redirects_are_its_own(own_server: Server, target: str) -> None:
    """`Location` is not rewritten: a service that wants its prefix there is told it."""
    own_server.start()
    deploy(own_server, "/svc", target)
    answer = requests.get(own_server.url + "/svc/away", allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/elsewhere?x=1")
    assert requests.head(own_server.url + "/svc/x", timeout=10).headers["Content-Length"] != "0"


@pytest.fixture
def by_hand(own_server: Server) -> Iterator[socket.socket]:
    """A service that a test plays, with room for one connection in its queue; at `/svc`."""
    own_server.start()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        listening.settimeout(30)
        deploy(own_server, "/svc", f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield listening


def client_of(server: Server) -> socket.socket:
    """A connection to the server, in raw bytes."""
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 30)


GET = b"GET /svc/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def test_a_client_that_leaves_a_stuck_service_ends_its_request(
    own_server: Server, by_hand: socket.socket
) -> None:
    """The service reads nothing, so that nobody reads the client: its end is noticed all the same."""
    client = client_of(own_server)
    client.sendall(b"POST /svc/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
    service, _ = by_hand.accept()
    client.setblocking(False)
    while select.select([], [client], [], 0.5)[1]:
        client.send(bytes(65536))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets
    client.close()
    ended = select.poll()
    ended.register(service, 0)  # a reset is told unasked
    assert ended.poll(20_000)
    service.close()


def test_a_service_whose_queue_is_full_is_waited_for(
    own_server: Server, by_hand: socket.socket
) -> None:
    """The request gets in once there is room."""
    port = by_hand.getsockname()[1]
    with socket.create_connection(by_hand.getsockname()), client_of(own_server) as client:
        client.sendall(GET)
        until(lambda: knocks_at(port), "the gateway knocks at the full queue")
        by_hand.accept()[0].close()
        service, _ = by_hand.accept()
        service.sendall(CLOSING)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        service.close()


def knocks_at(port: int) -> bool:
    """Tell whether somebody waits to be connected there (proc(5), /proc/net/tcp: SYN_SENT)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(
        line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "02" for line in lines
    )
