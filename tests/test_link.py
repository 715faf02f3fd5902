"""What leader and workers may rely on when they talk."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ploinky.errors import NoSuchRoute
from ploinky.leader_interfaces import IWorkerGroup
from ploinky.link import (
    ICorridor,
    Identity,
    IWorkerSlots,
    LeaderLink,
    LocalWorkerGroup,
    NotListening,
    Outbox,
    Peer,
    WorkerLinks,
)
from ploinky.link.changes import Assembly, Parcel, parcel_of, whole_of
from ploinky.link.leader import ACKNOWLEDGE_SECONDS, GATHER_SECONDS
from ploinky.link.outbox import MOST_REPORTS
from ploinky.link.sharing import MOST, Shared
from ploinky.link.wire import PART_BYTES, Keep, TablePart, lines_cut
from ploinky.link.worker import ORPHAN_SECONDS, SETTLE_SECONDS, LeaderConnection
from ploinky.routing.table import RouteTable
from ploinky.testing.link import MemoryCorridor, RecordedSlots, RecordedTally
from ploinky.values import (
    Address,
    CallAuth,
    DeploymentKey,
    Kind,
    Principal,
    RateLimit,
    Role,
    Route,
    RouteChange,
    RouteSnapshot,
    Target,
    Wire,
)

OURS = os.geteuid()
ADMIN = Principal("Admin", Role.ADMIN, "ab" * 32, 1e9, ("localhost",), session=True)


def routes(count: int) -> list[Route]:
    """That many routes with everything set."""
    return [
        Route(
            DeploymentKey("localhost", f"/agent{number}"),
            Kind.TASK,
            f"deployment{number}",
            3,
            (
                Target(
                    f"instance{number}",
                    Address(path=f"/srv/.ploinky-cloud/run/i/{number:012}/agent.sock"),
                    Wire.FILE,
                    f"/srv/.ploinky-cloud/run/i/{number:012}",
                ),
                Target("", Address(host="::1", port=8080)),
            ),
            "because",
            timeout_seconds=12.5,
            max_body_bytes=1024,
            max_upload_bytes=4096,
            concurrency=7,
            auth=CallAuth.KEY,
            rate_limit=RateLimit(3, 1.5),
            retries=2,
        )
        for number in range(count)
    ]


def outbox(*gathered: bytes) -> Outbox:
    """What a worker counted; each time it is asked, the next of these."""
    rest = list(gathered)
    return Outbox("w-1", lambda: rest.pop(0) if rest else b"")


def assembled(parcel: Parcel) -> RouteChange:
    """Put a change together, as a worker does."""
    assembly = Assembly(Shared())
    for part in parcel.parts:
        assembly.add(part)
    return assembly.change(parcel.base, parcel.generation)


class Worker:
    """One worker's end, in memory, connected to `Leader`."""

    def __init__(self, pid: int, corridor: MemoryCorridor, pump: IOPump, ends: Any) -> None:
        self.pid = pid
        self.corridor = corridor
        self.pump = pump
        self.leader_end, self.worker_end = ends

    def leave(self) -> None:
        """Close the connection."""
        self.worker_end.transport.loseConnection()
        self.pump.flush()


class Leader:
    """A `WorkerLinks` and everything around it, in memory."""

    def __init__(self, build: str = "1") -> None:
        self.clock = Clock()
        self.slots = RecordedSlots()
        self.reports: list[tuple[int, str, bytes]] = []
        self.peer = Peer(0, OURS)
        self.tally = RecordedTally()
        self.links = WorkerLinks(
            self.clock,
            build,
            lambda *report: self.reports.append(report),
            self.tally,
            lambda _: self.peer,
        )
        self.links.watch(self.slots)
        self.workers: list[Worker] = []

    def connect(self, pid: int, build: str = "1", slot: int = 0, **corridor: Any) -> Worker:
        """Let a worker connect and say hello."""
        self.peer = Peer(pid, self.peer.uid)
        memory = corridor.pop("memory", None) or MemoryCorridor()
        box = corridor.pop("outbox", None) or outbox()
        for name, value in corridor.items():
            setattr(memory, name, value)
        worker_end = LeaderConnection(Identity(slot, pid, build), memory, box, lambda _: None)
        leader_end = self.links.buildProtocol(None)
        pump = connect(
            leader_end,
            FakeTransport(leader_end, isServer=True),
            worker_end,
            FakeTransport(worker_end, isServer=False),
        )
        self.workers.append(Worker(pid, memory, pump, (leader_end, worker_end)))
        self.flush()
        return self.workers[-1]

    def flush(self) -> None:
        """Let everything that was written arrive."""
        for worker in self.workers:
            worker.pump.flush()

    def publish(self, count: int) -> Deferred[int]:
        """Publish so many routes."""
        published = Deferred.fromCoroutine(self.links.publish(routes(count)))
        self.flush()
        return published


