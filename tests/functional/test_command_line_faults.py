"""What a person reads when what p-cli stands on gives way."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import P_CLI, Server


@pytest.fixture
def proxy() -> Iterator[Callable[..., str]]:
    """Gives the URL of something that answers every request alike."""
    servers: list[http.server.HTTPServer] = []

    def start(status: int, body: str, **fields: str) -> str:
        class Alike(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                for name, value in fields.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        servers.append(http.server.HTTPServer(("127.0.0.1", 0), Alike))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "kind", "body", "said"),
    [
        (200, "text/html", "<h1>Welcome to the hotel</h1>", "text/html"),
        (200, "application/json", '{"domains": [', "application/json"),
        (200, "application/json", "[]", "application/json"),
        (502, "text/html", "<h1>Bad gateway</h1>", "502"),
        (502, "application/json", "{", "502"),
    ],
)
def test_an_answer_that_is_no_servers_of_ours(
    own_server: Server, proxy: Callable[..., str], status: int, kind: str, body: str, said: str
) -> None:
    """It is named, with a hint and the status of a connection that fails."""
    url = proxy(status, body, Content_Type=kind)
    done = own_server.p_cli("cloud", "host", "list", check=False, PLOINKY_URL=url)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Hint:" in done.stderr
    assert "bug" not in done.stderr


def test_a_server_that_has_moved_is_named(own_server: Server, proxy: Callable[..., str]) -> None:
    """Nobody follows it with a key in hand without being told."""
    there = "https://cloud.example/management/api/domains?page=1"
    url = proxy(301, "", Location=there)
    done = own_server.p_cli("cloud", "host", "list", check=False, PLOINKY_URL=url)
    assert done.returncode == 2
    assert "p-cli cloud connect https://cloud.example\n" in done.stderr


def test_errors_are_json_where_that_is_asked_for(own_server: Server) -> None:
    """On standard error, whole, with code and exit status; nothing is printed as a result."""
    away = own_server.p_cli(
        "cloud", "host", "list", "--json", check=False, PLOINKY_URL="http://127.0.0.1:9"
    )
    error = json.loads(away.stderr)
    assert (away.stdout, away.returncode, error["exitStatus"]) == ("", 2, 2)
    assert "p-cli cloud start" in error["hint"]
    own_server.start()
    done = own_server.p_cli("cloud", "host", "disable", "x.example", "--json", check=False)
    error = json.loads(done.stderr)
    assert (error["code"], error["exitStatus"], done.returncode) == ("NOT_FOUND", 1, 1)
    assert error["message"] == "there is no domain 'x.example'"
    assert error["requestId"]
    done = own_server.p_cli("cloud", "host", "disable", "--json", check=False)
    assert "NAME" in json.loads(done.stderr)["message"]
    done = own_server.p_cli("cloud", "deploy", "localhost", "/x", "none", "--json", check=False)
    assert (json.loads(done.stderr)["code"], done.returncode) == ("AGENT_NOT_FOUND", 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not a connection file"),
        ("[]", "expected an object with url and token"),
        ("{}", "expected an object with url and token"),
        ('{"url": 5}', "url and token are texts"),
    ],
)
def test_a_connection_file_that_is_none(own_server: Server, text: str, said: str) -> None:
    """It says which, and what to do."""
    place = own_server.directory / ".ploinky/cloud.json"
    place.parent.mkdir()
    place.write_text(text)
    done = own_server.p_cli("cloud", "status", check=False)
    assert done.returncode == 5
    assert said in done.stderr
    assert f"rm {place}" in done.stderr


def test_a_place_that_cannot_be_written_to(own_server: Server) -> None:
    """Connecting from there says so; nothing is connected."""
    own_server.start()
    done = subprocess.run(
        [*P_CLI, "cloud", "connect", own_server.url],
        cwd="/proc",
        env=own_server.environment | {"HOME": "/proc"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 5
    assert "/proc/.ploinky/cloud.json cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def shell(server: Server, line: str) -> subprocess.CompletedProcess[str]:
    """Let a shell run it, with `p-cli` in its path."""
    path = f"{Path(P_CLI[0]).parent}:{server.environment['PATH']}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=server.directory,
        env=server.environment | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_pipe_that_nobody_reads_any_more(own_server: Server) -> None:
    """Not a word about it, neither for long texts nor for tables; nor where there is no output."""
    own_server.start()
    for command in ("openapi", "config", "logs 1000", "host list"):
        done = shell(own_server, f"p-cli cloud {command} | true")
        assert done.stderr == ""
    done = shell(own_server, "p-cli cloud host list >&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("completion bash >/dev/full", "No space left on device"),
        ("<&-", "there is no terminal"),
        ("cloud batch - <&-", "there is nothing to do in it"),
        ("cloud call /x y --params '[NaN]'", "this cannot be sent"),
        ("cloud connect http://[::1", "is not a server's address"),
        ("cloud connect http://localhost:99999", "is not a server's address"),
    ],
)
def test_what_cannot_be_done_here_is_no_bug(own_server: Server, command: str, said: str) -> None:
    """Not the server's fault either: it is said what is wrong."""
    done = shell(own_server, f"p-cli {command}")
    assert done.returncode in (1, 5)
    assert said in done.stderr
    for wrong in ("bug", "Traceback", "no connection"):
        assert wrong not in done.stderr


