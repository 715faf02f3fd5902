"""Files of Kubernetes objects, as people write them."""

from __future__ import annotations

import pytest

from ploinky.cli.failures import CommandFailed
from tests.cli.imports.conftest import Planning, body, remarks

GUESTBOOK = """\
    apiVersion: v1
    kind: Service
    metadata: {name: frontend, labels: {app: guestbook}}
    spec:
      type: LoadBalancer
      ports:
      - port: 80
      selector: {app: guestbook, tier: frontend}
    ---
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: frontend}
    spec:
      replicas: 3
      selector: {matchLabels: {app: guestbook, tier: frontend}}
      template:
        metadata: {labels: {app: guestbook, tier: frontend}}
        spec:
          containers:
          - name: php-redis
            image: example/gb-frontend:v5
            resources: {requests: {cpu: 100m, memory: 100Mi}}
            env:
            - {name: GET_HOSTS_FROM, value: dns}
            - {name: REDIS_HOST, value: redis-leader}
            ports:
            - containerPort: 80
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: redis-leader}
    spec: {ports: [{port: 6379, targetPort: 6379}], selector: {app: redis}}
    ---
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: redis-leader}
    spec:
      replicas: 1
      selector: {matchLabels: {app: redis}}
      template:
        metadata: {labels: {app: redis}}
        spec: {containers: [{name: leader, image: redis:6, ports: [{containerPort: 6379}]}]}
    """

POD = """\
    apiVersion: v1
    kind: Pod
    metadata: {{name: app}}
    spec: {{containers: [{{name: app, image: x, {0}}}]}}
    """


def test_the_guides_own_file(kubernetes: Planning) -> None:
    """Comes to the command that stands beside it there, with its replicas as well."""
    plan = kubernetes(
        """\
        # kubernetes deployment
        apiVersion: apps/v1
        kind: Deployment
        metadata:
          name: my-app
        spec:
          replicas: 3
          template:
            spec:
              containers:
              - name: app
                image: my-app:latest
        """
    )
    assert body(plan) == {
        "domain": "localhost",
        "path": "/app",
        "agent": "my-app",
        "kind": "service",
        "image": "my-app:latest",
        "replicas": 3,
    }


def test_a_guestbook_and_its_store(kubernetes: Planning) -> None:
    """The frontend is at its Service's name; the store is left out, and who looks for it told."""
    plan = kubernetes(GUESTBOOK)
    assert plan.deployments[0].where == "localhost/frontend"
    assert (body(plan)["port"], body(plan)["replicas"]) == (80, 3)
    said = remarks(plan)
    assert "Redis' protocol" in said["Deployment/redis-leader"][1]
    assert said["Deployment/redis-leader"][0] == 34
    inner = "Deployment/frontend.spec.template.spec.containers[0]"
    assert "address of redis-leader" in said[f"{inner}.env[1]"][1]
    assert f"{inner}.resources.requests" in said
    assert "Service/redis-leader" not in said


def test_an_ingress_says_where(kubernetes: Planning) -> None:
    """Domain and path; a second way in, TLS and annotations are said not to map."""
    ingress = """\
    ---
    apiVersion: networking.k8s.io/v1
    kind: Ingress
    metadata: {name: way, annotations: {cert-manager.io/issuer: x}}
    spec:
      tls: [{hosts: [a.example]}]
      rules:
      - host: a.example
        http:
          paths:
          - {path: /book, pathType: Prefix, backend: {service: {name: frontend, port: {number: 80}}}}
          - {path: /two, pathType: Exact, backend: {service: {name: frontend, port: {number: 80}}}}
          - {path: "/[a-z]+", backend: {service: {name: frontend, port: {number: 80}}}}
          - {path: /none, backend: {service: {name: nobody, port: {number: 80}}}}
      - host: "*.a.example"
        http: {paths: [{backend: {service: {name: frontend, port: {number: 80}}}}]}
    """
    plan = kubernetes(GUESTBOOK, ingress)
    assert plan.deployments[0].where == "a.example/book"
    said = remarks(plan)
    paths = "Ingress/way.spec.rules[0].http.paths"
    assert "taken off" in said[f"{paths}[0]"][1]
    assert "one place" in said[f"{paths}[1]"][1] or "below it" in said[f"{paths}[1]"][1]
    assert "pattern" in said[f"{paths}[2]"][1]
    assert "not in this file" in said[f"{paths}[3]"][1]
    assert "many names" in said["Ingress/way.spec.rules[1].http.paths[0]"][1]
    assert {"Ingress/way.spec.tls"} <= said.keys()
    assert any("cert-manager" in place for place in said)