class TableCorridor(MemoryCorridor):
    """One with the table of a real worker."""

    def __init__(self) -> None:
        super().__init__()
        self.table = RouteTable(lambda: 0.0)

    @property
    def generation(self) -> int:
        """See `ICorridor`."""
        return max(0, self.table.generation)

    def adopt(self, snapshot: RouteSnapshot) -> None:
        """See `ICorridor`."""
        self.table.adopt(snapshot)

    def amend(self, change: RouteChange) -> None:
        """See `ICorridor`."""
        self.table.amend(change)


def found(table: RouteTable, path: bytes) -> Route | str:
    """Give what a request finds there."""
    try:
        return table.match(b"127.0.0.1:8080", path)
    except NoSuchRoute as error:
        return error.message


def outcome(deferred: Deferred[Any]) -> Any:
    """Give what a Deferred has fired with, or `waiting`."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0] if found else "waiting"


@pytest.fixture
def leader() -> Leader:
    """One without workers."""
    return Leader()


# --- tables reach workers -------------------------------------------------------


def test_a_table_comes_out_as_it_went_in() -> None:
    """Routes and principals, with every field, also where it takes many boxes."""
    snapshot = RouteSnapshot(7, tuple(routes(10_000)), (ADMIN, evolve(ADMIN, expires_at=None)))
    parcel = parcel_of(whole_of(snapshot))
    assert len(parcel.parts) > 10
    assert max(map(len, parcel.parts)) <= PART_BYTES
    assert assembled(parcel) == whole_of(snapshot)


def test_a_route_that_fits_into_no_box_arrives(leader: Leader) -> None:
    """It goes in as many as it needs."""
    worker = leader.connect(41)
    (route,) = routes(1)
    large = evolve(route, targets=route.targets * 500)
    assert outcome(Deferred.fromCoroutine(leader.links.publish([large]))) == "waiting"
    leader.flush()
    assert worker.corridor.snapshot == RouteSnapshot(1, (large,))


def test_equal_values_of_routes_are_one_object_in_a_worker() -> None:
    """So 10,000 routes do not hold the same limits and addresses 10,000 times."""
    first, second = assembled(parcel_of(whole_of(RouteSnapshot(1, tuple(routes(2)))))).routes
    assert (first, second) == tuple(routes(2))
    for name in ("timeout_seconds", "max_body_bytes", "max_upload_bytes", "rate_limit"):
        assert getattr(first, name) is getattr(second, name)
    assert first.key.domain is second.key.domain
    shared = Shared()
    assert type(shared.one(30.0)) is float
    assert type(shared.one(30)) is int
    for number in range(10_000):
        shared.one(number)
    assert len(shared._known) <= MOST


def test_publish_fires_once_every_worker_serves_by_the_table(leader: Leader) -> None:
    """Ten thousand routes reach both workers before it returns."""
    workers = [leader.connect(41), leader.connect(42, slot=1)]
    published = leader.publish(10_000)
    generation = outcome(published)
    for worker in workers:
        assert worker.corridor.snapshot is not None
        assert worker.corridor.snapshot.routes == tuple(routes(10_000))
        assert worker.corridor.generation == generation
    assert [entry["generation"] for entry in leader.links.status()] == [generation] * 2


def test_publish_waits_for_the_slowest_worker(leader: Leader) -> None:
    """One that has the table does not make it return while another has not."""
    fast, slow = leader.connect(41), leader.connect(42, slot=1)
    published = Deferred.fromCoroutine(leader.links.publish(routes(1)))
    fast.pump.flush()
    assert fast.corridor.generation == 1
    waiting: list[int] = []
    published.addCallback(waiting.append)
    assert waiting == []
    slow.pump.flush()
    assert waiting == [1]


def test_a_worker_that_connects_later_gets_the_newest_table(leader: Leader) -> None:
    """And it counts as serving only after that."""
    leader.publish(1)
    leader.publish(2)
    worker = leader.connect(41)
    assert worker.corridor.snapshot is not None
    assert len(worker.corridor.snapshot.routes) == 2
    assert leader.slots.heard == [("joined", 41), ("serving", 41)]


def test_principals_reach_workers_with_the_routes(leader: Leader) -> None:
    """Either kind of publication leaves the other's values as they are."""
    worker = leader.connect(41)
    leader.publish(1)
    Deferred.fromCoroutine(leader.links.publish_principals([ADMIN]))
    leader.flush()
    assert worker.corridor.snapshot == RouteSnapshot(2, tuple(routes(1)), (ADMIN,))


