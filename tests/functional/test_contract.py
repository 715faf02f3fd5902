"""One contract on every runtime, over every wire, in every language."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
import requests

from tests.functional.agents import AGENTS
from tests.functional.conftest import Server, git_repository

SETTINGS = {
    "frames": {"transport": "http"},
    "http": {"transport": "http", "environment": {"PLOINKY_FRAMES": "off"}},
    "file": {"transport": "file"},
}
WIRES = list(SETTINGS)


@pytest.fixture(scope="module")
def agents(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The five agents of one repository, each deployed once for each wire."""
    place = tmp_path_factory.mktemp("agents")
    files = {f"{agent}/{name}": text for agent, fs in AGENTS.items() for name, text in fs.items()}
    url = git_repository(place / "repository", files)
    for agent in AGENTS:
        for wire in WIRES:
            settings = {"agent": agent, "timeout": 3, **SETTINGS[wire]}
            answer = server.deploy(f"/{agent}-{wire}", url, **settings)
            assert answer.status_code == 200, answer.text
    return server


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("agent", AGENTS)
class TestEveryAgent:
    """What a caller relies on, whatever is behind the path."""

    def test_returns_what_the_handler_returned(self, agents: Server, agent: str, wire: str) -> None:
        """A call's answer is the handler's result, as JSON, and nothing around it."""
        answer = agents.call(f"/{agent}-{wire}", "hello", "World")
        assert (answer.status_code, answer.json()) == (200, {"message": "Hello World"})
        assert answer.headers["X-Request-Id"]
        assert answer.headers["X-Ploinky-Command"] == "hello"

    def test_params_arrive_as_they_were_sent(self, agents: Server, agent: str, wire: str) -> None:
        """Quotes, blanks, shell syntax and other scripts survive every wire and every shell."""
        name = "$(id) `id` ; 'x' ünï 日本 \\n"
        answer = agents.call(f"/{agent}-{wire}", "hello", name.replace("\\n", ""))
        assert answer.json() == {"message": "Hello " + name.replace("\\n", "")}

    def test_a_failing_handler_is_an_error_with_its_words(
        self, agents: Server, agent: str, wire: str
    ) -> None:
        """What a handler throws reaches the caller in the error form, with the request's id."""
        answer = agents.call(f"/{agent}-{wire}", "throws")
        body = answer.json()
        assert answer.status_code == 500
        assert (body["error"], body["code"]) == (True, "HANDLER_FAILED")
        assert "the disk is on fire" in body["message"] + str(body.get("details"))
        assert body["requestId"] == answer.headers["X-Request-Id"]

    def test_command_names_are_never_paths(self, agents: Server, agent: str, wire: str) -> None:
        """A command that looks like a path is refused before an agent hears of it."""
        answer = agents.call(f"/{agent}-{wire}", "../../etc/passwd")
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_COMMAND")

    def test_a_body_that_is_not_json_is_refused(
        self, agents: Server, agent: str, wire: str
    ) -> None:
        """`{"command": "hello",}` is a 400 that says what is wrong with it."""

        answer = requests.post(agents.url + f"/{agent}-{wire}", data=b'{"command": "hello",}')
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_JSON")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("agent", ["node", "python", "shell"])
class TestHostileHandlers:
    """A handler that misbehaves costs its own call, and nothing else."""

    def test_an_unknown_command_lists_those_there_are(
        self, agents: Server, agent: str, wire: str
    ) -> None:
        """A typing error is answered with what could have been meant."""
        answer = agents.call(f"/{agent}-{wire}", "helo")
        assert (answer.status_code, answer.json()["code"]) == (404, "UNKNOWN_COMMAND")
        assert "hello" in answer.text

    def test_one_that_never_ends_is_aborted(self, agents: Server, agent: str, wire: str) -> None:
        """It gets 504 at its deadline, and the agent answers the next call."""
        started = time.monotonic()
        answer = agents.call(f"/{agent}-{wire}", "never")
        assert (answer.status_code, answer.json()["code"]) == (504, "TASK_TIMEOUT")
        assert time.monotonic() - started < 30
        assert agents.call(f"/{agent}-{wire}", "hello", "again").json() == {
            "message": "Hello again"
        }

    def test_one_that_exits_the_process_is_an_error(
        self, agents: Server, agent: str, wire: str
    ) -> None:
        """The call fails with a cause; the next one works."""
        answer = agents.call(f"/{agent}-{wire}", "exits")
        assert answer.status_code in (500, 502), answer.text
        assert answer.json()["code"] in ("HANDLER_FAILED", "AGENT_UNREACHABLE")
        assert agents.call(f"/{agent}-{wire}", "hello", "again").status_code == 200

    def test_one_that_prints_junk_does_no_harm(self, agents: Server, agent: str, wire: str) -> None:
        """Junk on standard output is a log line in-process, and a string from a script."""
        answer = agents.call(f"/{agent}-{wire}", "junk")
        assert answer.status_code == 200
        assert answer.json() == ("<<< junk" if agent == "shell" else {"ok": True})


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("agent", ["node", "python"])
def test_a_huge_result_is_refused_with_its_size(agents: Server, agent: str, wire: str) -> None:
    """50 MB come back as an error that names the limit, and the agent goes on."""
    answer = agents.call(f"/{agent}-{wire}", "huge")
    assert (answer.status_code, answer.json()["code"]) == (500, "HANDLER_FAILED")
    assert "16777216" in answer.text or "16 MiB" in answer.text
    assert agents.call(f"/{agent}-{wire}", "hello", "again").status_code == 200


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("agent", ["node", "python"])
class TestStreamingHandlers:
    """A handler that gives one item after the other."""

    def test_a_plain_call_gets_an_array(self, agents: Server, agent: str, wire: str) -> None:
        """Whole, however many there are."""
        answer = agents.call(f"/{agent}-{wire}", "count", 5000)
        assert (answer.status_code, answer.json()) == (200, list(range(5000)))
        assert answer.headers["Content-Type"] == "application/json"

    def test_a_subscription_gets_events(self, agents: Server, agent: str, wire: str) -> None:
        """One an item; one for all where the wire is files."""
        url = f"{agents.url}/{agent}-{wire}/subscribe?command=count&params=[3]"
        answer = requests.get(url, timeout=30)
        assert answer.headers["Content-Type"] == "text/event-stream"
        data = "[0,1,2]" if wire == "file" else "0\n\ndata: 1\n\ndata: 2"
        assert answer.text == f"data: {data}\n\nevent: end\ndata: null\n\n"

    def test_any_command_can_be_subscribed_to(self, agents: Server, agent: str, wire: str) -> None:
        """One result is one event; what fails at once is an ordinary error."""
        url = f"{agents.url}/{agent}-{wire}/subscribe"
        answer = requests.get(url, {"command": "hello", "name": "A"}, timeout=30)
        assert answer.text.startswith('data: {"message":"Hello A"}\n\nevent: end\n')
        answer = requests.get(url, {"command": "throws"}, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (500, "HANDLER_FAILED")


@pytest.mark.parametrize("wire", ["frames", "http"])
@pytest.mark.parametrize("agent", ["node", "python"])
class TestEventsAsTheyCome:
    """On the wires that pass items on."""

    def test_an_endless_one_ends_with_its_reader(
        self, agents: Server, agent: str, wire: str
    ) -> None:
        """Events come past the route's timeout; when the client leaves, the iterator is ended."""
        path = f"/{agent}-{wire}"
        before = agents.call(path, "left").json()
        url = f"{agents.url}{path}/subscribe?command=tick"
        began = time.monotonic()
        with requests.get(url, stream=True, timeout=30) as answer:
            numbers = [
                int(line.removeprefix("data: "))
                for line in itertools.islice(answer.iter_lines(1, True), 2 * 200)
                if line
            ]
        assert numbers == list(range(200))
        assert time.monotonic() - began > 3  # the timeout of these agents
        give_up_at = time.monotonic() + 10
        while agents.call(path, "left").json() == before:
            assert time.monotonic() < give_up_at, "the iterator was not ended"

    def test_half_an_array_is_not_taken_for_all(
        self, agents: Server, agent: str, wire: str
    ) -> None:
        """The connection is cut off; a reader of events is told why."""
        with pytest.raises(requests.exceptions.RequestException):
            agents.call(f"/{agent}-{wire}", "halfway")
        url = f"{agents.url}/{agent}-{wire}/subscribe?command=halfway"
        text = requests.get(url, timeout=30).text
        assert text.startswith("data: 1\n\nevent: error\ndata: {")
        assert "the disk is on fire" in text


@pytest.mark.parametrize("agent", ["node", "python"])
def test_the_caller_is_known_to_the_handler(agents: Server, agent: str) -> None:
    """Nobody is `InternetUser`, and cannot claim to be somebody else."""

    answer = requests.post(
        agents.url + f"/{agent}-http",
        json={"command": "who"},
        headers={"X-Ploinky-User": "Admin"},
        timeout=10,
    )
    assert answer.json() == {"user": "InternetUser"}


def test_other_ways_to_call(agents: Server) -> None:
    """The command in the path, with an array, one value, or query values as params."""

    hello = agents.url + "/node-http/hello"
    assert requests.post(hello, json=["A"], timeout=10).json() == {"message": "Hello A"}
    assert requests.post(hello, json="B", timeout=10).json() == {"message": "Hello B"}
    assert requests.get(hello, params={"name": "C"}, timeout=10).json() == {"message": "Hello C"}


def test_nothing_is_deployed_there(agents: Server, tmp_path: Path) -> None:
    """An unknown path says so in the error form."""
    answer = agents.call("/nowhere", "hello")
    assert (answer.status_code, answer.json()["code"]) == (404, "NO_SUCH_ROUTE")