def test_a_key_that_cannot_be_one_is_not_repeated(own_server: Server) -> None:
    """What stands in an error is seen by more than its owner."""
    done = own_server.p_cli("cloud", "config", check=False, PLOINKY_API_KEY="abcde\nfghij")
    assert done.returncode == 3
    assert "PLOINKY_API_KEY" in done.stderr
    assert "abcde" not in done.stderr


def test_a_download_that_fails_leaves_no_file(own_server: Server) -> None:
    """Once the reason is gone, the same command works."""
    own_server.start()
    date = own_server.p_cli("cloud", "logs", "list").stdout.split()[0]
    command = ["cloud", "logs", "download", date]
    away = own_server.p_cli(*command, check=False, PLOINKY_URL="http://127.0.0.1:9")
    assert away.returncode == 2
    file = own_server.directory / own_server.p_cli(*command).stdout.strip()
    assert file.stat().st_size > 0


def test_a_directory_that_is_gone(own_server: Server) -> None:
    """It is said in words."""
    done = shell(own_server, "mkdir gone; cd gone; rmdir ../gone; p-cli cloud status")
    assert done.returncode == 5
    assert "is gone" in done.stderr
    assert "bug" not in done.stderr


def test_a_server_that_goes_while_it_is_followed(own_server: Server) -> None:
    """What had come is printed; the end is told, with the status of a connection that fails."""
    own_server.start()
    with subprocess.Popen(
        [*P_CLI, "cloud", "logs", "--follow"],
        cwd=own_server.directory,
        env=own_server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        assert following.stdout.readline()
        for pid in own_server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        rest, said = following.communicate(timeout=60)
    assert following.returncode == 2
    assert "broke off" in said
    assert "Traceback" not in said + rest


def test_ctrl_c_ends_what_is_followed(own_server: Server) -> None:
    """With the status that shells give, and without a traceback."""
    own_server.start()
    with subprocess.Popen(
        [*P_CLI, "cloud", "events", "--after", "another-servers-7"],
        cwd=own_server.directory,
        env=own_server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "lost       events were missed\n"
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=60)
    assert (following.returncode, said.strip()) == (130, "Stopped.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("command", ["start", "stop", "url"])
def test_a_server_of_another_user_is_named(own_server: Server, command: str) -> None:
    """Whether it runs cannot be told from outside."""
    private = own_server.directory / ".ploinky-cloud" / "run"
    private.mkdir(parents=True)
    private.chmod(0)
    try:
        done = own_server.p_cli("cloud", command, check=False)
    finally:
        private.chmod(0o700)
    assert done.returncode == 5
    assert "leader.json cannot be read: Permission denied" in done.stderr
    assert "bug" not in done.stderr
