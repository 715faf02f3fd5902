"""The manager's neighbours in memory, split by what a leader's death takes with it.

A `Ground` is what outlives a leader: stores, engine, workers, data directory.  A `Leader` is one
manager on it.  `Steps` lets a test watch every step, hold one, or end the leader between two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from ploinky.deploy_errors import EngineUnavailable, ImageUnavailable, ProbeFailed, SourceError
from ploinky.deployment.compose import Neighbours, make_deployment_manager
from ploinky.deployment.manager import DeploymentManager
from ploinky.instance_values import InstanceSpec, InstanceStatus, RunResult
from ploinky.interfaces import IRuntime, Report
from ploinky.leader_interfaces import IInstances, IWorkerGroup
from ploinky.settings import Settings
from ploinky.source_values import GitSource
from ploinky.testing.deployment import CONTROL, DirectBlocking
from ploinky.testing.git import FakeSource
from ploinky.testing.store import MemoryDeploymentStore, MemoryRepositoryStore
from ploinky.values import Address, DeploymentKey, DeployRequest, Route, Target

URL = "https://git.example/agents.git"
KEY = DeploymentKey("localhost", "/demo")


class Steps:
    """Every point at which a leader waits for a neighbour.

    Attributes:
        passed: Names of those it came to.
        last: It comes no further than this many; None: no end.
    """

    def __init__(self, last: int | None = None) -> None:
        self.passed: list[str] = []
        self.last = last
        self._held: dict[str, list[Deferred[None]]] = {}

    async def at(self, name: str) -> None:
        self.passed.append(name)
        if self.last is not None and len(self.passed) > self.last:
            await Deferred()
        if name in self._held:
            gate: Deferred[None] = Deferred()
            self._held[name].append(gate)
            await gate

    def hold(self, name: str) -> None:
        self._held[name] = []

    def holding(self, name: str) -> int:
        return sum(not gate.called for gate in self._held[name])

    def let_go(self, name: str, *, but_last: bool = False) -> None:
        """Let all go that are held there, or all but the last, and hold no more."""
        waiting = [gate for gate in self._held.pop(name) if not gate.called]
        if but_last:
            self._held[name] = [waiting.pop()]
        for gate in waiting:
            gate.callback(None)

    def break_off(self, name: str, error: Exception) -> None:
        """Let all that are held there fail, and hold no more."""
        for gate in self._held.pop(name):
            gate.errback(error)


class Stepped:
    """A neighbour whose every method is a step before and a step after."""

    def __init__(self, inner: Any, steps: Steps, label: str) -> None:
        self._inner, self._steps, self._label = inner, steps, label

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if not iscoroutinefunction(method):
            return method

        async def stepped(*args: Any, **kwargs: Any) -> Any:
            await self._steps.at(f"{self._label}.{name}")
            result = await method(*args, **kwargs)
            await self._steps.at(f"{self._label}.{name} done")
            return result

        return stepped


class Source(FakeSource):
    """`FakeSource` with repositories that Git says no to.

    Attributes:
        broken: What it says, by URL.
        fetched: The ref and freshness of each `resolve`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.broken: dict[str, SourceError] = {}
        self.fetched: list[tuple[str, bool]] = []

    async def resolve(self, source: GitSource, fresh: bool) -> str:
        if source.url in self.broken:
            raise self.broken[source.url]
        if len(source.ref) < 40:  # `agents` asks by commit
            self.fetched.append((source.ref, fresh))
        return await super().resolve(source, fresh)

    def push(self, url: str, files: Mapping[str, str]) -> None:
        """Add files to what the repository at `url` has."""
        origin = self.origins.get(url) or self.origin(url)
        newest = origin.commits[origin.branches["main"]] if origin.commits else {}
        origin.commit({**newest, **files})


class Engine:
    """A container engine: outlives any leader."""

    def __init__(self) -> None:
        self.containers: dict[str, InstanceStatus] = {}
        self.specs: dict[str, InstanceSpec] = {}

    def create(self, spec: InstanceSpec, once: bool = False) -> None:
        if not once:
            Path(spec.queue_directory).mkdir(parents=True)
        self.specs[spec.instance] = spec
        self.containers[spec.instance] = InstanceStatus(
            spec.instance, spec.deployment, spec.release, running=True
        )

    def running(self) -> set[str]:
        return {name for name, status in self.containers.items() if status.running}


