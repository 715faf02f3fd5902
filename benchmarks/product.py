"""This server, started as its users start it: ``p-cli cloud start``, then the management API."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from benchmarks import machine
from benchmarks.children import BenchmarkFailed, Child, Children, until
from benchmarks.rivals import Gateway

NAME = "ploinky"

_P_CLI = str(Path(sys.executable).with_name("p-cli"))


class Product:
    """One server on a new directory.

    Args:
        directory: Made here; everything that it writes lies below.
    """

    def __init__(
        self,
        children: Children,
        directory: Path,
        runtime: str,
        workers: int,
        cores: Sequence[int],
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.data = directory / ".ploinky-cloud"
        self._children = children
        self._runtime = runtime
        self._workers = workers
        self._cores = cores
        self._key = ""
        self._child: Child | None = None
        self.url = ""

    def start(self) -> Product:
        """Start it, and wait until it answers."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PLOINKY_")}
        command = [_P_CLI, "cloud", "start", "--foreground", "--port=0", f"--dir={self.directory}"]
        command += [f"--workers={self._workers}", f"--runtime={self._runtime}"]
        child = self._child = self._children.start(
            self.directory.name, command, self._cores, environment
        )
        leader = self.data / "run" / "leader.json"

        def port() -> int:
            said = json.loads(leader.read_text())
            return int(said["port"]) if said["pid"] == child.pid else 0

        self.url = f"http://127.0.0.1:{until(port, 'the server has a port', child, 60)}"
        until(lambda: requests.get(self._at("health"), timeout=5).ok, "the server answers", child)
        if not self._key:
            self._key = requests.post(self._at("init"), timeout=10).json()["apiKey"]
        return self

    def stop(self) -> None:
        """Stop it; `start` starts it again on the same directory."""
        if self._child is not None:
            self._child.end()

    @property
    def port(self) -> int:
        """Its public port."""
        return int(self.url.rpartition(":")[2])

    def workers(self) -> list[int]:
        """Give the workers' pids."""
        return [worker["pid"] for worker in self.api("GET", "health")["workers"]]

    def processes(self) -> list[int]:
        """Give the pids of leader and workers: not of agents."""
        assert self._child is not None
        return [self._child.pid, *self.workers()]

    def agents(self) -> list[int]:
        """Give the pids of everything that it runs as plain processes."""
        assert self._child is not None
        ours = set(self.processes())
        return [pid for pid in machine.tree(self._child.pid) if pid not in ours]

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the management API as its admin.

        Raises:
            BenchmarkFailed: It refuses.
        """
        answer = requests.request(
            method, self._at(path), json=body, headers={"X-API-Key": self._key}, timeout=120
        )
        if not answer.ok:
            raise BenchmarkFailed(f"{method} {path}: {answer.status_code} {answer.text[:1000]}")
        return answer.json()

    def lead_to(self, path: str, target: str) -> None:
        """Deploy something that runs already, for callers with a key."""
        body = {"agent": "backend", "target": target, "auth": "key"}
        self.api("POST", "deployments", {"domain": "localhost", "path": path, **body})

    def deploy(self, path: str, repository: str, **settings: Any) -> None:
        """Deploy the agent `demo` of a repository."""
        body = {"agent": "demo", "repository": repository, **settings}
        self.api("POST", "deployments", {"domain": "localhost", "path": path, **body})

    def call(self, path: str, task: str) -> str:
        """Call an agent; give what it answers.

        Raises:
            BenchmarkFailed: It was not status 200.
        """
        headers = {"Host": "localhost", "Content-Type": "application/json"}
        answer = requests.post(self.url + path, data=task, headers=headers, timeout=60)
        if answer.status_code != 200:
            raise BenchmarkFailed(f"calling {path}: {answer.status_code} {answer.text[:1000]}")
        return answer.text

    def remove(self, path: str) -> None:
        """Remove a deployment."""
        self.api("DELETE", "deployments", {"domain": "localhost", "path": path})

    def gateway(self, path: str, name: str = NAME, *, check: bool = True) -> Gateway:
        """Give it as what answers at a path."""
        pids = self.processes()
        gateway = Gateway(name, f"{self.url}{path}/hello", lambda: pids, self._key)
        return gateway.checked() if check else gateway

    def _at(self, path: str) -> str:
        return f"{self.url}/management/api/{path}"
