"""A restore drill: a server is copied while it serves, lost with all that it had, and made again."""

from __future__ import annotations

import json
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests

from ploinky.runtime import processes
from tests.functional.conftest import Server, engine_api, git_repository, until

PASSPHRASE = "correct horse battery staple"
RUNTIMES = [
    pytest.param("docker", marks=pytest.mark.engine("docker")),
    pytest.param("podman", marks=pytest.mark.engine("podman")),
    pytest.param("process", marks=[pytest.mark.program("node"), pytest.mark.program("bwrap")]),
]

AGENT = {
    "app/manifest.json": json.dumps(
        {
            "container": "node:18-alpine",
            "engine": "node",
            "env": {"S": None},
            "volumes": [{"name": "notes", "path": "/notes"}],
        }
    ),
    "app/index.js": """
const fs = require('fs');
exports.hello = ([name]) => ({ message: `Hello ${name}` });
exports.secret = () => process.env.S;
exports.keep = ([text]) => fs.writeFileSync('/notes/kept', text);
exports.kept = () => fs.readFileSync('/notes/kept', 'utf8');
exports.wait = ([ms]) => new Promise((resolve) => setTimeout(resolve, ms, 'waited'));
""",
    "site/manifest.json": '{"container": "node:18-alpine", "static": {"root": "dist"}, "install": "sh build.sh"}',
    "site/build.sh": "mkdir dist && echo built > dist/index.html\n",
}

KEEPER = """
import http.server, json, os

class Keeper(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        with open('/data/note', 'wb') as file:
            file.write(self.rfile.read(int(self.headers['Content-Length'])))
        os.chmod('/data/note', 0o640)
        try:
            os.chown('/data/note', 70, 71)
            os.chown('/data', 70, 71)
        except OSError:
            pass
        os.symlink('note', '/data/link')
        self.do_GET()

    def do_GET(self):
        try:
            text, note, data = open('/data/link').read(), os.stat('/data/note'), os.stat('/data')
            said = [text, note.st_uid, note.st_gid, note.st_mode, data.st_uid, data.st_mode]
        except OSError:
            said = []
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(('0.0.0.0', int(os.environ['PORT'])), Keeper).serve_forever()
"""
SERVICE = {
    "domain": "localhost",
    "path": "/keeper",
    "agent": "keeper",
    "image": "python:3.12-alpine",
    "command": ["python3", "-c", KEEPER],
    "port": 8080,
    "health": {"path": "/", "startPeriod": 30},
    "volumes": [{"name": "data", "path": "/data"}],
}


def lose(server: Server) -> None:
    """Let a server end as with its machine: nothing of it is left, in no engine either."""
    cluster = (server.directory / ".ploinky-cloud/cluster-id").read_text().strip()
    server.kill_leader()
    server.destroy()
    remove_instances(server.runtime, cluster)
    shutil.rmtree(server.directory)
    server.url = ""


def remove_instances(runtime: str, cluster: str) -> None:
    """Remove what bears a server's label: processes, or containers and then their volumes."""
    if runtime == "process":
        processes.kill(processes.members(cluster=cluster), signal.SIGKILL)
        until(lambda: not processes.members(cluster=cluster), "the agents have ended")
        return
    with closing(engine_api(runtime)) as client:
        ours = {"label": [f"ploinky.cluster={cluster}"]}
        for container in client.containers(all=True, filters=ours):
            with suppress(docker.errors.NotFound):
                client.remove_container(container["Id"], force=True)
        for volume in client.volumes(filters=ours)["Volumes"] or ():
            client.remove_volume(volume["Name"], force=True)


@contextmanager
def a_server(directory: Path, runtime: str) -> Iterator[Server]:
    """A server that is not started yet; nothing of it is left afterwards."""
    directory.mkdir()
    server = Server(directory, runtime)
    server.environment["PLOINKY_BACKUP_PASSPHRASE"] = PASSPHRASE
    try:
        yield server
    finally:
        server.destroy()
        with suppress(FileNotFoundError):
            cluster = (directory / ".ploinky-cloud/cluster-id").read_text().strip()
            remove_instances(runtime, cluster)


