"""A file of Docker Compose, as a plan.

Source: the Compose Specification.  Of its files that stand beside it, `Files` says which are read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from ploinky.cli.documents import Node
from ploinky.cli.imports import reasons
from ploinky.cli.imports.drafts import agent_name
from ploinky.cli.imports.extending import Services
from ploinky.cli.imports.parts import Book, Part, Remark
from ploinky.cli.imports.plan import (
    Plan,
    Planned,
    Wishes,
    check_places,
    in_order,
    place_of,
)
from ploinky.cli.imports.services import Surroundings, draft, volume_of, why_not
from ploinky.cli.imports.variables import Files, Variables

_SERVICE_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


def plan_compose(
    node: Node, file: str, files: Files, environment: Mapping[str, str], wishes: Wishes
) -> Plan:
    """Make a plan of a file.

    Args:
        file: Its name, for people.
        files: Where it stands, and what it may read.
        environment: What ``$NAME`` stands for.

    Raises:
        CommandFailed: The file is invalid, or what is wished for does not fit it.
    """
    book, variables = Book(file), Variables(environment)
    whole = variables.in_part(Part(book, node, ""))
    services = _services(whole, files, variables)
    order = _in_order(services)
    project = re.sub(
        r"[^a-z0-9_-]", "", (whole.text("name") or files.directory.resolve().name).lower()
    )
    around = Surroundings(files, variables, _shared_volumes(services))
    planned: list[Planned] = []
    left_out: list[Remark] = []
    for name in order:
        part = services[name]
        why = _why_not(part, name, wishes)
        if why:
            left_out.append(Remark(part.book.file, part.line, part.place, *why))
            continue
        made = draft(part, wishes.ports.get(name), around)
        made.note_references(set(services) - {name})
        place = place_of(wishes, name, "", f"/{name}")
        body = {**place, "agent": agent_name(project, name), **made.body}
        planned.append(Planned(name, part.line, body))
    _remark_on_the_rest(whole)
    book.remarks.extend(variables.unset.values())
    check_places(wishes, planned, services)
    borrowed = tuple(sorted(variables.used))
    remarks = tuple(book.remarks)
    return in_order(Plan(file, "compose", tuple(planned), tuple(left_out), remarks, borrowed))


def _services(whole: Part, files: Files, variables: Variables) -> dict[str, Part]:
    found = whole.take("services")
    if found is None or not found.names:
        whole.fail("has no services")
    own = Services(whole.book, dict(found.items()), files, variables)
    for name, part in own.services.items():
        if not _SERVICE_NAME.fullmatch(name):
            part.fail("a service's name is letters, digits, dot, _ and -")
        if not part.is_mapping:
            part.fail("expected a service")
    return {name: own.whole(name) for name in own.services}


def _why_not(part: Part, name: str, wishes: Wishes) -> tuple[str, str] | None:
    profiles = [one.words for one in part.listed("profiles")]
    wished = "*" in wishes.profiles or wishes.profiles & set(profiles) or name in wishes.places
    if profiles and not wished:
        return f"it belongs to the profile {', '.join(profiles)}", f"--profile {profiles[0]}"
    why = why_not(part)
    if why and name in wishes.places and part.text("image"):
        return None  # whoever names a place for it knows better
    return why


def _in_order(services: Mapping[str, Part]) -> list[str]:
    """Give the names so that what others depend on comes first, else as they stand."""
    needs: dict[str, list[str]] = {}
    for name, part in services.items():
        given = part.take("depends_on")
        needs[name] = []
        for on, how in _dependencies(given) if given else []:
            if on not in services:
                how.fail(f"there is no service {on!r}")
            needs[name].append(on)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        services[error.args[1][0]].fail(f"services depend on one another in a circle: {circle}")
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for on in needs[name]:
                visit(on)
            order.append(name)

    for name in services:
        visit(name)
    return order


def _dependencies(given: Part) -> list[tuple[str, Part]]:
    if not given.is_mapping:
        return [(one.words, one) for one in given.entries()]
    found = list(given.items())
    for on, how in found:
        if how.is_mapping and how.text("condition") == "service_completed_successfully":
            how.remark(f"{on} is not waited for until it has ended, but until it serves")
    return found


def _shared_volumes(services: Mapping[str, Part]) -> frozenset[str]:
    mounted: Counter[str] = Counter()
    for part in services.values():
        sources = set()
        for entry in part.listed("volumes"):
            quiet = Part(Book(entry.book.file), entry.node, entry.place)
            source, _, is_bind = volume_of(quiet)
            if source and not is_bind:
                sources.add(source)
        mounted.update(sources)
    return frozenset(name for name, times in mounted.items() if times > 1)


def _remark_on_the_rest(whole: Part) -> None:
    whole.ignore("version")
    for _, volume in whole.part("volumes").items():
        if volume.is_mapping:
            volume.rest(reasons.VOLUME)
    whole.rest(reasons.COMPOSE)
