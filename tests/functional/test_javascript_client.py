"""`web/client.js` in Node, against a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import Server, git_repository

pytestmark = pytest.mark.program("node")

CLIENT = Path(__file__).parents[2] / "web/client.js"

AGENT = {
    "app/manifest.json": '{"engine": "node"}',
    "app/handlers/hello.js": """
module.exports = ([name]) => { console.log('greets', name); return { message: `Hello ${name}` }; };
""",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the agent at /app."""
    server = Server(tmp_path_factory.mktemp("server"), "process")
    try:
        server.start()
        url = git_repository(tmp_path_factory.mktemp("repository") / "agents", AGENT)
        assert server.deploy("/app", url).status_code == 200
        yield server
    finally:
        server.destroy()


def run(server: Server, script: str) -> Any:
    """Run a script that has `cloud` and gives what it tells; the key is in no argv."""
    whole = f"""
        import {{ Ploinky, PloinkyError }} from {json.dumps(CLIENT.as_uri())};
        const {{ url, key }} = JSON.parse((await import('node:fs')).readFileSync(0, 'utf8'));
        const cloud = new Ploinky({{ url, key }});
        const told = await (async () => {{ {script} }})();
        console.log(JSON.stringify(told));
    """
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", whole],
        input=json.dumps({"url": server.url, "key": server.key}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_agent_is_called(served: Server) -> None:
    """Its result as a value."""
    assert run(served, "return cloud.call('/app', 'hello', ['World']);") == {
        "message": "Hello World"
    }


def test_a_refusal_says_what_and_why(served: Server) -> None:
    """The agent's, the API's, and that of a server that is not there."""
    found = run(
        served,
        """
        const refused = (asked) => asked.then(() => null, (error) =>
            [error instanceof PloinkyError, error.code, error.status, error.message, error.requestId !== '']);
        return [
            await refused(cloud.call('/app', 'nothing')),
            await refused(cloud.get('deployments/nowhere.example/%2F')),
            await refused(new Ploinky({ url, key: 'pk_wrong' }).get('deployments')),
            await refused(new Ploinky({ url: 'http://127.0.0.1:1' }).get('health')),
        ];
        """,
    )
    assert [each[:3] for each in found] == [
        [True, "UNKNOWN_COMMAND", 404],
        [True, "NOT_FOUND", 404],
        [True, "UNAUTHENTICATED", 401],
        [True, "UNREACHABLE", 0],
    ]
    assert "There is no command nothing" in found[0][3]
    assert [each[4] for each in found] == [True, True, True, False]


def test_lists_are_whole(served: Server) -> None:
    """However many pages they have."""
    for number in range(3):
        answer = served.api("POST", "domains", {"name": f"{number}.example"})
        assert answer.status_code == 200, answer.text
    names = run(served, "return (await cloud.all('domains')).map((each) => each.name);")
    assert sorted(names) == ["0.example", "1.example", "2.example", "localhost"]


def test_a_change_can_be_refused_if_somebody_was_faster(served: Server) -> None:
    """By the revision that was seen."""
    found = run(
        served,
        """
        const where = 'deployments/localhost/%2Fapp';
        const key = { domain: 'localhost', path: '/app' };
        const { revision } = await cloud.get(where);
        await cloud.post('deployments/update', { ...key, timeout: 5 }, { revision });
        return cloud.post('deployments/update', { ...key, timeout: 6 }, { revision })
            .then(() => 'changed', (error) => error.status);
        """,
    )
    assert found == 412


def test_output_is_followed_until_nobody_listens(served: Server) -> None:
    """Piece by piece, as it is printed."""
    found = run(
        served,
        """
        const ending = new AbortController();
        const query = { domain: 'localhost', path: '/app', follow: 1 };
        let text = '';
        await cloud.call('/app', 'hello', ['one']);
        for await (const piece of cloud.text('deployments/logs', query, { signal: ending.signal })) {
            text += piece;
            if (text.includes('greets one') && !text.includes('greets two')) await cloud.call('/app', 'hello', ['two']);
            if (text.includes('greets two')) ending.abort();
        }
        return text;
        """,
    )
    assert found.index("greets one") < found.index("greets two")
