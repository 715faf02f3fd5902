"""The API on a real Unix socket, with stores, manager and workers in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
import treq
from attrs import Factory, define
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, deferLater
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from ploinky.api.application import make_site, routes
from ploinky.api.endpoints import Collaborators
from ploinky.api.openapi import describe
from ploinky.api.operations import Operations
from ploinky.api.streams import Streams
from ploinky.backup.making import Backups
from ploinky.configuration import Configuration
from ploinky.deploy_errors import RepositoryUnreachable
from ploinky.deployment.spec import Layout, Plans
from ploinky.instance_values import InstanceStatus
from ploinky.interfaces import IRuntime
from ploinky.leader_interfaces import ISource
from ploinky.observations import InstanceUsage, OutputPart
from ploinky.routing.rates import SharedRates
from ploinky.security.admission import Admission
from ploinky.security.authenticator import KeyAuthenticator
from ploinky.security.bootstrap import BootstrapToken
from ploinky.security.keyring import Keyring
from ploinky.security.published import PublishedKeys
from ploinky.security.strangers import Strangers
from ploinky.security.throttle import LoginThrottle
from ploinky.security.tokens import token_hash
from ploinky.settings import Settings
from ploinky.source_values import AgentListing, GitSource
from ploinky.telemetry.deaths import Deaths
from ploinky.telemetry.history import InstanceHistory
from ploinky.telemetry.hub import Hub
from ploinky.telemetry.load import Loads
from ploinky.telemetry.metrics import Metrics
from ploinky.telemetry.usages import Usages
from ploinky.testing.api import MemoryDeploymentManager, MemoryDurableTasks, RecordedWorkers
from ploinky.testing.store import (
    MemoryAuditTrail,
    MemoryDeploymentStore,
    MemoryHookStore,
    MemoryKeyStore,
    MemoryMetricsStore,
    MemoryRepositoryStore,
    MemorySnapshots,
    MemoryTaskStore,
)
from ploinky.threads import Blocking
from ploinky.values import Principal, Role
from tests.api.conformance import Description

API = "/management/api"

KEYS = {
    "admin": Principal("Admin", Role.ADMIN, token_hash("pk_admin")),
    "deployer": Principal("dora", Role.DEPLOYER, token_hash("pk_deployer")),
    "confined": Principal(
        "carl", Role.DEPLOYER, token_hash("pk_confined"), scope=("a.example", "localhost/carl")
    ),
    "viewer": Principal("vera", Role.VIEWER, token_hash("pk_viewer")),
    "caller": Principal("cleo", Role.CALLER, token_hash("pk_caller")),
}
"""One key a role; its token is `pk_` and the role."""


@implementer(ISource)
class ListedSource:
    """`ISource` that has what it is given, by URL."""

    def __init__(self) -> None:
        self.contents: dict[str, list[AgentListing]] = {}
        self.asked: list[tuple[GitSource, bool]] = []
        self.forgotten: list[str] = []

    async def resolve(self, source: GitSource, fresh: bool) -> str:
        self.asked.append((source, fresh))
        self._see(source)
        return "c0ffee"

    async def checkout(
        self, source: GitSource, commit: str, sub_path: str, destination: str
    ) -> None:
        raise NotImplementedError

    async def agents(self, source: GitSource) -> list[AgentListing]:
        self._see(source)
        return self.contents[source.url]

    async def forget(self, url: str) -> None:
        self.forgotten.append(url)

    def _see(self, source: GitSource) -> None:
        if source.url not in self.contents:
            raise RepositoryUnreachable(f"{source.url} cannot be reached")


@implementer(IRuntime)
class ListedRuntime:
    """`IRuntime` that only knows what instances there are and what they printed."""

    name = "listed"

    def __init__(self) -> None:
        self.statuses: list[InstanceStatus] = []
        self.outputs: dict[str, str] = {}
        self.usages: dict[str, InstanceUsage] = {}

    async def prepare(self, image, report):
        raise NotImplementedError

    async def run_once(self, spec, shell_command, timeout_seconds, report):
        raise NotImplementedError

    async def start(self, spec):
        raise NotImplementedError

    async def remove(self, instance, grace_seconds):
        raise NotImplementedError

    async def instances(self, cluster: str) -> list[InstanceStatus]:
        return self.statuses if cluster == "cluster" else []

    async def output(self, instance: str, lines: int) -> str:
        return "\n".join(self.outputs.get(instance, "").splitlines()[-lines:])

    async def output_after(self, instance: str, mark: str, lines: int) -> OutputPart:
        said = self.outputs.get(instance, "")
        return OutputPart(said[int(mark or 0) :], str(len(said)))

    async def usage(self, instance: str) -> InstanceUsage | None:
        return self.usages.get(instance)


class InThisThread:
    """`Blocking` without threads."""

    async def run(self, work, *args, **kwargs):
        return work(*args, **kwargs)


@define
class Answered:
    """One answer, read."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json["code"]

    def field(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None


@define
class Opened:
    """An answer that goes on.

    Attributes:
        ended: Fires when it is over.
    """

    answer: Any
    pieces: list[bytes] = Factory(list)
    ended: Any = None

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode()

    async def until(self, server: Server, condition: Callable[[], Any]) -> None:
        """Let time pass, the server's and real moments, until something has come."""
        for _ in range(400):
            if condition():
                return
            server.clock.advance(0.5)
            await deferLater(reactor, 0.005)
        raise AssertionError(f"it never came: {self.text!r}")


@define
class Server:
    """The API, and what stands behind it."""

    clock: Clock
    manager: MemoryDeploymentManager
    deployment_store: MemoryDeploymentStore
    repositories: MemoryRepositoryStore
    keys: PublishedKeys
    source: ListedSource
    runtime: ListedRuntime
    workers: RecordedWorkers
    tasks: MemoryDurableTasks
    operations: Operations
    bootstrap: BootstrapToken
    collaborators: Collaborators
    client: HTTPClient
    description: Description

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = "admin",
        peer: str = "203.0.113.9",
        host: str = "localhost:8000",
        fields: dict[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answered:
        """Send a request as the gateway would hand it on; the answer must be a described one.

        Args:
            path: Below `/management/api` where it does not begin with a slash.
            key: The role whose key to send; None for none.
        """
        sent = {"Host": host, "X-Forwarded-For": peer, **(fields or {})}
        if key is not None:
            sent.setdefault("Authorization", f"Bearer pk_{key}")
        if body is not None:
            data = json.dumps(body).encode()
        url = "http://control" + (path if path.startswith("/") else f"{API}/{path}")
        answer = await self.client.request(
            method, url, headers=sent, data=data, allow_redirects=False
        )
        answered = Answered(answer.code, answer.headers, await treq.content(answer))
        self.description.check(
            method, url, answered.status, answered.field("Content-Type"), answered.body
        )
        return answered

    def count(self, number: int, deployment: str, status: int, count: int, **more: Any) -> None:
        """Let a worker report calls."""
        entry = {
            "deployment": deployment,
            "command": "hello",
            "status": status,
            "failedAt": "agent" if status >= 500 else "",
            "count": count,
            "microseconds": 10_000 * count,
            "bytesIn": 10,
            "bytesOut": 20,
            "queuedMicroseconds": 0,
            "buckets": [[75, count]],
        }
        line = json.dumps(entry | more).encode() + b"\n"
        self.collaborators.metrics.take("w-1", number, line)

    async def open(
        self, path: str, key: str = "admin", *, leaving: bool = False, **fields: str
    ) -> Opened:
        """Ask for an answer that goes on; what came of it is read piece by piece.

        Args:
            leaving: Whether the client goes once the first of it has come.
        """
        answer = await self.client.request(
            "GET",
            f"http://control{API}/{path}",
            headers={
                "Host": "localhost:8000",
                "X-Forwarded-For": "203.0.113.9",
                "Authorization": f"Bearer pk_{key}",
                **{name.replace("_", "-"): value for name, value in fields.items()},
            },
            unbuffered=True,
        )
        opened = Opened(answer)
        if leaving:
            answer.deliverBody(_Leaver())
        else:
            opened.ended = treq.collect(answer, opened.pieces.append)
        return opened

    async def deploy(self, path: str = "/demo", domain: str = "localhost", **more: Any) -> Any:
        """Deploy something as an admin."""
        body = {"domain": domain, "path": path, "agent": "demo", **more}
        answer = await self.ask("POST", "deployments", body)
        assert answer.status == 200, answer.body
        return answer.json["deployment"]


class _Leaver(Protocol):
    """A client that goes amid an answer."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.loseConnection()


@implementer(IAgentEndpointFactory)
class _ToSocket:
    def __init__(self, path: str) -> None:
        self._path = path

    def endpointForURI(self, uri: Any) -> UNIXClientEndpoint:
        return UNIXClientEndpoint(reactor, self._path)


@pytest.fixture
def serve(short_directory: Path) -> Iterator[Callable[..., Any]]:
    """Gives servers; they are stopped when the test is over."""
    ending: list[Callable[[], Any]] = []

    async def start(with_keys: bool = True, **changes: Any) -> Server:
        """Give a server; `changes` are settings, or collaborators by their names."""
        names = {field.name for field in attrs.fields(Settings)}
        settings = {name: value for name, value in changes.items() if name in names}
        others = {name: value for name, value in changes.items() if name not in names}
        files = Blocking(reactor, 2, "files")
        files.start()
        ending.append(files.stop)
        server = _server(Settings(directory=short_directory, **settings), files)
        server.collaborators = attrs.evolve(server.collaborators, **others)
        if with_keys:
            for principal in KEYS.values():
                await server.keys.add_principal(principal)
        path = str(short_directory / f"{len(ending)}.sock")
        site = make_site(server.collaborators)
        port = await UNIXServerEndpoint(reactor, path).listen(site)
        pool = HTTPConnectionPool(reactor)
        agent = Agent.usingEndpointFactory(reactor, _ToSocket(path), pool)
        server.client = HTTPClient(agent)
        server.operations.startService()
        ending.extend((port.stopListening, pool.closeCachedConnections))
        ending.append(server.operations.stopService)
        ending.append(server.collaborators.streams.stopService)
        return server

    yield start
    for end in reversed(ending):
        pytest_twisted.blockon(maybeDeferred(end))


@pytest.fixture
def server(serve: Callable[..., Any]) -> Server:
    """A server with one key a role."""
    started: Server = pytest_twisted.blockon(Deferred.fromCoroutine(serve()))
    return started


def _server(settings: Settings, files: Blocking) -> Server:
    clock = Clock()
    clock.advance(1_700_000_000)
    deployment_store = MemoryDeploymentStore()
    workers = RecordedWorkers()
    keys = PublishedKeys(clock, MemoryKeyStore(clock), workers)
    task_store = MemoryTaskStore(clock)
    tasks = MemoryDurableTasks(clock, task_store)
    server: Server

    async def commands(deployment: str) -> list[dict[str, str]]:
        return [{"name": "hello", "kind": "handler", "about": f"of {deployment}"}]

    numbers = iter(range(1, 10**6))
    settings.run_directory.mkdir(parents=True, exist_ok=True)
    (settings.data_directory / "master.key").write_text("needle of a key")
    configuration = Configuration(settings.directory, {}, {})
    configuration.settings = attrs.evolve(settings, workers=configuration.settings.workers)

    async def change_settings(changes: Any, revision: str) -> Any:
        return await configuration.change(InThisThread(), changes, revision)

    audit = MemoryAuditTrail()
    logins = SharedRates(settings.run_directory, lambda: round(clock.seconds() * 1e9))
    runtime = ListedRuntime()
    history = InstanceHistory(files, settings.directory / "instances")
    streams = Streams(clock)
    keys.listen(streams.dismiss)
    streams.startService()
    (settings.directory / "server-2023-11-14.jsonl").touch()
    collaborators = Collaborators(
        clock=clock,
        settings=settings,
        configuration=configuration,
        change_settings=change_settings,
        cluster="cluster",
        deployments=MemoryDeploymentManager(deployment_store),
        deployment_store=deployment_store,
        repositories=MemoryRepositoryStore(),
        source=ListedSource(),
        runtime=runtime,
        workers=workers,
        tasks=tasks,
        task_store=task_store,
        admission=Admission(clock, keys, os.urandom),
        keys=keys,
        keyring=Keyring(clock, keys, os.urandom),
        hooks=MemoryHookStore(),
        audit=audit,
        random_bytes=os.urandom,
        authenticators=[KeyAuthenticator(keys)],
        bootstrap=BootstrapToken(os.urandom),
        throttle=LoginThrottle(logins),
        strangers=Strangers(clock, audit, logins),
        operations=Operations(clock),
        commands=commands,
        metrics=Metrics(clock, MemoryMetricsStore(), lambda numbers: None, deployment_store, 30),
        loads=Loads(clock),
        files=files,
        usages=Usages(clock, runtime, "cluster"),
        history=history,
        deaths=Deaths(clock, history),
        hub=Hub("era"),
        backups=Backups(
            clock,
            files,
            MemorySnapshots(),
            deployment_store,
            runtime,
            Plans("cluster", Layout(settings.data_directory), settings),
            settings.data_directory / "master.key",
        ),
        streams=streams,
        log_directory=settings.directory,
        new_id=lambda: f"made-{next(numbers)}",
    )
    server = Server(
        clock=clock,
        manager=collaborators.deployments,
        deployment_store=deployment_store,
        repositories=collaborators.repositories,
        keys=keys,
        source=collaborators.source,
        runtime=collaborators.runtime,
        workers=workers,
        tasks=tasks,
        operations=collaborators.operations,
        bootstrap=collaborators.bootstrap,
        collaborators=collaborators,
        client=HTTPClient(Agent(reactor)),
        description=Description(describe(routes(collaborators))),
    )
    return server