@implementer(IRuntime)
class FakeRuntime:
    name = "fake"

    def __init__(self, engine: Engine, steps: Steps) -> None:
        self.engine, self.steps = engine, steps
        self.images: dict[str, str] = {"node:18-alpine": "sha256:node", "nginx": "sha256:nginx"}
        self.commands: list[str] = []
        self.builds: dict[str, str] = {}
        self.outcome = RunResult(0, "")

    async def prepare(self, image: str, report: Report) -> str:
        if image in self.images.values():
            return image
        if image not in self.images:
            raise ImageUnavailable(f"{image}: not found")
        return self.images[image]

    async def run_once(
        self, spec: InstanceSpec, shell_command: str, timeout_seconds: float, report: Report
    ) -> RunResult:
        self.engine.create(spec, once=True)
        try:
            await self.steps.at("container runs")
        except CancelledError:
            del self.engine.containers[spec.instance]
            raise
        self.commands.append(shell_command)
        for name, text in self.builds.items():
            place = Path(spec.code_directory, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        del self.engine.containers[spec.instance]
        return self.outcome

    async def start(self, spec: InstanceSpec) -> InstanceStatus:
        raise NotImplementedError

    async def remove(self, instance: str, grace_seconds: float) -> None:
        raise NotImplementedError

    async def instances(self, cluster: str) -> list[InstanceStatus]:
        raise NotImplementedError

    async def output(self, instance: str, lines: int) -> str:
        return ""


@implementer(IWorkerGroup)
class FakeWorkers:
    """Workers that route by the last table they got, leader or no leader.

    Attributes:
        tables: All of them.
        drained: Instances whose requests have been waited for.
    """

    def __init__(self) -> None:
        self.tables: list[tuple[Route, ...]] = []
        self.drained: set[str] = set()

    def routed(self) -> set[str]:
        routes = self.tables[-1] if self.tables else ()
        return {target.instance for route in routes for target in route.targets if target.instance}

    def route(self, key: DeploymentKey = KEY) -> Route | None:
        routes = self.tables[-1] if self.tables else ()
        return next((route for route in routes if route.key == key), None)

    async def publish(self, routes: Sequence[Route]) -> int:
        self.tables.append(tuple(routes))
        return len(self.tables)

    async def publish_principals(self, principals: Sequence[Any]) -> int:
        return 0

    async def drain(self, instances: frozenset[str], timeout_seconds: float) -> int:
        assert not instances & self.routed(), "drained while still routed to"
        self.drained |= instances
        return 0

    async def gather_counts(self) -> None:
        pass

    def status(self) -> list[dict[str, Any]]:
        return []


@implementer(IInstances)
class FakeInstances:
    """Instances of an engine, and their death by announcement.

    Attributes:
        sick: Releases whose instances never become ready.
        broken_starts: How many instances die while they start, of those that start next.
        blunder: What nobody has foreseen, raised in place of a start; None: nothing.
        ended: Instances that were asked to end, in order.
        refusal: What the engine says when an instance is to be ended; `""`: nothing.
        dropped: Instances that were ended while workers still routed to them, or before the
            requests they had in hand were waited for: each is a dropped request.
    """

    def __init__(self, engine: Engine, workers: FakeWorkers, steps: Steps) -> None:
        self.engine, self.workers, self.steps = engine, workers, steps
        self.sick: set[int] = set()
        self.broken_starts = 0
        self.blunder: Exception | None = None
        self.ended: list[str] = []
        self.refusal = ""
        self.addresses: dict[str, Address] = {}
        self.dropped: list[str] = []
        self._ready: set[str] = set()
        self._watchers: list[Callable[[str, bool], None]] = []

    async def launch(self, spec: InstanceSpec, report: Report) -> Target:
        self.engine.create(spec)
        try:
            await self.steps.at("instance starts")
            if self.blunder is not None:
                raise self.blunder
            if spec.release in self.sick or self.broken_starts:
                self.broken_starts = max(0, self.broken_starts - 1)
                raise ProbeFailed("it never answered", output="boom")
        except Exception:
            self._remove(spec.instance)
            raise
        return self._make_ready(spec)

    def _make_ready(self, spec: InstanceSpec) -> Target:
        self._ready.add(spec.instance)
        where = Address(path=f"{spec.queue_directory}/agent.sock")
        self.addresses.setdefault(spec.instance, where)
        target = self.target(spec.instance)
        assert target is not None
        return target

    async def adopt(self, spec: InstanceSpec) -> Target | None:
        assert self.engine.specs[spec.instance] == spec, "adopted as what it was not started as"
        if spec.release in self.sick:
            self._remove(spec.instance)
            return None
        return self._make_ready(spec)

    async def end(self, instance: str, grace_seconds: float) -> None:
        if self.refusal:
            raise EngineUnavailable(self.refusal)
        self.ended.append(instance)
        was_routed = any(
            target.instance == instance
            for table in self.workers.tables
            for route in table
            for target in route.targets
        )
        if instance in self.workers.routed() or (
            was_routed and instance not in self.workers.drained
        ):
            self.dropped.append(instance)
        self._remove(instance)

    def _remove(self, instance: str) -> None:
        self._ready.discard(instance)
        self.engine.containers.pop(instance, None)

    def target(self, instance: str) -> Target | None:
        if instance not in self._ready:
            return None
        spec = self.engine.specs[instance]
        return Target(instance, self.addresses[instance], spec.wire, spec.queue_directory)

    async def discover(self) -> list[InstanceStatus]:
        return list(self.engine.containers.values())

    def watch(self, changed: Callable[[str, bool], None]) -> None:
        self._watchers.append(changed)

    def tell(self, instance: str, healthy: bool) -> None:
        for changed in self._watchers:
            changed(instance, healthy)


def request(**changes: Any) -> DeployRequest:
    given: dict[str, Any] = {"key": KEY, "agent": "demo", "repository": URL}
    return DeployRequest(**(given | changes))


class Ground:
    """What outlives a leader."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(directory)
        self.store = MemoryDeploymentStore()
        self.repositories = MemoryRepositoryStore()
        self.engine = Engine()
        self.workers = FakeWorkers()
        self.source = Source()
        self.ids = 0
        self.leaders: list[Leader] = []
        self.push({})

    def new_id(self) -> str:
        self.ids += 1
        return f"{self.ids:012d}"

    def push(self, manifest: Mapping[str, Any], agent: str = "demo", url: str = URL) -> None:
        """Make this the agent's manifest in the repository."""
        path = f"{agent}/manifest.json" if agent else "manifest.json"
        self.source.push(url, {path: json.dumps(manifest)})

    def leader(self, steps: Steps | None = None) -> Leader:
        """Start a server; those before it are dead.  (Their frames are kept: nothing unwinds.)"""
        self.leaders.append(Leader(self, steps or Steps()))
        return self.leaders[-1]

    def queues(self) -> set[str]:
        return self._names(self.settings.run_directory / "i")

    def codes(self) -> set[str]:
        """All checkouts there are, as `deployment/number`."""
        deployments = self.settings.data_directory / "deployments"
        return {
            f"{deployment}/{number}"
            for deployment in self._names(deployments)
            for number in self._names(deployments / deployment / "releases")
        }

    def _names(self, directory: Path) -> set[str]:
        return {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()


class Leader:
    """One manager, its supervisor and its clock."""

    def __init__(self, ground: Ground, steps: Steps) -> None:
        self.ground, self.steps = ground, steps
        self.clock = Clock()
        self.runtime = FakeRuntime(ground.engine, steps)
        self.instances = FakeInstances(ground.engine, ground.workers, steps)
        self.said: list[str] = []
        self.manager: DeploymentManager = make_deployment_manager(
            self.clock,
            ground.new_id,
            "cluster-one",
            ground.settings,
            Neighbours(
                Stepped(DirectBlocking(), steps, "disk"),  # type: ignore[arg-type]
                Stepped(ground.store, steps, "store"),  # type: ignore[arg-type]
                ground.repositories,
                Stepped(ground.source, steps, "source"),  # type: ignore[arg-type]
                Stepped(self.runtime, steps, "runtime"),  # type: ignore[arg-type]
                Stepped(self.instances, steps, "instances"),  # type: ignore[arg-type]
                Stepped(ground.workers, steps, "workers"),  # type: ignore[arg-type]
            ),
            [CONTROL],
        )

    def begin(self, work: Coroutine[Deferred[Any], Any, Any]) -> Deferred[Any]:
        """Start something without waiting for it."""
        return Deferred.fromCoroutine(work)

    def deploy(self, **changes: Any) -> Deferred[Any]:
        return self.begin(self.manager.deploy(request(**changes), self.said.append))

    async def settle(self) -> None:
        await self.manager._jobs.settled()


def only(deferred: Deferred[Any]) -> Any:
    """Give what has arrived already; raise what has failed."""
    arrived: list[Any] = []
    deferred.addBoth(arrived.append)
    assert arrived, "still waits"
    if hasattr(arrived[0], "raiseException"):
        arrived[0].raiseException()
    return arrived[0]


def with_settings(ground: Ground, **changes: Any) -> None:
    ground.settings = attrs.evolve(ground.settings, **changes)
