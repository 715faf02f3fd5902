"""Instances as processes of this host, for machines without a container engine.

Each runs in a session of its own and outlives the leader, which finds it again by its
environment.  Bubblewrap keeps it away from the rest of the host where it works; where not,
an agent can do whatever the server's user can, and the log says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.deploy_errors import EngineError, StartFailed
from ploinky.instance_values import InstanceSpec, InstanceStatus, RunResult
from ploinky.interfaces import IRuntime, Report
from ploinky.leader_interfaces import IRuntimeEvents
from ploinky.observations import LAST_WORDS_BYTES, InstanceUsage, OutputPart
from ploinky.recurring import recurring
from ploinky.runtime import children, output, places, processes, sandbox
from ploinky.runtime.children import FDReactor, OutputPipe, WatchedProcess
from ploinky.runtime.figures import PART_BYTES
from ploinky.runtime.output import TIMED_OUT, OutputTail
from ploinky.runtime.places import AGENT_DIRECTORY, AGENTCORE_DIRECTORY, QUEUE_DIRECTORY
from ploinky.runtime.records import Record, Records
from ploinky.runtime.sandbox import Sandbox
from ploinky.runtime.waiting import uncut
from ploinky.threads import Blocking
from ploinky.values import Address, Kind

INHERITED = ("PATH", "LANG", "LC_ALL", "TZ")
"""Of the server's own environment, all that an agent sees."""
OUTPUT_LIMIT_BYTES = 10 * 1024 * 1024
TRIM_SECONDS = 10.0
KILL_ROUNDS = 100
KILL_PAUSE_SECONDS = 0.05
_LIMITED = 'ulimit -d "$0" && exec "$@"'


