"""What a person types, and what they read."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
import requests

from tests.functional.agents import NODE, PYTHON
from tests.functional.conftest import P_CLI, Server, git_repository, until

NEEDS_NODE = pytest.mark.program("node")
EXAMPLES = Path(__file__).parents[2] / "examples" / "agents"


def test_the_quick_start_as_the_guide_types_it(own_server: Server, tmp_path: Path) -> None:
    """Start, init, connect, login, repo add, deploy, call: each line works as it stands."""
    files = {
        str(path.relative_to(EXAMPLES)): path.read_text(encoding="utf-8")
        for path in EXAMPLES.rglob("*")
        if path.is_file()
    }
    url = git_repository(tmp_path / "PloinkyDemo.git", files)
    type_ = own_server.p_cli
    started = type_("cloud", "start", PORT="0").stdout
    own_server.url = type_("cloud", "url").stdout.strip()
    assert own_server.url in started
    assert f"{own_server.url}/management" in started
    key = type_("cloud", "init", PLOINKY_URL=own_server.url).stdout.splitlines()[0].split()[-1]
    own_server.key = key
    type_("cloud", "connect", own_server.url)
    type_("cloud", "login", key)
    type_("cloud", "repo", "add", "PloinkyDemo", url)
    assert "demo" in type_("cloud", "agent", "list").stdout
    type_("cloud", "deploy", "localhost", "/demo", "demo")
    assert json.loads(type_("cloud", "call", "/demo", "hello", "World").stdout) == {
        "message": "Hello World"
    }
    assert "localhost/demo" in type_("cloud", "deployments").stdout
    assert type_("cloud", "health").returncode == 0
    type_("cloud", "repo", "remove", "PloinkyDemo")
    assert type_("cloud", "call", "/demo", "hello", "again").returncode == 0
    type_("cloud", "undeploy", "localhost", "/demo")
    assert type_("cloud", "call", "/demo", "hello", check=False).returncode == 1


@pytest.fixture
def running(own_server: Server) -> Server:
    """A server on the process runtime."""
    own_server.start()
    return own_server


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("--upload-pack=touch /tmp/pwned", "--upload-pack"),
        ("ext::sh -c 'touch /tmp/pwned'", "ext"),
        ("file:///etc", "/etc"),
        ("https://user:hunter2@127.0.0.1:1/x.git", "credential"),
    ],
)
def test_a_repository_that_is_not_one(running: Server, url: str, said: str) -> None:
    """Each is refused with its reason, and nothing of it is run or shown."""
    done = running.p_cli(
        "cloud", "deploy", "localhost", "/x", "demo", f"--repository={url}", check=False
    )
    assert done.returncode in (1, 4, 5), done.stderr
    assert said in done.stderr
    assert "hunter2" not in done.stderr
    assert not Path("/tmp/pwned").exists()


def test_exit_statuses_tell_what_kind_of_failure_it_was(running: Server, tmp_path: Path) -> None:
    """2 connection, 3 authentication, 4 deployment, 5 configuration."""
    url = git_repository(tmp_path / "agent", {**NODE, **PYTHON, "manifest.json": '{"port": "no"}'})

    def status(*arguments: str, **environment: str) -> int:
        return running.p_cli("cloud", *arguments, check=False, **environment).returncode

    assert status("deployments") == 0
    assert status("deployments", PLOINKY_URL="http://127.0.0.1:9") == 2
    assert status("deployments", PLOINKY_API_KEY="pk_wrong") == 3
    assert status("deploy", "localhost", "/x", "x", f"--repository={url}") == 5
    assert status("deploy", "local host", "/x", "demo") == 5
    broken = git_repository(tmp_path / "broken", {"manifest.json": '{"install": "exit 3"}'})
    assert status("deploy", "localhost", "/x", "x", f"--repository={broken}") == 4
    why = running.p_cli("cloud", "deployments", "logs", "localhost", "/x").stdout
    assert why == "install ended with exit code 3\n"


def test_a_port_in_use_is_named(own_server: Server) -> None:
    """The message names the port and what to do; the exit status is not 0."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = own_server.p_cli("cloud", "start", f"--port={port}", check=False)
    assert done.returncode != 0
    assert port in done.stderr
    assert "--port" in done.stderr