def test_principals_alone_are_no_table(leader: Leader) -> None:
    """A worker that serves already keeps its routes until there are others."""
    worker = leader.connect(41, snapshot=RouteSnapshot(5, tuple(routes(3))))
    Deferred.fromCoroutine(leader.links.publish_principals([ADMIN]))
    leader.flush()
    assert worker.corridor.snapshot == RouteSnapshot(5, tuple(routes(3)))
    leader.publish(1)
    assert worker.corridor.snapshot == RouteSnapshot(6, tuple(routes(1)), (ADMIN,))


def test_a_new_leader_counts_on_from_the_generation_that_workers_have(leader: Leader) -> None:
    """A worker moves only forward, so a leader that began at 1 would never reach it."""
    old = leader.connect(41, snapshot=RouteSnapshot(57, ()))
    assert outcome(leader.publish(1)) == 58
    assert old.corridor.generation == 58
    older = leader.connect(42, snapshot=RouteSnapshot(99, ()))
    assert older.corridor.generation == old.corridor.generation == 100
    assert older.corridor.snapshot == old.corridor.snapshot


def test_a_worker_of_another_build_gets_no_table(leader: Leader) -> None:
    """It would not understand it; it serves on by its own until it is replaced."""
    other = leader.connect(41, build="2", snapshot=RouteSnapshot(5, ()))
    leader.publish(1)
    assert other.corridor.generation == 5
    assert leader.slots.heard == [("joined", 41)]


def test_a_change_goes_to_workers_without_what_stays(leader: Leader) -> None:
    """One more route among 10,000 is one small box, and so is one less, and a revoked key."""
    worker = leader.connect(41)
    many = routes(10_000)
    Deferred.fromCoroutine(leader.links.publish(many))
    leader.flush()
    (more,) = [evolve(many[0], key=DeploymentKey("localhost", "/more"))]
    for now, principals in (([*many, more], [ADMIN]), (many, [])):
        for published in (
            leader.links.publish(now),
            leader.links.publish_principals(principals),
        ):
            Deferred.fromCoroutine(published)
            assert 0 < sum(map(len, worker.leader_end.transport.stream)) < 2000
            leader.flush()
        assert worker.corridor.snapshot is not None
        assert set(worker.corridor.snapshot.routes) == set(now)
        assert worker.corridor.snapshot.principals == tuple(principals)


def test_a_worker_that_missed_a_change_asks_for_the_whole_table(leader: Leader) -> None:
    """It is served by what it has until that is there, and is not replaced."""
    worker = leader.connect(41)
    leader.publish(2)
    worker.corridor.snapshot = RouteSnapshot(0, ())
    published = leader.publish(3)
    assert outcome(published) == 2
    assert worker.corridor.snapshot == RouteSnapshot(2, tuple(routes(3)))
    assert ("stalled", 41) not in leader.slots.heard
    leader.publish(1)
    assert worker.corridor.snapshot == RouteSnapshot(3, tuple(routes(1)))


