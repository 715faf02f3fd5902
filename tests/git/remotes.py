"""Real servers of Git on the loopback interface, on free ports."""

from __future__ import annotations

import base64
import os
import pwd
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class HttpRemote:
    """`git http-backend` behind an HTTP server.

    Attributes:
        users: Name to password; empty: anybody may read.
        refs_asked: How often a client began a fetch.
        midway: Called when half of a pack has been sent.
        redirect: Where every request is sent instead, or `""`.
        offered: The credentials that clients sent.
    """

    def __init__(self, root: Path) -> None:
        self.users: dict[str, str] = {}
        self.refs_asked = 0
        self.midway: Callable[[], None] = lambda: None
        self.redirect = ""
        self.offered: list[str] = []
        remote = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                remote._answer(self, root)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Of the repository `demo.git`."""
        return f"http://{self.host}/demo.git"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: BaseHTTPRequestHandler, root: Path) -> None:
        if self.redirect:
            request.send_response(302)
            request.send_header("Location", self.redirect + request.path)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        authorization = request.headers.get("Authorization", "")
        offered = base64.b64decode(authorization.partition(" ")[2]).decode()
        if offered:
            self.offered.append(offered)
        user, _, password = offered.partition(":")
        if self.users and self.users.get(user) != password:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        path, _, query = request.path.partition("?")
        if path.endswith("/info/refs"):
            self.refs_asked += 1
        head, body = self._backend(request, root, path, query)
        request.send_response(int(head.pop("Status", "200").split()[0]))
        for name, value in head.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        half = len(body) // 2
        try:
            request.wfile.write(body[:half])
            if b"PACK" in body:
                request.wfile.flush()
                self.midway()
            request.wfile.write(body[half:])
        except OSError:
            request.close_connection = True  # the client was ended

    def _backend(
        self, request: BaseHTTPRequestHandler, root: Path, path: str, query: str
    ) -> tuple[dict[str, str], bytes]:
        length = int(request.headers.get("Content-Length", "0"))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": request.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(length),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"],
            env=environment,
            input=request.rfile.read(length),
            capture_output=True,
            check=True,
        )
        raw_head, _, body = done.stdout.partition(b"\r\n\r\n")
        head = dict(line.split(": ", 1) for line in raw_head.decode().split("\r\n"))
        return head, body


class SshRemote:
    """`sshd -i`, one per connection, for whoever runs the tests.

    Attributes:
        key: Private key that it lets in; `other_key` is one that it does not.
        host_key: Its public key, as it stands in `known_hosts` after the host's name.
    """

    SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

    def __init__(self, directory: Path) -> None:
        for name in ("host", "user", "other"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)],
                check=True,
            )
        self.key = (directory / "user").read_text()
        self.other_key = (directory / "other").read_text()
        self.host_key = " ".join((directory / "host.pub").read_text().split()[:2])
        shutil.copy(directory / "user.pub", directory / "authorized")
        config = directory / "config"
        config.write_text(
            f"HostKey {directory}/host\nAuthorizedKeysFile {directory}/authorized\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
            "KbdInteractiveAuthentication no\nPidFile none\nLogLevel QUIET\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True) if os.geteuid() == 0 else None
        daemon = str(shutil.which("sshd", path=self.SEARCHED))

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                subprocess.run(
                    [daemon, "-i", "-f", str(config)],
                    stdin=self.request,
                    stdout=self.request,
                    stderr=subprocess.DEVNULL,
                    check=False,
                )

        class Server(socketserver.ThreadingTCPServer):
            address_family = socket.AF_INET
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Connection)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def url(self, path: Path) -> str:
        """Of a repository in a directory."""
        return f"ssh://{pwd.getpwuid(os.geteuid()).pw_name}@127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