def test_an_engine_that_does_not_run_is_named(own_server: Server) -> None:
    """`--runtime docker` without Docker says so, and what else there is."""
    done = own_server.p_cli(
        "cloud",
        "start",
        "--port=0",
        "--runtime=docker",
        check=False,
        DOCKER_HOST=f"unix://{own_server.directory}/nothing.sock",
    )
    assert done.returncode != 0
    assert "docker" in done.stderr.lower()


def test_all_bad_settings_are_reported_at_once(own_server: Server) -> None:
    """Each with its source, and exit status 5."""
    done = own_server.p_cli("cloud", "start", "--port=lots", "--workers=-1", check=False)
    assert done.returncode == 5
    assert "port" in done.stderr
    assert "workers" in done.stderr


def test_a_server_that_was_killed_is_started_again_at_once(own_server: Server) -> None:
    """Also while whoever started it has not asked how it ended: it runs no more."""
    command = [*P_CLI, "cloud", "start", "--foreground", "--port=0", "--workers=1"]
    killed = subprocess.Popen(
        [*command, "--runtime=process"],
        cwd=own_server.directory,
        env=own_server.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    said = own_server.directory / ".ploinky-cloud/run/leader.json"
    until(said.exists, "it runs")
    killed.kill()
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    own_server.start()
    assert own_server.leader()["pid"] != killed.pid
    killed.wait()


def test_whoever_has_a_killed_servers_pid_is_let_be(own_server: Server) -> None:
    """It is not taken for the server, and above all not stopped for it."""
    own_server.start()
    left = own_server.leader()
    own_server.kill_leader()
    said = own_server.directory / ".ploinky-cloud/run/leader.json"
    said.write_text(json.dumps(left | {"pid": os.getpid()}))
    done = own_server.p_cli("cloud", "stop", check=False)
    assert done.returncode != 0
    assert "no server runs" in done.stderr
    own_server.start()
    assert own_server.leader()["pid"] != os.getpid()


def test_a_second_server_on_the_same_directory_is_refused(running: Server) -> None:
    """The message names the one that runs."""
    done = running.p_cli("cloud", "start", "--port=0", check=False)
    assert done.returncode == 1
    assert str(running.leader()["pid"]) in done.stderr


def test_a_directory_that_cannot_be_written_to(own_server: Server) -> None:
    """The message names it, and the option that chooses another."""
    done = own_server.p_cli("cloud", "start", "--port=0", "--dir=/proc/nowhere", check=False)
    assert done.returncode == 5
    assert "/proc/nowhere" in done.stderr
    assert "--dir" in done.stderr


def test_a_new_server_is_not_claimed_through_a_proxy(own_server: Server) -> None:
    """Whoever comes through a proxy that is not trusted is not taken for this machine."""
    own_server.p_cli("cloud", "start", "--port=0", "--runtime=process")
    own_server.url = own_server.p_cli("cloud", "url").stdout.strip()
    claim = own_server.url + "/management/api/init"
    for field in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        answer = requests.post(claim, json={}, headers={field: "127.0.0.1"}, timeout=10)
        assert answer.status_code == 403, answer.text
    answer = requests.post(claim, json={}, headers={"Host": "evil.example"}, timeout=10)
    assert answer.status_code == 403
    assert requests.post(claim, json={}, timeout=10).status_code == 200
    assert requests.post(claim, json={}, timeout=10).status_code == 409


def test_a_new_server_is_not_claimed_through_a_trusted_proxy(own_server: Server) -> None:
    """It speaks for others, also where it says nothing of whom: none of them is at this machine."""
    own_server.environment |= {"PLOINKY_TRUSTED_PROXIES": "127.0.0.1"}
    own_server.p_cli("cloud", "start", "--port=0", "--runtime=process")
    own_server.url = own_server.p_cli("cloud", "url").stdout.strip()
    claim = own_server.url + "/management/api/init"
    for fields in (
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-For": "127.0.0.1, 127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
    ):
        answer = requests.post(claim, json={}, headers=fields, timeout=10)
        assert answer.status_code == 403, fields
    assert requests.post(claim, json={}, timeout=10).status_code == 200


def test_a_new_server_is_claimed_by_either_kind_of_loopback(own_server: Server) -> None:
    """On a socket for both, IPv4 comes in IPv6's clothes."""
    own_server.p_cli("cloud", "start", "--port=0", "--host=::", "--runtime=process")
    own_server.url = own_server.p_cli("cloud", "url").stdout.strip()
    port = own_server.url.rpartition(":")[2]
    for number, host in enumerate(("127.0.0.1", "[::1]")):
        claim = f"http://{host}:{port}/management/api/init"
        named = {"Host": "cloud.example"}
        if not number:
            assert requests.post(claim, json={}, headers=named, timeout=10).status_code == 403
        assert requests.post(claim, json={}, timeout=10).status_code == (409 if number else 200)


@pytest.mark.parametrize("engine", ["python", pytest.param("node", marks=NEEDS_NODE)])
def test_a_deep_directory_without_a_sandbox(
    own_server: Server, tmp_path: Path, engine: str
) -> None:
    """Plain processes are reached wherever the data lies, though socket paths have a limit."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for place in reversed(own_server.environment["PATH"].split(":")):
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            if program.name != "bwrap":
                (programs / program.name).unlink(missing_ok=True)
                (programs / program.name).symlink_to(program)
    own_server.environment["PATH"] = str(programs)
    own_server.directory = tmp_path / ("d" * 100)
    own_server.directory.mkdir()
    own_server.environment["HOME"] = str(own_server.directory)
    own_server.start()
    agent = NODE if engine == "node" else PYTHON
    assert own_server.deploy("/x", git_repository(tmp_path / "a", agent)).status_code == 200
    assert own_server.call("/x", "hello", "you").json() == {"message": "Hello you"}


def test_the_output_of_an_instance_is_text(running: Server, tmp_path: Path) -> None:
    """What a handler printed is shown as it is, also where it would be JSON."""
    printing = {
        "manifest.json": "{}",
        "handlers/count.py": "def handle(params, context):\n    print(42, flush=True)\n",
    }
    running.deploy("/x", git_repository(tmp_path / "a", printing))
    logs = ("cloud", "deployments", "logs", "localhost", "/x")
    assert "nothing yet" in running.p_cli(*logs).stdout
    running.call("/x", "count")
    until(lambda: running.p_cli(*logs).stdout == "42\n", "the output is kept")


def test_shells_complete_what_the_server_has(running: Server, tmp_path: Path) -> None:
    """Commands, and live names by what stands before them; nothing where there is no server."""
    running.deploy("/parrot", git_repository(tmp_path / "a", PYTHON))

    def offered(line: str, **environment: str) -> list[str]:
        asking = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        shell = {"_P_CLI_COMPLETE": "bash_complete", **asking, **environment}
        said = running.p_cli(check=False, **shell).stdout
        return [one.partition(",")[2] for one in said.splitlines() if one]

    assert offered("p-cli cloud tas") == ["tasks"]
    assert offered("p-cli cloud tasks re") == ["retry"]
    assert offered("p-cli cloud host disable ") == ["localhost"]
    assert offered("p-cli cloud show localhost /p") == ["/parrot"]
    assert offered("p-cli cloud rollback localhost /parrot ") == ["1"]
    assert offered("p-cli cloud call /pa") == ["/parrot"]
    assert "hello" in offered("p-cli cloud call /parrot ")
    assert offered("p-cli cloud keys remove A") == ["Admin"]
    assert "taskTimeout=" in offered("p-cli cloud settings set task")
    away = {"PLOINKY_URL": "http://127.0.0.1:9"}
    assert offered("p-cli cloud show localhost ", **away) == []
    assert offered("p-cli cloud tas", **away) == ["tasks"]


def test_warnings_of_a_manifest_are_shown(running: Server, tmp_path: Path) -> None:
    """A misspelt field is not an error, and does not go unnoticed either."""
    url = git_repository(tmp_path / "a", {**PYTHON, "manifest.json": '{"concurency": 3}'})
    done = running.p_cli("cloud", "deploy", "localhost", "/x", "x", f"--repository={url}")
    assert "Warning" in done.stderr
    assert "concurrency" in done.stderr