@given(st.data())
def test_whatever_changes_workers_serve_by_what_was_published_last(data: st.DataObject) -> None:
    """Changes one after another make the same table as all of it at once, whoever comes when."""
    leader = Leader()
    paths = ("/agent0", "/agent1", "/agent1/x", "/agent2/x/y", "/")
    few = [
        evolve(route, key=DeploymentKey("localhost", path))
        for route, path in zip(routes(5), paths, strict=True)
    ]
    corridors: list[TableCorridor] = []
    wanted: tuple[Route, ...] = ()
    principals: tuple[Principal, ...] = ()
    published: list[Deferred[int]] = []
    for pid in range(100, 100 + data.draw(st.integers(1, 12))):
        what = data.draw(st.sampled_from(["routes", "principals", "worker", "leaves", "arrives"]))
        if what == "worker":
            corridors.append(TableCorridor())
            leader.connect(pid, memory=corridors[-1])
        elif what == "leaves" and leader.workers:
            corridors.pop()
            leader.workers.pop().leave()
        elif what == "routes":
            some = data.draw(st.lists(st.sampled_from(few), unique=True))
            wanted = tuple(
                evolve(
                    route, release=data.draw(st.integers(1, 2)), is_hidden=data.draw(st.booleans())
                )
                for route in some
            )
            published.append(Deferred.fromCoroutine(leader.links.publish(wanted)))
        elif what == "principals":
            principals = data.draw(st.sampled_from([(), (ADMIN,), (evolve(ADMIN, scope=()),)]))
            published.append(Deferred.fromCoroutine(leader.links.publish_principals(principals)))
        else:
            leader.flush()
    published.append(Deferred.fromCoroutine(leader.links.publish(wanted)))
    leader.flush()
    generations = list(map(outcome, published))
    assert "waiting" not in generations
    for corridor in corridors:
        assert set(corridor.table.routes()) == set(wanted)
        assert corridor.generation == generations[-1]
        assert corridor.table.knows(ADMIN) == bool(principals)
        afresh = RouteTable(lambda: 0.0)
        afresh.adopt(RouteSnapshot(1, wanted))
        for path in (b"/", b"/agent0", b"/agent1/x/y", b"/agent1/xy", b"/agent2/x/y/z"):
            assert found(corridor.table, path) == found(afresh, path)


# --- workers that fail ----------------------------------------------------------


def test_a_worker_that_does_not_acknowledge_is_ended_and_then_counts_as_done(
    leader: Leader,
) -> None:
    """Publish waits 5 s for it, and then until it has gone."""
    good, hung = leader.connect(41), leader.connect(42, slot=1)
    published = Deferred.fromCoroutine(leader.links.publish(routes(1)))
    good.pump.flush()
    leader.clock.advance(ACKNOWLEDGE_SECONDS - 0.1)
    assert ("stalled", 42) not in leader.slots.heard
    leader.clock.advance(0.2)
    assert leader.slots.heard[-1] == ("stalled", 42)
    assert not published.called
    hung.leader_end.connectionLost(Failure(ConnectionDone()))
    assert outcome(published) == 1
    assert leader.slots.heard[-1] == ("left", 42)


def test_a_worker_that_cannot_read_the_table_is_ended(leader: Leader) -> None:
    """It says so, and is not waited for."""
    leader.connect(41, refusal=ValueError("what is this"))
    assert outcome(leader.publish(1)) == 1
    assert leader.slots.heard[1:] == [("stalled", 41), ("left", 41)]


def test_a_worker_that_cannot_read_what_arrives_is_ended(leader: Leader) -> None:
    """It does not come back to the same table for ever, on the one that it had."""
    worker = leader.connect(41)
    leader.publish(1)
    worker.leader_end.tell(TablePart, data=b'{"routes": 7}\n')
    published = Deferred.fromCoroutine(leader.links.publish(routes(2)))
    leader.flush()
    assert outcome(published) == 2
    assert leader.slots.heard[2:] == [("stalled", 41), ("left", 41)]


def test_a_worker_that_dies_meanwhile_is_not_waited_for(leader: Leader) -> None:
    """Whoever replaces it gets the newest table first."""
    worker = leader.connect(41)
    published = Deferred.fromCoroutine(leader.links.publish(routes(1)))
    worker.leader_end.connectionLost(Failure(ConnectionDone()))
    assert outcome(published) == 1
    assert leader.slots.heard[-1] == ("left", 41)


def test_a_worker_that_gives_no_sign_of_life_is_ended(leader: Leader) -> None:
    """Also while nothing is published; the others are left alone."""
    good, hung = leader.connect(41), leader.connect(42, slot=1)
    checked = Deferred.fromCoroutine(leader.links.check())
    good.pump.flush()
    leader.clock.advance(ACKNOWLEDGE_SECONDS)
    assert leader.slots.heard[2:] == [("stalled", 42)]
    hung.leader_end.connectionLost(Failure(ConnectionDone()))
    assert outcome(checked) is None
    again = Deferred.fromCoroutine(leader.links.check())
    good.pump.flush()
    assert outcome(again) is None


def test_a_process_of_another_user_is_refused(leader: Leader) -> None:
    """Before it has said a word."""
    leader.peer = Peer(0, OURS + 1)
    leader.connect(41)
    assert leader.slots.heard == []


