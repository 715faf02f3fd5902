"""A runtime and instances in memory, for tests of whatever needs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from ploinky.deploy_errors import EngineUnavailable, ImageUnavailable, ProbeFailed, StartFailed
from ploinky.instance_values import InstanceSpec, InstanceStatus, RunResult
from ploinky.interfaces import IRuntime, Report
from ploinky.leader_interfaces import IInstanceHistory, IInstances
from ploinky.observations import InstanceDeath, InstanceUsage, OutputPart
from ploinky.values import Address, Kind, Target, Wire

TIMED_OUT = 124


@frozen
class Script:
    """What a command does.

    Attributes:
        output: What it prints.
        exit_code: With which it ends; None: it runs until it is ended.
    """

    output: str = ""
    exit_code: int | None = None


@define
class MemoryInstance:
    """One instance as the engine would know it."""

    spec: InstanceSpec
    status: InstanceStatus
    output: str = ""
    usage: InstanceUsage = field(factory=lambda: InstanceUsage(0.5, 1_000_000))


@define
class MemoryHost:
    """What outlives a leader: the images and instances of one host.

    Attributes:
        images: The ones that are here.
        scripts: What commands do, by the last word of the command or by the shell command;
            others run on and print nothing.
        refusal: With which every start fails; ``""``: none does.
        away: Whether the engine does not answer.
        started: Every spec that was ever started, in order.
    """

    images: set[str] = field(factory=lambda: {"node:18-alpine"})
    scripts: dict[str, Script] = field(factory=dict)
    refusal: str = ""
    away: bool = False
    instances: dict[str, MemoryInstance] = field(factory=dict)
    started: list[InstanceSpec] = field(factory=list)

    def crash(
        self, instance: str, exit_code: int = 1, *, out_of_memory: bool = False, output: str = ""
    ) -> None:
        """End an instance's process."""
        found = self.instances[instance]
        found.output += output
        found.status = evolve(
            found.status,
            running=False,
            exit_code=exit_code,
            out_of_memory=out_of_memory,
            address=None,
        )

    def restart(self, instance: str) -> None:
        """Start it again, as an engine's restart policy does."""
        found = self.instances[instance]
        again = found.status.restarts + 1
        found.status = evolve(found.status, running=True, exit_code=None, restarts=again)

    def vanish(self, instance: str) -> None:
        """Remove it, as somebody with the engine's own program does."""
        del self.instances[instance]


def writes_ready(spec: InstanceSpec) -> None:
    """Do what an AgentCore without HTTP does when it takes tasks."""
    ready = Path(spec.queue_directory) / "ready"
    ready.parent.mkdir(parents=True, exist_ok=True)
    ready.write_text(json.dumps({"engine": "sh", "version": "", "transports": ["file"], "pid": 1}))


@implementer(IRuntime)
class MemoryRuntime:
    """An `IRuntime` that runs nothing.

    Args:
        clock: For what takes time.
        host: Shared with the runtime of a next leader, where a test wants one.
        agent: Called with each task agent's spec once it has started.
    """

    name = "memory"

    def __init__(
        self,
        clock: IReactorTime,
        host: MemoryHost,
        agent: Callable[[InstanceSpec], None] = writes_ready,
    ) -> None:
        self._clock = clock
        self._host = host
        self._agent = agent

    async def prepare(self, image: str, report: Report) -> str:
        """See `IRuntime`."""
        self._answer()
        if image not in self._host.images:
            raise ImageUnavailable(f"there is no image {image}")
        return f"memory:{image}"

    async def run_once(
        self, spec: InstanceSpec, shell_command: str, timeout_seconds: float, report: Report
    ) -> RunResult:
        """See `IRuntime`."""
        self._answer()
        script = self._host.scripts.get(shell_command, Script(exit_code=0))
        for line in script.output.splitlines():
            report(line)
        if script.exit_code is not None:
            return RunResult(script.exit_code, script.output)
        await deferLater(self._clock, timeout_seconds)
        return RunResult(TIMED_OUT, script.output)

    async def start(self, spec: InstanceSpec) -> InstanceStatus:
        """See `IRuntime`."""
        self._answer()
        if self._host.refusal:
            raise StartFailed(self._host.refusal)
        if spec.instance in self._host.instances:
            raise StartFailed(f"there is an instance {spec.instance} already")
        script = self._host.scripts.get(spec.command[-1] if spec.command else "", Script())
        service = spec.kind is Kind.SERVICE
        status = InstanceStatus(
            instance=spec.instance,
            deployment=spec.deployment,
            release=spec.release,
            running=script.exit_code is None,
            exit_code=script.exit_code,
            address=Address(host="127.0.0.1", port=spec.port or 80) if service else None,
        )
        self._host.instances[spec.instance] = MemoryInstance(spec, status, script.output)
        self._host.started.append(spec)
        if spec.kind is Kind.TASK:
            self._agent(spec)
        return status

    async def remove(self, instance: str, grace_seconds: float) -> str:
        """See `IRuntime`."""
        self._answer()
        found = self._host.instances.pop(instance, None)
        return found.output if found else ""

    async def instances(self, cluster: str) -> list[InstanceStatus]:
        """See `IRuntime`."""
        self._answer()
        found = self._host.instances.values()
        return [each.status for each in found if each.spec.cluster == cluster]

    async def output(self, instance: str, lines: int) -> str:
        """See `IRuntime`."""
        self._answer()
        found = self._host.instances.get(instance)
        return "".join(found.output.splitlines(keepends=True)[-lines:]) if found else ""

    async def output_after(self, instance: str, mark: str, lines: int) -> OutputPart:
        """See `IRuntime`."""
        if instance not in self._host.instances:
            return OutputPart("", mark)
        printed = self._host.instances[instance].output
        text = printed[int(mark) :] if mark else await self.output(instance, lines)
        return OutputPart(text, str(len(printed)))

    async def usage(self, instance: str) -> InstanceUsage | None:
        """See `IRuntime`."""
        self._answer()
        found = self._host.instances.get(instance)
        return found.usage if found and found.status.running else None

    def _answer(self) -> None:
        if self._host.away:
            raise EngineUnavailable("the memory engine does not answer")


