"""Which instance takes a call, who waits, and who is told when it is over."""

from __future__ import annotations

import attrs
import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from ploinky.errors import AgentUnreachable, NoHealthyInstance, Overloaded
from ploinky.interfaces import ILease, IStanding
from ploinky.routing.table import RouteTable
from ploinky.tasks.orchestrator import Orchestrator
from ploinky.testing.tasks import a_route
from ploinky.values import Address, DeploymentKey, Route, RouteSnapshot, Target

ONE = Target(instance="one", address=Address(path="/run/one"))
TWO = Target(instance="two", address=Address(path="/run/two"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table() -> RouteTable:
    return RouteTable(lambda: 0.0)


@pytest.fixture
def orchestrator(clock: Clock) -> Orchestrator:
    return Orchestrator(clock, longest_queue=3, avoided_seconds=2.0)


def claimed(orchestrator: Orchestrator, route: Route) -> ILease:
    lease = orchestrator.claim(route)
    assert lease is not None
    return lease


def publish(orchestrator: Orchestrator, table: RouteTable, *routes: Route) -> None:
    """Make these the routes of a worker, as it does."""
    left = table.adopt(RouteSnapshot(table.generation + 1, routes))
    orchestrator.adopt(left, table)


def waiting(
    orchestrator: Orchestrator, route: Route, seconds: float = 5.0, tried: tuple[Target, ...] = ()
) -> Deferred[ILease]:
    return Deferred.fromCoroutine(orchestrator.claim_later(route, seconds, tried))


def outcome(deferred: Deferred[ILease]) -> ILease | Exception | None:
    """What a Deferred has fired with; None while it has not."""
    if not deferred.called:
        return None
    result = deferred.result
    if isinstance(result, Failure):
        deferred.addErrback(lambda seen: None)
        return result.value
    return result


def test_the_instance_with_the_least_in_hand_is_chosen(orchestrator: Orchestrator) -> None:
    """An instance that finished its work gets the next calls until it has as much as the other."""
    route = a_route(ONE, TWO)
    leases = [claimed(orchestrator, route) for _ in range(4)]
    assert [lease.target for lease in leases].count(ONE) == 2
    for lease in leases:
        if lease.target is ONE:
            lease.release()
    assert [claimed(orchestrator, route).target for _ in range(2)] == [ONE, ONE]


def test_calls_one_after_another_go_to_all_instances(orchestrator: Orchestrator) -> None:
    """An instance is not idle for ever because another one is always free first."""
    route = a_route(ONE, TWO)
    chosen = []
    for _ in range(4):
        lease = claimed(orchestrator, route)
        chosen.append(lease.target)
        lease.release()
    assert chosen == [ONE, TWO, ONE, TWO]


def test_an_instance_is_never_given_more_than_its_concurrency(orchestrator: Orchestrator) -> None:
    """With every place taken there is no lease, until one is given back."""
    route = a_route(ONE, TWO, concurrency=2)
    leases = [claimed(orchestrator, route) for _ in range(4)]
    assert orchestrator.claim(route) is None
    leases[0].release()
    assert claimed(orchestrator, route).target is leases[0].target
    assert orchestrator.in_flight() == 4


def test_releasing_a_lease_twice_counts_once(orchestrator: Orchestrator) -> None:
    """A second release does nothing, so that a place is never handed out twice."""
    route = a_route(ONE, concurrency=1)
    lease = claimed(orchestrator, route)
    lease.release()
    lease.release()
    assert orchestrator.in_flight() == 0
    claimed(orchestrator, route)
    assert orchestrator.claim(route) is None


def test_a_standing_claim_counts_like_any_other(orchestrator: Orchestrator) -> None:
    """The same places: who waits for one gets it, and whoever drains is told."""
    route = a_route(ONE, concurrency=2)
    standing = orchestrator.standing(route)
    assert standing is not None
    assert verifyObject(IStanding, standing)
    assert standing.target is ONE
    assert [standing.take() for _ in range(3)] == [True, True, False]
    assert orchestrator.claim(route) is None
    waiter = waiting(orchestrator, route)
    standing.release()
    lease = outcome(waiter)
    assert lease is not None
    assert standing.take() is False
    drained = Deferred.fromCoroutine(orchestrator.drained(frozenset({"one"}), 5.0))
    standing.lease().release()
    assert not drained.called
    lease.release()  # type: ignore[union-attr]
    assert outcome(drained) == 0  # type: ignore[arg-type]
    assert orchestrator.in_flight() == 0


def test_there_is_no_standing_claim_where_there_is_a_choice(orchestrator: Orchestrator) -> None:
    """Or nothing to choose."""
    assert orchestrator.standing(a_route(ONE, TWO)) is None
    assert orchestrator.standing(a_route()) is None


def test_a_stopped_deployment_says_why_nobody_answers(orchestrator: Orchestrator) -> None:
    """A route without targets fails at once, with the reason that its owner would recognise."""
    with pytest.raises(NoHealthyInstance, match="it was stopped") as caught:
        orchestrator.claim(a_route(reason="it was stopped"))
    assert caught.value.retry_after_seconds


def test_an_instance_that_could_not_be_reached_is_avoided_for_a_while(
    orchestrator: Orchestrator, clock: Clock
) -> None:
    """The healthy instance is preferred for two seconds, even with more in hand."""
    route = a_route(ONE, TWO)
    claimed(orchestrator, route).release(failed=True)
    assert [claimed(orchestrator, route).target for _ in range(3)] == [TWO] * 3
    clock.advance(2.1)
    assert claimed(orchestrator, route).target is ONE


def test_an_avoided_instance_is_used_when_there_is_no_other(orchestrator: Orchestrator) -> None:
    """Avoiding is a preference: calls are not refused because of one failed connection."""
    route = a_route(ONE, TWO, concurrency=1)
    claimed(orchestrator, route).release(failed=True)
    assert [claimed(orchestrator, route).target for _ in range(2)] == [TWO, ONE]


def test_a_free_place_is_taken_without_waiting(orchestrator: Orchestrator) -> None:
    """`claim_later` does not queue where a place is free."""
    assert ILease.providedBy(outcome(waiting(orchestrator, a_route(ONE))))


def test_waiting_calls_are_served_in_order_of_arrival(orchestrator: Orchestrator) -> None:
    """First come, first served, one per place that is given back."""
    route = a_route(ONE, concurrency=1)
    lease = claimed(orchestrator, route)
    first, second = waiting(orchestrator, route), waiting(orchestrator, route)
    lease.release()
    assert outcome(second) is None
    taken = outcome(first)
    assert ILease.providedBy(taken)
    taken.release()
    assert ILease.providedBy(outcome(second))


def test_a_newcomer_does_not_overtake_those_who_wait(orchestrator: Orchestrator) -> None:
    """A place that is given back belongs to the first in the queue at once."""
    route = a_route(ONE, concurrency=1)
    lease = claimed(orchestrator, route)
    first = waiting(orchestrator, route)
    lease.release()
    assert orchestrator.claim(route) is None
    assert ILease.providedBy(outcome(first))


def test_a_full_queue_refuses_at_once(orchestrator: Orchestrator) -> None:
    """Overload degrades: the call beyond the bound is told to come back later."""
    route = a_route(ONE, concurrency=1)
    claimed(orchestrator, route)
    queued = [waiting(orchestrator, route) for _ in range(3)]
    refused = outcome(waiting(orchestrator, route))
    assert isinstance(refused, Overloaded)
    assert refused.retry_after_seconds
    assert [outcome(one) for one in queued] == [None] * 3


def test_queues_are_bounded_for_each_deployment_alone(orchestrator: Orchestrator) -> None:
    """One overloaded deployment takes nothing from its neighbour."""
    full, other = a_route(ONE, concurrency=1), a_route(TWO, concurrency=1, deployment="other")
    claimed(orchestrator, full)
    claimed(orchestrator, other)
    for _ in range(3):
        waiting(orchestrator, full)
    assert outcome(waiting(orchestrator, other)) is None


def test_a_wait_ends_with_its_time(orchestrator: Orchestrator, clock: Clock) -> None:
    """A call that got no place within its time is refused and leaves the queue."""
    route = a_route(ONE, concurrency=1)
    lease = claimed(orchestrator, route)
    late = waiting(orchestrator, route, seconds=1.0)
    clock.advance(1.1)
    assert isinstance(outcome(late), Overloaded)
    lease.release()
    assert orchestrator.in_flight() == 0
    assert not clock.getDelayedCalls()


def test_a_call_that_gives_up_leaves_the_queue(orchestrator: Orchestrator, clock: Clock) -> None:
    """A client that left while it waited takes no place from those behind it."""
    route = a_route(ONE, concurrency=1)
    lease = claimed(orchestrator, route)
    gone, next_one = waiting(orchestrator, route), waiting(orchestrator, route)
    gone.cancel()
    assert isinstance(outcome(gone), CancelledError)
    lease.release()
    assert ILease.providedBy(outcome(next_one))
    assert not clock.getDelayedCalls()


def test_calls_that_fail_as_soon_as_they_are_served_do_not_pile_up(clock: Clock) -> None:
    """A dead instance before a long queue fails a thousand calls without recursion."""
    orchestrator = Orchestrator(clock)
    route = a_route(ONE, concurrency=1)
    lease = claimed(orchestrator, route)
    failures = []

    async def call() -> None:
        granted = await orchestrator.claim_later(route, 5.0)
        granted.release(failed=True)
        failures.append(AgentUnreachable("refused"))

    for _ in range(1024):
        Deferred.fromCoroutine(call())
    lease.release(failed=True)
    assert len(failures) == 1024
    assert orchestrator.in_flight() == 0


def test_an_instance_that_was_tried_is_not_given_again(
    orchestrator: Orchestrator, table: RouteTable
) -> None:
    """However much the others have to do, and also under a new table; without others there is none."""
    route = a_route(ONE, TWO, concurrency=2)
    for _ in range(2):
        lease = outcome(waiting(orchestrator, route, tried=(ONE,)))
        assert ILease.providedBy(lease)
        assert lease.target is TWO
    late = waiting(orchestrator, route, tried=(ONE,))
    publish(orchestrator, table, attrs.evolve(route, release=2))
    assert outcome(late) is None
    lease.release()
    assert outcome(late).target is TWO
    assert isinstance(outcome(waiting(orchestrator, route, tried=(TWO, ONE))), NoHealthyInstance)


def test_who_waits_for_others_alone_keeps_nobody_waiting(orchestrator: Orchestrator) -> None:
    """Those behind get the place that it does not want; among equals the order stays."""
    route = a_route(ONE, TWO, concurrency=1)
    at_one, at_two = (claimed(orchestrator, route) for _ in range(2))
    assert at_one.target is ONE
    choosy = waiting(orchestrator, route, tried=(ONE,))
    behind, last = waiting(orchestrator, route), waiting(orchestrator, route)
    at_one.release()
    assert (outcome(choosy), outcome(last)) == (None, None)
    assert outcome(behind).target is ONE
    at_two.release()
    assert outcome(choosy).target is TWO
    assert outcome(last) is None


def test_waiting_calls_move_to_the_targets_of_a_new_release(
    orchestrator: Orchestrator, table: RouteTable
) -> None:
    """A deploy serves what waited before the old, full instance from the new one at once."""
    old = a_route(ONE, concurrency=1)
    claimed(orchestrator, old)
    first = waiting(orchestrator, old)
    new = attrs.evolve(old, targets=(TWO,), release=2)
    publish(orchestrator, table, new)
    lease = outcome(first)
    assert ILease.providedBy(lease)
    assert (lease.target, lease.route) == (TWO, new)


@pytest.mark.parametrize("gone", ["removed", "stopped"])
def test_waiting_calls_fail_when_their_last_instance_goes(
    orchestrator: Orchestrator, table: RouteTable, gone: str
) -> None:
    """Nobody waits out the time-out before a deployment that was stopped or removed."""
    route = a_route(ONE, concurrency=1)
    claimed(orchestrator, route)
    queued = [waiting(orchestrator, route) for _ in range(2)]
    stopped = attrs.evolve(route, targets=(), reason="it was stopped")
    publish(orchestrator, table, *([stopped] if gone == "stopped" else []))
    for one in queued:
        error = outcome(one)
        assert isinstance(error, NoHealthyInstance)
        assert gone in error.message


def test_a_new_generation_that_changes_nothing_leaves_the_queue_as_it_is(
    orchestrator: Orchestrator, table: RouteTable
) -> None:
    """A deploy elsewhere neither serves nor fails those who wait here."""
    route = a_route(ONE, concurrency=1)
    lease = claimed(orchestrator, route)
    first = waiting(orchestrator, route)
    publish(orchestrator, table, route)
    assert outcome(first) is None
    lease.release()
    assert ILease.providedBy(outcome(first))


def test_what_is_in_flight_at_a_retired_instance_is_counted_until_it_ends(
    orchestrator: Orchestrator, table: RouteTable
) -> None:
    """The switch of releases loses no count: the old instance drains."""
    publish(orchestrator, table, a_route(ONE))
    lease = claimed(orchestrator, a_route(ONE))
    publish(orchestrator, table, a_route(TWO))
    drained = Deferred.fromCoroutine(orchestrator.drained(frozenset({"one"}), 30.0))
    assert not drained.called
    lease.release()
    assert drained.result == 0


def test_nothing_is_kept_of_instances_that_no_route_leads_to(
    orchestrator: Orchestrator, table: RouteTable
) -> None:
    """Neither of idle ones, nor of those that were busy when they left, nor of those called late."""
    idle, busy, late = (
        attrs.evolve(a_route(target), key=DeploymentKey("localhost", f"/{target.instance}"))
        for target in (ONE, TWO, Target("three", Address(path="/run/three")))
    )
    publish(orchestrator, table, idle, busy, late)
    claimed(orchestrator, idle).release()
    lease = claimed(orchestrator, busy)
    publish(orchestrator, table)
    assert set(orchestrator._places) == {"two"}
    claimed(orchestrator, late).release()
    lease.release()
    publish(orchestrator, table)
    assert not orchestrator._places


def test_what_several_routes_lead_to_is_counted_as_one_until_the_last_has_left(
    orchestrator: Orchestrator, table: RouteTable
) -> None:
    """Removing one of them gives the others no more places than there are."""
    outside = Target("", Address(host="10.0.0.1", port=80))
    first, second, third = (
        attrs.evolve(a_route(outside, concurrency=1), key=DeploymentKey("localhost", path))
        for path in ("/a", "/b", "/c")
    )
    publish(orchestrator, table, first, second, third)
    claimed(orchestrator, first).release()
    standing = orchestrator.standing(second)
    assert standing is not None
    for routes in ((second, third), (second,)):
        publish(orchestrator, table, *routes)
        assert standing.take()
        assert orchestrator.claim(second) is None
        standing.release()
    publish(orchestrator, table)
    assert not orchestrator._places


def test_an_instance_that_comes_back_is_kept_count_of(
    orchestrator: Orchestrator, table: RouteTable
) -> None:
    """It was unwell for a moment, with a call in hand that goes on."""
    route = a_route(ONE, concurrency=1)
    publish(orchestrator, table, route)
    lease = claimed(orchestrator, route)
    for targets in ((), (ONE,), (ONE,)):
        publish(orchestrator, table, attrs.evolve(route, targets=targets))
    assert orchestrator.claim(route) is None
    lease.release()
    standing = orchestrator.standing(route)
    publish(orchestrator, table, attrs.evolve(route, timeout_seconds=1.0))
    assert standing is not None
    assert standing.take()
    assert orchestrator.claim(route) is None


def test_draining_waits_for_every_instance_named(orchestrator: Orchestrator, clock: Clock) -> None:
    """`drained` is over when the last request at any of them ended."""
    leases = [claimed(orchestrator, a_route(ONE, TWO)) for _ in range(2)]
    drained = Deferred.fromCoroutine(orchestrator.drained(frozenset({"one", "two"}), 30.0))
    leases[0].release()
    assert not drained.called
    leases[1].release()
    assert drained.result == 0
    assert not clock.getDelayedCalls()


def test_draining_an_idle_instance_is_immediate(orchestrator: Orchestrator) -> None:
    """An instance that has nothing in hand, or was never used, is clean at once."""
    claimed(orchestrator, a_route(ONE)).release()
    idle = frozenset({"one", "never-used"})
    assert Deferred.fromCoroutine(orchestrator.drained(idle, 30.0)).result == 0


def test_draining_tells_what_was_left_when_time_was_up(
    orchestrator: Orchestrator, clock: Clock
) -> None:
    """A request that never ends does not hold a deploy up for ever."""
    for _ in range(3):
        claimed(orchestrator, a_route(ONE))
    drained = Deferred.fromCoroutine(orchestrator.drained(frozenset({"one"}), 30.0))
    clock.advance(30.1)
    assert drained.result == 3


def test_a_drain_that_is_cancelled_leaves_nothing_behind(
    orchestrator: Orchestrator, clock: Clock
) -> None:
    """Giving up the wait neither fires later nor keeps a timer."""
    lease = claimed(orchestrator, a_route(ONE))
    drained = Deferred.fromCoroutine(orchestrator.drained(frozenset({"one"}), 30.0))
    drained.cancel()
    drained.addErrback(lambda failure: failure.trap(CancelledError))
    lease.release()
    assert not clock.getDelayedCalls()


def test_what_we_did_not_start_is_counted_by_where_it_listens(orchestrator: Orchestrator) -> None:
    """External targets have no instance: a busy one takes nothing from another."""
    busy = a_route(Target(instance="", address=Address(host="127.0.0.1", port=1)), concurrency=1)
    other = a_route(Target(instance="", address=Address(host="127.0.0.1", port=2)), concurrency=1)
    claimed(orchestrator, busy)
    assert orchestrator.claim(busy) is None
    assert orchestrator.claim(other) is not None
