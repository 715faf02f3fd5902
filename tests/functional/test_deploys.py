"""Deploys under load, deploys that fail, and what survives a crash: on every runtime."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.functional.conftest import Server, git_repository, until
from tests.functional.load import Callers

MANIFEST = '{"container": "node:18-alpine", "engine": "node"}'


def handler(text: str) -> str:
    """A handler that answers with this text."""
    return f"module.exports = () => ({{ message: {text!r} }});"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one agent that says `one`."""
    git_repository(
        tmp_path / "agent", {"manifest.json": MANIFEST, "handlers/hello.js": handler("one")}
    )
    return tmp_path / "agent"


@pytest.fixture
def deployed(server: Server, repository: Path) -> Iterator[Server]:
    """The agent, served at /app."""
    answer = server.deploy("/app", f"file://{repository}")
    assert answer.status_code == 200, answer.text
    yield server
    server.api("DELETE", "deployments", {"domain": "localhost", "path": "/app"})


def test_a_redeploy_drops_no_request(deployed: Server, repository: Path) -> None:
    """While callers go on calling, the new release takes over, and every call is answered."""
    with Callers(deployed.url, "/app") as callers:
        until(lambda: callers.total() > 50, "the callers call")
        for text in ("two", "three"):
            git_repository(repository, {"handlers/hello.js": handler(text)})
            answer = deployed.deploy("/app", f"file://{repository}")
            assert answer.status_code == 200, answer.text
            assert deployed.call("/app", "hello").json() == {"message": text}
    assert callers.failures() == {}
    assert len(callers.answers) >= 2


def test_every_worker_serves_a_new_route_before_the_deploy_returns(
    server: Server, repository: Path
) -> None:
    """A thousand calls on new connections, right after the deploy: none is a 404."""
    for number in range(5):
        path = f"/fresh{number}"
        assert server.deploy(path, f"file://{repository}").status_code == 200
        statuses = {server.call(path, "hello").status_code for _ in range(200)}
        server.api("DELETE", "deployments", {"domain": "localhost", "path": path})
        assert statuses == {200}
        assert server.call(path, "hello").status_code == 404


@pytest.mark.parametrize(
    ("change", "step", "code"),
    [
        ({"manifest.json": '{"container": "node:18-alpine",}'}, None, "MANIFEST_INVALID"),
        (
            {"manifest.json": '{"install": "echo no such package; exit 7"}'},
            "install",
            "INSTALL_FAILED",
        ),
        ({"index.js": "throw new Error('it does not load');"}, "probe", "PROBE_FAILED"),
    ],
)
def test_a_release_that_fails_leaves_the_old_one_serving(
    deployed: Server, repository: Path, change: dict[str, str], step: str | None, code: str
) -> None:
    """The deploy says which step failed and what it printed; callers notice nothing."""
    git_repository(repository, change | {"handlers/hello.js": handler("broken")})
    with Callers(deployed.url, "/app") as callers:
        answer = deployed.deploy("/app", f"file://{repository}", health={"startPeriod": 60})
    body = answer.json()
    assert answer.status_code == 422, answer.text
    assert body["code"] == code
    if step:
        assert body["details"]["step"] == step
        assert "no such package" in answer.text or "it does not load" in answer.text
    assert callers.failures() == {}
    assert deployed.call("/app", "hello").json() == {"message": "one"}


def test_a_branch_that_does_not_exist_is_named(deployed: Server, repository: Path) -> None:
    """The error names the branch; what served before still serves."""
    answer = deployed.deploy("/app", f"file://{repository}", branch="develpo")
    assert answer.status_code == 422
    assert "develpo" in answer.json()["message"]
    assert deployed.call("/app", "hello").json() == {"message": "one"}


def test_stop_start_and_restart(deployed: Server) -> None:
    """A stopped deployment says so; started, it serves again; a restart drops nothing."""
    body = {"domain": "localhost", "path": "/app"}
    assert deployed.api("POST", "deployments/stop", body).status_code == 200
    answer = deployed.call("/app", "hello")
    assert (answer.status_code, answer.json()["code"]) == (503, "NO_HEALTHY_INSTANCE")
    assert deployed.api("POST", "deployments/start", body).status_code == 200
    with Callers(deployed.url, "/app") as callers:
        assert deployed.api("POST", "deployments/restart", body).status_code == 200
    assert callers.failures() == {}
    assert deployed.call("/app", "hello").status_code == 200


