"""A container of Kubernetes, with what its pod says, as a deployment.

Source: Kubernetes API reference, ``core/v1`` Container, Probe and PodSpec.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from attrs import frozen

from ploinky.cli.imports import reasons
from ploinky.cli.imports.amounts import quantity
from ploinky.cli.imports.drafts import Draft
from ploinky.cli.imports.objects import Objects, Value
from ploinky.cli.imports.parts import Part

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_READY_SECONDS = 60.0
_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")


@frozen
class Pod:
    """What a container reads beside its own lines.

    Attributes:
        part: The pod's ``spec``.
        claims: Names of a StatefulSet's own volumes.
    """

    part: Part
    namespace: str
    objects: Objects
    claims: frozenset[str] = frozenset()


@frozen
class ContainerPort:
    """A TCP port that a container names."""

    number: int
    name: str


def tcp_ports(container: Part) -> list[ContainerPort]:
    """Give what a container says that it listens at."""
    found = []
    for entry in container.listed("ports"):
        number, protocol = entry.number("containerPort"), entry.text("protocol")
        if number is None:
            entry.fail("expected a containerPort")
        if protocol in ("", "TCP"):
            found.append(ContainerPort(number, entry.text("name")))
    return found


def is_probed_over_grpc(container: Part) -> bool:
    """Tell whether a probe asks it over gRPC."""
    for name in _PROBES:
        probe = container.part(name)
        command = [one.words for one in probe.part("exec").listed("command")]
        if probe.take("grpc") or (command and "grpc_health_probe" in command[0]):
            return True
    return False


def draft(container: Part, port: int | None, pod: Pod) -> Draft:
    """Put a deployment together, and remark upon what does not map."""
    made = Draft(container, {"kind": "service"})
    made.put("image", container.text("image"), container.part("image"))
    if port is not None:
        made.put("port", port, container)
    _put_ports(made, port)
    values = _put_environment(made, pod)
    for name, ours in (("command", "entrypoint"), ("args", "command")):
        if words := container.listed(name):
            _put_words(made, ours, words, values, container.part(name))
    _put_limits(made)
    _put_health(made)
    _put_volumes(made, pod)
    _put_privileges(made, pod)
    container.ignore("name")
    container.rest(reasons.CONTAINER)
    return made


def _put_ports(made: Draft, port: int | None) -> None:
    for entry in made.part.listed("ports"):
        entry.ignore("name", "containerPort", "protocol", "hostIP")
        number = entry.number("containerPort")
        if entry.text("protocol") not in ("", "TCP"):
            entry.remark(f"port {number} is not TCP, and is not reached")
        elif number != port:
            entry.remark(
                f"a deployment serves one port, here {port}, and not {number}",
                "choose another one: --port NAME=PORT",
            )
        entry.rest({"hostPort": ("is reached at its domain and path", "")})


def _put_environment(made: Draft, pod: Pod) -> dict[str, Value]:
    """Set the variables, and give them for what names them."""
    values: dict[str, Value] = {}
    for entry in made.part.listed("envFrom"):
        prefix = entry.text("prefix")
        for kind, name in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if reference := entry.take(name):
                for key, value in _table(kind, reference, pod).items():
                    _set(made, values, prefix + key, value, entry)
        entry.rest({})
    for entry in made.part.listed("env"):
        name = entry.text("name")
        source = entry.take("valueFrom")
        if not name:
            entry.fail("expected a name")
        if source is None:
            text = entry.take("value")
            raw = text.words if text else ""
            _set(made, values, name, _expanded(raw, values), entry)
        elif (found := _value_from(name, source, pod)) is not None:
            _set(made, values, name, found, entry)
        entry.rest({})
    return values


def _set(made: Draft, values: dict[str, Value], name: str, value: Value, part: Part) -> None:
    values[name] = value
    made.variable(name, value.text, part, is_secret=value.is_secret)


def _table(kind: str, reference: Part, pod: Pod) -> dict[str, Value]:
    name = reference.text("name")
    found = pod.objects.table(kind, pod.namespace, name)
    if found is None and not reference.flag("optional"):
        reference.remark(
            f"{kind} {name} is not in this file",
            "give its variables: p-cli cloud deployments update DOMAIN PATH --secret NAME",
        )
    return found or {}


def _value_from(name: str, source: Part, pod: Pod) -> Value | None:
    for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        reference = source.take(field)
        if reference is None:
            continue
        key, is_optional = reference.text("key"), reference.flag("optional")
        table = pod.objects.table(kind, pod.namespace, reference.text("name"))
        if table is not None and key in table:
            return table[key]
        if not is_optional:
            where = f"{kind} {reference.text('name')}"
            missing = f"has no {key}" if table is not None else "is not in this file"
            option = f"--secret {name}" if kind == "Secret" else f"--env {name}=VALUE"
            reference.remark(
                f"{name} is not set: {where} {missing}",
                f"p-cli cloud deployments update DOMAIN PATH {option}",
            )
        return None
    source.remark(
        f"{name} is not set: there is no pod to take it from",
        "PLOINKY_AGENT, PLOINKY_DOMAIN, PLOINKY_PATH and PLOINKY_RELEASE say what runs",
    )
    return None


def _expanded(text: str, values: dict[str, Value]) -> Value:
    """Fill in ``$(NAME)``; what holds a secret is one."""
    secret = False

    def fill(found: re.Match[str]) -> str:
        nonlocal secret
        if found[0] == "$$":
            return "$"
        value = values.get(found[1])
        if value is None:
            return found[0]
        secret = secret or value.is_secret
        return value.text

    return Value(_REFERENCE.sub(fill, text), secret)


def _put_words(
    made: Draft, ours: str, words: list[Part], values: dict[str, Value], part: Part
) -> None:
    filled = [_expanded(one.words, values) for one in words]
    if any(value.is_secret for value in filled):
        part.remark(
            "names a secret, which would show in the list of processes",
            "let a shell read the variable: /bin/sh -c with $NAME",
        )
    else:
        made.put(ours, [value.text for value in filled], part)


def _put_limits(made: Draft) -> None:
    resources = made.part.part("resources")
    limits = resources.part("limits")
    memory, cpu = _quantity(limits.take("memory")), _quantity(limits.take("cpu"))
    made.resources(memory=int(memory) if memory else None, cpus=float(cpu) if cpu else None)
    limits.rest({"ephemeral-storage": ("disk space is not limited here", "")})
    resources.rest({"requests": reasons.SERVICE["mem_reservation"]})


def _quantity(part: Part | None) -> Decimal | None:
    if part is None:
        return None
    found = quantity(part.words)
    if found is None or found < 0:
        part.fail(f"expected a quantity such as 256Mi or 500m, got {part.words!r}")
    return found


def _put_health(made: Draft) -> None:
    """Take the first probe that asks over HTTP; one for being ready tells most."""
    probes = [(name, probe) for name in _PROBES if (probe := made.part.take(name))]
    chosen = next((name for name, probe in probes if probe.node.get("httpGet")), None)
    health: dict[str, Any] = {}
    for name, probe in probes:
        if name == "startupProbe":
            patience = _number(probe, "failureThreshold", 3) * _number(probe, "periodSeconds", 10)
            health["startPeriod"] = max(
                _READY_SECONDS, patience + _number(probe, "initialDelaySeconds", 0)
            )
        if name == chosen:
            health |= _question(made, probe)
        elif chosen is None or not probe.node.get("httpGet"):
            how = next((k for k in probe.names if not k.endswith(("Seconds", "Threshold"))), "it")
            probe.remark(
                f"{how} is not asked for health: GET is, and has to give 2xx or 3xx",
                "" if chosen else "set health.path in the deployment",
            )
        elif name != "startupProbe":
            probe.note(f"an instance has one probe, here its {chosen}")
    if health:
        made.put("health", health, made.part)


def _number(probe: Part, name: str, default: int) -> int:
    found = probe.number(name)
    return default if found is None else found


def _question(made: Draft, probe: Part) -> dict[str, Any]:
    health: dict[str, Any] = {}
    get = probe.part("httpGet")
    path, port = get.text("path") or "/", get.text("port")
    known = {one.name: one.number for one in tcp_ports(made.part) if one.name}
    is_number = port.isascii() and port.isdigit() and len(port) < 16
    number = int(port) if is_number else known.get(port)
    if get.text("scheme").upper() == "HTTPS":
        get.remark("is asked over HTTPS there, which is not spoken here")
    elif number is not None and number != made.body.get("port", number):
        get.remark(f"asks port {number}, which is not the deployment's")
    else:
        health["path"] = path if path.startswith("/") else f"/{path}"
        if number and "port" not in made.body:
            made.put("port", number, get)
    get.rest({"httpHeaders": ("are not sent", ""), "host": ("the container itself is asked", "")})
    for name, ours in (
        ("periodSeconds", "interval"),
        ("timeoutSeconds", "timeout"),
        ("failureThreshold", "retries"),
    ):
        if (given := probe.number(name)) is not None:
            health[ours] = given
    delay = probe.number("initialDelaySeconds")
    if delay and delay > _READY_SECONDS / 2:
        health["startPeriod"] = delay + _READY_SECONDS
    probe.rest({"successThreshold": ("one good answer is enough", "")})
    return health


def _put_volumes(made: Draft, pod: Pod) -> None:
    kinds = {one.text("name"): one for one in pod.part.listed("volumes")}
    for mount in made.part.listed("volumeMounts"):
        name, path = mount.text("name"), mount.text("mountPath").rstrip("/") or "/"
        volume = kinds.get(name)
        if volume is None and name not in pod.claims:
            mount.fail(f"the pod has no volume {name!r}")
        claim = volume.node.get("persistentVolumeClaim") if volume else None
        if volume is None or claim is not None:
            if mount.text("subPath") or mount.text("subPathExpr"):
                mount.note("all of the volume is mounted, not a part of it")
            if mount.flag("readOnly"):
                mount.note("can be written to as well")
            mount.rest({})
            made.volume(name, path, mount)
            mount.note(f"{name} begins empty: what is in it there is not copied")
        elif volume.node.mapping.get("emptyDir") is not None or "emptyDir" in volume.names:
            mount.note(f"{path} is the container's own, and goes with it")
        else:
            kind = next((k for k in volume.names if k != "name"), "it")
            mount.remark(f"{kind}: {reasons.BIND_MOUNT[0]}", reasons.BIND_MOUNT[1])


def _put_privileges(made: Draft, pod: Pod) -> None:
    own, around = made.part.part("securityContext"), pod.part.part("securityContext")
    user = own.take("runAsUser") or around.take("runAsUser")
    group = own.take("runAsGroup") or around.take("runAsGroup")
    if user:
        made.put("user", f"{user.words}:{group.words}" if group else user.words, user)
    if capabilities := own.take("capabilities"):
        add = [one.words for one in capabilities.listed("add")]
        drop = [one.words for one in capabilities.listed("drop")]
        made.capabilities(add, drop, capabilities)
    if own.flag("allowPrivilegeEscalation"):
        own.part("allowPrivilegeEscalation").remark("no program gains privileges here", "")
    for context in (own, around):
        context.ignore("runAsUser", "runAsGroup")
        if context.take("privileged") and not context.flag("privileged"):
            context.ignore("privileged")
        elif context.flag("privileged"):
            context.part("privileged").remark(*reasons.SECURITY["privileged"])
        context.rest(reasons.SECURITY)
