"""Route to a lease on one healthy instance, in one synchronous step.

Routes enter, leases leave; what is in flight at each instance is counted here
and nowhere else.  There is no ``await`` between choosing and counting, so that a
switch of releases never falls in between.  The count is this worker's own:
the exact ``concurrency`` of an instance is held by AgentCore inside it, which
queues what several workers send beyond it.  This module knows no wire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import attrs
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ploinky.errors import NoHealthyInstance, Overloaded
from ploinky.interfaces import ILease, IOrchestrator, IRoutes, IStanding
from ploinky.values import Address, DeploymentKey, Route, Target

LONGEST_QUEUE = 1024
"""Calls that may wait before one deployment."""

AVOIDED_SECONDS = 2.0
"""How long others are preferred to an instance that could not be reached."""

RETRY_AFTER_SECONDS = 1


class _Place:
    """What is known of one instance: how much it has in hand, and whether it failed."""

    __slots__ = ("avoided_until", "deployment", "in_flight", "key", "owner", "turn")

    def __init__(self, owner: Orchestrator, route: Route) -> None:
        self.owner = owner
        self.deployment = route.deployment
        self.key = route.key
        self.in_flight = 0
        self.turn = 0
        self.avoided_until = 0.0


@implementer(ILease)
class _Lease:
    __slots__ = ("_place", "route", "target")

    def __init__(self, route: Route, target: Target, place: _Place) -> None:
        self.route = route
        self.target = target
        self._place: _Place | None = place

    def release(self, failed: bool = False) -> None:
        place = self._place
        if place is None:
            return
        self._place = None
        place.in_flight -= 1
        if failed or place.owner.watched:
            place.owner.released(self.route, place, failed)


@implementer(IStanding)
class _Standing:
    __slots__ = ("_place", "route", "target")

    def __init__(self, route: Route, target: Target, place: _Place) -> None:
        self.route = route
        self.target = target
        self._place = place

    def take(self) -> bool:
        place = self._place
        if place.in_flight >= self.route.concurrency:
            return False
        place.in_flight += 1
        return True

    def release(self, failed: bool = False) -> None:
        place = self._place
        place.in_flight -= 1
        if failed or place.owner.watched:
            place.owner.released(self.route, place, failed)

    def lease(self) -> _Lease:
        return _Lease(self.route, self.target, self._place)


class _Waiter:
    """One call in the queue before a deployment."""

    __slots__ = ("granted", "queued", "route", "tried")

    def __init__(self, route: Route, tried: Sequence[Target], granted: Deferred[_Lease]) -> None:
        self.route = _without(route, tried)
        self.tried = tried
        self.granted = granted
        self.queued = True


class _Queue:
    """The calls that wait before one deployment, first come first served."""

    __slots__ = ("deployment", "granting", "waiters")

    def __init__(self, deployment: str) -> None:
        self.deployment = deployment
        self.waiters: deque[_Waiter] = deque()
        self.granting = False

    def leave(self, waiter: _Waiter) -> Deferred[_Lease]:
        """Take one out of the queue; give what it waits for."""
        self.waiters.remove(waiter)
        waiter.queued = False
        return waiter.granted


class _Drain:
    """Somebody who waits until these instances have nothing in hand."""

    __slots__ = ("done", "instances")

    def __init__(self, instances: frozenset[str], done: Deferred[None]) -> None:
        self.instances = instances
        self.done = done


@implementer(IOrchestrator)
class Orchestrator:
    """Least in flight wins; of equals the one that was chosen longest ago.

    Args:
        clock: For the wait in the queue and for how long a failed instance is avoided.
        longest_queue: Calls that may wait before one deployment.
        avoided_seconds: How long others are preferred to an instance that failed.
    """

    def __init__(
        self,
        clock: IReactorTime,
        longest_queue: int = LONGEST_QUEUE,
        avoided_seconds: float = AVOIDED_SECONDS,
    ) -> None:
        self._clock = clock
        self._longest_queue = longest_queue
        self._avoided_seconds = avoided_seconds
        self._places: dict[str | Address, _Place] = {}
        self._doubted: set[str | Address] = set()
        self._queues: dict[str, _Queue] = {}
        self._drains: list[_Drain] = []
        self._turn = 0
        self.watched = False
        """Whether anybody waits for a release; what every lease asks when it ends."""

    # --- claiming: the hot path ---------------------------------------------

    def claim(self, route: Route) -> _Lease | None:
        """Choose and count in one step; see `IOrchestrator`."""
        targets = route.targets
        if len(targets) == 1:
            target = targets[0]
            place = self._places.get(_place_of(target)) or self._new_place(route, target)
            if place.in_flight >= route.concurrency:
                return None
            place.in_flight += 1
            return _Lease(route, target, place)
        return self._claim_one_of(route)

    def standing(self, route: Route) -> _Standing | None:
        """Give what claims at a route's only target; see `IOrchestrator`."""
        if len(route.targets) != 1:
            return None
        target = route.targets[0]
        place = self._places.get(_place_of(target)) or self._new_place(route, target)
        return _Standing(route, target, place)

    def _claim_one_of(self, route: Route) -> _Lease | None:
        now = self._clock.seconds()
        chosen: Target | None = None
        best: _Place | None = None
        best_rank = (True, route.concurrency, 0)
        for target in route.targets:
            place = self._places.get(_place_of(target)) or self._new_place(route, target)
            if place.in_flight >= route.concurrency:
                continue
            rank = (place.avoided_until > now, place.in_flight, place.turn)
            if rank < best_rank:
                chosen, best, best_rank = target, place, rank
        if chosen is None or best is None:
            if not route.targets:
                raise _nobody(route)
            return None
        self._turn += 1
        best.turn = self._turn
        best.in_flight += 1
        return _Lease(route, chosen, best)

    def _new_place(self, route: Route, target: Target) -> _Place:
        name = _place_of(target)
        place = self._places[name] = _Place(self, route)
        self._doubted.add(name)  # this route may be one that left while its call came in
        return place

    # --- waiting ------------------------------------------------------------

    async def claim_later(
        self, route: Route, timeout_seconds: float, tried: Sequence[Target] = ()
    ) -> _Lease:
        """Wait in the bounded queue before the route's instances; see `IOrchestrator`."""
        lease = self.claim(_without(route, tried))
        if lease is not None:
            return lease
        queue = self._queues.get(route.deployment)
        if queue is None:
            queue = self._queues[route.deployment] = _Queue(route.deployment)
        if len(queue.waiters) >= self._longest_queue:
            raise _overloaded(route, f"{len(queue.waiters)} calls are waiting already")
        granted: Deferred[_Lease] = Deferred()
        waiter = _Waiter(route, tried, granted)
        queue.waiters.append(waiter)
        self.watched = True
        granted.addTimeout(timeout_seconds, self._clock)
        try:
            return await granted
        except TimeoutError:
            raise _overloaded(
                waiter.route, f"none became free within {timeout_seconds:g} s"
            ) from None
        finally:
            if waiter.queued:
                queue.waiters.remove(waiter)
                self._tidy(queue)

    def _tidy(self, queue: _Queue) -> None:
        """Forget a queue that nobody stands in."""
        if not queue.waiters and not queue.granting:
            self._queues.pop(queue.deployment, None)
        self._look_who_waits()

    def _grant(self, queue: _Queue) -> None:
        """Hand out places in order of arrival, until none is free.

        A granted call goes on inside this loop, and may release its place (an agent that
        refuses connections) before it returns; it then comes round again here rather than
        one frame deeper.
        """
        if queue.granting:
            return
        queue.granting = True
        try:
            while self._grant_one(queue):
                pass
        finally:
            queue.granting = False
            self._tidy(queue)

    def _grant_one(self, queue: _Queue) -> bool:
        """Hand a place to whoever is the first that one is free for; tell whether there was any."""
        for waiter in queue.waiters:
            try:
                lease = self.claim(waiter.route)
            except NoHealthyInstance as error:
                queue.leave(waiter).errback(error)
                return True
            if lease is not None:
                queue.leave(waiter).callback(lease)
                return True
            if not waiter.tried:
                return False  # every place is taken; one who tried some may wait for others alone
        return False

    def released(self, route: Route, place: _Place, failed: bool) -> None:
        """Note a failure and wake whoever waits for this place; called by leases alone."""
        if failed:
            place.avoided_until = self._clock.seconds() + self._avoided_seconds
        queue = self._queues.get(route.deployment)
        if queue is not None:
            self._grant(queue)
        if place.in_flight == 0:
            for drain in self._drains[:]:
                if not self._left(drain.instances):
                    self._drains.remove(drain)
                    drain.done.callback(None)
        self._look_who_waits()

    def _look_who_waits(self) -> None:
        self.watched = bool(self._queues or self._drains)

    # --- generations and draining -------------------------------------------

    def adopt(self, left: Iterable[Route], now: IRoutes) -> None:
        """Look again at everything that waits, under the routes of a new generation.

        A waiting call gets a place at the new targets of its deployment; where the route is gone
        or has no targets, it fails with `NoHealthyInstance`.

        Args:
            left: The routes that stand no more, or not as they were.
            now: Those that stand.
        """
        for route in left:
            self._doubted.update(map(_place_of, route.targets))
        if self._doubted:
            self._forget_places(now)
        for queue in list(self._queues.values()):
            for waiter in queue.waiters:
                successor = _successor(now.route_at(waiter.route.key), waiter.route)
                waiter.route = _without(successor, waiter.tried)
            self._grant(queue)

    def _forget_places(self, now: IRoutes) -> None:
        """Forget the idle places that no route leads to; look again later at those in use."""
        shared: dict[str | Address, DeploymentKey] | None = None
        for name in list(self._doubted):
            place = self._places.get(name)
            if place is not None and not _leads_to(now.route_at(place.key), name):
                if isinstance(name, Address) and shared is None:  # several routes may lead there
                    shared = {
                        target.address: route.key
                        for route in now.routes()
                        for target in route.targets
                        if not target.instance
                    }
                if shared is not None and name in shared:
                    place.key = shared[name]
                elif place.in_flight:
                    continue
                else:
                    del self._places[name]
            self._doubted.discard(name)

    async def drained(self, instances: frozenset[str], timeout_seconds: float) -> int:
        """Wait until nothing is in flight at these instances; see `IOrchestrator`."""
        if not self._left(instances):
            return 0
        done: Deferred[None] = Deferred()
        drain = _Drain(instances, done)
        self._drains.append(drain)
        self.watched = True
        done.addTimeout(timeout_seconds, self._clock)
        try:
            await done
        except TimeoutError:
            return self._left(instances)
        finally:
            if drain in self._drains:
                self._drains.remove(drain)
            self._look_who_waits()
        return 0

    def _left(self, instances: frozenset[str]) -> int:
        return sum(self._places[one].in_flight for one in instances if one in self._places)

    def load(self) -> dict[str, list[int]]:
        """Give ``[in flight, waiting]`` by deployment id; those without either are left out."""
        load: dict[str, list[int]] = {}
        for place in self._places.values():
            if place.in_flight and place.deployment:
                load.setdefault(place.deployment, [0, 0])[0] += place.in_flight
        for queue in self._queues.values():
            if queue.waiters:
                load.setdefault(queue.deployment, [0, 0])[1] += len(queue.waiters)
        return load

    def in_flight(self) -> int:
        """Tell how many leases are out."""
        return sum(place.in_flight for place in self._places.values())


def _place_of(target: Target) -> str | Address:
    """Say what is counted as one: an instance, or what listens where we started none."""
    return target.instance or target.address


def _leads_to(route: Route | None, name: str | Address) -> bool:
    return route is not None and any(_place_of(target) == name for target in route.targets)


def _successor(now: Route | None, route: Route) -> Route:
    """Give the route that stands now where ``route`` stood; one without targets if none does."""
    if now is not None and now.deployment == route.deployment:
        return now
    reason = f"{route.key} was removed while the call waited"
    return attrs.evolve(route, targets=(), reason=reason)


def _without(route: Route, tried: Sequence[Target]) -> Route:
    """Give a route that leads to all its instances but those."""
    if not tried:
        return route
    places = {_place_of(target) for target in tried}
    return attrs.evolve(
        route, targets=tuple(t for t in route.targets if _place_of(t) not in places)
    )


def _nobody(route: Route) -> NoHealthyInstance:
    return NoHealthyInstance(
        route.reason or f"no instance of {route.key} is healthy now",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _overloaded(route: Route, cause: str) -> Overloaded:
    return Overloaded(
        f"every instance of {route.key} is busy, and {cause}",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
