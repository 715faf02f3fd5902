"""The shape of a route, and what routes are made from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from ploinky.api.answers import Answer
from ploinky.api.operations import Operations
from ploinky.api.requests import Call
from ploinky.api.streams import Stream, Streams
from ploinky.interfaces import (
    IAuthenticator,
    IDeploymentManager,
    IDeploymentStore,
    IRepositoryStore,
    IRuntime,
    ISource,
    IWorkerGroup,
)
from ploinky.security.admission import Admission
from ploinky.security.bootstrap import BootstrapToken
from ploinky.security.throttle import LoginThrottle
from ploinky.settings import Settings
from ploinky.telemetry.history import InstanceHistory
from ploinky.telemetry.hub import Hub
from ploinky.telemetry.load import Loads
from ploinky.telemetry.metrics import Metrics
from ploinky.telemetry.usages import Usages
from ploinky.threads import Blocking

API = "/management/api"


@frozen
class Endpoint:
    """One method at one path.

    Attributes:
        name: Unique; `ploinky.security.roles` has the rule for it.
        path: A werkzeug rule: `/management/api/repositories/<name>`.
        answer: Gives the answer or raises a `PloinkyError`.
    """

    name: str
    method: str
    path: str
    answer: Callable[[Call], Awaitable[Answer | Stream]]


@frozen(kw_only=True)
class Collaborators:
    """All that the API works with; the root makes it.

    Attributes:
        clock: Its seconds are Unix time.
        cluster: This server's id, by which a runtime knows our instances.
        keys: Gives out keys and sessions.
        authenticators: Asked in this order; the first that knows a credential counts.
        operations: A service; the root starts and stops it.
        metrics: How many calls there were, and how they went.
        loads: What is in hand now.
        usages: What instances use.
        history: What became of instances.
        hub: Takes what happens, for those who listen.
        streams: A service; the root starts it, and stops it before workers wait for calls to end.
        log_directory: Where leader and workers log.
        files: Threads for small work that blocks.
        new_id: Gives ids for requests that came without one.
    """

    clock: IReactorTime
    settings: Settings
    cluster: str
    deployments: IDeploymentManager
    deployment_store: IDeploymentStore
    repositories: IRepositoryStore
    source: ISource
    runtime: IRuntime
    workers: IWorkerGroup
    admission: Admission
    authenticators: Sequence[IAuthenticator]
    bootstrap: BootstrapToken
    throttle: LoginThrottle
    operations: Operations
    metrics: Metrics = field(repr=False)
    loads: Loads = field(repr=False)
    usages: Usages = field(repr=False)
    history: InstanceHistory = field(repr=False)
    hub: Hub = field(repr=False)
    streams: Streams = field(repr=False)
    log_directory: Path
    files: Blocking = field(repr=False)
    new_id: Callable[[], str] = field(repr=False)
