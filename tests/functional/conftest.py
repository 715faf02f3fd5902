"""A real server with real workers, Git and engines, driven as its users drive it.

Nothing is started in this process: `p-cli` is run as a program, agents are
called over HTTP, and processes are ended by the pids that the server reports.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from tests.conftest import engine_url
from tests.functional.secrecy import Secrecy, listening

SECRECY = Secrecy()
"""Hears whatever the tests of a session say to servers, and are told."""

P_CLI = [str(Path(sys.executable).with_name("p-cli"))]
RUNTIMES = [
    pytest.param("docker", marks=pytest.mark.engine("docker")),
    pytest.param("podman", marks=pytest.mark.engine("podman")),
    pytest.param("process", marks=pytest.mark.program("node")),
]


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Give the first true value of `condition`, asked again and again."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"never came true in {seconds} s: {what}"
        time.sleep(0.02)


def engine_api(name: str) -> docker.APIClient:
    """The API of a container engine."""
    return docker.APIClient(base_url=engine_url(name), timeout=60)


def git_repository(place: Path, files: Mapping[str, str], message: str = "Change") -> str:
    """Make (or add a commit to) a repository of these files; gives its file URL.

    A file whose text begins with `#!` is executable.
    """
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    git = ["git", "-c", "user.name=T", "-c", "user.email=t@localhost", "-C", str(place)]
    if not (place / ".git").exists():
        subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", message], check=True)
    return f"file://{place}"


class Server:
    """One server on a directory of its own, and a person at its command line."""

    def __init__(self, directory: Path, runtime: str, workers: int = 2) -> None:
        self.directory = directory
        self.runtime = runtime
        self.workers = workers
        self.key = ""
        self.url = ""
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PLOINKY_")},
            "DOCKER_HOST": engine_url("docker") or os.environ.get("DOCKER_HOST", ""),
            "HOME": str(directory),
            "NO_COLOR": "1",
        }
        self.environment = {k: v for k, v in self.environment.items() if v}

    def p_cli(
        self, *arguments: str, check: bool = True, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `p-cli ARGUMENTS` in the server's directory."""
        done = subprocess.run(
            [*P_CLI, *arguments],
            cwd=self.directory,
            env=self.environment | environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        SECRECY.note_tokens(" ".join([*arguments, stdin, done.stdout]))
        if done.returncode:
            SECRECY.heard(f"p-cli {' '.join(arguments[:3])}", done.stdout + done.stderr)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start(self) -> None:
        """Start it; the first time, make the admin key and log in."""
        self.p_cli(
            "cloud",
            "start",
            f"--port={self.url.rpartition(':')[2] or 0}",
            f"--workers={self.workers}",
            f"--runtime={self.runtime}",
        )
        self.url = self.p_cli("cloud", "url").stdout.strip()
        if not self.key:
            self.p_cli("cloud", "connect", self.url)
            self.key = json.loads(self.p_cli("cloud", "init", "--json").stdout)["apiKey"]
            self.p_cli("cloud", "login", "-", stdin=self.key)

    def stop(self) -> None:
        """Stop it as a person would."""
        self.p_cli("cloud", "stop")

    def leader(self) -> dict[str, Any]:
        """What the leader says of itself in `leader.json`."""
        text = (self.directory / ".ploinky-cloud/run/leader.json").read_text()
        found: dict[str, Any] = json.loads(text)
        return found

    def kill_leader(self) -> None:
        """kill -9 the leader, and wait until it is gone."""
        pid = self.leader()["pid"]
        process = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        os.close(process)
        until(lambda: not Path(f"/proc/{pid}/cmdline").exists(), "the leader is gone")

    def worker_pids(self) -> list[int]:
        """The workers' pids, as `health` reports them."""
        return [worker["pid"] for worker in self.api("GET", "health").json()["workers"]]

    def api(
        self, method: str, path: str, body: Any = None, stream: bool = False
    ) -> requests.Response:
        """Call the management API with the admin key."""
        return requests.request(
            method,
            f"{self.url}/management/api/{path}",
            json=body,
            headers={"X-API-Key": self.key},
            timeout=120,
            stream=stream,
        )

    def deploy(self, path: str, repository: str, **body: Any) -> requests.Response:
        """Deploy to `localhost`, through the API."""
        return self.api(
            "POST",
            "deployments",
            {
                "domain": "localhost",
                "path": path,
                "agent": "app",
                "repository": repository,
                **body,
            },
        )

    def call(self, path: str, command: str, *params: Any) -> requests.Response:
        """Call an agent."""
        return requests.post(
            self.url + path, json={"command": command, "params": list(params)}, timeout=60
        )

    def destroy(self) -> None:
        """See that it kept its secrets; remove every deployment, stop, and end what may be left."""
        if not self.url:
            return
        data = self.directory / ".ploinky-cloud"
        leaks = SECRECY.leaks(data)
        self._remove_all()
        leaks += SECRECY.in_files(data)  # also what it wrote at its end
        assert not leaks, leaks

    def _remove_all(self) -> None:
        try:
            for found in self.api("GET", "deployments").json()["deployments"]:
                self.api("DELETE", "deployments", {k: found[k] for k in ("domain", "path")})
        except (requests.RequestException, ValueError, KeyError):
            pass
        self.p_cli("cloud", "stop", check=False)
        until(lambda: not self._killed(), "all of its processes have ended")

    def _killed(self) -> bool:
        """Kill what is left of its processes; tell whether there was any."""
        ours = [p for p in Path("/proc").iterdir() if p.name.isdigit() and self._is_ours(p)]
        for process in ours:
            with suppress(ProcessLookupError):  # it ended by itself just now
                os.kill(int(process.name), signal.SIGKILL)
        return bool(ours)

    def _is_ours(self, process: Path) -> bool:
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            return False
        return f"HOME={self.directory}\0".encode() in environment


@pytest.fixture(scope="session", autouse=True)
def overheard() -> Iterator[None]:
    """All that is said to servers is listened to, for `SECRECY`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "send", listening(SECRECY))
        yield


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def server(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers, shared by a module's tests, once for each runtime."""
    server = Server(tmp_path_factory.mktemp("server"), runtime)
    try:
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server for one test alone, on the process runtime; not started yet."""
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server", "process")
    yield server
    server.destroy()
