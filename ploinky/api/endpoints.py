"""The shape of a route, and what routes are made from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from ploinky.api.answers import Answer
from ploinky.api.operations import Operations
from ploinky.api.requests import Call
from ploinky.api.streams import Stream, Streams
from ploinky.backup.making import Backups
from ploinky.configuration import Change, Configuration
from ploinky.errors import PloinkyError
from ploinky.interfaces import IAuthenticator, IDeploymentManager, IRuntime
from ploinky.leader_interfaces import IDurableTasks, ISource, IWorkerGroup
from ploinky.limit_interfaces import ILoginThrottle
from ploinky.security.admission import Admission
from ploinky.security.bootstrap import BootstrapToken
from ploinky.security.keyring import Keyring
from ploinky.security.strangers import Strangers
from ploinky.settings import Settings
from ploinky.store_interfaces import (
    IAuditTrail,
    IDeploymentStore,
    IHookStore,
    IKeyStore,
    IRepositoryStore,
    ITaskStore,
)
from ploinky.telemetry.deaths import Deaths
from ploinky.telemetry.history import InstanceHistory
from ploinky.telemetry.hub import Hub
from ploinky.telemetry.load import Loads
from ploinky.telemetry.metrics import Metrics
from ploinky.telemetry.usages import Usages
from ploinky.threads import Blocking

API = "/management/api"


@frozen
class Endpoint:
    """One method at one path, and all that its description says.

    Attributes:
        name: Unique; `ploinky.security.roles` has the rule for it.
        path: A werkzeug rule: `/management/api/repositories/<name>`.
        answer: Gives the answer or raises a `PloinkyError`.
        takes: The body's form, an attrs class; a ``DELETE`` may give it as query instead.
        others: Names of fields beside those of `takes`.
        queries: The query parameters' form.  Where it or `gives` is an attrs class, any other
            parameter is refused.
        gives: What the answer holds: an attrs class as JSON, or one or several media types;
            ``""``: that is not described.
        statuses: Of answers that are no errors.
        errors: What it may raise beyond what every endpoint of its kind may.
        conditional: Whether it heeds ``If-Match``.
        proves_itself: Whether the call brings a proof of its own, so that neither the
            credential nor the origin matters: a webhook's signature.
        internal: Whether it is for this server's own workers alone: neither described nor in the
            audit trail.
    """

    name: str
    method: str
    path: str
    answer: Callable[[Call], Awaitable[Answer | Stream]]
    takes: type[Any] | None = None
    others: tuple[str, ...] = ()
    queries: type[Any] | None = None
    gives: type[Any] | str | tuple[str, ...] = ""
    statuses: tuple[int, ...] = (200,)
    errors: tuple[type[PloinkyError], ...] = ()
    conditional: bool = False
    proves_itself: bool = False
    internal: bool = False

    @property
    def changes(self) -> bool:
        """Whether it is there to change something that is managed."""
        return self.method != "GET" and not self.internal

    @property
    def about(self) -> str:
        """One line on what it does: the first of the docstring of what answers."""
        return (self.answer.__doc__ or "").strip().partition("\n")[0]

    def parameters(self) -> type[Any] | None:
        """Give the form that the query must have; None: any query will do."""
        if self.queries is not None:
            return self.queries
        return Nothing if isinstance(self.gives, type) else None


@frozen
class Nothing:
    """No parameters."""


@frozen(kw_only=True)
class Collaborators:
    """All that the API works with; the root makes it.

    Attributes:
        clock: Its seconds are Unix time.
        settings: As they were at the start.
        configuration: Its settings as they are now.
        change_settings: Changes some; takes their new values by name, and the revision that
            was seen or ``""``.
        cluster: This server's id, by which a runtime knows our instances.
        keys: Gives out keys and sessions.
        keys: What `admission` and `keyring` keep them in.
        hooks: Secrets of webhooks.
        audit: Every change is written down there before it is answered.
        authenticators: Asked in this order; the first that knows a credential counts.
        throttle: Of whoever guesses.
        strangers: Says how much of what they are refused is written down.
        operations: A service; the root starts and stops it.
        metrics: How many calls there were, and how they went.
        loads: What is in hand now.
        usages: What instances use.
        history: What became of instances.
        deaths: Why they went away.
        hub: Takes what happens, for those who listen.
        backups: Writes them.
        streams: A service; the root starts it, and stops it before workers wait for calls to end.
        log_directory: Where leader and workers log.
        files: Threads for small work that blocks.
        random_bytes: Gives that many unpredictable bytes.
        commands: Gives what the task agent of a deployment (by its id) can be asked to do.
        new_id: Gives ids for requests that came without one.
    """

    clock: IReactorTime
    settings: Settings
    configuration: Configuration
    change_settings: Callable[[Mapping[str, Any], str], Coroutine[Any, Any, Change]] = field(
        repr=False
    )
    cluster: str
    deployments: IDeploymentManager
    deployment_store: IDeploymentStore
    repositories: IRepositoryStore
    source: ISource
    runtime: IRuntime
    workers: IWorkerGroup
    tasks: IDurableTasks
    task_store: ITaskStore
    admission: Admission
    keys: IKeyStore
    keyring: Keyring
    hooks: IHookStore
    audit: IAuditTrail
    authenticators: Sequence[IAuthenticator]
    bootstrap: BootstrapToken
    throttle: ILoginThrottle
    strangers: Strangers
    operations: Operations
    metrics: Metrics = field(repr=False)
    loads: Loads = field(repr=False)
    usages: Usages = field(repr=False)
    history: InstanceHistory = field(repr=False)
    deaths: Deaths = field(repr=False)
    hub: Hub = field(repr=False)
    backups: Backups = field(repr=False)
    streams: Streams = field(repr=False)
    log_directory: Path
    files: Blocking = field(repr=False)
    random_bytes: Callable[[int], bytes] = field(repr=False)
    commands: Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]] = field(repr=False)
    new_id: Callable[[], str] = field(repr=False)