def test_a_rewritten_path_is_what_a_path_is_here(kubernetes: Planning) -> None:
    """The pattern with which nginx takes a prefix off is a plain prefix."""
    ingress = """\
    ---
    apiVersion: networking.k8s.io/v1
    kind: Ingress
    metadata: {name: way, annotations: {nginx.ingress.kubernetes.io/rewrite-target: /$2}}
    spec:
      rules:
      - http:
          paths:
          - {path: /book(/|$)(.*), backend: {service: {name: frontend, port: {number: 80}}}}
    """
    plan = kubernetes(GUESTBOOK, ingress)
    assert plan.deployments[0].where == "localhost/book"
    assert not any("Ingress" in place for place in remarks(plan))


def test_variables_from_maps_and_secrets_of_the_file(kubernetes: Planning) -> None:
    """What comes from a Secret, or holds it, is a secret; what is missing is said."""
    plan = kubernetes(
        """\
        apiVersion: v1
        kind: Secret
        metadata: {name: s}
        data: {token: dDBwczNjcmV0, raw: /w==}
        stringData: {other: 0th3r}
        ---
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: c}
        data: {mode: fast, on: "on"}
        ---
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: unused}
        data: {file.txt: x}
        ---
        apiVersion: v1
        kind: Pod
        metadata: {name: app}
        spec:
          containers:
          - name: app
            image: x
            args: ["--mode=$(MODE)", "--none=$(NONE)", "$$(MODE)"]
            envFrom:
            - {configMapRef: {name: c}, prefix: C_}
            - {secretRef: {name: elsewhere, optional: true}}
            env:
            - {name: MODE, valueFrom: {configMapKeyRef: {name: c, key: mode}}}
            - {name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: token}}}
            - {name: URL, value: "db://u:$(TOKEN)@host/"}
            - {name: GONE, valueFrom: {secretKeyRef: {name: s, key: gone}}}
            - {name: GONE_TOO, valueFrom: {secretKeyRef: {name: nowhere, key: x}}}
            - {name: MAYBE, valueFrom: {secretKeyRef: {name: nowhere, key: x, optional: true}}}
            - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
            - {name: EMPTY}
            - {name: bad.name, value: x}
        """
    )
    assert body(plan)["environment"] == {
        "C_mode": "fast",
        "C_on": "on",
        "MODE": "fast",
        "EMPTY": "",
    }
    assert body(plan)["secrets"] == {"TOKEN": "t0ps3cret", "URL": "db://u:t0ps3cret@host/"}
    assert body(plan)["command"] == ["--mode=fast", "--none=$(NONE)", "$(MODE)"]
    said = remarks(plan)
    env = "Pod/app.spec.containers[0].env"
    assert "has no gone" in said[f"{env}[3].valueFrom.secretKeyRef"][1]
    assert "not in this file" in said[f"{env}[4].valueFrom.secretKeyRef"][1]
    assert f"{env}[6].valueFrom" in said
    assert f"{env}[8]" in said
    assert {"ConfigMap/unused", "Secret/s.data.raw"} <= said.keys()
    assert not any("MAYBE" in why for _, why in said.values())
    shown = f"{plan.as_json()} {plan!r}"
    assert "t0ps3cret" not in shown
    assert "0th3r" not in shown


