"""Files of Compose and Kubernetes on real engines, and batches of what comes after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import requests

from tests.conftest import engine_url
from tests.functional.agents import PYTHON
from tests.functional.conftest import Server, git_repository

SAYS = (
    "import http.server as h, os; H = h.BaseHTTPRequestHandler;"
    " H.do_GET = lambda s: (s.send_response(200 if s.path == '/ready' else 203), s.end_headers(),"
    " s.wfile.write(repr([os.environ.get(n) for n in ('GREETING', 'TOKEN', 'ON')]).encode()));"
    " h.HTTPServer(('', 8000), H).serve_forever()"
)
COMPOSE = f"""\
name: shop
services:
  web:
    image: python:3.12-alpine
    command: >-
      python -c "{SAYS}"
    ports: ["80:8000"]
    environment: {{GREETING: "${{HELLO:-Good day}}", ON: on}}
    depends_on: [files]
    healthcheck: {{test: ["CMD", "wget", "-q", "http://localhost:8000/ready"], interval: 5s}}
    deploy: {{replicas: 2, resources: {{limits: {{memory: 128M, pids: 64}}}}}}
  files:
    image: busybox
    entrypoint: [sh, -c]
    command: ["echo kept >> /data/index.html; exec httpd -f -p 80 -h /data"]
    expose: [80]
    volumes: [data:/data]
  cache: {{image: redis:7}}
volumes: {{data: }}
"""
KUBERNETES = f"""\
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
stringData: {{token: t0ps3cret-token}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: hello}}
spec:
  template:
    metadata: {{labels: {{app: hello}}}}
    spec:
      containers:
      - name: server
        image: python:3.12-alpine
        command: [python, -c]
        args: ["{SAYS}"]
        env: [{{name: TOKEN, valueFrom: {{secretKeyRef: {{name: keys, key: token}}}}}}]
        ports: [{{name: http, containerPort: 8000}}]
        readinessProbe: {{httpGet: {{path: /ready, port: http}}, periodSeconds: 5}}
        resources: {{limits: {{cpu: 500m, memory: 128Mi}}}}
        securityContext: {{runAsUser: 1000, capabilities: {{drop: [ALL]}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: hello}}
spec: {{selector: {{app: hello}}, ports: [{{port: 80, targetPort: http}}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: hello, annotations: {{nginx.ingress.kubernetes.io/rewrite-target: /$2}}}}
spec:
  rules:
  - http:
      paths: [{{path: /greet(/|$)(.*), backend: {{service: {{name: hello, port: {{number: 80}}}}}}}}]
"""


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.engine("docker")),
        pytest.param("podman", marks=pytest.mark.engine("podman")),
    ]
)
def on_engine(request: pytest.FixtureRequest, own_server: Server) -> Iterator[Server]:
    """A server on a container engine; its volumes, which outlive all else, go with it."""
    own_server.runtime = request.param
    own_server.start()
    yield own_server
    cluster = (own_server.directory / ".ploinky-cloud/cluster-id").read_text().strip()
    own_server.destroy()
    engine = docker.APIClient(engine_url(request.param))
    for volume in engine.volumes({"label": f"ploinky.cluster={cluster}"})["Volumes"] or ():
        engine.remove_volume(volume["Name"])
    engine.close()


def test_a_compose_file_serves(on_engine: Server) -> None:
    """With its variables, limits, health and volumes; again is a redeploy, and loses nothing."""
    (on_engine.directory / "compose.yml").write_text(COMPOSE)
    said = on_engine.p_cli("cloud", "import", "compose.yml", "web=/shop").stdout
    assert "2 of 3 can be deployed" in said
    assert "Redis' protocol" in said
    answer = requests.get(f"{on_engine.url}/shop/x", timeout=10)
    assert (answer.status_code, answer.text) == (203, "['Good day', None, 'on']")
    assert requests.get(f"{on_engine.url}/files/index.html", timeout=10).text == "kept\n"
    again = on_engine.p_cli("cloud", "import", "compose.yml", "web=/shop", HELLO="Again")
    assert "localhost/shop serves release 2" in again.stdout
    assert requests.get(f"{on_engine.url}/shop", timeout=10).text == "['Again', None, 'on']"
    assert requests.get(f"{on_engine.url}/files/index.html", timeout=10).text == "kept\nkept\n"
    shown = json.loads(on_engine.p_cli("cloud", "deployments", "--json").stdout)["deployments"]
    assert {one["path"]: one["status"] for one in shown} == {
        "/shop": "running",
        "/files": "running",
    }


def test_a_kubernetes_file_serves(on_engine: Server) -> None:
    """At its Ingress's path, taken off; a secret gets there and shows nowhere on its way."""
    (on_engine.directory / "k8s.yaml").write_text(KUBERNETES)
    done = on_engine.p_cli("cloud", "import", "k8s.yaml")
    assert "localhost/greet serves release 1 of hello." in done.stdout
    answer = requests.get(f"{on_engine.url}/greet/x", timeout=10)
    assert answer.text == "[None, 't0ps3cret-token', None]"
    shown = on_engine.p_cli("cloud", "deployments", "show", "localhost", "/greet", "--json")
    assert "t0ps3cret" not in done.stdout + done.stderr + shown.stdout


def test_a_batch_from_deploy_to_undeploy(own_server: Server, tmp_path: Path) -> None:
    """Lines depend on those before; the calls' results are lines of output."""
    own_server.start()
    url = git_repository(tmp_path / "agents", PYTHON)
    (own_server.directory / "commands").write_text(
        f"repo add mine {url}\n"
        "deploy localhost /x x --repository mine   # the only agent there\n"
        "call /x hello you\n"
        "scale localhost /x 2\n"
    )
    done = own_server.p_cli("cloud", "batch", "commands")
    assert '{"message": "Hello you"}' in done.stdout
    assert "4 of 4 done." in done.stderr
    calls = [{"agent": "/x", "command": "hello", "params": [n]} for n in ("a", "b")]
    calls.append({"undeploy": {"domain": "localhost", "path": "/x"}})
    calls.append(calls[0])
    done = own_server.p_cli("cloud", "batch", "-", stdin=json.dumps(calls), check=False)
    assert done.stdout == '{"message": "Hello a"}\n{"message": "Hello b"}\nDone.\n'
    assert done.returncode == 1
    assert "NO_SUCH_ROUTE" in done.stderr


def test_a_configuration_that_is_wrong_is_not_sent(own_server: Server) -> None:
    """Every mistake with its line; and once it is right, options win over it."""
    own_server.start()
    config = own_server.directory / "deployment.yml"
    config.write_text("domain: localhost\npath: /x\nagent: x\nreplicas: lots\nfoo: 1\n")
    done = own_server.p_cli("cloud", "deploy", "--config", "deployment.yml", check=False)
    assert done.returncode == 5
    assert "deployment.yml:4: replicas: expected a whole number" in done.stderr
    assert "deployment.yml:5: foo: there is no such field" in done.stderr
    config.write_text(
        "domain: localhost\npath: /x\nagent: x\nkind: service\nimage: unused\n"
        "command: [python3, -c, 'import http.server as h, os; h.test(h.SimpleHTTPRequestHandler,"
        ' port=int(os.environ["PORT"]), bind="127.0.0.1")\']\n'
    )
    done = own_server.p_cli("cloud", "deploy", "localhost", "/y", "--config", "deployment.yml")
    assert "localhost/y serves release 1 of x." in done.stdout
