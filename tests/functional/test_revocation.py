"""A key is taken back while it is in use, and wrong ones are tried meanwhile: by order, not by time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import requests
from attrs import Factory, define
from urllib3.exceptions import HTTPError, ReadTimeoutError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websocket

from tests.functional.agents import PYTHON
from tests.functional.conftest import Server, git_repository, until

HELLO = {"command": "hello", "params": ["World"]}


def echo(connection: ServerConnection) -> None:
    """Say everything back."""
    for message in connection:
        connection.send(message)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers; an agent at /app and a WebSocket at /ws, which take calls with a key alone."""
    server = Server(tmp_path_factory.mktemp("closed"), "process")
    with serve_websocket(echo, "127.0.0.1", 0) as sockets:
        threading.Thread(target=sockets.serve_forever, daemon=True).start()
        try:
            server.start()
            url = git_repository(
                server.directory / "code", {f"app/{n}": t for n, t in PYTHON.items()}
            )
            assert server.deploy("/app", url, auth="key").status_code == 200
            body = {"domain": "localhost", "path": "/ws", "agent": "there", "auth": "key"}
            target = f"http://127.0.0.1:{sockets.socket.getsockname()[1]}"
            answer = server.api("POST", "deployments", {**body, "target": target})
            assert answer.status_code == 200, answer.text
            yield server
        finally:
            server.destroy()


def new_key(server: Server, name: str, role: str = "caller") -> str:
    """Make a key."""
    answer = server.api("POST", "keys", {"name": name, "role": role})
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["apiKey"]
    return token


def ask(session: requests.Session, server: Server) -> requests.Response:
    """Call the agent on a connection that stays."""
    return session.post(f"{server.url}/app", json=HELLO, timeout=30)


def worker_of(answer: requests.Response) -> str:
    """Say which worker answered: an id begins with its slot."""
    return answer.headers["X-Request-Id"][0]


def to_each_worker(server: Server, key: str, stack: ExitStack) -> dict[str, requests.Session]:
    """Give an open connection to each worker, by its slot, with this key in each request."""
    found: dict[str, requests.Session] = {}

    def another() -> bool:
        session = stack.enter_context(requests.Session())
        session.headers["Authorization"] = f"Bearer {key}"
        answer = ask(session, server)
        assert answer.status_code == 200
        found.setdefault(worker_of(answer), session)
        return len(found) == server.workers

    until(another, "there is a connection to each worker")
    return found


@define
class Calls:
    """What came of calls, one after the other on one connection.

    Attributes:
        begun: When each was begun.
        statuses: What it was answered.
        workers: Who let one through.
    """

    begun: list[float] = Factory(list)
    statuses: list[int] = Factory(list)
    workers: set[str] = Factory(set)

    def go_on(self, server: Server, session: requests.Session, enough: threading.Event) -> None:
        """Call until somebody has enough."""
        while not enough.is_set():
            self.begun.append(time.monotonic())
            answer = ask(session, server)
            self.statuses.append(answer.status_code)
            if answer.ok:  # a refusal may close the connection, and the next goes anywhere
                self.workers.add(worker_of(answer))


def test_once_a_removal_is_answered_no_call_gets_through(closed: Server) -> None:
    """On connections that were open to both workers all along, in the midst of calls."""
    key = new_key(closed, "in-use")
    enough = threading.Event()
    with ExitStack() as stack:
        sessions = to_each_worker(closed, key, stack)
        calls = {slot: Calls() for slot in sessions}
        threads = [
            threading.Thread(target=calls[slot].go_on, args=(closed, session, enough))
            for slot, session in sessions.items()
        ]
        for thread in threads:
            thread.start()
        until(lambda: all(len(one.statuses) > 20 for one in calls.values()), "both are in use")
        assert closed.api("DELETE", "keys/in-use").status_code == 200
        gone_at = time.monotonic()
        until(lambda: all(one.begun[-1] > gone_at for one in calls.values()), "both were asked")
        enough.set()
        for thread in threads:
            thread.join()
        for slot, one in calls.items():
            assert one.workers == {slot}
            before = [s for s, at in zip(one.statuses, one.begun, strict=True) if at < gone_at]
            after = one.statuses[len(before) :]
            assert set(before) <= {200, 401}
            assert after
            assert set(after) == {401}
        # In the same way for whoever asks anew.
        assert [ask(session, closed).status_code for session in sessions.values()] == [401] * 2


