"""Every command of the product's guide, as it is printed there."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

from tests.functional.agents import PYTHON
from tests.functional.conftest import Server, git_repository

AGENTS = ("demo", "my-agent", "my-app", "my-api", "my-service", "api-service", "admin-panel")


def test_the_guide_holds(own_server: Server, tmp_path: Path) -> None:
    """In its order; a local repository stands for its URLs, another port for its own."""
    files = {f"{agent}/{name}": text for agent in AGENTS for name, text in PYTHON.items()}
    url = git_repository(tmp_path / "PloinkyDemo.git", files)
    for branch in ("develop", "production"):
        subprocess.run(["git", "-C", url.removeprefix("file://"), "branch", branch], check=True)
    stands_for = {
        "https://github.com/PloinkyRepos/PloinkyDemo.git": url,
        "https://github.com/user/repo.git": url,
    }

    def types(line: str, status: int = 0, **environment: str) -> str:
        for printed, here in stands_for.items():
            line = line.replace(printed, here)
        program, *words = shlex.split(line)
        assert program == "p-cli"
        done = own_server.p_cli(*words, check=False, **environment)
        assert done.returncode == status, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout if status == 0 else done.stderr

    # Quick start
    started = types("p-cli cloud start", PORT="0", CONTAINER_RUNTIME="process")
    own_server.url = types("p-cli cloud url").strip()
    stands_for["http://localhost:8000"] = own_server.url
    assert f"Server:    {own_server.url}" in started
    assert f"Dashboard: {own_server.url}/management" in started
    assert f"Logs:      {own_server.directory}/.ploinky-cloud/logs" in started
    said = types("p-cli cloud init", PLOINKY_URL=own_server.url)
    own_server.key = said.splitlines()[0].split()[-1]
    stands_for["<API_KEY>"] = own_server.key
    types("p-cli cloud connect http://localhost:8000")
    types("p-cli cloud login <API_KEY>")
    types("p-cli cloud repo add PloinkyDemo https://github.com/PloinkyRepos/PloinkyDemo.git")
    types("p-cli cloud deploy localhost /demo demo")
    answer = types("p-cli cloud call /demo hello World")
    assert answer == '{"message": "Hello World"}\n'

    # Advanced configuration, in the order in which it can work
    types("p-cli cloud host add api.example.com")
    types("p-cli cloud host add admin.example.com")
    document = {
        "domain": "api.example.com",
        "path": "/v1",
        "agent": "my-service",
        "repository": url,
        "branch": "production",
        "image": "node:18",
        "environment": {"NODE_ENV": "production", "API_KEY": "secret"},
    }
    (own_server.directory / "deployment.json").write_text(json.dumps(document))
    types("p-cli cloud deploy --config deployment.json")
    types("p-cli cloud deploy localhost /api my-agent --image my-org/my-image:latest")

    # Git integration
    types("p-cli cloud repo add MyRepo https://github.com/user/repo.git")
    assert {"MyRepo", "PloinkyDemo"} <= set(types("p-cli cloud repo list").split())
    types("p-cli cloud repo remove MyRepo")
    types("p-cli cloud deploy localhost /prod my-app --branch main")
    types("p-cli cloud deploy localhost /dev my-app --branch develop")

    # Monitoring
    assert "localhost/dev" in types("p-cli cloud health")
    assert "1 in 24h" in types("p-cli cloud metrics 24h")
    assert "localhost/demo serves release 1" in types("p-cli cloud logs 500")
    assert "2024-01-15" in types("p-cli cloud logs download 2024-01-15", status=1)
    today = types("p-cli cloud logs list").split()[0]
    assert types(f"p-cli cloud logs download {today}").strip() == f"server-{today}.jsonl.gz"

    # Troubleshooting
    assert "runs on" in types("p-cli cloud start", status=1, PORT="8080")
    assert "Already initialized" in types("p-cli cloud init", status=1)
    assert (
        "debug: POST"
        in own_server.p_cli("cloud", "deploy", "localhost", "/api", "demo", DEBUG="1").stderr
    )
    (own_server.directory / ".ploinky/cloud.json").unlink()
    types("p-cli cloud connect http://localhost:8000")
    assert "p-cli cloud login" in types("p-cli cloud deployments", status=3)
    types("p-cli cloud login <API_KEY>")

    # Migration, and several domains
    types("p-cli cloud deploy localhost /api my-api --image node:18")
    types("p-cli cloud deploy localhost /app my-app --image my-app:latest")
    types("p-cli cloud deploy api.example.com /v1 api-service")
    types("p-cli cloud deploy admin.example.com / admin-panel")
    assert json.loads(types("p-cli cloud call api.example.com/v1 hello you")) == {
        "message": "Hello you"
    }
    assert json.loads(types("p-cli cloud call admin.example.com/ hello you")) == {
        "message": "Hello you"
    }
    types("p-cli cloud destroy --yes")  # what is deployed would outlive the server
    types("p-cli cloud stop")
    assert "no server runs" in types("p-cli cloud stop", status=1)
