"""What of a Kubernetes file may become a deployment, and where it is reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import frozen

from ploinky.cli.imports import reasons
from ploinky.cli.imports.containers import Pod, is_probed_over_grpc, tcp_ports
from ploinky.cli.imports.ingresses import Route, ports_of, selects
from ploinky.cli.imports.objects import WORKLOADS, Object, Objects
from ploinky.cli.imports.parts import Part
from ploinky.cli.imports.protocols import likely_port, not_http


@frozen
class Workload:
    """One workload, and what leads to it.

    Attributes:
        name: To be told apart by, in this file.
        spec: Of the workload.
        container: The one that Services lead to, else its first.
        services: That lead to it.
        ways: Of Ingresses, that lead to those.
    """

    name: str
    object: Object
    spec: Part
    pod: Pod
    container: Part
    services: Sequence[Object]
    ways: Sequence[Route]

    def port(self) -> int | None:
        """Choose the container's port: that of its way in, else its first; None: its image says."""
        named = {port.name: port.number for port in tcp_ports(self.container) if port.name}
        wanted = self.ways[0].port if self.ways else ""
        for service in self.services:
            if self.ways and service.name != self.ways[0].service:
                continue
            for port in sorted(ports_of(service), key=lambda port: port.is_grpc):
                if wanted in ("", port.name, str(port.number)):
                    return int(port.target) if port.target.isdigit() else named.get(port.target)
        own = tcp_ports(self.container)
        plain_first = sorted(own, key=lambda port: port.name.lower().startswith("grpc"))
        return likely_port(port.number for port in plain_first)

    def why_not(self) -> tuple[str, str] | None:
        """Tell why it can be no deployment, and what to do; None where it can."""
        if not self.container.text("image"):
            self.container.fail("expected an image")
        if self.object.kind != "Pod" and self.spec.number("replicas") == 0:
            return "it has no instances (replicas: 0)", ""
        led = [port for service in self.services for port in ports_of(service)]
        grpc = {port.target for port in led if port.is_grpc}
        ports = {port.number: port.name.lower() for port in tcp_ports(self.container)}
        ports = ports or {int(port.target): "" for port in led if port.target.isdigit()}
        http = [
            number
            for number, name in ports.items()
            if not name.startswith("grpc") and not {str(number), name} & grpc
        ]
        spoken = not_http(self.container.text("image"), http)
        if (ports and not http) or (len(ports) < 2 and is_probed_over_grpc(self.container)):
            spoken = "gRPC over HTTP/2"
        if not spoken:
            return None
        return (
            f"it speaks {spoken}, and a deployment serves HTTP/1.1",
            "run it beside the server, and give the others its address",
        )

    def remark_on_the_rest(self) -> None:
        """Remark upon what of the workload and its pod does not map."""
        for other in self.pod.part.listed("containers"):
            if other.place != self.container.place:
                other.remark(
                    f"a deployment is one container, here {self.container.text('name')}:"
                    " this one does not run",
                    "make it a deployment of its own, or a part of the image",
                )
        for way in self.ways[1:]:
            way.part.remark(
                f"a deployment is at one place: not at {way.domain}{way.path} as well",
                "deploy it once more, to that place",
            )
        if self.ways and not self.ways[0].is_stripped:
            self.ways[0].part.note(
                f"{self.ways[0].path} is taken off before the container sees it, and is in"
                " X-Forwarded-Prefix",
                "let it serve from /, or deploy it to / of a domain of its own",
            )
        self.pod.part.ignore("containers", "volumes", "securityContext")
        self.pod.part.rest(reasons.POD)
        if self.object.kind != "Pod":
            known = ("replicas", "selector", "template", "serviceName", "volumeClaimTemplates")
            self.spec.ignore(*known)
            self.spec.rest(reasons.WORKLOAD)
        self.object.part.ignore("spec")
        self.object.part.rest({})


def find_workloads(
    objects: Objects, ways: Mapping[tuple[str, str], Sequence[Route]]
) -> list[Workload]:
    """Give the workloads of a file, in their order.

    Args:
        ways: By namespace and Service.
    """
    found = objects.of(*WORKLOADS)
    times = Counter(one.name for one in found)
    return [
        _workload(one, one.name if times[one.name] == 1 else one.title, objects, ways)
        for one in found
    ]


def _workload(
    one: Object,
    name: str,
    objects: Objects,
    ways: Mapping[tuple[str, str], Sequence[Route]],
) -> Workload:
    spec = one.part.part("spec")
    template = one.part if one.kind == "Pod" else spec.part("template")
    about = template.part("metadata").part("labels")
    labels = {label: value.words for label, value in about.items()}
    services = [
        service
        for service in objects.of("Service", namespace=one.namespace)
        if selects(service, labels)
    ]
    claims: frozenset[str] = frozenset()
    if one.kind == "StatefulSet":
        templates = spec.listed("volumeClaimTemplates")
        claims = frozenset(claim.part("metadata").text("name") for claim in templates)
    inner = spec if one.kind == "Pod" else template.part("spec")
    return Workload(
        name,
        one,
        spec,
        Pod(inner, one.namespace, objects, claims),
        _container(one, inner, services),
        services,
        [way for s in services for way in ways.get((s.namespace, s.name), ())],
    )


def _container(one: Object, pod: Part, services: Sequence[Object]) -> Part:
    containers = pod.listed("containers")
    if not containers:
        one.part.fail("expected containers")
    targets = {port.target for service in services for port in ports_of(service)}
    for container in containers:
        ports = tcp_ports(container)
        if targets & {said for port in ports for said in (str(port.number), port.name)}:
            return container
    return containers[0]