@contextmanager
def called_without_end(server: Server) -> Iterator[list[int]]:
    """Calls an agent again and again; gives the statuses of the answers."""
    statuses: list[int] = []
    done = threading.Event()

    def call() -> None:
        with requests.Session() as session:
            while not done.is_set():
                body = {"command": "hello", "params": ["World"]}
                statuses.append(
                    session.post(f"{server.url}/app", json=body, timeout=30).status_code
                )

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        until(lambda: len(statuses) > 10, "calls go on")
        yield statuses
        before = len(statuses)
        until(lambda: len(statuses) > before + 10, "calls go on afterwards")
    finally:
        done.set()
        for caller in callers:
            caller.join()


def fill(server: Server, code: Path) -> dict[str, Any]:
    """Deploy one of each kind and let them keep something; gives what is expected of a copy."""
    url = git_repository(code, AGENT)
    place = {"domain": "localhost", "repository": url}
    for path, agent, more in (
        ("/app", "app", {"secrets": {"S": "needle"}}),
        ("/line", "app", {"secrets": {"S": "needle"}, "concurrency": 1, "timeout": 3600}),
        ("/gone", "app", {"secrets": {"S": "needle"}}),
        ("/site", "site", {}),
    ):
        answer = server.api("POST", "deployments", {**place, "path": path, "agent": agent, **more})
        assert answer.status_code == 200, answer.text
    answer = server.api("POST", "deployments", SERVICE)
    assert answer.status_code == 200, answer.text
    server.api("POST", "deployments/stop", {"domain": "localhost", "path": "/gone"})
    assert server.call("/app", "keep", "a note").status_code == 200
    kept = requests.post(f"{server.url}/keeper/", data=b"kept by a service", timeout=30).json()
    caller = server.api("POST", "keys", {"name": "ci", "role": "caller"}).json()["apiKey"]
    return {
        "kept": kept,
        "caller": caller,
        "done": durable(server, "/line", "hello", "World", state="succeeded"),
        "running": durable(server, "/line", "wait", 3_600_000, state="running"),
        "queued": durable(server, "/line", "hello", "again", state="queued"),
    }


def durable(server: Server, path: str, command: str, *params: Any, state: str) -> str:
    """Make a durable task, and wait until it stands so."""
    answer = requests.post(
        server.url + path,
        json={"command": command, "params": list(params), "async": True},
        timeout=30,
    )
    task: str = answer.json()["taskId"]
    until(lambda: status_of(server, task)["status"] == state, f"{command} is {state}")
    return task


def status_of(server: Server, task: str) -> dict[str, Any]:
    """A durable task as it stands."""
    found: dict[str, Any] = server.api("GET", f"tasks/{task}").json()
    return found


def whole(server: Server, expected: dict[str, Any]) -> None:
    """See that a restored server is what was copied."""
    until(lambda: server.call("/app", "hello", "World").status_code == 200, "the agent is back", 90)
    assert server.call("/app", "secret").json() == "needle"
    assert server.call("/app", "kept").json() == "a note"
    assert requests.get(f"{server.url}/site/", timeout=30).text == "built\n"
    until(
        lambda: requests.get(f"{server.url}/keeper/", timeout=30).status_code == 200,
        "the service is back",
        90,
    )
    assert requests.get(f"{server.url}/keeper/", timeout=30).json() == expected["kept"]
    gone = server.call("/gone", "hello")
    assert (gone.status_code, "is stopped" in gone.text) == (503, True)

    until(
        lambda: status_of(server, expected["queued"])["status"] == "succeeded", "the task has run"
    )
    assert status_of(server, expected["done"])["result"] == {"message": "Hello World"}
    assert status_of(server, expected["running"])["error"]["code"] == "INTERRUPTED"

    login = {"command": "login", "params": [expected["caller"]]}
    assert requests.post(f"{server.url}/auth", json=login, timeout=30).status_code == 200
    assert "Intact" in server.p_cli("cloud", "audit", "verify").stdout
    actions = [entry["action"] for entry in server.api("GET", "audit").json()["entries"]]
    assert {"backup", "restore", "keys.add"} <= set(actions)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_server_that_is_lost_comes_back_whole(runtime: str, tmp_path: Path) -> None:
    """Copied while calls are answered, none of which fails; its Git host is gone by then, too."""
    file = tmp_path / "server.backup"
    with a_server(tmp_path / "lost", runtime) as lost:
        lost.start()
        expected = fill(lost, tmp_path / "code")
        with called_without_end(lost) as statuses:
            said = lost.p_cli("cloud", "backup", str(file), "--json")
        assert set(statuses) == {200}
        assert json.loads(said.stdout)["problems"] == []
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        key = lost.key
        lose(lost)
    shutil.rmtree(tmp_path / "code")
    with a_server(tmp_path / "made-again", runtime) as again:
        again.p_cli("cloud", "restore", str(file))
        again.key = key
        again.start()
        again.p_cli("cloud", "connect", again.url)
        again.p_cli("cloud", "login", "-", stdin=key)
        whole(again, expected)


