"""Whatever is put in a file's places: a plan, or one message that says where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ploinky.cli.documents import as_yaml, documents, plain
from ploinky.cli.failures import CommandFailed
from ploinky.cli.imports.compose import plan_compose
from ploinky.cli.imports.kubernetes import plan_kubernetes
from ploinky.cli.imports.plan import Plan, Wishes
from ploinky.cli.imports.variables import Files
from ploinky.deployment.manifest import check_environment, check_settings

COMPOSE = """
services:
  web:
    image: nginx
    entrypoint: [run]
    command: a b
    user: "1"
    cap_add: [CHOWN]
    ports: ["8080:80", {target: 81, published: "5"}]
    expose: [80]
    environment: {A: b}
    env_file: [{path: x, required: false}]
    volumes: ["data:/data", {type: volume, source: b, target: /b, volume: {nocopy: true}}]
    depends_on: {other: {condition: service_started}}
    deploy: {replicas: 2, mode: replicated, resources: {limits: {cpus: "1", memory: 1g, pids: 5}}}
    healthcheck: {test: [CMD, curl, "http://localhost/"], interval: 5s, retries: 2, start_period: 1s}
    mem_limit: 5m
    restart: "no"
    profiles: []
  other: {image: x, environment: [A=1], extends: {service: web}}
volumes: {data: {driver: x}}
"""
KUBERNETES = """
- apiVersion: v1
  kind: List
  items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: b}}
  - {apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: Yg==}, stringData: {c: d}}
  - apiVersion: v1
    kind: Service
    metadata: {name: web, namespace: n}
    spec: {type: NodePort, selector: {a: b}, ports: [{port: 80, targetPort: h, name: http}]}
  - apiVersion: networking.k8s.io/v1
    kind: Ingress
    metadata: {name: i, namespace: n, annotations: {a: b}}
    spec:
      defaultBackend: {service: {name: web, port: {number: 80}}}
      rules: [{host: a.b, http: {paths: [{path: /x, backend: {serviceName: web, servicePort: 80}}]}}]
  - apiVersion: apps/v1
    kind: StatefulSet
    metadata: {name: web, namespace: n}
    spec:
      replicas: 2
      volumeClaimTemplates: [{metadata: {name: data}}]
      template:
        metadata: {labels: {a: b}}
        spec:
          securityContext: {runAsUser: 5}
          volumes: [{name: e, emptyDir: {}}]
          containers:
          - name: web
            image: x
            command: [a]
            args: [$(A)]
            env: [{name: A, value: b}, {name: B, valueFrom: {secretKeyRef: {name: s, key: a}}}]
            envFrom: [{configMapRef: {name: c}, prefix: P_}]
            ports: [{containerPort: 80, name: h}]
            readinessProbe: {httpGet: {path: /, port: h}, periodSeconds: 5, failureThreshold: 3}
            startupProbe: {exec: {command: [a]}}
            resources: {limits: {cpu: 1, memory: 1Gi}}
            volumeMounts: [{name: data, mountPath: /d}, {name: e, mountPath: /e, subPath: x}]
            securityContext: {runAsGroup: 5, capabilities: {add: [CHOWN], drop: [ALL]}}
"""
PLACEHOLDER = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**20),
    st.text("ab:/$-.= %5\n\0é{}'\"", max_size=8),
    st.sampled_from([[], {}, [None], [[]], {"": None}, {"a": {"b": []}}, [{"a": 1}], "a" * 70000]),
)


def places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for step, value in inner:
        found.append((*above, step))
        if isinstance(value, (dict, list)):
            found += places(value, (*above, step))
    return found


def changed(text: str, data: st.DataObject) -> str:
    tree = plain(documents(text, "f")[0])
    *way, last = data.draw(st.sampled_from(places(tree)))
    inner = tree
    for step in way:
        inner = inner[step]
    inner[last] = data.draw(PLACEHOLDER)
    return as_yaml(tree)


def check(plan: Plan) -> None:
    """What is planned is what the server takes."""
    for one in plan.deployments:
        body = dict(one.body)
        settings = {
            k: v
            for k, v in body.items()
            if k not in {"environment", "secrets", "domain", "path", "agent"}
        }
        check_settings(settings)
        check_environment({**body.get("environment", {}), **body.get("secrets", {})})


@given(st.data())
def test_anything_in_a_compose_file(data: st.DataObject) -> None:
    """No place of it breaks the reading."""
    try:
        nodes = documents(changed(COMPOSE, data), "f")
        check(plan_compose(nodes[0], "f", Files(Path("/nowhere")), {}, Wishes()))
    except CommandFailed as error:
        assert error.message.startswith("f:")  # noqa: PT017


@given(st.data())
def test_anything_in_a_kubernetes_file(data: st.DataObject) -> None:
    """No place of it breaks the reading."""
    try:
        nodes = documents(changed(KUBERNETES, data), "f")[0].value
        assert isinstance(nodes, list)
        check(plan_kubernetes(nodes, "f", Wishes()))
    except CommandFailed as error:
        assert error.message.startswith("f:")  # noqa: PT017