def test_what_a_key_had_opened_ends_with_it(closed: Server) -> None:
    """Events, a log, a subscription, a WebSocket, in whichever worker; others' go on."""
    keys = {name: new_key(closed, name, "deployer") for name in ("leaked", "good")}
    places = {
        "events": "/management/api/events",
        "log": "/management/api/logs?follow=1&lines=1",
        "subscription": "/app/subscribe?command=tick",
    }
    with ExitStack() as stack:

        def listen(key: str, path: str) -> Callable[[], bytes]:
            fields = {"Authorization": f"Bearer {key}"}
            answer = stack.enter_context(
                requests.get(closed.url + path, headers=fields, stream=True, timeout=20)
            )
            assert answer.status_code == 200
            return lambda: answer.raw.read1(1000)

        def socket(key: str) -> ClientConnection:
            url = closed.url.replace("http:", "ws:") + "/ws"
            fields = {"Authorization": f"Bearer {key}"}
            return stack.enter_context(connect_websocket(url, additional_headers=fields))

        heard = {
            (name, what): listen(key, path)
            for name, key in keys.items()
            for what, path in places.items()
        }
        sockets = {name: [socket(key) for _ in range(4)] for name, key in keys.items()}
        for read in heard.values():
            assert read()
        assert closed.api("DELETE", "keys/leaked").status_code == 200
        for what in places:
            assert _ends(heard["leaked", what]), what
        for each in sockets["leaked"]:
            with pytest.raises(ConnectionClosed):
                each.recv(timeout=20)
        for each in sockets["good"]:
            each.send("still here")
            assert each.recv(timeout=20) == "still here"
        for what in ("events", "subscription"):
            assert heard["good", what]()


def _ends(read: Callable[[], bytes]) -> bool:
    """Read to its end, in order or cut off; False where it goes on."""
    deadline = time.monotonic() + 20
    try:
        while read():
            if time.monotonic() > deadline:
                return False
    except ReadTimeoutError:
        return False
    except HTTPError:
        pass
    return True


def test_every_worker_keeps_to_the_same_rules(closed: Server) -> None:
    """The server's own routes, asked on a connection to each: by nobody, a caller, a reader, an admin."""
    who = {
        "nobody": "",
        "caller": new_key(closed, "rules-caller"),
        "viewer": new_key(closed, "rules-viewer", "viewer"),
        "admin": closed.key,
    }
    expected = {
        ("GET", "/management"): (200, 200, 200, 200),
        ("GET", "/management/api/health"): (200, 200, 200, 200),
        ("GET", "/management/api/deployments"): (401, 403, 200, 200),
        ("GET", "/management/api/audit"): (401, 403, 403, 200),
        ("POST", "/management/api/init"): (409, 409, 409, 409),
        ("PUT", "/management/api/deployments"): (405, 405, 405, 405),
        ("GET", "/management/api/nothing"): (404, 404, 404, 404),
        ("GET", "/_ploinky/tasks/t-1"): (404, 404, 404, 404),
        # Loopback may read figures; whoever comes through a proxy is not taken for that.
        ("GET", "/metrics"): (401, 403, 403, 200),
        # What workers ask the leader themselves is on no route, also in what may read as one.
        ("POST", "/internal/tasks"): (404, 404, 404, 404),
        ("POST", "/management/../internal/tasks"): (400, 400, 400, 400),
        ("POST", "/management/%2e%2e/internal/tasks"): (400, 400, 400, 400),
        ("POST", "/management//internal/tasks"): (404, 404, 404, 404),
    }
    forged = {"X-Ploinky-User": "Admin", "X-Ploinky-Task": "t-1", "X-Ploinky-Wait": "0"}
    with ExitStack() as stack:
        workers = to_each_worker(closed, closed.key, stack)
        for session in workers.values():
            for (method, path), statuses in expected.items():
                found = []
                for key in who.values():
                    fields = {**forged, "Via": "1.1 proxy", "Authorization": f"Bearer {key}"}
                    asked = requests.Request(method, closed.url, headers=fields, json={}).prepare()
                    asked.url = closed.url + path  # as it is, dots and all
                    found.append(session.send(asked, timeout=30).status_code)
                assert tuple(found) == statuses, (method, path)


