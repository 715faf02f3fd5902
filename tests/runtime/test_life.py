"""One instance's life, step by step, with a clock that we turn.

Everything in the list above `ploinky.runtime.life` happens here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from ploinky.deploy_errors import EngineUnavailable, ProbeFailed, StartFailed
from ploinky.instance_values import Health, InstanceSpec, InstanceStatus
from ploinky.runtime import places
from ploinky.runtime.chronicle import Chronicle
from ploinky.runtime.endings import how_it_ended
from ploinky.runtime.instances import Instances
from ploinky.runtime.life import new_life
from ploinky.runtime.probes import Readiness
from ploinky.runtime.steps import Core, Step
from ploinky.runtime.waiting import uncut
from ploinky.testing.deployment import DirectBlocking
from ploinky.testing.runtime import MemoryHost, MemoryRuntime, RecordedHistory
from ploinky.values import Address, DeploymentKey, Kind, Target

CLUSTER = "cluster"


@define
class ScriptedProber:
    """A `Prober` that answers what a test tells it to."""

    ready: bool = True
    problem: str = ""
    fault: Exception | None = None
    waiting: list[Deferred[None]] = field(factory=list)
    asked: int = 0

    async def when_ready(self, spec: InstanceSpec, status: InstanceStatus) -> Readiness:
        if self.fault is not None:
            raise self.fault
        if not self.ready:
            wait: Deferred[None] = Deferred()
            self.waiting.append(wait)
            await wait
        address = status.address or Address(path=f"{spec.queue_directory}/agent.sock")
        return Readiness(Target(spec.instance, address), True)

    async def health(self, spec: InstanceSpec, readiness: Readiness) -> str:
        self.asked += 1
        return self.problem


@define
class World:
    """Instances on a memory runtime, and what they told."""

    directory: Path
    clock: Clock = field(factory=Clock)
    host: MemoryHost = field(factory=MemoryHost)
    prober: ScriptedProber = field(factory=ScriptedProber)
    told: list[tuple[str, bool]] = field(factory=list)
    history: RecordedHistory = field(factory=RecordedHistory)
    removing: DirectBlocking = field(factory=DirectBlocking)
    instances: Instances = field(init=False)

    def open(self) -> Instances:
        runtime = MemoryRuntime(self.clock, self.host, lambda spec: None)
        self.instances = Instances(
            self.clock,
            runtime,
            self.prober,
            self.directory,
            CLUSTER,
            self.history,
            self.removing,
        )
        self.instances.watch(lambda instance, healthy: self.told.append((instance, healthy)))
        self.instances.startService()
        return self.instances

    def spec(self, instance: str = "aaaaaaaaaaaa", **given: Any) -> InstanceSpec:
        settings: dict[str, Any] = {
            "instance": instance,
            "deployment": "dddddddddddd",
            "release": 1,
            "cluster": CLUSTER,
            "key": DeploymentKey("localhost", "/demo"),
            "agent": "demo",
            "kind": Kind.TASK,
            "image": "node:18-alpine",
            "queue_directory": str(self.directory / "i" / instance),
            "health": Health(interval_seconds=10.0, retries=3),
        }
        return InstanceSpec(**{**settings, **given})

    def launch(self, spec: InstanceSpec) -> Deferred[Target]:
        return Deferred.fromCoroutine(self.instances.launch(spec, lambda line: None))

    def end(self, instance: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self.instances.end(instance, 1.0))

    def turn(self, seconds: float) -> None:
        """Let time pass in small steps, as it does."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.open()
    return made


