"""Docker and Podman, which speak the same API, as one `IRuntime`.

Every call of the SDK happens in the engine's own pool of threads.  What the engines do
differently is either asked for in a way that both understand (`blueprint`), or read from
what they say of themselves (`facts`); where their answers differ, the place says so.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import docker.errors
import requests
import urllib3.exceptions
from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.deploy_errors import EngineError, EngineUnavailable, ImageUnavailable, StartFailed
from ploinky.instance_values import InstanceSpec, InstanceStatus, RunResult
from ploinky.interfaces import IRuntime, Report
from ploinky.leader_interfaces import IRuntimeEvents, IRuntimeVolumes, IVolumeCopy
from ploinky.observations import LAST_WORDS_BYTES, InstanceUsage, OutputPart
from ploinky.runtime import blueprint, facts, inspection, places
from ploinky.runtime.blueprint import Blueprint, Surroundings
from ploinky.runtime.events import ContainerEvent, EventStream
from ploinky.runtime.facts import ApiClient, Connection, EngineFacts
from ploinky.runtime.figures import part_after, read_usage, since_of
from ploinky.runtime.last_ends import LastEnds
from ploinky.runtime.output import TIMED_OUT, OutputTail, end_of
from ploinky.runtime.volumes import EngineVolumes, VolumeCopy
from ploinky.runtime.waiting import Shielded, uncut
from ploinky.threads import Blocking
from ploinky.values import Kind

T = TypeVar("T")

REQUEST_SECONDS = 60.0
_NEXT_STEPS = {
    "container-init binary not found": "Install the package catatonit.",
    '"docker-init": executable file not found': "Install Docker's own init, docker-init.",
}
LAST_WORDS_LINES = 10_000
REMOVE_ATTEMPTS = 10
REMOVE_PAUSE_SECONDS = 0.3
SECRET_LENGTH = 4
"""Shorter values are no secrets, and striking them out would garble the message."""
_HOST_MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class _Reactor(IReactorTime, IReactorFromThreads):
    """What the engine needs of a reactor."""


@implementer(IRuntime, IRuntimeEvents, IRuntimeVolumes)
class ContainerEngine(Service):
    """One container engine behind its API socket.

    Args:
        reactor: Where threads hand back results, and the clock.
        blocking: The engine's own pool; started and stopped with this service.
        title: ``Docker`` or ``Podman``, for messages.
        companion: What serves the API, where that is ours; it runs, and is stopped with this.
        ask: Finds out what answers at a connection; blocking.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: _Reactor,
        blocking: Blocking,
        title: str,
        connection: Connection,
        surroundings: Surroundings,
        companion: Service | None = None,
        ask: facts.Ask = facts.ask,
    ) -> None:
        self.name: str = title.lower()
        self._reactor = reactor
        self._blocking = blocking
        self._title = title
        self._connection = connection
        self._surroundings = surroundings
        self._companion = companion
        self._ask = ask
        self._guard = threading.Lock()
        self._volumes = EngineVolumes(partial(facts.connect, connection), surroundings)
        self._known: tuple[ApiClient, EngineFacts] | None = None
        self._bridge: bool | None = None
        self._ended = threading.Event()
        self._listener: Callable[[str], None] | None = None
        self._events = EventStream(connection, partial(reactor.callFromThread, self._heard))
        self._following: Shielded[None] | None = None
        self._last_ends = LastEnds()

    # --- service

    def startService(self) -> None:
        """Begin to take work."""
        super().startService()  # type: ignore[no-untyped-call]
        self._blocking.start()
        if self._listener is not None:
            self._follow()

    def stopService(self) -> Deferred[None]:
        """Give up what is being pulled; containers run on.

        Fires once the engine's companion has ended.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._ended.set()
        self._events.close()
        self._blocking.stop()
        if self._known is not None:
            self._known[0].close()
        if self._companion is None:
            return succeed(None)
        return maybeDeferred(self._companion.stopService)

    def listen(self, ended: Callable[[str], None]) -> None:
        """See `IRuntimeEvents`."""
        self._listener = ended
        if self.running:
            self._follow()

    def _follow(self) -> None:
        if self._following is None:
            self._following = Shielded(self._blocking.run(self._events.follow))

    def _heard(self, event: ContainerEvent) -> None:
        self._last_ends.hear(event)
        if self._listener is not None:
            self._listener(event.instance)

    # --- IRuntime

    async def prepare(self, image: str, report: Report) -> str:
        """See `IRuntime`."""
        given_up = threading.Event()
        try:
            return await self._blocking.run(
                self._prepare, image, self._from_thread(report), given_up
            )
        except CancelledError:
            given_up.set()
            raise

    async def run_once(
        self, spec: InstanceSpec, shell_command: str, timeout_seconds: float, report: Report
    ) -> RunResult:
        """See `IRuntime`."""
        tail = OutputTail(self._from_thread(report))
        given_up = threading.Event()
        running = Shielded(
            self._blocking.run(self._run_once, spec, shell_command, timeout_seconds, tail, given_up)
        )
        ended: Deferred[int] = Deferred.fromCoroutine(running.result())
        ended.addTimeout(timeout_seconds, self._reactor)
        try:
            exit_code = await ended
        except TimeoutError:
            exit_code = TIMED_OUT
        finally:
            given_up.set()
            await uncut(self._blocking.run(self._discard, spec.instance, 0.0))
            await running.ended()
        return RunResult(exit_code, tail.text())

    async def start(self, spec: InstanceSpec) -> InstanceStatus:
        """See `IRuntime`."""
        try:
            return await uncut(self._blocking.run(self._start, spec))
        except CancelledError:
            await uncut(self._blocking.run(self._discard, spec.instance, 0.0))
            raise

    async def remove(self, instance: str, grace_seconds: float) -> str:
        """See `IRuntime`.  Cancelling gives up the wait; it is removed all the same."""
        return await self._blocking.run(self._discard, instance, grace_seconds)

    async def instances(self, cluster: str) -> list[InstanceStatus]:
        """See `IRuntime`."""
        return await self._blocking.run(self._instances, cluster)

    async def output(self, instance: str, lines: int) -> str:
        """See `IRuntime`."""
        return await self._blocking.run(self._output, instance, lines)

    async def output_after(self, instance: str, mark: str, lines: int) -> OutputPart:
        """See `IRuntime`."""
        return await self._blocking.run(self._output_after, instance, mark, lines)

    async def usage(self, instance: str) -> InstanceUsage | None:
        """See `IRuntime`."""
        return await self._blocking.run(self._usage, instance)

    async def open_volume(self, spec: InstanceSpec, name: str) -> IVolumeCopy | None:
        """See `IRuntimeVolumes`."""
        pieces = await uncut(self._blocking.run(self._open_volume, spec, name))
        return None if pieces is None else VolumeCopy(self._blocking, self._translated, pieces)

    # --- in threads

    def _engine(self) -> tuple[ApiClient, EngineFacts]:
        """Give the client and what is known of the engine, connecting at the first call."""
        with self._guard:
            if self._known is None:
                try:
                    found = self._ask(self._connection)
                    self._known = facts.connect(self._connection, REQUEST_SECONDS), found
                except EngineUnavailable as error:
                    raise EngineUnavailable(f"{self._title}: {error.message}") from error
            return self._known

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the SDK raises into this house's errors."""
        try:
            yield
        except docker.errors.APIError as error:
            explanation = error.explanation or error
            if isinstance(explanation, bytes):
                explanation = explanation.decode(errors="replace")
            raise EngineError(f"{self._title}: {explanation}") from error
        except (
            OSError,
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
        ) as error:
            raise EngineUnavailable(
                f"{self._title} does not answer at {self._connection.url}: {error}."
                f" See that it runs, or choose another runtime."
            ) from error

    def _prepare(self, image: str, report: Report, given_up: threading.Event) -> str:
        client, _ = self._engine()
        with self._translated():
            try:
                return str(client.inspect_image(image)["Id"])
            except docker.errors.APIError:
                pass  # absent (404), or no name of an image (400, 500): the pull will say it
            try:
                report(f"pulling {image}")
                for progress in client.pull(image, stream=True, decode=True):
                    if given_up.is_set() or self._ended.is_set():
                        raise ImageUnavailable(f"{image}: the pull was given up")
                    self._read_progress(image, progress, report)
                return str(client.inspect_image(image)["Id"])
            except docker.errors.APIError as error:
                raise ImageUnavailable(
                    f"{self._title} has no image {image} and could not pull it: {error.explanation}"
                ) from error

    def _read_progress(self, image: str, progress: dict[str, Any], report: Report) -> None:
        if progress.get("error"):
            raise ImageUnavailable(
                f"{self._title} has no image {image} and could not pull it: {progress['error']}"
            )
        status = progress.get("status") or progress.get("stream") or ""
        if status and not progress.get("progressDetail"):
            layer = progress.get("id")
            report(f"{layer}: {status.strip()}" if layer else status.strip())

    def _run_once(
        self,
        spec: InstanceSpec,
        shell_command: str,
        timeout_seconds: float,
        tail: OutputTail,
        given_up: threading.Event,
    ) -> int:
        """Give the exit code; 0 where it was given up, after which nobody asks for it."""
        _, found = self._engine()
        plan = blueprint.once_blueprint(spec, shell_command, found, self._surroundings)
        container = self._create_and_start(spec, plan)
        if given_up.is_set():
            # Whoever gave up may have looked for the container before it was there.
            self._discard(spec.instance, 0.0)
            return 0
        # A client of its own: the command may be silent for as long as it may take.
        client = facts.connect(self._connection, timeout_seconds + REQUEST_SECONDS)
        try:
            with self._translated():
                for chunk in client.logs(container, stream=True, follow=True):
                    tail.add(chunk)
                tail.end()
                return int(client.wait(container)["StatusCode"])
        finally:
            client.close()

    def _start(self, spec: InstanceSpec) -> InstanceStatus:
        client, found = self._engine()
        places.prepare_mountpoint(spec)
        port = self._port(client, found, spec)
        publish = port is not None and not (spec.kind is Kind.SERVICE and self._bridge)
        plan = blueprint.instance_blueprint(spec, found, self._surroundings, port, publish)
        with self._translated():
            self._volumes.prepare(client, found, spec)
        container = self._create_and_start(spec, plan)
        with self._translated():
            description = client.inspect_container(container)
        return inspection.read_status(description, self._bridge_in_reach)

    def _port(self, client: ApiClient, found: EngineFacts, spec: InstanceSpec) -> int | None:
        """Choose what the instance listens at over TCP; None: on ``agent.sock`` alone."""
        if spec.kind is Kind.TASK:
            return None if found.same_machine else blueprint.AGENTCORE_PORT
        if spec.port is not None:
            return spec.port
        given = spec.environment.get("PORT", "")
        if given.isdigit():
            return int(given)
        with self._translated():
            port = inspection.exposed_port(client.inspect_image(spec.image))
        if port is None:
            raise StartFailed(
                f"Which port does {spec.image} listen at? The image does not declare exactly one:"
                " set `port` in the manifest or for the deployment."
            )
        return port

    def _create_and_start(self, spec: InstanceSpec, plan: Blueprint) -> str:
        """Give the id of a running container; where that fails none is left.

        A port that is taken, or a missing `init`, is found out only by `start`, which leaves
        a container that was created (both engines).
        """
        client, _ = self._engine()
        try:
            with self._translated():
                host = client.create_host_config(**plan.host)
                container: str = client.create_container(host_config=host, **plan.container)["Id"]
                client.start(container)
        except EngineUnavailable:
            raise
        except EngineError as error:
            self._discard(spec.instance, 0.0)
            message = _without_secrets(error.message, spec)
            raise StartFailed(message + _next_step(message)) from None
        return container

    def _bridge_in_reach(self, gateway: str) -> bool:
        """Decide once per engine, at the first service that hangs on its bridge."""
        if self._bridge is None:
            _, found = self._engine()
            self._bridge = found.same_machine and facts.local_address(gateway)
        return self._bridge

    def _instances(self, cluster: str) -> list[InstanceStatus]:
        client, _ = self._engine()
        found: dict[str, InstanceStatus] = {}
        with self._translated():
            for container in self._labelled(client, blueprint.LABEL_CLUSTER, cluster):
                try:
                    description = client.inspect_container(container)
                except docker.errors.NotFound:
                    continue  # removed meanwhile
                status = inspection.read_status(description, self._bridge_in_reach)
                if status.running and status.restarts:  # the engine has forgotten how it ended
                    finished_at = inspection.finished_at(description)
                    end = self._last_ends.of(description["Id"], finished_at)
                    status = evolve(
                        status, exit_code=end.exit_code, out_of_memory=end.out_of_memory
                    )
                found[status.instance] = status
        return list(found.values())

    def _labelled(self, client: ApiClient, label: str, value: str) -> list[str]:
        filters = {"label": [f"{label}={value}"]}
        return [each["Id"] for each in client.containers(all=True, filters=filters)]

    def _discard(self, instance: str, grace_seconds: float) -> str:
        """Stop and remove whatever carries the instance's label; give its last words.

        Podman fails now and then where it was just starting the container again ("container
        state improper"): it is asked again.
        """
        client, _ = self._engine()
        printed = ""
        for _ in range(REMOVE_ATTEMPTS):
            with self._translated():
                left = self._labelled(client, blueprint.LABEL_INSTANCE, instance)
            if not left:
                return printed
            for container in left:
                # Podman refuses to stop one that is paused; removing by force ends it then.
                self._unless_gone(partial(client.stop, container, timeout=int(grace_seconds)))
                printed = self._last_words(client, container) or printed
                gone = partial(client.remove_container, container, force=True, v=True)
                if not self._unless_gone(gone):
                    self._ended.wait(REMOVE_PAUSE_SECONDS)
        raise EngineError(f"{self._title} could not remove the container of instance {instance}")

    def _last_words(self, client: ApiClient, container: str) -> str:
        """Read the end of what a container printed; its removal does not fail for want of it."""
        try:
            with self._translated():
                printed = client.logs(container, stream=True, follow=False, tail=LAST_WORDS_LINES)
                return end_of(printed, LAST_WORDS_BYTES)
        except EngineError as error:
            self._log.debug("{title}: {error}", title=self._title, error=error.message)
            return ""

    def _unless_gone(self, work: Callable[[], object]) -> bool:
        """Do it; what fails because another is doing it, or did, shows in what is left."""
        with self._translated():
            try:
                work()
            except docker.errors.APIError as error:
                self._log.debug("{title}: {error}", title=self._title, error=str(error))
                return False
        return True

    def _output(self, instance: str, lines: int) -> str:
        client, _ = self._engine()
        with self._translated():
            for container in self._labelled(client, blueprint.LABEL_INSTANCE, instance):
                try:
                    return str(client.logs(container, tail=lines).decode(errors="replace"))
                except docker.errors.NotFound:
                    continue
        return ""

    def _output_after(self, instance: str, mark: str, lines: int) -> OutputPart:
        client, _ = self._engine()
        wanted = {"since": since_of(mark)} if mark else {"tail": lines}
        with self._translated():
            for container in self._labelled(client, blueprint.LABEL_INSTANCE, instance):
                try:
                    printed = client.logs(
                        container, stream=True, follow=False, timestamps=True, **wanted
                    )
                    try:
                        return part_after(mark, printed)
                    finally:
                        printed.close()
                except docker.errors.NotFound:
                    continue
        return OutputPart("", mark)

    def _usage(self, instance: str) -> InstanceUsage | None:
        client, _ = self._engine()
        with self._translated():
            for container in self._labelled(client, blueprint.LABEL_INSTANCE, instance):
                try:
                    stats = client.stats(container, stream=False, one_shot=True)
                except (docker.errors.NotFound, requests.exceptions.JSONDecodeError):
                    continue  # gone; or Podman's empty answer of one that does not run
                return read_usage(stats, _HOST_MEMORY_BYTES)
        return None

    def _open_volume(self, spec: InstanceSpec, name: str) -> Iterator[bytes] | None:
        _, found = self._engine()
        with self._translated():
            pieces = self._volumes.pieces(found, spec, name)
        if pieces is not None and not found.podman:  # it takes a container, if not one that runs
            self._prepare(spec.image, lambda line: None, self._ended)
        return pieces

    def _from_thread(self, report: Report) -> Report:
        return lambda line: self._reactor.callFromThread(report, line)


def _next_step(message: str) -> str:
    """Tell what helps, where an engine's own words do not."""
    for said, helps in _NEXT_STEPS.items():
        if said in message:
            return f". {helps}"
    return ""


def _without_secrets(message: str, spec: InstanceSpec) -> str:
    """Strike out the deployment's own variables, should an engine ever repeat them."""
    for name, value in spec.environment.items():
        if len(value) >= SECRET_LENGTH and not name.startswith("PLOINKY_"):
            message = message.replace(value, f"<{name}>")
    return message
