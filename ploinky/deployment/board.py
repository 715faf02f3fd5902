"""What every worker should route by: one post per deployment, less the instances that are not well.

The manager posts, the supervisor's news come in, route tables go out, in order.  No I/O but
`IWorkerGroup.publish`.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from twisted.internet.defer import DeferredLock

from ploinky.errors import Conflict
from ploinky.leader_interfaces import IInstances, IWorkerGroup
from ploinky.values import DeploymentKey, Route, Target

ABSENT = "none of its instances is healthy"


class RouteBoard:
    """The routes as they should be now.

    Args:
        instances: Asked where an instance is reached now.
        built_in_routes: The server's own; no deployment may take their paths.
    """

    def __init__(
        self, workers: IWorkerGroup, instances: IInstances, built_in_routes: Sequence[Route]
    ) -> None:
        self._workers = workers
        self._instances = instances
        self._built_in_routes = tuple(built_in_routes)
        self._posts: dict[str, Route] = {}
        self._deployments: dict[str, str] = {}  # by instance
        self._served: dict[str, Route] = {}
        self._stale: dict[str, None] = {}  # in order
        self._unwell: set[str] = set()
        self._disabled: frozenset[str] = frozenset()
        self._lock = DeferredLock()
        self._version = 0
        self._published = -1

    def check_free(self, key: DeploymentKey) -> None:
        """See that the path is not one of the server's own.

        Raises:
            Conflict: It is, or lies below one.
        """
        for route in self._built_in_routes:
            own = route.key.path
            # What is at / leads to the dashboard only where nothing is deployed there.
            if own != "/" and (key.path == own or key.path.startswith(own + "/")):
                raise Conflict(
                    f"{own} and what is below it belongs to the server itself; choose another path"
                )

    def post(self, route: Route) -> None:
        """Set a deployment's route, with all its instances, well or not."""
        self._forget_instances(route.deployment)
        self._posts[route.deployment] = route
        for target in route.targets:
            if target.instance:
                self._deployments[target.instance] = route.deployment
        self._changed(route.deployment)

    def withdraw(self, deployment_id: str) -> None:
        """Take a deployment's route away; one that is not posted is no error."""
        self._forget_instances(deployment_id)
        if self._posts.pop(deployment_id, None) is not None:
            self._changed(deployment_id)

    def _forget_instances(self, deployment_id: str) -> None:
        for target in self.targets(deployment_id):
            self._deployments.pop(target.instance, None)

    def _changed(self, *deployment_ids: str) -> None:
        self._stale |= dict.fromkeys(deployment_ids)
        self._version += 1

    def disable(self, domains: frozenset[str]) -> None:
        """Hide what is posted, or will be, on these domains, and on no other."""
        if domains != self._disabled:
            self._disabled = domains
            self._changed(*self._posts)

    def is_hidden(self, key: DeploymentKey) -> bool:
        """Tell whether no request finds what is deployed there, as its domain is disabled."""
        return key.domain in self._disabled

    def posted(self, deployment_id: str) -> Route | None:
        """Give a deployment's route as it was posted; None where it has none."""
        return self._posts.get(deployment_id)

    def targets(self, deployment_id: str) -> tuple[Target, ...]:
        """Give all targets of a deployment, well or not."""
        post = self._posts.get(deployment_id)
        return post.targets if post else ()

    def healthy(self, targets: Sequence[Target]) -> tuple[Target, ...]:
        """Give those of them that are well."""
        return tuple(target for target in targets if target.instance not in self._unwell)

    def noticed(self, instance: str, healthy: bool) -> DeploymentKey | None:
        """Take the supervisor's news; give where a route changes by it, None where none does.

        News of an instance that is not posted yet is kept: it may die just before its switch.
        """
        if healthy:
            self._unwell.discard(instance)
        else:
            self._unwell.add(instance)
        deployment_id = self._deployments.get(instance)
        if deployment_id is None:
            return None
        post = self._posts[deployment_id]
        targets = tuple(map(self._as_reached_now, post.targets))
        self._posts[deployment_id] = attrs.evolve(post, targets=targets)
        self._changed(deployment_id)
        return post.key

    def forget(self, instance: str) -> None:
        """Forget the news of an instance that has ended."""
        self._unwell.discard(instance)
        if instance in self._deployments:
            self._changed(self._deployments[instance])

    def _as_reached_now(self, target: Target) -> Target:
        """A service that was started again may have another address."""
        now = self._instances.target(target.instance) if target.instance else None
        return now or target

    def routes(self) -> tuple[Route, ...]:
        """Give the table as it should be now; what has not changed is the same object as before."""
        for deployment_id in self._stale:
            post = self._posts.get(deployment_id)
            if post is None:
                self._served.pop(deployment_id, None)
            else:
                self._served[deployment_id] = self._as_served(post)
        self._stale.clear()
        return (*self._built_in_routes, *self._served.values())

    def _as_served(self, post: Route) -> Route:
        targets = self.healthy(post.targets)
        reason = "" if targets else post.reason or f"{post.key}: {ABSENT}"
        hidden = self.is_hidden(post.key)
        served = attrs.evolve(post, targets=targets, reason=reason, is_hidden=hidden)
        return post if served == post else served

    async def publish(self) -> None:
        """Fires once every worker serves by all that was posted before this call.

        One table is on its way at a time; calls that come meanwhile share the next one.
        """
        wanted = self._version
        async with self._lock:
            if self._published >= wanted:
                return
            version = self._version
            await self._workers.publish(self.routes())
            self._published = version