def test_a_worker_that_is_killed_takes_only_its_own_calls_along(deployed: Server) -> None:
    """kill -9 of one of two workers at 200 calls a second: at most the calls in its hand fail."""
    victim = deployed.worker_pids()[0]
    with Callers(deployed.url, "/app", clients=8) as callers:
        until(lambda: callers.total() > 50, "the callers call")
        os.kill(victim, signal.SIGKILL)
        until(
            lambda: victim not in deployed.worker_pids() and len(deployed.worker_pids()) == 2,
            "the worker is replaced",
        )
        before = callers.total()
        until(lambda: callers.total() > before + 50, "the callers go on")
    assert sum(callers.failures().values()) <= 8
    assert deployed.call("/app", "hello").status_code == 200


def test_agents_answer_while_the_leader_is_dead_and_a_restart_adopts_them(
    deployed: Server,
) -> None:
    """kill -9 of the leader: no call fails; the next leader finds workers and instances."""
    workers = deployed.worker_pids()
    with Callers(deployed.url, "/app") as callers:
        deployed.kill_leader()
        before = callers.total()
        until(lambda: callers.total() > before + 50, "calls are answered without a leader")
        deployed.start()
        before = callers.total()
        until(lambda: callers.total() > before + 50, "calls are answered by the adopted workers")
    assert callers.failures() == {}
    assert deployed.worker_pids() == workers
    found = deployed.api("GET", "deployments").json()["deployments"]
    assert [d["status"] for d in found if d["path"] == "/app"] == ["running"]


@pytest.mark.program("node")
def test_a_leader_that_has_just_started_knows_all_that_is_deployed(
    own_server: Server, repository: Path
) -> None:
    """From its first answer on: what it is asked to deploy before would hide what is there."""
    own_server.start()
    assert own_server.deploy("/app", f"file://{repository}").status_code == 200
    own_server.kill_leader()
    with ThreadPoolExecutor(1) as executor:
        starting = executor.submit(own_server.start)
        answers = [own_server.api("GET", "deployments")]
        while answers[-1].status_code == 503:
            answers.append(own_server.deploy("/app", f"file://{repository}"))
        starting.result()
    assert {answer.json()["code"] for answer in answers[:-1]} == {"LEADER_AWAY"}
    assert answers[-1].status_code == 200, answers[-1].text
    found = own_server.api("GET", "deployments").json()["deployments"]
    assert [d["path"] for d in found] == ["/app"]


def test_containers_run_on_while_the_server_is_stopped(deployed: Server) -> None:
    """A stop leaves instances running, and the next start serves by them again."""
    deployed.stop()
    deployed.start()
    assert deployed.call("/app", "hello").json() == {"message": "one"}


def test_a_leader_killed_during_a_deploy_leaves_the_old_release(
    deployed: Server, repository: Path
) -> None:
    """kill -9 in the middle of a deploy: afterwards one whole release serves, and only one."""
    git_repository(repository, {"manifest.json": '{"install": "sleep 30"}'})
    executor = ThreadPoolExecutor(1)
    deploying = executor.submit(deployed.deploy, "/app", f"file://{repository}")

    def step() -> str:
        found = deployed.api("GET", "deployments").json()["deployments"]
        return next(str(d.get("step")) for d in found if d["path"] == "/app")

    until(lambda: "install" in step(), "the deploy installs")
    deployed.kill_leader()
    deployed.start()
    assert deploying.result(30).status_code >= 500
    executor.shutdown()
    assert deployed.call("/app", "hello").json() == {"message": "one"}
    releases = deployed.api("GET", "deployments/releases?domain=localhost&path=/app").json()
    states = [r["state"] for r in releases["releases"]]
    assert (states.count("active"), states[0]) == (1, "failed")
