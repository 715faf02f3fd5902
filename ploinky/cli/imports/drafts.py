"""One deployment while it is put together: nothing is put in that the server would refuse."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from attrs import define, field

from ploinky.cli.imports.parts import Part
from ploinky.deployment.fields import FIELDS
from ploinky.deployment.manifest import GIVEN_CAPABILITIES, check_environment
from ploinky.deployment.readers import Misfit
from ploinky.errors import ValidationFailed

_LEADS = re.compile(
    "host|addr|url|uri|server|service|endpoint|upstream|backend|broker|proxy|dsn|peer|node",
    re.IGNORECASE,
)
_CURL = re.compile(
    r"(?:curl|wget)\b[^|;&]*?[\s'\"](?P<url>https?://|)(?P<host>localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])"
    r"(?::(?P<port>\d{1,5}))?(?P<path>/[^\s'\"|;&]*)?(?=[\s'\"|;&]|$)"
)


@define
class Draft:
    """A deployment to be.

    Attributes:
        part: What it is made of.
        body: As ``POST deployments`` takes it.
    """

    part: Part
    body: dict[str, Any] = field(factory=dict, repr=False)
    _origins: dict[str, Part] = field(factory=dict, repr=False)

    def put(self, name: str, value: Any, part: Part) -> None:
        """Set a setting; one that does not fit is remarked upon, and is not set."""
        try:
            FIELDS[name](value)
        except Misfit as problem:
            part.remark(f"does not fit here: {problem.expected}")
        else:
            self.body[name] = value

    def variable(self, name: str, value: str, part: Part, *, is_secret: bool = False) -> None:
        """Set a variable; one whose name or value cannot be is remarked upon."""
        try:
            check_environment({name: value})
        except ValidationFailed as error:
            problem = next(iter(error.details.values())) if error.details else error.message
            part.remark(f"the variable {name} is not set: {problem}")
            return
        other = self.body.get("environment" if is_secret else "secrets", {})
        other.pop(name, None)
        self.body.setdefault("secrets" if is_secret else "environment", {})[name] = value
        self._origins[name] = part

    def note_references(self, names: set[str]) -> None:
        """Remark upon variables that hold the address of another service.

        Args:
            names: By which services call one another in the file.
        """
        for variable, value in self.body.get("environment", {}).items():
            found = names & _hosts_in(value, bool(_LEADS.search(variable)))
            if found:
                self._origins[variable].note(
                    f"{variable} looks like the address of {', '.join(sorted(found))}, and containers"
                    " here do not find each other by name",
                    "set it to an address that the container reaches: a database's own, or"
                    " http://HOST:8000/PATH of another deployment",
                )

    def volume(self, name: str, path: str, part: Part) -> None:
        """Mount a volume; where that cannot be, it is remarked upon."""
        there = self.body.get("volumes", [])
        if any(volume["name"] == name for volume in there):
            part.remark("a volume is mounted once in a container", "give this place its own volume")
        elif any(volume["path"] == path for volume in there):
            part.remark(f"something is mounted at {path} already")
        else:
            self.put("volumes", [*there, {"name": name, "path": path}], part)

    def resources(self, **limits: Any) -> None:
        """Set limits that are given."""
        given = {name: value for name, value in limits.items() if value is not None}
        if given:
            self.put("resources", {**self.body.get("resources", {}), **given}, self.part)

    def capabilities(self, add: Iterable[str], drop: Iterable[str], part: Part) -> None:
        """Set what the program may do, counted from what an engine gives by itself."""
        added = {one.upper().removeprefix("CAP_") for one in add}
        dropped = {one.upper().removeprefix("CAP_") for one in drop}
        if "ALL" in added:
            part.remark("not all capabilities are granted here", "name those that it needs")
            return
        if added or dropped:
            base = frozenset() if "ALL" in dropped else GIVEN_CAPABILITIES
            self.put("capabilities", sorted((base - dropped) | added), part)


def _hosts_in(value: str, is_address: bool) -> set[str]:
    """Find what may be host names in ``db``, ``db:3306`` or ``http://u:p@db:80/x,cache:1``.

    Args:
        is_address: Whether a bare word is taken for one.
    """
    found = set()
    for piece in re.split(r"[,;\s]+", value):
        scheme, sign, rest = piece.partition("://")
        host, _, port = (
            (rest if sign else scheme).partition("/")[0].rpartition("@")[2].partition(":")
        )
        if sign or port.isdigit() or (is_address and piece == host):
            found |= {host, host.partition(".")[0] if ".svc" in host else host}
    return found - {""}


def asked_over_http(command: str) -> tuple[str, int, str] | None:
    """Read a health check that asks this same container with curl or wget.

    Returns:
        Scheme, port and path; None where it does something else.
    """
    found = _CURL.search(command)
    if not found:
        return None
    scheme = "https" if found["url"] == "https://" else "http"
    port = int(found["port"] or (443 if scheme == "https" else 80))
    return scheme, port, found["path"] or "/"


def agent_name(*words: str) -> str:
    """Make an agent's name of what something is called elsewhere."""
    name = re.sub(r"[^A-Za-z0-9_.@+-]", "-", "-".join(word for word in words if word))
    return name.lstrip(".+-")[:100] or "imported"
