"""Where a workload of Kubernetes is reached: its Services, and the Ingresses that lead to them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from ploinky.cli.imports import reasons
from ploinky.cli.imports.objects import Object, Objects
from ploinky.cli.imports.parts import Part

_REGEX_TAIL = re.compile(r"\(/\|\$\)\(\.\*\)$|/\(\.\*\)$|\(/\.\*\)\??$|/\*$")
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._~!$&'+,;=:@/-]*")
_GRPC = ("grpc", "kubernetes.io/h2c", "h2c")


@frozen
class ServicePort:
    """One port of a Service.

    Attributes:
        target: Number or name, in the container.
        is_grpc: Whether its name or protocol says so.
    """

    name: str
    number: int
    target: str
    is_grpc: bool


@frozen
class Route:
    """One way in, of an Ingress.

    Attributes:
        domain: ``""`` for any.
        port: Number or name, of the Service; ``""`` for its first.
        is_stripped: Whether its path is taken off, as it is here.
    """

    service: str
    domain: str
    path: str
    port: str
    is_stripped: bool
    part: Part


def selects(service: Object, labels: dict[str, str]) -> bool:
    """Tell whether a Service leads to pods with these labels."""
    selector = {k: v.words for k, v in service.part.part("spec").part("selector").items()}
    return bool(selector) and selector.items() <= labels.items()


def ports_of(service: Object) -> list[ServicePort]:
    """Give a Service's ports that are TCP."""
    found = []
    for entry in service.part.part("spec").listed("ports"):
        number, name = entry.number("port"), entry.text("name")
        if number is None:
            entry.fail("expected a port")
        protocol = entry.text("appProtocol").lower()
        if entry.text("protocol") in ("", "TCP"):
            is_grpc = name.lower().startswith("grpc") or protocol in _GRPC
            target = entry.text("targetPort") or str(number)
            found.append(ServicePort(name, number, target, is_grpc))
    return found


def remark_on_service(service: Object, leads_somewhere: bool) -> None:
    """Remark upon what of a Service does not map."""
    spec = service.part.part("spec")
    service.part.ignore("spec")
    service.part.rest({})
    if not leads_somewhere:
        if spec.text("type") == "ExternalName":
            service.part.remark(
                f"leads to {spec.text('externalName')}, outside of the file",
                "an HTTP server that runs is deployed with --target http://HOST:PORT",
            )
        else:
            service.part.remark("leads to nothing that is deployed from this file")
        return
    for entry in spec.listed("ports"):
        if entry.text("protocol") not in ("", "TCP"):
            entry.remark("is not TCP, and is not reached")
    if spec.text("type") in ("NodePort", "LoadBalancer"):
        spec.part("type").note("is reached at its domain and path, at this server's port")
    spec.ignore("ports", "selector", "clusterIP", "clusterIPs")
    spec.rest(reasons.KUBERNETES_SERVICE)


def ways_in(objects: Objects) -> dict[tuple[str, str], list[Route]]:
    """Give the ways in, by namespace and Service."""
    found: dict[tuple[str, str], list[Route]] = {}
    for ingress in objects.of("Ingress"):
        for route in _routes(ingress):
            found.setdefault((ingress.namespace, route.service), []).append(route)
    return found


def _routes(ingress: Object) -> Iterator[Route]:
    spec = ingress.part.part("spec")
    annotations = ingress.part.part("metadata").part("annotations")
    rewrite = "nginx.ingress.kubernetes.io/rewrite-target"
    is_stripped = bool(annotations.text(rewrite))
    for name, annotation in annotations.items():
        if name not in (rewrite, "kubernetes.io/ingress.class"):
            annotation.remark("annotations of an Ingress have no effect here")
    spec.ignore("ingressClassName")
    if default := spec.take("defaultBackend") or spec.take("backend"):
        yield Route(_backend(default), "", "/", _port(default), True, default)
    for rule in spec.listed("rules"):
        host = rule.text("host")
        for entry in rule.part("http").listed("paths"):
            backend = entry.take("backend")
            if backend is None:
                entry.fail("expected a backend")
            if backend.take("resource"):
                backend.remark("a path leads to a Service here")
                continue
            yield from _route(entry, backend, host, is_stripped)
        rule.rest({})
    ingress.part.ignore("spec")
    ingress.part.rest({})
    spec.rest(
        {
            "tls": (
                "TLS ends before this server",
                "put a proxy before it that has the certificates",
            )
        }
    )


def _route(entry: Part, backend: Part, host: str, is_stripped: bool) -> Iterator[Route]:
    raw_path, kind = entry.text("path") or "/", entry.text("pathType")
    path = _REGEX_TAIL.sub("", raw_path) or "/"
    service, port = _backend(backend), _port(backend)
    entry.rest({})
    if host.startswith("*"):
        entry.remark(f"{host} stands for many names", "deploy to each domain that is meant")
        return
    if not _PLAIN_PATH.fullmatch(path):
        entry.remark(f"{raw_path} is a pattern, and a path here is a plain prefix")
        return
    if kind == "Exact":
        entry.note(f"{path} leads to all below it as well")
    is_root = path == "/"
    yield Route(service, host, path, port, is_stripped or is_root or path != raw_path, entry)


def _backend(backend: Part) -> str:
    service = backend.take("service")
    name = service.text("name") if service else backend.text("serviceName")
    if not name:
        backend.fail("expected the name of a Service")
    return name


def _port(backend: Part) -> str:
    service = backend.take("service")
    if service is None:
        return backend.text("servicePort")
    port = service.part("port")
    return port.text("number") or port.text("name")