@implementer(IRuntime, IRuntimeEvents)
class ProcessRuntime(Service):
    """An `IRuntime` whose instances are processes of this host.

    Args:
        agentcore: The engine's directory.
        directory: Ours: one directory an instance, with its record and its output.
        deployments: Holds volumes, by deployment.
        environment: The server's own, of which agents see little.
        sandbox: How programs are kept apart; None: not at all.
    """

    _log = Logger()
    name = "process"

    def __init__(
        self,
        reactor: FDReactor,
        agentcore: Path,
        directory: Path,
        deployments: Path,
        environment: Mapping[str, str],
        sandbox: Sandbox | None,
    ) -> None:
        self._reactor = reactor
        self._agentcore = agentcore
        self._records = Records(directory)
        self._deployments = deployments
        self._inherited = {k: environment[k] for k in INHERITED if k in environment}
        self._inherited.setdefault("PATH", os.defpath)
        self._sandbox = sandbox
        self._watched: dict[str, WatchedProcess] = {}
        self._searched: set[str] = set()
        self._listener: Callable[[str], None] | None = None
        self._trims = recurring(reactor, "keeping output short", self._trim)

    # --- service

    def startService(self) -> None:
        """Begin to keep output files short."""
        super().startService()  # type: ignore[no-untyped-call]
        self._trims.start(TRIM_SECONDS)

    def stopService(self) -> None:
        """Watch no further; instances run on."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._trims.running:
            self._trims.stop()
        for process in self._watched.values():
            process.forget()
        self._watched.clear()

    def listen(self, ended: Callable[[str], None]) -> None:
        """See `IRuntimeEvents`."""
        self._listener = ended

    # --- IRuntime

    async def prepare(self, image: str, report: Report) -> str:
        """See `IRuntime`.  There are no images here: what runs is what this host has."""
        report(f"the process runtime has no images: {image} is ignored")
        return image

    async def run_once(
        self, spec: InstanceSpec, shell_command: str, timeout_seconds: float, report: Report
    ) -> RunResult:
        """See `IRuntime`."""
        tail = OutputTail(report)
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(writing, True)
            process = self._spawn(spec, ("/bin/sh", "-c", shell_command), 0, writing)
        except OSError as error:
            os.close(reading)
            raise EngineError(f"The command could not be started: {error}") from error
        finally:
            os.close(writing)
        pipe = OutputPipe(self._reactor, reading, tail.add)
        try:
            ended = await process.ends_within(timeout_seconds)
        finally:
            await uncut(self._end(spec.instance, process, 0.0))
            pipe.drain()
        tail.end()
        return RunResult(process.exit_code or 0 if ended else TIMED_OUT, tail.text())

    async def start(self, spec: InstanceSpec) -> InstanceStatus:
        """See `IRuntime`."""
        self._refuse(spec)
        places.prepare_mountpoint(spec)
        service = spec.kind is Kind.SERVICE
        record = Record(
            spec.instance,
            spec.deployment,
            spec.release,
            spec.cluster,
            port=_free_port() if service else 0,
            queue=spec.queue_directory if self._sandbox is None else QUEUE_DIRECTORY,
        )
        try:
            self._records.write(record)
            entrypoint = spec.entrypoint if service else ()
            argv = (*entrypoint, *spec.command) or ("/bin/sh", f"{self._seen_agentcore}/run.sh")
            with self._records.output(spec.instance).open("ab") as file:
                process = self._spawn(spec, argv, record.port, file)
        except OSError as error:
            self._records.erase(spec.instance)
            raise StartFailed(f"The agent could not be started: {error}") from error
        self._watch(spec.instance, process)
        return self._status(record)

    async def remove(self, instance: str, grace_seconds: float) -> str:
        """See `IRuntime`."""
        process = self._watched.pop(instance, None)
        if process is None:
            top = processes.topmost(processes.members(instance=instance))
            process = self._process(top.pid) if top is not None else None
        await self._end(instance, process, grace_seconds)
        printed = output.end_of_file(self._records.output(instance), LAST_WORDS_BYTES)
        self._records.erase(instance)
        return printed

    async def instances(self, cluster: str) -> list[InstanceStatus]:
        """See `IRuntime`."""
        if cluster not in self._searched:
            self._take_over(cluster)
            self._searched.add(cluster)
        return [self._status(each) for each in self._records.all() if each.cluster == cluster]

    async def output(self, instance: str, lines: int) -> str:
        """See `IRuntime`."""
        return output.last_lines(self._records.output(instance), lines)

    async def output_after(self, instance: str, mark: str, lines: int) -> OutputPart:
        """See `IRuntime`."""
        return output.part_of_file(self._records.output(instance), mark, lines, PART_BYTES)

    async def usage(self, instance: str) -> InstanceUsage | None:
        """See `IRuntime`.  What left its parents for good is not counted."""
        process = self._watched.get(instance)
        if process is None or not process.running:
            return None
        return processes.usage(process.pid)

    # --- starting

    def _refuse(self, spec: InstanceSpec) -> None:
        """Say what a process of this host cannot be.

        Raises:
            StartFailed: It asks for that.
        """
        process = self._watched.get(spec.instance)
        if process is not None and process.running:
            raise StartFailed(f"Instance {spec.instance} runs already.")
        needs = "which the process runtime cannot give; use docker or podman"
        if spec.kind is Kind.SERVICE and not (spec.command or spec.entrypoint):
            raise StartFailed(
                f"A service without `command` is started by its image's own, {needs},"
                " or set `command` in the manifest."
            )
        if spec.user and spec.user.partition(":")[0] != str(os.getuid()):
            raise StartFailed(f"`user` asks for another user than the server's own, {needs}.")
        if spec.capabilities:
            raise StartFailed(f"`capabilities` asks for some, {needs}.")
        for volume in spec.volumes:
            restored = places.RestoredVolume.of(self._deployments, spec.deployment, volume.name)
            if spec.kind is Kind.SERVICE and restored.tar.exists():
                raise StartFailed(
                    f"The volume {volume.name} was restored from a container engine's, {needs}."
                )
        self._tell_limits(spec)

    def _tell_limits(self, spec: InstanceSpec) -> None:
        """Say what an instance asks for and does without."""
        limits = [name for name in ("cpus", "pids") if getattr(spec.resources, name) is not None]
        if limits:
            self._log.warn(
                "the process runtime cannot limit {limits}: instance {instance} runs without",
                limits=" and ".join(limits),
                instance=spec.instance,
            )
        if spec.volumes and self._sandbox is None:
            self._log.warn(
                "volumes of {instance} are not mounted: that takes bubblewrap",
                instance=spec.instance,
            )

    def _spawn(self, spec: InstanceSpec, argv: Sequence[str], port: int, to: Any) -> WatchedProcess:
        """Start a program as an agent sees the world, in a session of its own."""
        if spec.resources.memory_bytes is not None:
            # Of each process: limits of all of them together take cgroups.
            kibibytes = str(spec.resources.memory_bytes // 1024)
            argv = ("/bin/sh", "-c", _LIMITED, kibibytes, *argv)
        code = spec.code_directory or spec.queue_directory
        home = f"{spec.queue_directory}/tmp"  # noqa: S108 - our own
        variables = {**self._inherited, "HOME": home if os.path.isdir(home) else code}
        if self._sandbox is not None:
            inside = spec.code_directory and AGENT_DIRECTORY
            argv = self._sandbox.wrap(
                argv, list(self._mounts(spec)), self._agentcore, inside or QUEUE_DIRECTORY
            )
            variables["HOME"] = "/tmp"  # noqa: S108
            variables |= places.environment(spec, AGENT_DIRECTORY, QUEUE_DIRECTORY)
        else:
            variables |= places.environment(spec, code, spec.queue_directory)
        variables |= {processes.CLUSTER: spec.cluster, processes.INSTANCE: spec.instance}
        if port:
            variables["PORT"] = str(port)
        return children.spawn(self._reactor, argv, variables, code, to)

    @property
    def _seen_agentcore(self) -> str:
        return AGENTCORE_DIRECTORY if self._sandbox is not None else str(self._agentcore)

    def _mounts(self, spec: InstanceSpec) -> Iterator[tuple[str, str]]:
        if spec.code_directory:
            places.prepare_mountpoint(spec)
            yield spec.code_directory, AGENT_DIRECTORY
        if os.path.isdir(spec.queue_directory):  # what runs once, before an instance, has none
            yield spec.queue_directory, QUEUE_DIRECTORY
        for volume in spec.volumes:
            directory = places.volume_directory(self._deployments, spec, volume.name)
            yield str(directory), volume.path

    # --- watching

    def _take_over(self, cluster: str) -> None:
        """Watch what an earlier leader started."""
        families: dict[str, list[processes.Member]] = {}
        for member in processes.members(cluster=cluster):
            families.setdefault(member.instance, []).append(member)
        for instance, family in families.items():
            top = processes.topmost(family)
            if instance in self._watched or top is None:
                continue
            process = self._process(top.pid)
            if process is None:
                continue
            if self._records.read(instance) is None:
                self._records.write(Record(instance, "", 0, cluster))
            self._watch(instance, process)

    def _process(self, pid: int) -> WatchedProcess | None:
        try:
            return WatchedProcess(self._reactor, pid)
        except ProcessLookupError:
            return None

    def _watch(self, instance: str, process: WatchedProcess) -> None:
        self._watched[instance] = process
        process.when_ended(partial(self._ended, instance, process))

    def _ended(self, instance: str, process: WatchedProcess) -> None:
        """Its main process did; what it left is of no more use to anybody."""
        if self._watched.get(instance) is not process:
            return
        processes.kill(processes.members(instance=instance), signal.SIGKILL)
        record = self._records.read(instance)
        if record is not None:
            self._records.write(evolve(record, exit_code=process.exit_code))
        if self._listener is not None:
            self._listener(instance)

    async def _end(
        self, instance: str, process: WatchedProcess | None, grace_seconds: float
    ) -> None:
        """SIGTERM to the program, SIGKILL to all that is left of it after the grace."""
        family = processes.members(instance=instance)
        if process is not None and process.running and grace_seconds > 0:
            depth = sandbox.GENERATIONS if sandbox.is_wrapped(process.pid) else 0
            program = processes.payload(family, process.pid, depth)
            processes.kill([each for each in family if each.pid == program], signal.SIGTERM)
            await process.ends_within(grace_seconds)
        for _ in range(KILL_ROUNDS):
            family = processes.members(instance=instance)
            running = process is not None and process.running
            if not family and not running:
                return
            processes.kill(family, signal.SIGKILL)
            if running and process is not None:
                await process.ends_within(KILL_PAUSE_SECONDS)
            else:
                await deferLater(self._reactor, KILL_PAUSE_SECONDS)
        raise EngineError(f"The processes of instance {instance} could not be ended")

    # --- records

    def _status(self, record: Record) -> InstanceStatus:
        process = self._watched.get(record.instance)
        running = process is not None and process.running
        serves = running and record.port
        return InstanceStatus(
            instance=record.instance,
            deployment=record.deployment,
            release=record.release,
            running=running,
            exit_code=None if running else record.exit_code,
            address=Address(host="127.0.0.1", port=record.port) if serves else None,
            inner_queue=record.queue,
        )

    def _trim(self) -> None:
        for record in self._records.all():
            output.trim(self._records.output(record.instance), OUTPUT_LIMIT_BYTES)


def _free_port() -> int:
    """Choose one that is free now: two releases run at once, and cannot share the manifest's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def available(reactor: Any) -> str:
    """See `IRuntimeFactory`."""
    return "" if shutil.which("sh") else "there is no sh on the path"


async def create(reactor: Any, settings: Any) -> IRuntime:
    """See `IRuntimeFactory`.  What comes back is an ``IService`` too."""
    data = Path(settings.data_directory)
    checking = Blocking(reactor, 1, "bubblewrap-check")
    checking.start()
    try:
        found, problem = await checking.run(sandbox.find_sandbox, os.environ, [str(data)])
    finally:
        checking.stop()
    if found is None:
        Logger().warn(
            "agents run WITHOUT ISOLATION, as this server's own user: {problem}. Install"
            " bubblewrap, or run Docker or Podman.",
            problem=problem,
        )
    return ProcessRuntime(
        reactor,
        places.agentcore_directory(),
        Path(settings.run_directory) / "p",
        data / "deployments",
        os.environ,
        found,
    )