def outcome(deferred: Deferred[Any]) -> Any:
    """What it has fired with, as a value or an exception."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "it has not fired"
    return getattr(results[0], "value", results[0])


def launched(world: World, **given: Any) -> InstanceSpec:
    spec = world.spec(**given)
    assert isinstance(outcome(world.launch(spec)), Target)
    return spec


def test_a_ready_instance_is_left_alone(world: World) -> None:
    """It is probed as often as was asked for, and nobody is told of anything."""
    spec = launched(world)
    world.turn(61)
    assert world.prober.asked == 6
    assert world.told == []
    assert world.host.started == [spec]


def test_it_dies_while_starting(world: World) -> None:
    """The launch fails with exit code and last output; nothing is left, and it is not retried."""
    world.prober.ready = False
    spec = world.spec()
    launching = world.launch(spec)
    world.host.crash(spec.instance, 3, output="no such module\n")
    world.turn(1)
    error = outcome(launching)
    assert isinstance(error, ProbeFailed)
    assert "exit code 3" in error.message
    assert error.output == "no such module\n"
    assert error.failed_at == "agent"
    assert error.details == {"exitCode": 3, "outOfMemory": False}
    assert world.host.instances == {}
    (death,) = world.history.deaths
    assert (death.exit_code, death.failed_at, death.output) == (3, "agent", "no such module\n")
    assert world.history.outputs == {spec.instance: "no such module\n"}
    assert not Path(spec.queue_directory).exists()
    world.turn(120)
    assert len(world.host.started) == 1
    assert world.told == []


def test_what_became_of_it_is_kept(world: World) -> None:
    """How long it took to start, why it died, and all that it printed in its several lives."""
    spec = launched(world)
    world.host.crash(spec.instance, 137, out_of_memory=True, output="one\n")
    world.turn(60)
    world.host.crash(spec.instance, 1, output="two\n")
    world.turn(60)
    assert [instance for instance, _ in world.history.starts] == [spec.instance] * 3
    short, broke = world.history.deaths
    assert (short.failed_at, short.out_of_memory, short.output) == ("memory", True, "one\n")
    assert "memory limit" in short.reason
    assert (broke.failed_at, broke.exit_code, broke.output) == ("agent", 1, "two\n")
    world.host.instances[spec.instance].output = "three\n"
    assert outcome(world.end(spec.instance)) is None
    assert world.history.outputs == {spec.instance: "one\ntwo\nthree\n"}
    assert len(world.history.deaths) == 2


def test_what_an_earlier_leader_started_leaves_its_output_too(world: World) -> None:
    """It is not known here but by its labels."""
    spec = launched(world)
    world.host.instances[spec.instance].output = "last\n"
    outcome(world.instances.stopService())
    world.open()
    assert outcome(world.end(spec.instance)) is None
    assert world.history.outputs == {spec.instance: "last\n"}


def test_what_died_while_no_leader_was_there_is_told(world: World) -> None:
    """A leader that is killed together with an instance, say; one that ended well did not die."""
    for exit_code, deaths in ((137, 1), (0, 1)):
        spec = launched(world)
        outcome(world.instances.stopService())
        world.host.crash(spec.instance, exit_code, out_of_memory=True, output="last\n")
        world.open()
        assert outcome(world.end(spec.instance)) is None
        assert world.history.outputs[spec.instance].endswith("last\n")
        assert len(world.history.deaths) == deaths
    (death,) = world.history.deaths
    assert (death.exit_code, death.out_of_memory, death.failed_at) == (137, True, "memory")
    assert (death.deployment, death.release, death.output) == (spec.deployment, 1, "last\n")


def test_one_that_the_engine_starts_again_leaves_its_last_words(world: World) -> None:
    """Its container lives on, and so nothing is kept of that yet."""
    spec = launched(world)
    world.turn(60)
    world.host.instances[spec.instance].output = "last\n"
    world.host.restart(spec.instance)
    world.turn(3)
    (death,) = world.history.deaths
    assert death.output == "last\n"
    assert world.told[-1] == (spec.instance, True)


def test_why_it_ended_is_told_before_it_is_removed(world: World) -> None:
    """An engine may take long for that, and somebody waits for the cause."""
    spec = launched(world)
    world.host.crash(spec.instance, 137, out_of_memory=True, output="last\n")
    told = len(world.history.falls)
    while not world.history.falls[told:]:
        assert not world.history.deaths
        world.turn(0.1)
    assert (world.history.falls[told].failed_at, world.history.falls[told].output) == ("memory", "")


def test_its_last_words_do_not_wait_for_its_next_start(world: World) -> None:
    """However long its back-off has become."""
    spec = launched(world)
    for number in range(4):
        world.host.crash(spec.instance, output=f"words {number}\n")
        world.turn(3)
        assert world.history.deaths[-1].output == f"words {number}\n"
        assert len(world.history.deaths) == number + 1
        world.turn(9)


def test_one_that_somebody_removes_fails_as_an_instance(world: World) -> None:
    """Neither its code nor its probe did."""
    spec = launched(world)
    world.host.vanish(spec.instance)
    world.turn(60)
    (death,) = world.history.deaths
    assert (death.failed_at, death.exit_code) == ("instance", None)
    assert "removed by somebody else" in death.reason
    world.host.crash(spec.instance, 3)
    world.turn(60)
    assert world.history.deaths[-1].failed_at == "agent"


def test_one_that_hangs_is_told_with_what_it_answered(world: World) -> None:
    """It never died: the probe failed."""
    spec = launched(world)
    world.prober.problem = "GET /health was answered 500: no database"
    world.turn(31)
    world.prober.problem = ""
    world.turn(5)
    (death,) = world.history.deaths
    assert (death.instance, death.failed_at) == (spec.instance, "probe")
    assert "500: no database" in death.reason


def test_it_dies_while_starting_and_the_engine_brings_it_back(world: World) -> None:
    """Which its restart policy does for ever: a launch does not wait for the end of that."""
    world.prober.ready = False
    spec = world.spec()
    launching = world.launch(spec)
    world.host.crash(spec.instance)
    world.host.restart(spec.instance)
    world.turn(1.5)
    assert "the engine started it again" in outcome(launching).message
    assert world.host.instances == {}


def test_it_dies_while_starting_and_the_engine_says_later_how(world: World) -> None:
    """The part that failed follows from the exit code, which comes after that it runs again."""
    world.prober.ready = False
    spec = world.spec()
    launching = world.launch(spec)
    world.host.crash(spec.instance)
    world.host.restart(spec.instance)
    world.turn(1.1)
    found = world.host.instances[spec.instance]
    found.status = attrs.evolve(found.status, exit_code=127)
    world.turn(1)
    error = outcome(launching)
    assert (error.failed_at, error.details["exitCode"]) == ("start", 127)


def test_the_engine_refuses_it(world: World) -> None:
    """Its words come back, and the queue is gone."""
    world.host.refusal = "no space left"
    spec = world.spec()
    error = outcome(world.launch(spec))
    assert isinstance(error, StartFailed)
    assert error.message == "no space left"
    assert not Path(spec.queue_directory).exists()


def test_a_launch_is_cancelled(world: World) -> None:
    """It is ended again, and what the probe would have said is not heard."""
    world.prober.ready = False
    spec = world.spec()
    launching = world.launch(spec)
    launching.cancel()
    assert isinstance(outcome(launching), CancelledError)
    assert world.host.instances == {}
    assert world.instances.target(spec.instance) is None
    world.turn(60)
    assert world.told == []


def test_it_is_ended_while_it_starts(world: World) -> None:
    """The launch fails and says so."""
    world.prober.ready = False
    spec = world.spec()
    launching = world.launch(spec)
    assert outcome(world.end(spec.instance)) is None
    assert isinstance(outcome(launching), StartFailed)
    assert world.host.instances == {}


def test_it_is_ended_twice(world: World) -> None:
    """Both are told when it is gone, and the second is no error."""
    spec = launched(world)
    assert outcome(world.end(spec.instance)) is None
    assert outcome(world.end(spec.instance)) is None
    assert world.host.instances == {}


class HeldBlocking(DirectBlocking):
    """A thread that is busy until it is let go.

    Attributes:
        work: What was asked of it.
    """

    def __init__(self) -> None:
        self.free: Deferred[None] = Deferred()
        self.work: list[Any] = []

    async def run(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        self.work.append((work, *args))
        await self.free
        return work(*args, **kwargs)


def test_a_queue_full_of_files_is_removed_beside_all_else(world: World) -> None:
    """An agent may have put any number there; the leader has other things to do meanwhile."""
    outcome(world.instances.stopService())
    world.removing = held = HeldBlocking()
    world.open()
    full = launched(world)
    ending = world.end(full.instance)
    assert held.work == [(places.remove_queue, full.queue_directory)]
    assert not ending.called
    launched(world, instance="bbbbbbbbbbbb")
    held.free.callback(None)
    assert outcome(ending) is None
    assert not Path(full.queue_directory).exists()


def test_what_ended_is_not_brought_back(world: World) -> None:
    """Nor is anybody told that it is down: whoever ended it knows."""
    spec = launched(world)
    outcome(world.end(spec.instance))
    world.turn(120)
    assert world.host.started == [spec]
    assert world.told == []


def test_it_dies_later(world: World) -> None:
    """It is down, and started afresh at once; then it is well again."""
    spec = launched(world)
    world.turn(60)
    world.host.crash(spec.instance, 137, out_of_memory=True)
    world.turn(3)
    assert world.told == [(spec.instance, False), (spec.instance, True)]
    assert len(world.host.started) == 2
    assert world.instances.target(spec.instance) is not None


def test_somebody_removes_it(world: World) -> None:
    """Behind our back: it is started afresh."""
    spec = launched(world)
    world.host.vanish(spec.instance)
    world.turn(3)
    assert world.told == [(spec.instance, False), (spec.instance, True)]


def test_it_dies_again_and_again(world: World) -> None:
    """Each start waits longer than the one before, up to a minute, and it is never given up."""
    spec = launched(world)
    starts = []
    for _ in range(3000):
        if spec.instance in world.host.instances:
            known = len(world.host.started)
            if not starts or starts[-1][0] != known:
                starts.append((known, world.clock.seconds()))
            world.host.crash(spec.instance)
        world.turn(0.3)
    gaps = [later[1] - earlier[1] for earlier, later in itertools.pairwise(starts)]
    assert gaps[0] < 4
    assert all(gap >= 2.0 ** (number - 1) for number, gap in enumerate(gaps[1:7], 1))
    assert 60 <= gaps[-1] < 65


def test_a_steady_life_starts_over_with_its_back_off(world: World) -> None:
    """One that dies once a day is brought back at once each time."""
    spec = launched(world)
    for _ in range(5):
        world.turn(60)
        world.host.crash(spec.instance)
        world.turn(3)
        assert world.told[-1] == (spec.instance, True)


def test_it_hangs(world: World) -> None:
    """So many probes in a row must fail; then it is started afresh."""
    spec = launched(world)
    world.prober.problem = "did not answer within 5 s"
    world.turn(21)
    assert world.told == []
    world.prober.problem = ""
    world.turn(10)
    world.prober.problem = "did not answer within 5 s"
    world.turn(25)
    assert world.told == []
    world.turn(6)
    assert world.told[0] == (spec.instance, False)
    world.prober.problem = ""
    world.turn(10)
    assert world.told[-1] == (spec.instance, True)
    assert len(world.host.started) == 2


def test_the_engine_starts_it_again_by_itself(world: World) -> None:
    """After a steady life it is only asked whether it is ready."""
    spec = launched(world)
    world.turn(40)
    world.host.crash(spec.instance)
    world.host.restart(spec.instance)
    world.turn(3)
    assert world.told == [(spec.instance, False), (spec.instance, True)]
    assert len(world.host.started) == 1


def test_the_engine_starts_it_again_and_again(world: World) -> None:
    """Then it is taken from the engine, and its restarts are ours, with back-off."""
    spec = launched(world)
    for _ in range(40):
        if spec.instance in world.host.instances:
            world.host.crash(spec.instance)
            world.host.restart(spec.instance)
        world.turn(0.5)
    assert 2 <= len(world.host.started) <= 6
    assert spec.instance in {each[0] for each in world.told}


def test_the_address_changes_with_a_restart(world: World) -> None:
    """A service on a bridge: the target is the new one before anybody hears that it is back."""
    spec = launched(world, kind=Kind.SERVICE, port=80)
    moved = Address(host="172.17.0.9", port=80)
    heard: list[Any] = []

    def hear(instance: str, healthy: bool) -> None:
        heard.append((healthy, world.instances.target(instance)))

    world.instances.watch(hear)
    world.turn(40)
    world.host.restart(spec.instance)
    found = world.host.instances[spec.instance]
    found.status = attrs.evolve(found.status, address=moved)
    world.turn(3)
    assert heard == [(False, None), (True, Target(spec.instance, moved))]


def test_the_engine_is_away(world: World) -> None:
    """That says nothing of the instance, which answers its probes."""
    spec = launched(world)
    world.host.away = True
    world.turn(60)
    assert world.told == []
    assert world.instances.target(spec.instance) is not None
    world.host.away = False
    world.turn(10)
    assert world.told == []
    assert len(world.host.started) == 1


def test_the_engine_is_away_when_it_should_be_brought_back(world: World) -> None:
    """It is tried again until the engine is there."""
    spec = launched(world)
    world.host.crash(spec.instance)
    world.turn(2.5)
    world.host.crash(spec.instance)
    world.turn(0.2)
    world.host.away = True
    world.turn(30)
    world.host.away = False
    world.turn(120)
    assert world.told[-1] == (spec.instance, True)


def test_the_engine_is_away_when_it_should_end(world: World) -> None:
    """Whoever ends it is told, and can end it later."""
    spec = launched(world)
    world.host.away = True
    assert isinstance(outcome(world.end(spec.instance)), EngineUnavailable)
    world.host.away = False
    assert outcome(world.end(spec.instance)) is None
    assert world.host.instances == {}


def test_it_is_ended_while_it_waits_to_be_started_again(world: World) -> None:
    """It stays ended."""
    spec = launched(world)
    for _ in range(4):
        world.turn(3)
        if spec.instance in world.host.instances:
            world.host.crash(spec.instance)
    world.turn(2.5)
    started = len(world.host.started)
    assert outcome(world.end(spec.instance)) is None
    world.turn(300)
    assert len(world.host.started) == started
    assert world.host.instances == {}


def test_a_probe_that_answers_late_is_not_heard(world: World) -> None:
    """It was ended meanwhile."""
    world.prober.ready = False
    spec = world.spec()
    launching = world.launch(spec)
    (late,) = world.prober.waiting
    ended = world.end(spec.instance)
    if not late.called:
        late.callback(None)
    assert isinstance(outcome(launching), StartFailed)
    assert outcome(ended) is None
    assert world.instances.target(spec.instance) is None


def test_the_leader_stops(world: World) -> None:
    """What is ready lives on; what is not is taken away; nothing is looked at any more."""
    spec = launched(world)
    world.prober.ready = False
    half = world.spec("bbbbbbbbbbbb")
    launching = world.launch(half)
    assert outcome(world.instances.stopService()) is None
    assert isinstance(outcome(launching), StartFailed)
    assert set(world.host.instances) == {spec.instance}
    assert world.clock.getDelayedCalls() == []


def test_the_next_leader_takes_it_over(world: World) -> None:
    """And keeps it alive as if it had started it."""
    spec = launched(world)
    outcome(world.instances.stopService())
    world.open()
    adopted = outcome(Deferred.fromCoroutine(world.instances.adopt(spec)))
    assert isinstance(adopted, Target)
    assert len(world.host.started) == 1
    world.host.crash(spec.instance)
    world.turn(3)
    assert world.told[-2:] == [(spec.instance, False), (spec.instance, True)]


def test_one_that_stands_still_is_not_taken_over(world: World) -> None:
    """As after a reboot, with an engine that starts nothing: it is removed."""
    spec = launched(world)
    outcome(world.instances.stopService())
    world.host.crash(spec.instance)
    world.open()
    assert outcome(Deferred.fromCoroutine(world.instances.adopt(spec))) is None
    assert world.host.instances == {}


def test_an_instance_is_launched_once(world: World) -> None:
    """A second launch of the same id is refused, and does not disturb the first."""
    spec = launched(world)
    assert isinstance(outcome(world.launch(spec)), StartFailed)
    assert world.instances.target(spec.instance) is not None


def test_a_fault_of_a_probe_does_not_hang_a_launch(world: World) -> None:
    """Whatever it raises, the launch ends and nothing is left."""

    world.prober.fault = ZeroDivisionError("a fault")
    assert isinstance(outcome(world.launch(world.spec())), ZeroDivisionError)
    assert world.host.instances == {}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"exit_code": 1}, "exit code 1"),
        ({"exit_code": 127}, "command was not found"),
        ({"exit_code": 137}, "was killed"),
        ({"exit_code": 137, "out_of_memory": True}, "memory limit"),
        ({}, "It ended"),
    ],
)
def test_an_end_is_put_into_words(status: dict[str, Any], said: str) -> None:
    """Exit codes mean something to people who know them."""
    ended = InstanceStatus("i", "d", 1, running=False, **status)
    assert said in how_it_ended(ended)


class SlowRuntime(MemoryRuntime):
    """A memory runtime whose lists are held back, as of an engine that is busy."""

    held: Deferred[None] | None = None

    async def instances(self, cluster: str) -> list[InstanceStatus]:
        found = await super().instances(cluster)
        if self.held is not None:
            await self.held
        return found


def test_what_was_seen_before_it_was_started_again_is_not_heard(world: World) -> None:
    """The engine's answer is about the instance that was there when it was asked."""
    outcome(world.instances.stopService())
    runtime = SlowRuntime(world.clock, world.host, lambda spec: None)
    world.instances = Instances(
        world.clock,
        runtime,
        world.prober,
        world.directory,
        CLUSTER,
        world.history,
        world.removing,
    )
    world.instances.watch(lambda instance, healthy: world.told.append((instance, healthy)))
    world.instances.startService()
    spec = launched(world, health=Health(interval_seconds=1.0, retries=1))
    runtime.held = held = Deferred()
    world.host.vanish(spec.instance)
    world.turn(3)
    world.prober.problem = "gone"
    world.turn(1)
    world.prober.problem = ""
    world.turn(2)
    assert world.told == [(spec.instance, False), (spec.instance, True)]
    runtime.held = None
    held.callback(None)
    world.turn(3)
    assert world.told == [(spec.instance, False), (spec.instance, True)]


def test_a_step_that_was_given_up_before_its_turn_is_never_taken(world: World) -> None:
    """The one before it took its time to let go."""
    spec = world.spec()
    core = Core(
        world.clock,
        MemoryRuntime(world.clock, world.host),
        world.prober,
        spec,
        Chronicle(world.clock, spec, world.history),
        world.removing,
        changed=lambda instance, healthy: None,
        over=lambda instance: None,
    )
    life = new_life(core)
    taken: list[str] = []
    released: Deferred[None] = Deferred()

    async def slow() -> Callable[[], None]:
        await uncut(_wait(released))
        return lambda: None

    def step(name: str) -> Step:
        async def take() -> Callable[[], None]:
            taken.append(name)
            return lambda: None

        return take

    core.begin(life, slow)
    core.begin(life, step("second"))
    core.begin(life, step("third"))
    assert taken == []
    released.callback(None)
    assert taken == ["third"]


async def _wait(released: Deferred[None]) -> None:
    await released
