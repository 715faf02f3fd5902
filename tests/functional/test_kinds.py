"""What can be deployed besides task agents, where, and what is said of what cannot."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.functional.agents import NODE
from tests.functional.conftest import Server, git_repository, until

SERVICE = {
    "manifest.json": """{
      "container": "node:18-alpine", "port": 7000, "command": "node server.js",
      "health": {"path": "/ready"}, "env": ["GREETING"]
    }""",
    "server.js": """
const http = require('http');
http.createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => { body += chunk; });
    request.on('end', () => {
        response.setHeader('content-type', 'application/json');
        response.setHeader('x-own', 'yes');
        response.end(JSON.stringify({
            method: request.method, url: request.url, prefix: request.headers['x-forwarded-prefix'],
            body, greeting: process.env.GREETING,
        }));
    });
}).listen(process.env.PORT);
""",
}


@pytest.fixture
def service(tmp_path: Path) -> str:
    """A repository with an HTTP server of its own."""
    return git_repository(tmp_path / "service", SERVICE)


@pytest.fixture
def backend() -> Iterator[str]:
    """Something that runs already, outside of this server."""

    class Echo(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.path.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        thread = threading.Thread(target=echo.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{echo.server_port}"
        echo.shutdown()


def test_a_service_gets_every_request_below_its_path(server: Server, service: str) -> None:
    """Any method, its path without the prefix, its own answer fields."""
    answer = server.deploy("/svc", service, environment={"GREETING": "hello"})
    assert answer.status_code == 200, answer.text
    answer = requests.put(server.url + "/svc/a/b?c=d", data="text", timeout=10)
    assert answer.headers["X-Own"] == "yes"
    assert answer.json() == {
        "method": "PUT",
        "url": "/a/b?c=d",
        "prefix": "/svc",
        "body": "text",
        "greeting": "hello",
    }
    server.api("DELETE", "deployments", {"domain": "localhost", "path": "/svc"})


def test_variables_that_are_missing_are_all_named(server: Server, service: str) -> None:
    """`ENV_MISSING` says which, and how to give them."""
    answer = server.deploy("/svc", service)
    assert (answer.status_code, answer.json()["code"]) == (422, "ENV_MISSING")
    assert "GREETING" in answer.json()["message"]
    assert "--env" in answer.json()["message"]


def test_an_external_target_is_routed_to(server: Server, backend: str) -> None:
    """A deployment without a container: something that runs already."""
    body = {"domain": "localhost", "path": "/ext", "agent": "echo", "target": backend}
    answer = server.api("POST", "deployments", body)
    assert answer.status_code == 200, answer.text
    assert requests.get(server.url + "/ext/x?y", timeout=10).text == "/x?y"
    server.api("DELETE", "deployments", {"domain": "localhost", "path": "/ext"})


def test_an_image_that_does_not_exist(server: Server, tmp_path: Path) -> None:
    """The engine's own message, the step, and nothing left behind; processes need no image."""
    url = git_repository(tmp_path / "agent", NODE)
    answer = server.deploy("/x", url, image="127.0.0.1:9/no/such:image")
    if server.runtime == "process":
        assert answer.status_code == 200
        server.api("DELETE", "deployments", {"domain": "localhost", "path": "/x"})
        return
    body = answer.json()
    assert (answer.status_code, body["code"]) == (422, "IMAGE_FAILED")
    assert body["details"]["step"] == "image"
    assert "127.0.0.1:9/no/such" in body["message"]
    assert server.call("/x", "hello").status_code == 404
    server.api("DELETE", "deployments", {"domain": "localhost", "path": "/x"})


def test_one_path_on_two_domains(server: Server, tmp_path: Path) -> None:
    """A path that is taken on one domain is free on another; an unknown domain is refused."""
    url = git_repository(tmp_path / "agent", NODE)
    assert server.deploy("/same", url).status_code == 200
    other = {"domain": "other.example", "path": "/same", "agent": "app", "repository": url}
    answer = server.api("POST", "deployments", other)
    assert answer.status_code == 404
    assert "host add other.example" in answer.json()["message"]
    assert server.api("POST", "domains", {"name": "other.example"}).status_code in (200, 201)
    assert server.api("POST", "deployments", other).status_code == 200
    server.api("DELETE", "deployments", {"domain": "localhost", "path": "/same"})
    answer = requests.post(
        server.url + "/same/hello", json="you", headers={"Host": "OTHER.example:80"}, timeout=10
    )
    assert answer.json() == {"message": "Hello you"}
    assert server.call("/same", "hello").status_code == 404
    server.api("DELETE", "deployments", {"domain": "other.example", "path": "/same"})


def test_a_domain_is_disabled_and_enabled(server: Server, tmp_path: Path) -> None:
    """404 from every worker as soon as it is said, and back at once with the same instance."""
    type_ = server.p_cli
    repository = git_repository(tmp_path / "agent", NODE)
    assert server.deploy("/dark", repository).status_code == 200
    type_("cloud", "host", "add", "light.example")
    body = {"domain": "light.example", "path": "/dark", "agent": "app", "repository": repository}
    assert server.api("POST", "deployments", body).status_code == 200

    def answers(host: str) -> set[tuple[int, str]]:
        found = set()
        for _ in range(20):  # on fresh connections, so that both workers get some
            answer = requests.post(
                server.url + "/dark/hello", json="you", headers={"Host": host}, timeout=10
            )
            found.add((answer.status_code, answer.json().get("code", "")))
        return found

    stats = "deployments/stats?domain=light.example&path=/dark"
    instances = until(lambda: server.api("GET", stats).json()["instances"], "they are looked at")
    kept = requests.Session()  # whose connection has been answered well until now
    kept.headers["Host"] = "light.example"
    assert kept.post(server.url + "/dark/hello", json="you", timeout=10).status_code == 200
    type_("cloud", "host", "disable", "light.example")
    assert answers("light.example") == {(404, "NO_SUCH_ROUTE")}
    assert kept.post(server.url + "/dark/hello", json="you", timeout=10).status_code == 404
    assert requests.get(server.url + "/management", timeout=10).status_code == 200
    assert answers("localhost") == {(200, "")}
    assert "light.example" in type_("cloud", "status").stdout
    listed = type_("cloud", "host", "list").stdout.splitlines()
    assert [line.split() for line in listed if "light" in line] == [["light.example", "no"]]
    assert "host enable light.example" in type_("cloud", "deployments").stderr
    type_("cloud", "host", "enable", "light.example")
    assert answers("light.example") == {(200, "")}
    now = server.api("GET", stats).json()["instances"]
    assert [one["instance"] for one in now] == [one["instance"] for one in instances]
    for domain in ("light.example", "localhost"):
        server.api("DELETE", "deployments", {"domain": domain, "path": "/dark"})


def test_loopback_addresses_are_localhost(server: Server, tmp_path: Path) -> None:
    """`http://127.0.0.1:8000/demo` reaches what is deployed to `localhost`."""
    assert server.deploy("/loop", git_repository(tmp_path / "agent", NODE)).status_code == 200
    for host in ("127.0.0.1:8000", "[::1]:8000", "localhost"):
        answer = requests.post(
            server.url + "/loop/hello", json="you", headers={"Host": host}, timeout=10
        )
        assert answer.json() == {"message": "Hello you"}
    server.api("DELETE", "deployments", {"domain": "localhost", "path": "/loop"})
