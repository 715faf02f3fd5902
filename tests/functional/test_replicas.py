"""Two instances behind one path: both work, and a caller does not notice that one is killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.functional.conftest import Server, git_repository, until

WHO = "String(require('fs').statSync(process.env.PLOINKY_QUEUE).ino)"
"""What an instance calls itself: each has a queue of its own, wherever it sees that."""

TASKS = {
    "manifest.json": '{"container": "node:18-alpine", "engine": "node", "replicas": 2}',
    "handlers/who.js": f"module.exports = () => {WHO};",
}
SERVICE = {
    "manifest.json": """{
      "container": "node:18-alpine", "port": 7000, "command": "node server.js", "replicas": 2
    }""",
    "server.js": f"""
require('http').createServer((request, response) => {{
    request.resume();
    request.on('end', () => response.end(JSON.stringify({WHO})));
}}).listen(process.env.PORT);
""",
}


class Caller:
    """Sends the same request again and again on one connection, to the short way's liking."""

    def __init__(self, server: Server, method: str, path: str) -> None:
        self.path = path
        self._method = method
        self._body = json.dumps({"command": "who"}) if method == "POST" else None
        self._client = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
        self.close = self._client.close

    def call(self) -> tuple[int, str]:
        """Give the status, and who answered or with which error."""
        fields = {"Content-Type": "application/json"} if self._body else {}
        self._client.request(self._method, self.path, self._body, fields)
        answer = self._client.getresponse()
        said = json.loads(answer.read())
        assert answer.headers["Connection"] != "close"
        return answer.status, said if answer.status == 200 else said["code"]

    def answered_by(self, count: int) -> Counter[str]:
        """Count who answers so many calls, which have to succeed."""
        answers = Counter(self.call() for _ in range(count))
        assert {status for status, _ in answers} == {200}, answers
        return Counter({who: number for (_, who), number in answers.items()})


@pytest.fixture(scope="module", params=["a task", "GET of a service", "POST to a service"])
def caller(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Caller]:
    """Somebody who calls an agent with two instances."""
    kind: str = request.param
    path = "/" + kind.replace(" ", "-")
    files = TASKS if kind == "a task" else SERVICE
    answer = server.deploy(path, git_repository(tmp_path_factory.mktemp("agent") / "app", files))
    assert answer.status_code == 200, answer.text
    with closing(Caller(server, "GET" if "GET" in kind else "POST", path)) as caller:
        yield caller
    server.api("DELETE", "deployments", {"domain": "localhost", "path": path})


def kill(path: str, who: str) -> None:
    """kill -9 every process of one instance, from outside of its container."""
    killed = [
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is(pid, path, who)
    ]
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert killed


def _is(pid: int, path: str, who: str) -> bool:
    """Tell whether a process is one of an instance's."""
    with contextlib.suppress(OSError):
        known = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        if f"PLOINKY_PATH={path}" in known:
            (queue,) = (one for one in known if one.startswith("PLOINKY_QUEUE="))
            return str(os.stat(f"/proc/{pid}/root{queue.partition('=')[2]}").st_ino) == who
    return False


def test_equal_requests_of_one_connection_go_to_both(caller: Caller) -> None:
    """In turns: one that says the same again is not bound to where the first one went."""
    caller.answered_by(4)
    assert sorted(caller.answered_by(40).values()) == [20, 20]


def test_one_that_is_killed_costs_at_most_what_it_had_in_hand(caller: Caller) -> None:
    """Amid calls on one connection; the other one answers the rest, and soon there are two again."""
    victim = caller.answered_by(4).most_common()[0][0]
    with ThreadPoolExecutor(1) as executor:
        killing = executor.submit(kill, caller.path, victim)
        answers = [caller.call() for _ in range(50)]
        while not killing.done():
            answers.append(caller.call())
        killing.result()
        answers += [caller.call() for _ in range(200)]
    failed = [said for status, said in answers if status != 200]
    assert failed in ([], ["AGENT_UNREACHABLE"]), failed
    until(lambda: len(caller.answered_by(4)) == 2, "there are two again", 60)


@pytest.mark.parametrize("size", [10, 100_000], ids=["frames", "HTTP"])
def test_one_that_takes_no_connection_costs_nothing(
    server: Server, tmp_path: Path, size: int
) -> None:
    """Calls that it was chosen for are answered by the other one, however they travel."""
    run = server.directory / ".ploinky-cloud/run"
    before = set(run.glob("i/*"))
    answer = server.deploy("/refuses", git_repository(tmp_path / "agent", TASKS))
    assert answer.status_code == 200, answer.text
    refusing, other = set(run.glob("i/*")) - before
    (refusing / "agent.sock").rename(refusing / "hidden.sock")
    told = [server.call("/refuses", "who", "x" * size) for _ in range(20)]
    assert [one.json() for one in told] == [str(other.stat().st_ino)] * 20
    server.api("DELETE", "deployments", {"domain": "localhost", "path": "/refuses"})
