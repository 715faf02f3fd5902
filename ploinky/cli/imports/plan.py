"""What an import comes to: deployments, what is left out, and what has another effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen

from ploinky.cli.failures import CONFIGURATION, CommandFailed
from ploinky.cli.imports.parts import Remark


@frozen
class Wishes:
    """What whoever imports says of it.

    Attributes:
        domain: Where nothing else is said.
        path: Of the one deployment that there is; ``""``: by its name.
        places: By name in the file, ``/path`` or ``domain/path``.
        ports: By name in the file.
        profiles: Of Compose, to import as well; ``*`` is all.
    """

    domain: str = ""
    path: str = ""
    places: Mapping[str, str] = field(factory=dict)
    ports: Mapping[str, int] = field(factory=dict)
    profiles: frozenset[str] = frozenset()


@frozen
class Planned:
    """One deployment to be.

    Attributes:
        name: In the file.
        line: In the file.
        body: As ``POST deployments`` and ``--config`` take it.
    """

    name: str
    line: int
    body: Mapping[str, Any] = field(repr=False)

    @property
    def where(self) -> str:
        """Domain and path."""
        return f"{self.body['domain']}{self.body['path']}"


@frozen
class Plan:
    """What becomes of a file.

    Attributes:
        file: Its name, for people.
        kind: ``compose`` or ``k8s``.
        deployments: In the order in which they are to be deployed.
        left_out: What would be a deployment, and why it will be none.
        remarks: Parts that do not map, or map to something else.
        borrowed: Variables whose values come from ``.env`` or from where p-cli runs.
    """

    file: str
    kind: str
    deployments: tuple[Planned, ...]
    left_out: tuple[Remark, ...] = ()
    remarks: tuple[Remark, ...] = ()
    borrowed: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all of the file will be here as it was there."""
        return not self.left_out and not any(remark.is_lost for remark in self.remarks)

    def as_json(self) -> dict[str, Any]:
        """Give what programs read; values of secrets are not in it."""
        return {
            "file": self.file,
            "kind": self.kind,
            "deployments": [without_secrets(one.body) for one in self.deployments],
            "leftOut": [_entry(remark) for remark in self.left_out],
            "notMapped": [_entry(remark) for remark in self.remarks if remark.is_lost],
            "borrowed": list(self.borrowed),
            "differs": [_entry(remark) for remark in self.remarks if not remark.is_lost],
        }


def without_secrets(body: Mapping[str, Any]) -> dict[str, Any]:
    """Give a deployment that takes its secrets from p-cli's environment instead."""
    shown = dict(body)
    if shown.get("secrets"):
        shown["secrets"] = dict.fromkeys(shown["secrets"])
    return shown


def place_of(wishes: Wishes, name: str, domain: str, path: str) -> dict[str, str]:
    """Give where a deployment goes: as it is wished, else the file's own, else its name.

    Args:
        domain: Of the file's own; ``""`` for none.
        path: Likewise.
    """
    wished_domain, slash, wished_path = wishes.places.get(name, wishes.path).partition("/")
    return {
        "domain": wished_domain or wishes.domain or domain or "localhost",
        "path": slash + wished_path if slash else path,
    }


def check_places(wishes: Wishes, planned: Iterable[Planned], names: Iterable[str]) -> None:
    """See that what is wished for is in the file, and that no two go to one place.

    Args:
        names: Of all that might have become a deployment.

    Raises:
        CommandFailed: With what to type instead.
    """
    there, known = list(planned), list(names)
    for name in (*wishes.places, *wishes.ports):
        if name not in known:
            raise CommandFailed(
                f"there is no {name!r} in this file; there are: {', '.join(known) or 'none'}",
                exit_code=CONFIGURATION,
            )
    if wishes.path and len(there) != 1:
        raise CommandFailed(
            f"--path is for a file of one deployment, and this would give {len(there)}",
            hint=f"name a path for each: {' '.join(f'{one.name}=/{one.name}' for one in there)}",
            exit_code=CONFIGURATION,
        )
    taken: dict[str, Planned] = {}
    for one in there:
        first = taken.setdefault(one.where, one)
        if first is not one:
            raise CommandFailed(
                f"{first.name} and {one.name} would both be deployed to {one.where}",
                hint=f"name another place: {one.name}=/PATH",
                exit_code=CONFIGURATION,
            )


def _entry(remark: Remark) -> dict[str, Any]:
    entry = {"file": remark.file, "line": remark.line, "place": remark.place, "why": remark.why}
    return entry | ({"instead": remark.instead} if remark.instead else {})


def in_order(plan: Plan) -> Plan:
    """Give the plan with its remarks in the order of the file's lines."""
    by_line = sorted(plan.remarks, key=lambda remark: (remark.file, remark.line))
    return evolve(plan, remarks=tuple(dict.fromkeys(by_line)))
