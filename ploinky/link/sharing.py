"""One object for equal values: what came over the link has each of its own, many times over.

Routes enter and leave, equal to what they were.  Thousands of them say the same of most things:
their domain, their limits, the address of an agent that several lead to.
"""

from __future__ import annotations

from typing import TypeVar

import attrs

from ploinky.values import DeploymentKey, Route, Target

T = TypeVar("T")

MOST = 4096
"""Values that are remembered at once: who has more different ones gains nothing by it."""


class Shared:
    """Remembers values, and gives the one that it knows for each that equals it."""

    def __init__(self) -> None:
        # By type too: 30 and 30.0 are equal.
        self._known: dict[tuple[type, object], object] = {}

    def one(self, value: T) -> T:
        """Give the object to use for a value, which must be hashable."""
        name = (type(value), value)
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= MOST:
                self._known.clear()
            known = self._known[name] = value
        return known  # type: ignore[return-value]

    def route(self, route: Route) -> Route:
        """Give an equal route of shared values."""
        return attrs.evolve(
            route,
            key=DeploymentKey(self.one(route.key.domain), route.key.path),
            targets=self._targets(route.targets),
            timeout_seconds=self.one(route.timeout_seconds),
            max_body_bytes=self.one(route.max_body_bytes),
            max_upload_bytes=self.one(route.max_upload_bytes),
            rate_limit=self.one(route.rate_limit),
        )

    def _targets(self, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        if all(not target.instance for target in targets):
            return self.one(targets)
        return tuple(
            attrs.evolve(target, inner_queue=self.one(target.inner_queue)) for target in targets
        )
