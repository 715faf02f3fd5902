"""The example agents do what they say."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agentcore.conftest import require
from tests.agentcore.running import ENGINES, ROOT, Agent, Client

EXAMPLES = ROOT / "examples" / "agents"


@pytest.fixture
def example(request: pytest.FixtureRequest) -> Callable[[str, str], Client]:
    """Starts an example on an engine."""

    def start(name: str, engine: str) -> Client:
        require(engine)
        agent = Agent(ENGINES[engine], EXAMPLES / name)
        request.addfinalizer(agent.close)
        return agent.start().client("file")

    return start


@pytest.mark.parametrize(
    ("name", "engines"),
    [
        ("demo", ["node", "python"]),
        ("python-demo", ["python"]),
        ("shell-demo", list(ENGINES)),
        ("commands-demo", list(ENGINES)),
        ("runtask-demo", list(ENGINES)),
    ],
)
def test_every_example_greets(
    example: Callable[[str, str], Client], name: str, engines: list[str]
) -> None:
    """On every engine that can run it."""
    for engine in engines:
        assert example(name, engine).call("hello", "World").body == {"message": "Hello World"}


@pytest.mark.parametrize("engine", ["node", "python"])
def test_demo_counts_down(example: Callable[[str, str], Client], engine: str) -> None:
    """In one array over files, in events elsewhere."""
    client = example("demo", engine)
    items = [{"left": left} for left in (2, 1, 0)]
    assert client.call("countdown", 2, 0.01).body == items
    events = client.agent.client("frames").call("countdown", 2, 0.01, to_events=True).body
    assert events == [("message", item) for item in items] + [("end", None)]


def test_every_example_says_what_it_shows() -> None:
    """In one line of its manifest."""
    manifests = sorted(EXAMPLES.glob("*/manifest.json"))
    assert len(manifests) == 6
    for manifest in manifests:
        assert json.loads(manifest.read_text())["about"]


def test_the_demo_takes_uploads(example: Callable[[str, str], Client], tmp_path: Path) -> None:
    """On both of its engines."""
    (tmp_path / "file-1").write_bytes(b"abc")
    upload = {"path": str(tmp_path / "file-1"), "name": "a.txt", "size": 3, "metadata": {"a": 1}}
    for engine in ("node", "python"):
        assert example("demo", engine).call("upload", upload).body == {
            "name": "a.txt",
            "size": 3,
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "metadata": {"a": 1},
        }


def test_python_example_explains_its_errors(example: Callable[[str, str], Client]) -> None:
    """With a code and a status of its own."""
    client = example("python-demo", "python")
    assert client.call("mean", 1, 2, 6).body == {"mean": 3, "count": 3}
    answer = client.call("mean", "x")
    assert (answer.status, answer.code) == (422, "NOT_NUMBERS")
    assert client.call("wait", 0.01).body == {"waited": 0.01}


def test_shell_examples_do_more_than_greet(example: Callable[[str, str], Client]) -> None:
    """Numbers, strings, errors."""
    client = example("shell-demo", "dash")
    assert client.call("lines", "a\nb\nc").body == 3
    with tempfile.NamedTemporaryFile() as file:
        assert client.call("check", file.name).body == f"{file.name} is there"
    missing = str(Path(file.name))
    assert client.call("check", missing).message.endswith(f"{missing}: no such file")
    assert example("runtask-demo", "dash").call("count", "a", "b").body == 2
    assert example("runtask-demo", "dash").call("other").status == 500
    assert example("commands-demo", "dash").call("task", 1).body["params"] == [1]
