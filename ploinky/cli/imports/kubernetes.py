"""A file of Kubernetes objects, as a plan.

Source: Kubernetes API reference.  A deployment here is one container of a workload; Services and
Ingresses say where it is reached, ConfigMaps and Secrets of the same file what it is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ploinky.cli.documents import Node
from ploinky.cli.imports import reasons
from ploinky.cli.imports.containers import draft
from ploinky.cli.imports.drafts import agent_name
from ploinky.cli.imports.ingresses import Route, remark_on_service, ways_in
from ploinky.cli.imports.objects import WORKLOADS, Objects, read_objects
from ploinky.cli.imports.parts import Book, Remark
from ploinky.cli.imports.plan import Plan, Planned, Wishes, check_places, in_order, place_of
from ploinky.cli.imports.workloads import Workload, find_workloads

_TAKEN = (*WORKLOADS, "Service", "Ingress", "ConfigMap", "Secret", "PersistentVolumeClaim")
_UNKNOWN = ("objects of this kind have no counterpart here", "")


def plan_kubernetes(nodes: Sequence[Node], file: str, wishes: Wishes) -> Plan:
    """Make a plan of a file's documents.

    Args:
        file: Its name, for people.

    Raises:
        CommandFailed: The file is invalid, or what is wished for does not fit it.
    """
    book = Book(file)
    objects = read_objects(nodes, book)
    ways = ways_in(objects)
    workloads = find_workloads(objects, ways)
    paths = _default_paths(workloads)
    names = {service.name for service in objects.of("Service")}
    planned: list[Planned] = []
    deployed: list[Workload] = []
    left_out: list[Remark] = []
    for one in workloads:
        line = one.object.part.line
        why = one.why_not()
        if why and one.name not in wishes.places:
            left_out.append(Remark(file, line, one.object.title, *why))
            continue
        body = _body(one, wishes, paths[one.name], names)
        planned.append(Planned(one.name, line, body))
        deployed.append(one)
    _remark_on_the_rest(objects, ways, workloads, deployed)
    check_places(wishes, planned, [one.name for one in workloads])
    return in_order(Plan(file, "k8s", tuple(planned), tuple(left_out), tuple(book.remarks)))


def _body(one: Workload, wishes: Wishes, path: str, names: set[str]) -> dict[str, object]:
    port = wishes.ports.get(one.name) or one.port()
    made = draft(one.container, port, one.pod)
    if one.object.kind not in ("Pod", "DaemonSet"):
        replicas = one.spec.take("replicas")
        if replicas:
            made.put("replicas", replicas.whole, replicas)
    if "port" not in made.body:
        one.container.note(
            "names no port: the one that its image declares is taken",
            "if the image declares none or several, name it: --port NAME=PORT",
        )
    made.note_references(names - {service.name for service in one.services})
    one.remark_on_the_rest()
    domain = one.ways[0].domain if one.ways else ""
    place = place_of(wishes, one.name, domain, path)
    return {**place, "agent": agent_name(one.object.name), **made.body}


def _default_paths(workloads: Sequence[Workload]) -> dict[str, str]:
    """Give each workload's path: its Ingress's, else its Service's name, else its container's.

    The last only where no other one has it; else the workload's own name.
    """
    called = Counter(one.container.text("name") for one in workloads if not one.services)
    paths = {}
    for one in workloads:
        container = one.container.text("name")
        if one.ways:
            paths[one.name] = one.ways[0].path
        elif one.services:
            paths[one.name] = f"/{one.services[0].name}"
        elif container and called[container] == 1:
            paths[one.name] = f"/{container}"
        else:
            paths[one.name] = f"/{one.object.name}"
    return paths


def _remark_on_the_rest(
    objects: Objects,
    ways: Mapping[tuple[str, str], Sequence[Route]],
    workloads: Sequence[Workload],
    deployed: Sequence[Workload],
) -> None:
    led_to = {service.title for one in deployed for service in one.services}
    left = {service.title for one in workloads for service in one.services} - led_to
    for service in objects.of("Service"):
        if service.title not in left:  # those of what is left out are said with it
            remark_on_service(service, service.title in led_to)
    ours = {service.name for service in objects.of("Service")}
    for routes in ways.values():
        for way in routes:
            if way.service not in ours:
                way.part.remark(f"the Service {way.service} is not in this file")
    for one in objects.of("ConfigMap", "Secret"):
        one.part.ignore("data", "stringData", "binaryData", "type", "immutable")
        one.part.rest({})
        if one.title not in objects.used:
            one.part.remark("no variable of a deployment comes from it", reasons.BIND_MOUNT[1])
    for one in objects.all:
        if one.kind not in _TAKEN:
            one.part.remark(*reasons.OBJECTS.get(one.kind, _UNKNOWN))