def test_a_process_that_calls_itself_by_another_pid_is_refused(leader: Leader) -> None:
    """The kernel says who it is."""
    worker_end = LeaderConnection(Identity(0, 99, "1"), MemoryCorridor(), outbox(), lambda _: None)
    leader_end = leader.links.buildProtocol(None)
    leader.peer = Peer(41, OURS)
    pump = connect(
        leader_end,
        FakeTransport(leader_end, isServer=True),
        worker_end,
        FakeTransport(worker_end, isServer=False),
    )
    pump.flush()
    assert leader.slots.heard == []
    assert worker_end.transport is None


# --- draining, reports, stop ----------------------------------------------------


def test_drain_waits_for_every_worker_and_adds_up_what_was_left(leader: Leader) -> None:
    """It fires when the last one has answered."""
    gate: Deferred[None] = Deferred()
    first = leader.connect(41, in_hand=2)
    second = leader.connect(42, slot=1, in_hand=1, gate=gate)
    drained = Deferred.fromCoroutine(leader.links.drain(frozenset({"b", "a"}), 10.0))
    leader.flush()
    assert not drained.called
    gate.callback(None)
    leader.flush()
    assert outcome(drained) == 3
    assert first.corridor.asked == second.corridor.asked == [frozenset({"a", "b"})]


def test_drain_does_not_wait_for_a_worker_that_hangs(leader: Leader) -> None:
    """It is ended like one that does not acknowledge, a little after the time is up."""
    hung = leader.connect(41, gate=Deferred())
    drained = Deferred.fromCoroutine(leader.links.drain(frozenset({"a"}), 10.0))
    leader.flush()
    leader.clock.advance(10.0 + ACKNOWLEDGE_SECONDS)
    assert leader.slots.heard[-1] == ("stalled", 41)
    hung.leave()
    assert outcome(drained) == 0


def test_counts_are_told_again_until_they_are_on_disk(leader: Leader) -> None:
    """To each leader that the worker meets, under the same numbers."""
    box = outbox(b"a\n", b"b\n")
    worker = leader.connect(41, outbox=box)
    for _ in range(2):
        worker.worker_end.count(box.fill())
    leader.flush()
    assert leader.tally.reports == [("w-1", 1, b"a\n"), ("w-1", 2, b"b\n")]
    leader.links.kept({"w-1": 1, "w-2": 7})
    leader.flush()
    worker.leave()
    leader.connect(41, outbox=box)
    assert leader.tally.reports[2:] == [("w-1", 2, b"b\n")]
    leader.links.kept({"w-1": 2})
    leader.flush()
    assert box.unacknowledged() == []


def test_counts_come_in_pieces_each_with_its_number(leader: Leader) -> None:
    """However long they are together."""
    lines = b"".join(b"%d %s\n" % (number, b"x" * 1000) for number in range(200))
    box = outbox(lines)
    leader.connect(41).worker_end.count(box.fill())
    leader.flush()
    assert b"".join(data for _, _, data in leader.tally.reports) == lines
    assert [number for _, number, _ in leader.tally.reports] == list(
        range(1, len(leader.tally.reports) + 1)
    )
    assert all(data.endswith(b"\n") for _, _, data in leader.tally.reports)


def test_counts_come_when_they_are_asked_for(leader: Leader) -> None:
    """From all workers, each once; nobody waits for one that is busy for long."""
    box, other = outbox(b"a\n", b"b\n"), outbox(b"c\n")
    leader.connect(41, outbox=box)
    leader.connect(42, outbox=other)
    gathered = Deferred.fromCoroutine(leader.links.gather_counts())
    leader.flush()
    outcome(gathered)
    assert [lines for _, _, lines in leader.tally.reports] == [b"a\n", b"c\n"]
    late = Deferred.fromCoroutine(leader.links.gather_counts())
    leader.clock.advance(GATHER_SECONDS)
    outcome(late)
    leader.flush()
    assert [lines for _, _, lines in leader.tally.reports] == [b"a\n", b"c\n", b"b\n"]