def test_what_goes_wrong_is_told_and_leaves_nothing(own_server: Server, tmp_path: Path) -> None:
    """No half a backup under its name, no half a server in its place."""
    own_server.start()
    p_cli, file = own_server.p_cli, tmp_path / "a.backup"
    sealed = {"PLOINKY_BACKUP_PASSPHRASE": PASSPHRASE}
    none = p_cli("cloud", "backup", str(file), check=False)
    assert (none.returncode, "--passphrase-file" in none.stderr) == (5, True)
    short = p_cli("cloud", "backup", str(file), check=False, PLOINKY_BACKUP_PASSPHRASE="short")
    assert (short.returncode, "12 characters" in short.stderr) == (5, True)
    away = p_cli(
        "cloud", "backup", str(file), check=False, PLOINKY_URL="http://localhost:1", **sealed
    )
    assert away.returncode == 2
    assert not list(tmp_path.glob("*a.backup*"))

    p_cli("cloud", "backup", str(file), **sealed)
    again = p_cli("cloud", "backup", str(file), check=False, **sealed)
    assert (again.returncode, "--force" in again.stderr) == (1, True)
    p_cli("cloud", "backup", str(file), "--force", **sealed)
    assert PASSPHRASE.encode() not in file.read_bytes()
    wrong = p_cli(
        "cloud", "restore", "--check", str(file), check=False, PLOINKY_BACKUP_PASSPHRASE="x" * 12
    )
    assert (wrong.returncode, "passphrase" in wrong.stderr) == (1, True)

    running = p_cli("cloud", "restore", str(file), "--replace", check=False, **sealed)
    assert (running.returncode, "p-cli cloud stop" in running.stderr) == (1, True)
    spoilt = tmp_path / "spoilt.backup"
    spoilt.write_bytes(file.read_bytes()[:-1])
    own_server.stop()
    for damaged in (spoilt, Path(__file__)):
        refused = p_cli("cloud", "restore", str(damaged), "--replace", check=False, **sealed)
        assert refused.returncode == 1
        assert "backup" in refused.stderr
    names = {path.name for path in own_server.directory.iterdir()}
    assert not {name for name in names if name.startswith(".ploinky-cloud.")}
    own_server.start()
    assert own_server.api("GET", "deployments").status_code == 200


def test_a_server_that_does_not_run_is_copied_too(own_server: Server, tmp_path: Path) -> None:
    """Plain and without its master key, which then is asked for; put in place of what is there."""
    own_server.start()
    own_server.p_cli("cloud", "host", "add", "a.example")
    file = tmp_path / "plain.tar.gz"
    backup = ("cloud", "backup", str(file), "--plain", "--offline")
    running = own_server.p_cli(*backup, check=False)
    assert (running.returncode, "p-cli cloud stop" in running.stderr) == (1, True)
    own_server.stop()
    made = own_server.p_cli(*backup, CONTAINER_RUNTIME="process")
    assert "master key is not in it" in made.stderr
    restore = ("cloud", "restore", str(file), "--replace")
    refused = own_server.p_cli(*restore, check=False)
    assert (refused.returncode, "--key-file" in refused.stderr) == (5, True)
    key = own_server.directory / ".ploinky-cloud/master.key"
    said = own_server.p_cli(*restore, "--key-file", str(key), "--json")
    assert (Path(json.loads(said.stdout)["movedTo"]) / "ploinky.sqlite").exists()
    own_server.start()
    domains = own_server.api("GET", "domains").json()["domains"]
    assert "a.example" in [each["name"] for each in domains]