def test_a_secret_is_put_into_no_list_of_processes(kubernetes: Planning) -> None:
    """An argument that names one is left out, and what to do is said."""
    plan = kubernetes(
        """\
        apiVersion: v1
        kind: Secret
        metadata: {name: s}
        stringData: {token: t0ps3cret}
        ---
        apiVersion: v1
        kind: Pod
        metadata: {name: app}
        spec:
          containers:
          - name: app
            image: x
            args: [--token, $(TOKEN)]
            env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: token}}}]
        """
    )
    assert "command" not in body(plan)
    assert "Pod/app.spec.containers[0].args" in remarks(plan)


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (
            "ports: [{containerPort: 8080, name: web}], readinessProbe: {httpGet: {path: /ready,"
            " port: web}, periodSeconds: 5, timeoutSeconds: 2, failureThreshold: 4}",
            {"path": "/ready", "interval": 5, "timeout": 2, "retries": 4},
        ),
        (
            "livenessProbe: {httpGet: {port: 80}}, startupProbe: {httpGet: {port: 80},"
            " failureThreshold: 30, periodSeconds: 10}",
            {"startPeriod": 300, "path": "/"},
        ),
        ("readinessProbe: {exec: {command: [cat]}}", None),
        ("readinessProbe: {tcpSocket: {port: 80}}", None),
        ("ports: [{containerPort: 80}], readinessProbe: {httpGet: {port: 81}}", None),
        ("readinessProbe: {httpGet: {port: 80, scheme: HTTPS}}", None),
    ],
)
def test_probes(kubernetes: Planning, container: str, expected: dict[str, object] | None) -> None:
    """The one that asks over HTTP; others are said not to be asked."""
    plan = kubernetes(POD.format(container))
    assert body(plan).get("health") == expected
    if expected is None:
        assert any("readinessProbe" in place for place in remarks(plan))


@pytest.mark.parametrize("port", ["56123983", "0", '"²"', '"9999999999999999999"'])
def test_a_port_that_cannot_be_is_not_taken_from_a_probe(kubernetes: Planning, port: str) -> None:
    """It is the one that the image declares then."""
    probe = "readinessProbe: {httpGet: {port: PORT}}".replace("PORT", port)
    assert "port" not in body(kubernetes(POD.format(probe)))


def test_a_port_that_cannot_be_is_not_taken_from_what_a_probe_names(kubernetes: Planning) -> None:
    """It is said not to fit where it stands, and where it is named."""
    plan = kubernetes(
        POD.format(
            "ports: [{containerPort: 56123983, name: web}], readinessProbe: {httpGet: {port: web}}"
        )
    )
    assert "port" not in body(plan)
    assert len([place for place in remarks(plan) if place.startswith("Pod/app")]) == 2


def test_limits_privileges_and_mounts(kubernetes: Planning) -> None:
    """Quantities of Kubernetes; what is mounted, and what is not."""
    plan = kubernetes(
        """\
        apiVersion: apps/v1
        kind: StatefulSet
        metadata: {name: app}
        spec:
          replicas: 2
          serviceName: app
          volumeClaimTemplates: [{metadata: {name: data}, spec: {}}]
          template:
            spec:
              securityContext: {runAsUser: 1000, fsGroup: 1000}
              nodeSelector: {disk: ssd}
              initContainers: [{name: init, image: x}]
              volumes:
              - {name: tmp, emptyDir: {}}
              - {name: conf, configMap: {name: c}}
              - {name: host, hostPath: {path: /}}
              - {name: claim, persistentVolumeClaim: {claimName: c}}
              containers:
              - name: app
                image: x
                command: [/app]
                args: [serve]
                resources: {limits: {memory: 256Mi, cpu: 500m, nvidia.com/gpu: 1}}
                securityContext:
                  runAsGroup: 2000
                  privileged: true
                  capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
                volumeMounts:
                - {name: data, mountPath: /data, readOnly: true, mountPropagation: None}
                - {name: tmp, mountPath: /tmp}
                - {name: conf, mountPath: /etc/conf}
                - {name: host, mountPath: /host}
                - {name: claim, mountPath: /claim, subPath: x}
              - {name: sidecar, image: y}
        """
    )
    made = body(plan)
    assert made["resources"] == {"memory": 256 * 2**20, "cpus": 0.5}
    assert (made["user"], made["capabilities"]) == ("1000:2000", ["NET_BIND_SERVICE"])
    assert (made["entrypoint"], made["command"], made["replicas"]) == (["/app"], ["serve"], 2)
    assert [volume["name"] for volume in made["volumes"]] == ["data", "claim"]
    pod = "StatefulSet/app.spec.template.spec"
    container = f"{pod}.containers[0]"
    assert {
        f"{pod}.nodeSelector",
        f"{pod}.initContainers",
        f"{pod}.securityContext.fsGroup",
        f"{pod}.containers[1]",
        f"{container}.volumeMounts[0].mountPropagation",
        f"{container}.volumeMounts[1]",
        f"{container}.volumeMounts[2]",
        f"{container}.volumeMounts[3]",
        f"{container}.securityContext.privileged",
        f"{container}.resources.limits.nvidia.com/gpu",
    } <= remarks(plan).keys()
    assert "can be written to as well" in [one.why for one in plan.remarks]