def test_a_worker_that_is_asked_often_has_its_counts_written_first(leader: Leader) -> None:
    """So that the newest are told however many wait to be on disk."""
    box = outbox(*[b"x\n"] * MOST_REPORTS, b"newest\n")
    worker = leader.connect(41, outbox=box)
    for _ in range(MOST_REPORTS):
        worker.worker_end.count(box.fill())
    leader.flush()
    leader.tally.gate = Deferred()
    gathered = Deferred.fromCoroutine(leader.links.gather_counts())
    leader.flush()
    assert not gathered.called
    leader.links.kept({"w-1": MOST_REPORTS})
    leader.tally.gate.callback(None)
    leader.flush()
    outcome(gathered)
    assert leader.tally.reports[-1] == ("w-1", MOST_REPORTS + 1, b"newest\n")


def test_a_worker_keeps_no_more_than_so_many_reports() -> None:
    """What is counted beyond that stays where it is counted."""
    asked = []

    def gather() -> bytes:
        asked.append(1)
        return b"x\n"

    box = Outbox("w-1", gather)
    for _ in range(2 * MOST_REPORTS):
        box.fill()
    assert len(asked) == len(box.unacknowledged()) == MOST_REPORTS
    box.acknowledged(10)
    assert [each.number for each in box.fill()] == [MOST_REPORTS + 1]


def test_reports_arrive_in_whole_lines(leader: Leader) -> None:
    """However long they are together."""
    worker = leader.connect(41)
    lines = b"".join(b"%d %s\n" % (number, b"x" * 1000) for number in range(200))
    worker.worker_end.report("access", lines)
    leader.flush()
    assert b"".join(data for _, _, data in leader.reports) == lines
    assert {(pid, kind) for pid, kind, _ in leader.reports} == {(41, "access")}
    assert all(data.endswith(b"\n") for _, _, data in leader.reports)


def test_a_line_that_fits_into_no_box_is_left_out() -> None:
    """The lines around it still arrive."""
    assert lines_cut(b"a\n" + b"x" * (PART_BYTES + 1) + b"\nb\n") == [b"a\nb\n"]


def test_stop_reaches_the_worker(leader: Leader) -> None:
    """It begins to drain; nobody waits for an answer."""
    worker = leader.connect(41)
    leader.slots.links[41].stop()
    leader.flush()
    assert worker.corridor.stopped == 1


# --- the worker's side ----------------------------------------------------------


@implementer(IStreamClientEndpoint)
class Door:
    """An endpoint that opens when the test says so."""

    def __init__(self) -> None:
        self.knocks: list[tuple[Any, Deferred[Any]]] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        """Wait for the test."""
        self.knocks.append((factory, Deferred()))
        return self.knocks[-1][1]

    def open(self) -> Any:
        """Let the last one in; gives the protocol."""
        factory, knocked = self.knocks[-1]
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        knocked.callback(protocol)
        return protocol

    def refuse(self) -> None:
        """Let the last one stand outside."""
        self.knocks[-1][1].errback(Failure(ConnectionRefusedError()))


def worker_link(corridor: MemoryCorridor) -> tuple[Clock, Door, LeaderLink]:
    """A worker's link that was started."""
    clock, door = Clock(), Door()
    link = LeaderLink(clock, door, Identity(0, 41, "1"), corridor, outbox())
    link.startService()
    return clock, door, link


def test_a_worker_that_serves_comes_back_for_ever() -> None:
    """It tries at least every second, and serves by its table meanwhile."""
    corridor = MemoryCorridor()
    corridor.adopt(RouteSnapshot(5, ()))
    clock, door, link = worker_link(corridor)
    first = door.open()
    assert link.connected
    first.connectionLost(Failure(ConnectionDone()))
    assert not link.connected
    for attempt in range(2, 100):
        clock.advance(1.0)
        assert len(door.knocks) == attempt
        door.refuse()
    assert corridor.stopped == 0
    clock.advance(1.0)
    door.open()
    assert link.connected


def test_a_worker_without_a_table_ends_with_its_leader() -> None:
    """Nobody else could tell it what to serve."""
    corridor = MemoryCorridor()
    _, door, _ = worker_link(corridor)
    door.open().connectionLost(Failure(ConnectionDone()))
    assert corridor.stopped == 1


def test_a_worker_that_never_meets_a_leader_ends() -> None:
    """Its socket would keep connections waiting for nobody."""
    corridor = MemoryCorridor()
    clock, _, _ = worker_link(corridor)
    clock.advance(ORPHAN_SECONDS)
    assert corridor.stopped == 1


