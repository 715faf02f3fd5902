"""What every `ITaskStore` and `IMetricsStore` must do, whoever writes it."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import attrs
import pytest_twisted
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from ploinky.measures import CountBatch, KeptCounts, Label, Point, Sums
from ploinky.store_interfaces import IMetricsStore, ITaskStore
from ploinky.task_values import (
    Task,
    TaskQuery,
    TaskState,
)
from ploinky.values import DeploymentKey


def a_task(name: str, **changes: object) -> Task:
    """Give a task that waits at ``localhost/demo``."""
    task = Task(
        id=name,
        deployment="deployment01",
        key=DeploymentKey("localhost", "/demo"),
        command="hello",
        params=b'["World"]',
        user="InternetUser",
        anonymous=True,
        request_id="r-1",
        created_at=1_000_000.0,
        queued_at=1_000_000.0,
        fingerprint="f",
        size=9,
    )
    return attrs.evolve(task, **changes)  # type: ignore[arg-type]


def an_outcome(task: Task, **changes: object) -> Task:
    """Give the same task, done."""
    done = attrs.evolve(
        task,
        state=TaskState.SUCCEEDED,
        finished_at=1_000_001.0,
        status=200,
        outcome=b'"Hello"',
        size=16,
    )
    return attrs.evolve(done, **changes)  # type: ignore[arg-type]


class TaskStoreContract:
    """`ITaskStore`; the fixture ``task_store`` gives an empty one that reads the fixture ``clock``.

    The clock stands at 1,000,000.
    """

    def test_it_has_every_method(self, task_store: ITaskStore) -> None:
        """Whoever is given one can call all of `ITaskStore`."""
        assert verifyObject(ITaskStore, task_store)

    @pytest_twisted.ensureDeferred
    async def test_a_task_comes_back_as_it_was_added(self, task_store: ITaskStore) -> None:
        """Whatever its params hold; one that is not there is None."""
        task = a_task("t-1", params=b"\x00\xff", once="k", user="Zo\u00eb", anonymous=False)
        assert await task_store.add(task) == task
        assert await task_store.task("t-1") == task
        assert await task_store.task("t-2") is None

    @pytest_twisted.ensureDeferred
    async def test_the_same_id_is_the_same_task(self, task_store: ITaskStore) -> None:
        """Adding it again gives how it stands by now."""
        await task_store.add(a_task("t-1"))
        done = an_outcome(a_task("t-1"))
        assert await task_store.change(a_task("t-1"), done)
        assert await task_store.add(a_task("t-1")) == done

    @pytest_twisted.ensureDeferred
    async def test_a_key_holds_for_a_day(self, task_store: ITaskStore, clock: Clock) -> None:
        """A repeat gives the first task; after a day it is one of its own."""
        first = a_task("t-1", once="k")
        await task_store.add(first)
        assert await task_store.add(a_task("t-2", once="k")) == first
        assert (await task_store.add(a_task("t-3", once="other"))).id == "t-3"
        clock.advance(86_400)
        late = a_task("t-4", once="k", created_at=clock.seconds())
        assert await task_store.add(late) == late

    @pytest_twisted.ensureDeferred
    async def test_a_change_is_made_from_the_state_it_was_read_in(
        self, task_store: ITaskStore
    ) -> None:
        """Of two that want a task, one gets it; the other changes nothing."""
        waits = a_task("t-1")
        await task_store.add(waits)
        runs = attrs.evolve(waits, state=TaskState.RUNNING, attempts=1, deliveries=1, instance="i")
        cancelled = attrs.evolve(waits, state=TaskState.CANCELLED)
        assert await task_store.change(waits, runs)
        assert not await task_store.change(waits, cancelled)
        assert await task_store.task("t-1") == runs
        again = attrs.evolve(runs, deliveries=2)
        assert await task_store.change(runs, again)
        assert not await task_store.change(runs, cancelled)
        assert not await task_store.change(a_task("t-none"), cancelled)

    @pytest_twisted.ensureDeferred
    async def test_a_change_leaves_what_was_called(self, task_store: ITaskStore) -> None:
        """Whoever changes a task need not have its params at hand."""
        await task_store.add(a_task("t-1"))
        light = a_task("t-1", params=b"")
        await task_store.change(light, an_outcome(light))
        kept = await task_store.task("t-1")
        assert kept is not None
        assert (kept.params, kept.outcome) == (b'["World"]', b'"Hello"')

    @pytest_twisted.ensureDeferred
    async def test_the_unfinished_come_in_order_and_light(self, task_store: ITaskStore) -> None:
        """Oldest first, without params."""
        for name in ("t-b", "t-a", "t-c"):
            await task_store.add(a_task(name))
        await task_store.change(a_task("t-a"), an_outcome(a_task("t-a")))
        unfinished = await task_store.unfinished()
        assert unfinished == [a_task("t-b", params=b""), a_task("t-c", params=b"")]

    @pytest_twisted.ensureDeferred
    async def test_tasks_are_found_by_what_they_are(self, task_store: ITaskStore) -> None:
        """Newest first, by state, place, scope, and whether they are dead."""
        elsewhere = DeploymentKey("a.example", "/x")
        await task_store.add(a_task("t-1"))
        await task_store.add(a_task("t-2", key=elsewhere))
        await task_store.add(an_outcome(a_task("t-3"), state=TaskState.FAILED, status=500))
        await task_store.add(an_outcome(a_task("t-4"), state=TaskState.FAILED, status=404))

        async def found(**wanted: object) -> list[str]:
            page = await task_store.tasks(TaskQuery(**wanted))  # type: ignore[arg-type]
            assert page.total == len(page.tasks)
            return [task.id for task in page.tasks]

        assert await found() == ["t-4", "t-3", "t-2", "t-1"]
        assert await found(states=frozenset({TaskState.QUEUED})) == ["t-2", "t-1"]
        assert await found(domain="a.example") == ["t-2"]
        assert await found(path="/demo") == ["t-4", "t-3", "t-1"]
        assert await found(scope=("a.example",)) == ["t-2"]
        assert await found(scope=("localhost/demo", "b.example")) == ["t-4", "t-3", "t-1"]
        assert await found(dead=True) == ["t-3"]

    @pytest_twisted.ensureDeferred
    async def test_tasks_come_in_pages(self, task_store: ITaskStore) -> None:
        """With how many there are in all, and without what they hold."""
        for number in range(5):
            await task_store.add(a_task(f"t-{number}"))
        page = await task_store.tasks(TaskQuery(page=2, per_page=2))
        assert ([task.id for task in page.tasks], page.total) == (["t-2", "t-1"], 5)
        assert {task.params for task in page.tasks} == {b""}
        assert (await task_store.tasks(TaskQuery(page=4, per_page=2))).tasks == ()

    @pytest_twisted.ensureDeferred
    async def test_a_sweep_forgets_by_age_and_number(self, task_store: ITaskStore) -> None:
        """The oldest go; what is not over, and what has a key, stays."""
        await task_store.add(a_task("t-waits"))
        await task_store.add(an_outcome(a_task("t-key", once="k"), finished_at=1.0))
        await task_store.add(an_outcome(a_task("t-old"), finished_at=1.0))
        for number in range(3):
            await task_store.add(an_outcome(a_task(f"t-{number}")))
        assert await task_store.sweep(10.0, 2, 10_000) == 3
        left = {task.id for task in (await task_store.tasks(TaskQuery())).tasks}
        assert left == {"t-waits", "t-key", "t-1", "t-2"}

    @pytest_twisted.ensureDeferred
    async def test_a_sweep_makes_room(self, task_store: ITaskStore) -> None:
        """The oldest go until the rest fits; of what has a key, only its contents."""
        await task_store.add(an_outcome(a_task("t-key", once="k"), size=50))
        for number in range(3):
            await task_store.add(an_outcome(a_task(f"t-{number}"), size=50))
        await task_store.sweep(0.0, 100, 120)
        left = (await task_store.tasks(TaskQuery())).tasks
        assert [(task.id, task.size) for task in left] == [("t-2", 50), ("t-1", 50), ("t-key", 0)]
        kept = await task_store.task("t-key")
        assert kept is not None
        assert (kept.params, kept.outcome, kept.status) == (b"", b"", 200)


HELLO = Label("d1", "hello", 200)
THROWS = Label("d1", "throws", 500, "agent")
OTHER = Label("d2", "hello", 200)
ONE = Sums(1, 250_000, 10, 20, 5, {7: 1})
TWO = Sums(2, 500_000, 20, 40, 10, {7: 1, 110: 1})
NOON = 1_700_049_600.0


class MetricsStoreContract:
    """Needs the fixture ``metrics_store``."""

    def test_is_a_metrics_store(self, metrics_store: IMetricsStore) -> None:
        """It provides the whole of `IMetricsStore`."""
        assert verifyObject(IMetricsStore, metrics_store)

    @pytest_twisted.ensureDeferred
    async def test_nothing_was_counted_at_first(self, metrics_store: IMetricsStore) -> None:
        """No totals, no numbers, no points."""
        assert await metrics_store.kept() == KeptCounts({}, {})
        assert await metrics_store.points(10, 0) == []

    @pytest_twisted.ensureDeferred
    async def test_batches_add_up(self, metrics_store: IMetricsStore) -> None:
        """In the totals for ever, in each series by its stretch of time."""
        await metrics_store.add(CountBatch(NOON + 1, {HELLO: ONE, THROWS: TWO}, {"w-1": 1}))
        await metrics_store.add(CountBatch(NOON + 9.5, {HELLO: TWO}, {"w-1": 2, "w-2": 1}))
        await metrics_store.add(CountBatch(NOON + 61, {HELLO: ONE, OTHER: ONE}, {"w-2": 5}))
        three = Sums(3, 750_000, 30, 60, 15, {7: 2, 110: 1})
        four = Sums(4, 1_000_000, 40, 80, 20, {7: 3, 110: 1})
        kept = await metrics_store.kept()
        assert kept.totals == {HELLO: four, THROWS: TWO, OTHER: ONE}
        assert kept.numbers == {"w-1": 2, "w-2": 5}
        noon = int(NOON)
        for resolution, later in ((10, noon + 60), (60, noon + 60)):
            points = await metrics_store.points(resolution, noon)
            assert sorted(points, key=lambda each: (each.time, each.label.command)) == [
                Point(noon, HELLO, three),
                Point(noon, THROWS, TWO),
                *(Point(later, label, ONE) for label in (HELLO, OTHER)),
            ]
        hour = {each.label: each.sums for each in await metrics_store.points(3600, noon)}
        assert hour == kept.totals
        assert {p.time for p in await metrics_store.points(10, noon + 1)} == {noon + 60}

    @pytest_twisted.ensureDeferred
    async def test_batches_of_few_and_of_thousands_add_up(
        self, metrics_store: IMetricsStore
    ) -> None:
        """However many deployments were called, each keeps what it had."""
        many = {Label(f"d{number}", "hello", 200): ONE for number in range(2000)}
        await metrics_store.add(CountBatch(NOON, many, {}))
        await metrics_store.add(CountBatch(NOON, {HELLO: TWO}, {}))
        await metrics_store.add(CountBatch(NOON, many, {}))
        totals = (await metrics_store.kept()).totals
        assert {label: sums.count for label, sums in totals.items()} == {
            label: 4 if label == HELLO else 2 for label in many
        }

    @pytest_twisted.ensureDeferred
    async def test_old_points_go_and_totals_stay(self, metrics_store: IMetricsStore) -> None:
        """Each resolution at its own age; silent reporters are forgotten."""
        await metrics_store.add(CountBatch(NOON, {HELLO: ONE}, {"w-1": 1}))
        await metrics_store.add(CountBatch(NOON + 7200, {HELLO: ONE}, {"w-2": 1}))
        await metrics_store.prune({10: NOON + 1, 60: NOON + 7261}, NOON + 1)
        assert [point.time for point in await metrics_store.points(10, 0)] == [int(NOON) + 7200]
        assert await metrics_store.points(60, 0) == []
        assert len(await metrics_store.points(3600, 0)) == 2
        kept = await metrics_store.kept()
        assert kept.totals[HELLO].count == 2
        assert kept.numbers == {"w-2": 1}

    @pytest_twisted.ensureDeferred
    async def test_removed_deployments_stay_in_the_totals(
        self, metrics_store: IMetricsStore
    ) -> None:
        """Together, by how their calls ended; the total never goes down."""
        await metrics_store.add(CountBatch(NOON, {HELLO: ONE, THROWS: TWO, OTHER: ONE}, {}))
        gone = {Label("", "", 200): ONE, Label("", "", 500, "agent"): TWO}
        assert await metrics_store.forget_all_but(["d2"]) == {OTHER: ONE, **gone}
        assert (await metrics_store.kept()).totals == {OTHER: ONE, **gone}
        twice = await metrics_store.forget_all_but([])
        assert twice[Label("", "", 200)] == ONE.plus(ONE)
        assert (await metrics_store.kept()).totals == twice