@pytest.mark.parametrize(
    "container",
    [
        "ports: [{containerPort: 5432}]",
        "ports: [{containerPort: 50051, name: grpc}]",
        "ports: [{containerPort: 50051}], readinessProbe: {grpc: {port: 50051}}",
        "readinessProbe: {exec: {command: [/bin/grpc_health_probe, '-addr=:5']}}",
    ],
)
def test_what_is_not_http_is_left_out(kubernetes: Planning, container: str) -> None:
    """Unless a place is named for it."""
    text = POD.format(container)
    assert [one.place for one in kubernetes(text).left_out] == ["Pod/app"]
    assert kubernetes(text, places={"app": "/x"}).deployments[0].where == "localhost/x"


def test_grpc_beside_http_is_no_hindrance(kubernetes: Planning) -> None:
    """The port that is not gRPC is the deployment's."""
    ports = "ports: [{containerPort: 50051, name: grpc}, {containerPort: 8080, name: http}]"
    assert body(kubernetes(POD.format(ports)))["port"] == 8080


def test_of_several_containers_the_one_that_is_led_to(kubernetes: Planning) -> None:
    """By its port's name or number; the port is that of the way in."""
    plan = kubernetes(
        """\
        apiVersion: v1
        kind: List
        items:
        - apiVersion: v1
          kind: Service
          metadata: {name: web}
          spec:
            selector: {app: a}
            ports: [{name: metrics, port: 9, targetPort: m}, {name: http, port: 80, targetPort: h}]
        - apiVersion: networking.k8s.io/v1
          kind: Ingress
          metadata: {name: in}
          spec: {defaultBackend: {service: {name: web, port: {name: http}}}}
        - apiVersion: apps/v1
          kind: DaemonSet
          metadata: {name: a}
          spec:
            template:
              metadata: {labels: {app: a}}
              spec:
                containers:
                - {name: proxy, image: p, ports: [{containerPort: 1}]}
                - {name: app, image: x, ports: [{containerPort: 9, name: m}, {containerPort: 80, name: h}]}
        """
    )
    assert (body(plan)["image"], body(plan)["port"], body(plan)["path"]) == ("x", 80, "/")


def test_what_has_no_counterpart_is_listed(kubernetes: Planning) -> None:
    """Object by object, with what to do where there is something; unknown fields too."""
    plan = kubernetes(
        POD.format("frobnicate: 1"),
        """\
    ---
    apiVersion: autoscaling/v2
    kind: HorizontalPodAutoscaler
    metadata: {name: h}
    ---
    apiVersion: example.com/v1
    kind: Frobnicator
    metadata: {name: f}
    ---
    apiVersion: batch/v1
    kind: CronJob
    metadata: {name: c}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: s}
    spec: {selector: {app: nobody}}
    """,
    )
    expected = {"HorizontalPodAutoscaler/h", "Frobnicator/f", "CronJob/c", "Service/s"}
    assert expected | {"Pod/app.spec.containers[0].frobnicate"} <= remarks(plan).keys()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("kind: Pod\nmetadata: {name: x}\n", "k8s.yaml:1: "),
        ("apiVersion: v1\nkind: Pod\n", "k8s.yaml:1: Pod"),
        ("- a\n", "k8s.yaml:1: "),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {}\n", "k8s.yaml:1: Pod/x"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: a\n",
            "k8s.yaml:6: Pod/x.spec.containers[0]",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata:\n  a: 'dDBwczNjcmV0!'\n---\n"
            "apiVersion: v1\nkind: Pod\nmetadata: {name: y}\nspec: {containers: [{image: x, envFrom:"
            " [{secretRef: {name: x}}]}]}\n",
            "k8s.yaml:5: Secret/x.data.a",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\n"
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n",
            "k8s.yaml:5: ConfigMap/x: is there twice, first in line 1",
        ),
    ],
)
def test_a_file_that_is_wrong(kubernetes: Planning, text: str, place: str) -> None:
    """Is refused as a whole, with file, line and place; no secret is shown."""
    with pytest.raises(CommandFailed) as caught:
        kubernetes(text)
    assert caught.value.message.startswith(place)
    assert "dDBw" not in caught.value.message
