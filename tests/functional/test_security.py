"""What keeps a real server to those who may use it: keys, sessions, the trail, secrets at rest."""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.functional.agents import PYTHON
from tests.functional.conftest import Server, git_repository, until

WHO = {
    **PYTHON,
    "handlers/env.py": "import os\n\ndef handle(params, context):\n"
    "    print(os.environ['S'])\n    return os.environ['S']\n",
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers, and an agent that takes calls with a key alone."""
    server = Server(tmp_path_factory.mktemp("guarded"), "process")
    try:
        server.start()
        url = git_repository(server.directory / "code", {f"app/{n}": t for n, t in WHO.items()})
        answer = server.deploy("/app", url, auth="key", secrets={"S": "needle-in-a-haystack"})
        assert answer.status_code == 200, answer.text
        yield server
    finally:
        server.destroy()


def new_key(server: Server, name: str, **body: object) -> str:
    """Make a key, for callers of the agent where nothing else is said."""
    answer = server.api("POST", "keys", {"name": name, "role": "caller", **body})
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["apiKey"]
    return token


def call(server: Server, token: str) -> requests.Response:
    """Call the agent on a connection of its own, so through whichever worker takes it."""
    return requests.post(
        f"{server.url}/app",
        json={"command": "hello", "params": ["World"]},
        headers={"Authorization": f"Bearer {token}", "Connection": "close"},
        timeout=30,
    )


def check(server: Server, token: str) -> bool:
    """Whether the management API knows a token, on a connection of its own."""
    answer = requests.get(
        f"{server.url}/management/api/check-auth",
        headers={"Authorization": f"Bearer {token}", "Connection": "close"},
        timeout=30,
    )
    return bool(answer.json()["authenticated"])


def login(server: Server, key: str) -> requests.Response:
    """Log in with a key."""
    return requests.post(
        f"{server.url}/auth", json={"command": "login", "params": [key]}, timeout=30
    )


def test_a_removed_key_opens_nothing_from_the_next_call_on(guarded: Server) -> None:
    """Nor its sessions, nor what was made with it, in whichever worker: told by order, not by time."""
    for turn in range(5):
        boss = new_key(guarded, f"boss-{turn}", role="deployer")
        session = login(guarded, boss).json()["authorizationToken"]
        made = requests.post(
            f"{guarded.url}/management/api/keys",
            json={"name": f"child-{turn}", "role": "caller"},
            headers={"Authorization": f"Bearer {session}"},
            timeout=30,
        )
        child = made.json()["apiKey"]
        assert [call(guarded, key).status_code for key in (boss, child) * 4] == [200] * 8
        assert guarded.api("DELETE", f"keys/boss-{turn}").status_code == 200
        assert [call(guarded, key).status_code for key in (boss, child) * 8] == [401] * 16
        assert not any(check(guarded, key) for key in (boss, session, child) * 4)


def test_a_key_reaches_no_further_than_its_scope(guarded: Server) -> None:
    """Agents' gateway and management alike."""
    inside = new_key(guarded, "inside", scope=["localhost/app"])
    outside = new_key(guarded, "outside", scope=["other.example"])
    assert call(guarded, inside).json() == {"message": "Hello World"}
    assert call(guarded, outside).status_code == 403
    assert call(guarded, "pk_unknown").status_code == 401
    assert requests.post(f"{guarded.url}/app/hello", json=[], timeout=30).status_code == 401


def test_a_key_expires_in_every_worker(guarded: Server) -> None:
    """By itself; nobody has to remove it."""
    short = new_key(guarded, "short", expiresIn=1)
    until(lambda: call(guarded, short).status_code == 401, "the key has expired")
    assert [call(guarded, short).status_code for _ in range(8)] == [401] * 8


def test_logging_out_ends_the_session_in_every_worker(guarded: Server) -> None:
    """The cookie is out of scripts' reach, and Secure where a trusted proxy says https."""
    answer = login(guarded, guarded.key)
    token = answer.json()["authorizationToken"]
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie
    logout = requests.post(
        f"{guarded.url}/auth",
        json={"command": "logout"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    assert logout.status_code == 200
    assert not any(check(guarded, token) for _ in range(8))


def test_behind_a_tls_proxy_the_cookie_is_secure(own_server: Server) -> None:
    """Only a proxy that is trusted is believed."""
    environment = {"PLOINKY_TRUSTED_PROXIES": "127.0.0.1"}
    own_server.environment |= environment
    own_server.start()
    answer = requests.post(
        f"{own_server.url}/auth",
        json={"command": "login", "params": [own_server.key]},
        headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"},
        timeout=30,
    )
    assert answer.headers["Set-Cookie"].endswith("; Secure")
    fresh = requests.post(
        f"{own_server.url}/management/api/init",
        json={},
        headers={"X-Forwarded-For": "203.0.113.7"},
        timeout=30,
    )
    assert fresh.status_code == 409


def test_wrong_logins_slow_down_nobody_but_their_sender(guarded: Server) -> None:
    """They are told when to come back; calls with a key, from the same address even, go on."""
    key = new_key(guarded, "busy")
    began = time.monotonic()
    answers: list[requests.Response] = []
    guess = threading.Thread(
        target=lambda: answers.extend(login(guarded, f"pk_{number}") for number in range(60))
    )
    guess.start()
    served = [call(guarded, key).status_code for _ in range(30)]
    guess.join()
    assert served == [200] * 30
    statuses = [one.status_code for one in answers]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 11 + (time.monotonic() - began) / 6
    assert all(int(one.headers["Retry-After"]) > 0 for one in answers if one.status_code == 429)
    assert guarded.api("GET", "deployments").status_code == 200


def test_a_guesser_is_held_up_by_all_together_and_after_a_restart(own_server: Server) -> None:
    """Ten guesses, however many workers there are; each is on record once, without the key."""
    own_server.start()
    began = time.monotonic()
    answers: list[requests.Response] = []

    def guess_at_both() -> bool:
        answers.append(login(own_server, f"pk_needle-{len(answers)}"))
        held_up = {one.headers["X-Request-Id"][0] for one in answers if one.status_code == 429}
        # The next try is some seconds away: none is let in before what follows has been asked.
        long = int(answers[-1].headers.get("Retry-After", 0)) > 3
        return len(answers) >= 30 and len(held_up) == 2 and long

    until(guess_at_both, "both workers have refused")
    wrong = [one for one in answers if one.status_code == 401]
    assert {one.status_code for one in answers} == {401, 429}
    assert 10 <= len(wrong) <= 10 + (time.monotonic() - began) / 6
    assert login(own_server, own_server.key).status_code == 429

    def trail() -> list[dict[str, object]]:
        entries = own_server.api("GET", "audit?perPage=200").json()["entries"]
        return [entry for entry in entries if entry["action"] == "auth"]

    def recorded(code: str) -> int:
        return sum(entry["code"] == code for entry in trail())

    until(lambda: recorded("TOO_MANY_REQUESTS"), "that it was held up is on record")
    until(lambda: recorded("UNAUTHENTICATED") >= len(wrong), "all is on record")
    assert recorded("UNAUTHENTICATED") == len(wrong)
    assert recorded("TOO_MANY_REQUESTS") == 1
    assert "needle" not in json.dumps(trail())
    assert own_server.api("GET", "audit/verify").json()["intact"] is True

    own_server.stop()
    own_server.start()
    after = [login(own_server, "pk_wrong").status_code for _ in range(30)]
    allowed = len(wrong) + after.count(401)
    assert allowed <= 11 + (time.monotonic() - began) / 6
    assert 429 in after


def test_guesses_are_refused_while_the_leader_is_away(own_server: Server) -> None:
    """And are on record once there is one again."""
    own_server.start()
    own_server.kill_leader()
    began = time.monotonic()
    statuses = [login(own_server, f"pk_{number}").status_code for number in range(20)]
    assert statuses[:10] == [401] * 10
    assert statuses.count(401) <= 11 + (time.monotonic() - began) / 6
    own_server.start()

    def recorded() -> int:
        entries = own_server.api("GET", "audit?perPage=200").json()["entries"]
        return sum(entry["code"] == "UNAUTHENTICATED" for entry in entries)

    until(lambda: recorded() == statuses.count(401), "all is on record")


def test_leader_and_worker_refuse_a_guess_in_the_same_words(own_server: Server) -> None:
    """A login in chunks is the leader's to answer, any other the worker's."""
    own_server.start()
    body = json.dumps({"command": "login", "params": ["pk_wrong"]}).encode()

    def told(data: object) -> tuple[int, dict[str, str], dict[str, str]]:
        answer = requests.post(f"{own_server.url}/auth", data=data, timeout=30)  # type: ignore[arg-type]
        fields = {name.lower(): value for name, value in answer.headers.items()}
        document = answer.json()
        for name in ("date", "x-request-id", "content-length"):
            fields.pop(name, None)
        document.pop("requestId")
        seconds = fields.pop("retry-after", "0")
        document = {name: text.replace(f" {seconds} s", "") for name, text in document.items()}
        return answer.status_code, fields, document

    assert told(body) == told(iter([body]))

    def held_up() -> list[tuple[int, dict[str, str], dict[str, str]]]:
        both = [told(body), told(iter([body]))]  # between them it may be let in once more
        return both if {status for status, _, _ in both} == {429} else []

    worker, leader = until(held_up, "it is held up")
    assert worker == leader


def test_a_secret_is_in_no_list_log_or_file(guarded: Server) -> None:
    """The agent has it; nobody can read it back, not even from what the agent printed."""
    key = new_key(guarded, "reader")
    answer = requests.post(
        f"{guarded.url}/app/env", json=[], headers={"X-API-Key": key}, timeout=30
    )
    assert answer.json() == "needle-in-a-haystack"
    query = "domain=localhost&path=/app"
    for place in ("deployments", f"deployments/releases?{query}", f"deployments/logs?{query}",
                  "config", "audit", "logs?lines=10000"):  # fmt: skip
        said = guarded.api("GET", place)
        assert said.status_code == 200
        assert "needle" not in said.text, place
    data = guarded.directory / ".ploinky-cloud"
    files = [*data.glob("ploinky.sqlite*"), *(data / "logs").glob("*.jsonl")]
    assert all(b"needle-in" not in file.read_bytes() for file in files)


def test_the_trail_tells_what_was_done_and_shows_meddling(own_server: Server) -> None:
    """Verified by the server and without it."""
    own_server.start()
    own_server.p_cli("cloud", "host", "add", "a.example")
    own_server.p_cli("cloud", "host", "add", "not a name", check=False)
    entries = json.loads(own_server.p_cli("cloud", "audit", "list", "--json").stdout)["entries"]
    assert [(e["user"], e["action"], e["code"]) for e in entries[:2]] == [
        ("Admin", "domains.add", "VALIDATION_FAILED"),
        ("Admin", "domains.add", ""),
    ]
    assert "Intact" in own_server.p_cli("cloud", "audit", "verify").stdout
    own_server.stop()
    verify = ("cloud", "audit", "verify", "--offline")
    assert "Intact" in own_server.p_cli(*verify).stdout
    with sqlite3.connect(own_server.directory / ".ploinky-cloud" / "ploinky.sqlite") as other:
        other.execute("DROP TRIGGER audit_no_update")
        other.execute("UPDATE audit SET user = 'Mallory' WHERE number = 2")
    other.close()
    found = own_server.p_cli(*verify, check=False)
    assert found.returncode == 1
    assert "entry 2 is not what was written" in found.stderr


def test_a_server_starts_with_the_key_that_replaced_the_old_one(own_server: Server) -> None:
    """Keys, sessions and secrets all hold; while it runs the key is not replaced."""
    own_server.start()
    url = git_repository(own_server.directory / "code", {f"app/{n}": t for n, t in WHO.items()})
    assert own_server.deploy("/app", url, secrets={"S": "kept"}).status_code == 200
    refused = own_server.p_cli("cloud", "rotate-key", check=False)
    assert refused.returncode == 1
    assert "p-cli cloud stop" in refused.stderr
    own_server.stop()
    old = (own_server.directory / ".ploinky-cloud" / "master.key").read_bytes()
    assert "sealed anew" in own_server.p_cli("cloud", "rotate-key").stdout
    assert (own_server.directory / ".ploinky-cloud" / "master.key").read_bytes() != old
    own_server.start()
    again = own_server.api("POST", "deployments/restart", {"domain": "localhost", "path": "/app"})
    assert again.status_code == 200
    assert own_server.call("/app", "env").json() == "kept"


def test_a_push_deploys_what_was_pushed(guarded: Server, tmp_path: Path) -> None:
    """Signed as GitHub does; one that is not signed deploys nothing."""
    url = git_repository(tmp_path / "pushed", {f"app/{n}": t for n, t in PYTHON.items()})
    assert guarded.deploy("/pushed", url).status_code == 200
    made = guarded.p_cli("cloud", "deployments", "hook", "localhost", "/pushed", "--json")
    hook = json.loads(made.stdout)
    handler = "def handle(params, context):\n    return 'pushed'\n"
    git_repository(tmp_path / "pushed", {"app/handlers/hello.py": handler})
    body = b'{"ref": "refs/heads/main", "after": "0"}'
    digest = hmac.new(hook["secret"].encode(), body, hashlib.sha256).hexdigest()
    wrong = requests.post(hook["url"], data=body + b" ", timeout=30)
    assert wrong.status_code == 401
    fields = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": "push"}
    assert requests.post(hook["url"], data=body, headers=fields, timeout=30).status_code == 202
    until(lambda: guarded.call("/pushed", "hello").json() == "pushed", "the push is deployed")
