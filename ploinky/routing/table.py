"""The route table: (host, path) to a route, token to a principal.

A snapshot enters, an index is made of it once, and look-ups only read it.  This
module does no I/O, waits for nothing and knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from attrs import field, frozen
from zope.interface import implementer

from ploinky.errors import NoSuchRoute
from ploinky.interfaces import IRouter
from ploinky.values import NOBODY, Kind, Principal, Route, RouteSnapshot

EVERY_DOMAIN = "*"
LOCALHOST = "localhost"
LOOPBACK = ("127.0.0.1", "[::1]")
"""What a person types for `LOCALHOST`; it leads there unless it is a domain of its own."""

_HOSTS_REMEMBERED = 4096


@frozen
class _Prefixes:
    """The routes of one domain, by path.

    Attributes:
        depth: Segments of the longest path: no look-up goes deeper.
    """

    by_path: dict[bytes, Route] = field(factory=dict)
    depth: int = 0

    @classmethod
    def of(cls, routes: Iterable[Route]) -> _Prefixes:
        by_path = {route.key.path.encode(): route for route in routes}
        return cls(by_path, max((path.count(b"/") for path in by_path), default=0))

    def longest(self, path: bytes) -> Route | None:
        """Find the route of the longest prefix made of whole segments."""
        by_path = self.by_path
        best = by_path.get(b"/")
        end = 0
        for _ in range(self.depth):
            end = path.find(b"/", end + 1)
            if end < 0:
                return by_path.get(path, best)
            best = by_path.get(path[:end], best)
        return best


@implementer(IRouter)
class RouteTable:
    """What a worker routes by: one generation at a time, replaced as a whole.

    Built-in routes (kind `CONTROL`, domain ``*``) hold on every domain and win over
    deployments at or beneath their path, so that none can stand in for the management
    API.  The built-in route of ``/`` is the exception: it is the front door, which answers
    for ``/`` itself and only where no deployment does.

    Args:
        wall_clock: Unix seconds; tokens expire by it.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self.generation = -1
        self._domains: dict[str, _Prefixes] = {}
        self._disabled: frozenset[str] = frozenset()
        self._control = _Prefixes()
        self._front_door: Route | None = None
        self._principals: dict[str, Principal] = {}
        self._hosts: dict[bytes, str] = {}

    def adopt(self, snapshot: RouteSnapshot) -> None:
        """Route by ``snapshot`` from now on; one of an older generation is ignored."""
        if snapshot.generation < self.generation:
            return
        control: list[Route] = []
        front_door: Route | None = None
        domains: dict[str, list[Route]] = {}
        disabled: set[str] = set()
        for route in snapshot.routes:
            if route.is_hidden:
                disabled.add(route.key.domain)
            elif route.kind is not Kind.CONTROL:
                domains.setdefault(route.key.domain, []).append(route)
            elif route.key.path == "/":
                front_door = route
            else:
                control.append(route)
        self._domains = {domain: _Prefixes.of(routes) for domain, routes in domains.items()}
        self._disabled = frozenset(disabled)
        if LOCALHOST in self._domains:
            for address in LOOPBACK:
                self._domains.setdefault(address, self._domains[LOCALHOST])
        self._control = _Prefixes.of(control)
        self._front_door = front_door
        self._principals = {p.token_hash: p for p in snapshot.principals if p.token_hash}
        self.generation = snapshot.generation

    def match(self, host: bytes, path: bytes) -> Route:
        """Find the route with the longest path prefix, on whole segments.

        Raises:
            NoSuchRoute: Nothing is deployed there; the message names host and path.
        """
        route = self._control.longest(path)
        if route is not None:
            return route
        domain = self._hosts.get(host)
        if domain is None:
            domain = self._remember(host)
        prefixes = self._domains.get(domain)
        if prefixes is not None:
            route = prefixes.longest(path)
            if route is not None:
                return route
        if path == b"/" and self._front_door is not None:
            return self._front_door
        raise NoSuchRoute(self._what_is_missing(domain, path))

    def principal(self, token: str) -> Principal:
        """Tell whose bearer token this is; `NOBODY` where it is unknown or has expired."""
        known = self._principals.get(hashlib.sha256(token.encode()).hexdigest())
        if known is None:
            return NOBODY
        if known.expires_at is not None and known.expires_at <= self._wall_clock():
            return NOBODY
        return known

    def knows(self, principal: Principal) -> bool:
        """Tell whether somebody of an earlier `principal` is valid still."""
        known = self._principals.get(principal.token_hash)
        if known is None:
            return False
        return known.expires_at is None or known.expires_at > self._wall_clock()

    def _remember(self, host: bytes) -> str:
        """Give the domain that a ``Host`` names, and keep the answer while there is room."""
        if len(self._hosts) >= _HOSTS_REMEMBERED:
            self._hosts.clear()
        domain = self._hosts[host] = _domain(host)
        return domain

    def _what_is_missing(self, domain: str, path: bytes) -> str:
        place = f"{domain}{path.decode('ascii', 'backslashreplace')}"[:300]
        if domain in self._domains:
            return f"nothing is deployed at {place}"
        if domain in self._disabled or (domain in LOOPBACK and LOCALHOST in self._disabled):
            return f"nothing is reached at {place}: the domain is disabled"
        return f"nothing is deployed at {place}: there is no deployment on the domain {domain}"


def _domain(host: bytes) -> str:
    """Lower-case a ``Host`` field's value and take port and final dot off."""
    name = host.decode("ascii", "backslashreplace").lower()
    end = name.find("]") + 1 if name.startswith("[") else name.find(":")
    if end > 0:
        name = name[:end]
    return name.rstrip(".")