@implementer(IInstanceHistory)
class RecordedHistory:
    """An `IInstanceHistory` that remembers.

    Attributes:
        starts: The ids of instances that became ready, and how long it took, in order.
        falls: In order.
        deaths: In order.
        outputs: What removed instances had printed, by id; of one that had several lives, all.
    """

    def __init__(self) -> None:
        self.starts: list[tuple[str, float]] = []
        self.falls: list[InstanceDeath] = []
        self.deaths: list[InstanceDeath] = []
        self.outputs: dict[str, str] = {}

    def started(self, spec: InstanceSpec, seconds: float) -> None:
        """See `IInstanceHistory`."""
        self.starts.append((spec.instance, seconds))

    def fell(self, death: InstanceDeath) -> None:
        """See `IInstanceHistory`."""
        self.falls.append(death)

    def died(self, death: InstanceDeath) -> None:
        """See `IInstanceHistory`."""
        self.deaths.append(death)

    def parted(self, deployment: str, release: int, instance: str, output: str) -> None:
        """See `IInstanceHistory`."""
        self.outputs[instance] = self.outputs.get(instance, "") + output


@implementer(IInstances)
class MemoryInstances:
    """An `IInstances` whose instances are ready at once, or never.

    Attributes:
        running: The specs of those that were launched or adopted and not ended, by instance.
        ended: The ids that were ended, in order.
        failures: What `launch` raises, by image.
    """

    def __init__(self) -> None:
        self.running: dict[str, InstanceSpec] = {}
        self.strays: list[InstanceStatus] = []
        self.ended: list[str] = []
        self.failures: dict[str, StartFailed | ProbeFailed] = {}
        self._watchers: list[Callable[[str, bool], None]] = []
        self._healthy: dict[str, bool] = {}

    async def launch(self, spec: InstanceSpec, report: Report) -> Target:
        """See `IInstances`."""
        if spec.image in self.failures:
            raise self.failures[spec.image]
        self.running[spec.instance] = spec
        return self._ready(spec)

    async def adopt(self, spec: InstanceSpec) -> Target | None:
        """See `IInstances`.  There, where `strays` has it running."""
        if not any(each.instance == spec.instance and each.running for each in self.strays):
            await self.end(spec.instance, 0.0)
            return None
        self.strays = [each for each in self.strays if each.instance != spec.instance]
        self.running[spec.instance] = spec
        return self._ready(spec)

    async def end(self, instance: str, grace_seconds: float) -> None:
        """See `IInstances`."""
        self.running.pop(instance, None)
        self._healthy.pop(instance, None)
        self.strays = [each for each in self.strays if each.instance != instance]
        self.ended.append(instance)

    def target(self, instance: str) -> Target | None:
        """See `IInstances`."""
        spec = self.running.get(instance)
        return self._ready(spec) if spec is not None and self._healthy.get(instance) else None

    async def discover(self) -> list[InstanceStatus]:
        """See `IInstances`."""
        return self.strays + [_running(spec) for spec in self.running.values()]

    def watch(self, changed: Callable[[str, bool], None]) -> None:
        """See `IInstances`."""
        self._watchers.append(changed)

    def change(self, instance: str, healthy: bool) -> None:
        """Let an instance become healthy or unhealthy."""
        self._healthy[instance] = healthy
        for changed in self._watchers:
            changed(instance, healthy)

    def _ready(self, spec: InstanceSpec) -> Target:
        self._healthy[spec.instance] = True
        if spec.kind is Kind.TASK:
            address = Address(path=f"{spec.queue_directory}/agent.sock")
            return Target(spec.instance, address, spec.wire, spec.queue_directory)
        return Target(spec.instance, Address(host="127.0.0.1", port=spec.port or 80), Wire.HTTP)


def _running(spec: InstanceSpec) -> InstanceStatus:
    return InstanceStatus(spec.instance, spec.deployment, spec.release, running=True)
