"""A request on its way past instances that got nothing of it: where to, and for how long.

An instance that failed a call enters, the route to those that are left leaves.  This module
claims nothing and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from ploinky.interfaces import IRoutes
from ploinky.routing.patience import CONNECT_SECONDS
from ploinky.values import Route, Target


class Detour:
    """What is known of one request that the instance chosen first did not get.

    Args:
        seconds: Tells the time.
        routes: Say which instances there are now: those may be gone that the request began with.
        route: The request's.

    Attributes:
        tried: The instances that got nothing of it.
    """

    def __init__(self, seconds: Callable[[], float], routes: IRoutes, route: Route) -> None:
        self._seconds = seconds
        self._routes = routes
        self._route = route
        self._until = 0.0
        self.tried: tuple[Target, ...] = ()

    def past(self, target: Target, queued_seconds: float) -> Route | None:
        """Give the route by which another instance is found; None where none is left, or no time.

        Args:
            queued_seconds: For which the request has waited for a place so far; they do not count.
        """
        now_seconds = self._seconds() - queued_seconds
        route = self._route
        if not self.tried:  # it has had its share of the time; see `IMovable`
            share_seconds = CONNECT_SECONDS / max(1, len(route.targets))
            self._until = now_seconds + CONNECT_SECONDS - share_seconds
        self.tried = (*self.tried, target)
        if now_seconds > self._until:
            return None
        now = self._routes.route_at(route.key)
        if now is None or now.is_hidden:
            return None
        if (now.deployment, now.kind) != (route.deployment, route.kind):
            return None
        return None if all(target in self.tried for target in now.targets) else now