@pytest_twisted.ensureDeferred
async def test_a_worker_that_ends_waits_until_its_counts_are_on_disk() -> None:
    """Nobody could report them again; but it does not wait for ever, nor for nobody."""
    clock, door = Clock(), Door()
    link = LeaderLink(clock, door, Identity(0, 41, "1"), MemoryCorridor(), outbox(b"a\n", b"b\n"))
    await link.settle()
    link.startService()
    door.open()
    settling = Deferred.fromCoroutine(link.settle())
    clock.advance(SETTLE_SECONDS - 0.1)
    assert not settling.called
    clock.advance(0.1)
    await settling


def test_the_leader_answers_a_worker_that_ends_once_it_has_written(leader: Leader) -> None:
    """What that one counted, and all others."""
    leader.tally.gate = Deferred()
    box = outbox(b"a\n")
    worker = leader.connect(41, outbox=box)
    worker.worker_end.count(box.fill())
    settled = Deferred.fromCoroutine(worker.worker_end.ask(Keep))
    leader.flush()
    assert not settled.called
    leader.tally.gate.callback(None)
    leader.flush()
    assert settled.called
    assert leader.tally.written == 1


def test_without_a_leader_nothing_is_told_and_nothing_lost() -> None:
    """How a worker stands is told to nobody; what it counted stays where it is."""
    box = outbox(b"a\n")
    link = LeaderLink(Clock(), Door(), Identity(0, 41, "1"), MemoryCorridor(), box)
    link.report("load", b"line\n")
    link.count()
    assert box.unacknowledged() == []
    assert [each.data for each in box.fill()] == [b"a\n"]


@pytest_twisted.ensureDeferred
async def test_a_stopped_link_stays_stopped() -> None:
    """It does not connect again."""
    corridor = MemoryCorridor()
    corridor.adopt(RouteSnapshot(1, ()))
    clock, door, link = worker_link(corridor)
    protocol = door.open()
    stopped = link.stopService()
    protocol.connectionLost(Failure(ConnectionDone()))
    await stopped
    clock.advance(60.0)
    assert len(door.knocks) == 1
    assert clock.getDelayedCalls() == []


# --- descriptors, over a real socket --------------------------------------------


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


@pytest_twisted.ensureDeferred
async def test_a_listening_socket_is_handed_back(short_directory: Any, listening: Any) -> None:
    """What arrives is the same socket, and the kernel said who sent it; without one: an error."""
    joined: Deferred[Any] = Deferred()
    slots = RecordedSlots()
    slots.joined = joined.callback  # type: ignore[method-assign]
    links = WorkerLinks(real_reactor, "1", lambda *_: None, RecordedTally())
    links.watch(slots)
    path = str(short_directory / "link.sock")
    port = real_reactor.listenUNIX(path, links, mode=0o600)
    corridor = MemoryCorridor(listening.fileno())
    corridor.adopt(RouteSnapshot(1, ()))
    endpoint = UNIXClientEndpoint(real_reactor, path)
    link = LeaderLink(real_reactor, endpoint, Identity(0, os.getpid(), "1"), corridor, outbox())
    link.startService()
    try:
        worker = await joined
        assert worker.accepting
        with socket.socket(fileno=await worker.hand_back()) as same:
            assert same.getsockname() == listening.getsockname()
            assert same.fileno() != listening.fileno()
            assert not same.get_inheritable()
        corridor.descriptor = None
        with pytest.raises(NotListening):
            await worker.hand_back()
    finally:
        await link.stopService()
        await port.stopListening()


# --- one process ----------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_one_process_can_be_leader_and_worker() -> None:
    """The same door, without a link."""
    corridor = MemoryCorridor()
    corridor.in_hand = 4
    group = LocalWorkerGroup(corridor)
    assert await group.publish(routes(2)) == 1
    assert await group.publish_principals([ADMIN]) == 2
    assert corridor.snapshot == RouteSnapshot(2, tuple(routes(2)), (ADMIN,))
    assert await group.drain(frozenset({"a"}), 1.0) == 4
    assert group.status()[0]["state"] == "serving"


def test_everyone_keeps_to_the_interfaces(leader: Leader) -> None:
    """Both groups, and the fakes that stand in for their neighbours."""
    verifyObject(IWorkerGroup, leader.links)
    verifyObject(IWorkerGroup, LocalWorkerGroup(MemoryCorridor()))
    verifyObject(ICorridor, MemoryCorridor())
    verifyObject(IWorkerSlots, RecordedSlots())