def test_a_session_ends_with_its_key_on_open_connections(closed: Server) -> None:
    """And a key that was made with the key, on both workers."""
    boss = new_key(closed, "boss", "deployer")
    made = requests.post(
        f"{closed.url}/management/api/keys",
        json={"name": "child", "role": "caller"},
        headers={"X-API-Key": boss},
        timeout=30,
    )
    login = {"command": "login", "params": [boss]}
    session = requests.post(f"{closed.url}/auth", json=login, timeout=30).json()
    with ExitStack() as stack:
        children = to_each_worker(closed, made.json()["apiKey"], stack)
        assert closed.api("DELETE", "keys/boss").status_code == 200
        assert [ask(each, closed).status_code for each in children.values()] == [401] * 2
    fields = {"Authorization": f"Bearer {session['authorizationToken']}"}
    listed = requests.get(f"{closed.url}/management/api/keys", headers=fields, timeout=30)
    assert listed.status_code == 401


def test_a_guesser_is_held_up_and_nobody_else(closed: Server) -> None:
    """Behind a proxy or not: others log in, hundreds of calls go on, and the guesser is told when.

    The address of a guesser is what a trusted proxy says; here all come from one, and the one
    that guesses does not keep the keys of others from working.
    """
    key = new_key(closed, "working")
    enough, guesses = threading.Event(), Calls()
    began = time.monotonic()

    def guess() -> None:
        with requests.Session() as session:
            number = 0
            while not enough.is_set():
                number += 1
                login = {"command": "login", "params": [f"pk_{number:043}"]}
                answer = session.post(f"{closed.url}/auth", json=login, timeout=30)
                guesses.statuses.append(answer.status_code)
                if answer.status_code == 429:
                    assert int(answer.headers["Retry-After"]) > 0

    guessers = [threading.Thread(target=guess) for _ in range(2)]
    for guesser in guessers:
        guesser.start()
    try:
        with ExitStack() as stack:
            sessions = to_each_worker(closed, key, stack)
            until(lambda: 429 in guesses.statuses, "the guesser is held up")
            for _ in range(100):
                assert [ask(each, closed).status_code for each in sessions.values()] == [200] * 2
            assert closed.api("GET", "deployments").status_code == 200
            assert closed.api("POST", "domains", {"name": "new.example"}).status_code == 200
        until(lambda: len(guesses.statuses) > 50, "the guesser goes on")
    finally:
        enough.set()
        for guesser in guessers:
            guesser.join()
    assert set(guesses.statuses) <= {401, 429}
    guessed = guesses.statuses.count(401)
    assert guessed <= 11 + (time.monotonic() - began) / 6
    trail = closed.api("GET", "audit?perPage=200").json()["entries"]
    assert sum(entry["action"] == "auth" for entry in trail) <= guessed + 5


def test_a_guesser_elsewhere_does_not_keep_anybody_from_logging_in(own_server: Server) -> None:
    """Told apart by what the proxy says, which is believed as far as it is trusted."""
    own_server.environment |= {"PLOINKY_TRUSTED_PROXIES": "127.0.0.1"}
    own_server.start()

    def login(key: str, address: str) -> int:
        body = {"command": "login", "params": [key]}
        fields = {"X-Forwarded-For": f"198.51.100.1, {address}"}
        return requests.post(
            f"{own_server.url}/auth", json=body, headers=fields, timeout=30
        ).status_code

    assert {login(f"pk_{number}", "203.0.113.9") for number in range(15)} == {401, 429}
    assert login(own_server.key, "203.0.113.9") == 429
    assert login(own_server.key, "203.0.113.10") == 200
