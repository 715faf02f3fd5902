"""The route table: (host, path) to a route, token to a principal.

A snapshot enters, and changes to it; look-ups only read what was made of them.  This
module does no I/O, waits for nothing and knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from zope.interface import implementer

from ploinky.errors import NoSuchRoute
from ploinky.interfaces import IRouter
from ploinky.values import (
    NOBODY,
    DeploymentKey,
    Principal,
    Route,
    RouteChange,
    RouteSnapshot,
)

EVERY_DOMAIN = "*"
LOCALHOST = "localhost"
LOOPBACK = ("127.0.0.1", "[::1]")
"""What a person types for `LOCALHOST`; it leads there unless it is a domain of its own."""

_FRONT_DOOR = DeploymentKey(EVERY_DOMAIN, "/")
_HOSTS_REMEMBERED = 4096


class _Prefixes:
    """The routes of one domain, by path.

    Attributes:
        depth: Segments of the longest path: no look-up goes deeper.
    """

    __slots__ = ("_counts", "by_path", "depth")

    def __init__(self) -> None:
        self.by_path: dict[bytes, Route] = {}
        self.depth = 0
        self._counts: dict[int, int] = {}

    def put(self, route: Route) -> None:
        """Add one whose path has none."""
        path = route.key.path.encode()
        self.by_path[path] = route
        depth = path.count(b"/")
        self._counts[depth] = self._counts.get(depth, 0) + 1
        self.depth = max(self.depth, depth)

    def take_out(self, path: bytes) -> Route | None:
        """Remove the one of a path, and give it."""
        route = self.by_path.pop(path, None)
        if route is not None:
            depth = path.count(b"/")
            self._counts[depth] -= 1
            if not self._counts[depth]:
                del self._counts[depth]
                self.depth = max(self._counts, default=0)
        return route

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
    """What a worker routes by: one generation at a time.

    A change costs what it changes, not what stands beside it.

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
        self._hidden: dict[str, _Prefixes] = {}
        self._control = _Prefixes()
        self._front_door: Route | None = None
        self._principals: dict[str, Principal] = {}
        self._hosts: dict[bytes, str] = {}

    # --- generations ------------------------------------------------------------

    def adopt(self, snapshot: RouteSnapshot) -> list[Route]:
        """See `IRouter.adopt`.  A route that is as it was stays the same object."""
        if snapshot.generation < self.generation:
            return []
        wanted = {route.key for route in snapshot.routes}
        gone = [route.key for route in self.routes() if route.key not in wanted]
        fresh = [route for route in snapshot.routes if route != self.route_at(route.key)]
        self._principals = {p.token_hash: p for p in snapshot.principals if p.token_hash}
        return self._move_to(snapshot.generation, gone, fresh)

    def amend(self, change: RouteChange) -> list[Route]:
        """See `IRouter.amend`."""
        if change.base != self.generation:
            raise ValueError(f"a change to generation {change.base}; this is {self.generation}")
        for token_hash in change.revoked:
            self._principals.pop(token_hash, None)
        self._principals.update((p.token_hash, p) for p in change.principals if p.token_hash)
        return self._move_to(change.generation, change.gone, change.routes)

    def _move_to(
        self, generation: int, gone: Iterable[DeploymentKey], fresh: Sequence[Route]
    ) -> list[Route]:
        """Change the routes, in one step as far as look-ups can tell; give what stood before."""
        left = [self._take_out(key) for key in gone]
        for route in fresh:
            left.append(self._take_out(route.key))
            self._put(route)
        self._hosts.clear()  # where loopback addresses lead depends on what is deployed
        self.generation = generation
        return [route for route in left if route is not None]

    def _put(self, route: Route) -> None:
        key = route.key
        if key == _FRONT_DOOR:
            self._front_door = route
        elif key.domain == EVERY_DOMAIN:
            self._control.put(route)
        else:
            domains = self._hidden if route.is_hidden else self._domains
            domains.setdefault(key.domain, _Prefixes()).put(route)

    def _take_out(self, key: DeploymentKey) -> Route | None:
        if key == _FRONT_DOOR:
            route, self._front_door = self._front_door, None
            return route
        path = key.path.encode()
        if key.domain == EVERY_DOMAIN:
            return self._control.take_out(path)
        for domains in (self._domains, self._hidden):
            prefixes = domains.get(key.domain)
            if prefixes is not None and (found := prefixes.take_out(path)) is not None:
                if not prefixes.by_path:
                    del domains[key.domain]
                return found
        return None

    # --- look-ups ---------------------------------------------------------------

    def route_at(self, key: DeploymentKey) -> Route | None:
        """See `IRoutes.route_at`."""
        if key == _FRONT_DOOR:
            return self._front_door
        path = key.path.encode()
        if key.domain == EVERY_DOMAIN:
            return self._control.by_path.get(path)
        for domains in (self._domains, self._hidden):
            prefixes = domains.get(key.domain)
            if prefixes is not None and (found := prefixes.by_path.get(path)) is not None:
                return found
        return None

    def routes(self) -> Iterator[Route]:
        """See `IRoutes.routes`."""
        if self._front_door is not None:
            yield self._front_door
        yield from self._control.by_path.values()
        for domains in (self._domains, self._hidden):
            for prefixes in domains.values():
                yield from prefixes.by_path.values()

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
        domain = _domain(host)
        if domain in LOOPBACK and domain not in self._domains and LOCALHOST in self._domains:
            domain = LOCALHOST
        self._hosts[host] = domain
        return domain

    def _what_is_missing(self, domain: str, path: bytes) -> str:
        place = f"{domain}{path.decode('ascii', 'backslashreplace')}"[:300]
        if domain in self._domains:
            return f"nothing is deployed at {place}"
        if domain in self._hidden or (domain in LOOPBACK and LOCALHOST in self._hidden):
            return f"nothing is reached at {place}: the domain is disabled"
        return f"nothing is deployed at {place}: there is no deployment on the domain {domain}"


def _domain(host: bytes) -> str:
    """Lower-case a ``Host`` field's value and take port and final dot off."""
    name = host.decode("ascii", "backslashreplace").lower()
    end = name.find("]") + 1 if name.startswith("[") else name.find(":")
    if end > 0:
        name = name[:end]
    return name.rstrip(".")
