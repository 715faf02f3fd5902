"""The search for secrets itself: it finds them where they may not be, in whatever form."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from tests.functional.agents import PYTHON
from tests.functional.conftest import SECRECY, Server, git_repository
from tests.functional.secrecy import MASTER_KEY, Secrecy


@pytest.fixture
def kept() -> tuple[Secrecy, str]:
    """A search of its own, and the one secret that it knows."""
    secrecy, secret = Secrecy(), f'sécret/"{secrets.token_hex(8)}"+%'
    secrecy.note("needle", secret)
    return secrecy, secret


@pytest.mark.parametrize(
    "written",
    [
        lambda secret: secret,
        lambda secret: f"https://me:{quote(secret, safe='')}@host/x",
        json.dumps,
        lambda secret: base64.b64encode(f"git:{secret}".encode()).decode(),
        lambda secret: base64.b64encode(f"me:{secret}:".encode()).decode(),
        lambda secret: base64.b64encode(f"you:{secret}\n".encode()).decode(),
    ],
)
def test_a_secret_in_a_file_is_found(kept: tuple[Secrecy, str], written, tmp_path: Path) -> None:
    """Wherever it lies below the data directory, but for the places that have a reason."""
    secrecy, secret = kept
    (tmp_path / "run/p/one").mkdir(parents=True)
    (tmp_path / "run/p/one/output.log").write_text(written(secret))
    assert secrecy.in_files(tmp_path) == []
    (tmp_path / "run/p/one/record.json").write_text(f"... {written(secret)} ...")
    assert secrecy.in_files(tmp_path) == ["needle in run/p/one/record.json"]


def test_a_secret_of_a_process_is_found(kept: tuple[Secrecy, str]) -> None:
    """In its arguments, and in its variables unless it is an agent and they are its own."""
    secrecy, secret = kept
    wait = [sys.executable, "-c", "print(1, flush=True); input()"]
    for arguments, variables, found in (
        ([], {}, []),
        ([secret], {}, ["needle in arguments"]),
        ([], {"T": secret}, ["needle in variables"]),
        ([], {"T": secret, "PLOINKY_AGENT": "demo"}, []),
    ):
        with subprocess.Popen(
            [*wait, *arguments], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert [said.partition(" of ")[0] for said in secrecy.in_processes()] == found
            process.kill()


def test_a_server_is_found_out(own_server: Server) -> None:
    """What its tests say and hear is known without a word: keys, sessions, secrets of agents."""
    own_server.start()
    body = {"domain": "nowhere.example", "path": "/x", "agent": "x", "image": "busybox"}
    secret = f"needle-{secrets.token_hex(8)}"
    answer = own_server.api("POST", "deployments", {**body, "secrets": {"S": secret}})
    assert answer.status_code == 404
    key = own_server.api("POST", "keys", {"name": "x", "role": "caller"}).json()["apiKey"]
    login = {"command": "login", "params": [key]}
    session = requests.post(f"{own_server.url}/auth", json=login, timeout=10).json()
    data = own_server.directory / ".ploinky-cloud"
    master = (data / "master.key").read_text().strip()
    assert SECRECY.leaks(data) == []
    for said in (secret, key, session["authorizationToken"], own_server.key, master):
        (data / "logs" / "extra.log").write_text(said)
        assert len(SECRECY.in_files(data)) == 1
        SECRECY.heard("p-cli", said)
        assert len(SECRECY.in_errors()) == 1
    (data / "logs" / "extra.log").unlink()


def test_a_master_key_is_the_leaders_alone(own_server: Server, tmp_path: Path) -> None:
    """Given as a variable it is in no file, and neither workers nor agents nor engines have it."""
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    SECRECY.note(MASTER_KEY, key)
    own_server.environment |= {"PLOINKY_MASTER_KEY": key}
    own_server.start()
    url = git_repository(tmp_path / "code", {f"app/{name}": text for name, text in PYTHON.items()})
    assert own_server.deploy("/app", url, secrets={"S": secrets.token_hex(8)}).status_code == 200
    data = own_server.directory / ".ploinky-cloud"
    assert not (data / "master.key").exists()
    assert SECRECY.leaks(data) == []
    (said,) = SECRECY.in_processes()
    assert said.startswith("master key in variables of")


def test_a_bootstrap_token_is_in_no_log(own_server: Server) -> None:
    """It is printed to whoever starts the server, and opens nothing once the server is claimed."""
    started = own_server.p_cli("cloud", "start", "--port=0", "--host=0.0.0.0", "--runtime=process")
    own_server.url = own_server.p_cli("cloud", "url").stdout.strip()
    token = started.stdout.split("Bootstrap token: ")[1].split()[0]
    assert SECRECY.in_bytes(token.encode()) == ["pb_"]
    assert SECRECY.leaks(own_server.directory / ".ploinky-cloud") == []
    claim = {"json": {"token": token}, "headers": {"X-Forwarded-For": "203.0.113.9"}, "timeout": 10}
    place = f"{own_server.url}/management/api/init"
    assert requests.post(place, **claim).status_code == 200
    assert requests.post(place, **claim).status_code == 409
