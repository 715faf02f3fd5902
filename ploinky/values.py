"""The nouns that rooms pass to one another: frozen values without behaviour of their own.

Constructors hold the invariants; change is ``attrs.evolve``.  This module knows
no room, does no I/O and reads no clock.  Times are Unix seconds (float) unless
a name says otherwise.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import field, frozen

from ploinky.errors import ValidationFailed

COMMAND_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
"""What a command may be called (contract, section 3); never a path."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+\Z")


class Kind(str, enum.Enum):
    """What a route's target is, and so how a request is handed to it."""

    TASK = "task"
    SERVICE = "service"
    STATIC = "static"
    EXTERNAL = "external"
    CONTROL = "control"
    """The leader's own control socket: ``/management`` and its neighbours."""


class Wire(str, enum.Enum):
    """How a task reaches an agent."""

    HTTP = "http"
    FILE = "file"
    FRAMES = "frames"
    """Many tasks at once on the connection that HTTP comes by; agents offer it, nobody asks for it."""


class CallAuth(str, enum.Enum):
    """Who may call a deployment."""

    NONE = "none"
    SESSION = "session"
    KEY = "key"


class Role(str, enum.Enum):
    """What a principal may do; see contract, section 5."""

    ADMIN = "admin"
    DEPLOYER = "deployer"
    VIEWER = "viewer"
    CALLER = "caller"


class DeploymentState(str, enum.Enum):
    """Where a deployment stands, as users see it."""

    DEPLOYING = "deploying"
    RUNNING = "running"
    UNHEALTHY = "unhealthy"
    STOPPED = "stopped"
    FAILED = "failed"
    """Never served: its first release did not come up."""
    REMOVING = "removing"


class ReleaseState(str, enum.Enum):
    """Where a release stands.  Only one release of a deployment is `ACTIVE`."""

    PREPARING = "preparing"
    ACTIVE = "active"
    RETIRED = "retired"
    FAILED = "failed"


LONGEST_PATH = 1024
"""Characters of a deployment's path: a request's target, which has more in it, is bounded too."""


def validated_domain(raw_domain: str) -> str:
    """Give the canonical form of a host name: lower case, no port, no final dot.

    Raises:
        ValidationFailed: It is not a host name.
    """
    domain = raw_domain.strip().lower().rstrip(".")
    if len(domain) > 253 or not _DOMAIN.match(domain):
        raise ValidationFailed(
            {"domain": f"{raw_domain!r} is not a host name such as localhost or api.example.com"}
        )
    return domain


def validated_path(raw_path: str) -> str:
    """Give the canonical form of a path prefix: one leading slash, none at the end.

    Raises:
        ValidationFailed: It is too long, a segment is empty, a dot segment, or has characters
            that a URL path cannot hold unescaped.
    """
    segments = raw_path.strip().strip("/")
    if not segments:
        return "/"
    if len(segments) > LONGEST_PATH:
        raise ValidationFailed({"path": f"it is over {LONGEST_PATH} characters long"})
    for segment in segments.split("/"):
        if segment in (".", "..") or not _SEGMENT.match(segment):
            raise ValidationFailed(
                {"path": f"{raw_path!r} is not a path such as /demo or /v1/users"}
            )
    return "/" + segments


@frozen(order=True)
class DeploymentKey:
    """Where a deployment is reached.  Build it with `of`, which validates.

    Attributes:
        domain: Lower-case host name without port.
        path: ``/``, or ``/seg[/seg...]`` without a final slash.
    """

    domain: str
    path: str

    @classmethod
    def of(cls, raw_domain: str, raw_path: str) -> DeploymentKey:
        """Validate both halves.

        Raises:
            ValidationFailed: Either half does not fit; all problems at once.
        """
        problems: dict[str, str] = {}
        domain = path = ""
        try:
            domain = validated_domain(raw_domain)
        except ValidationFailed as error:
            problems |= error.problems
        try:
            path = validated_path(raw_path)
        except ValidationFailed as error:
            problems |= error.problems
        if problems:
            raise ValidationFailed(problems)
        return cls(domain, path)

    def __str__(self) -> str:
        return f"{self.domain}{self.path}"


@frozen
class Address:
    """Where something listens: a Unix socket's path, or a host and port.

    Attributes:
        path: Absolute path of a Unix socket, or ``""``.
        host: Host name or IP address, or ``""``.
        port: TCP port, or 0.
    """

    path: str = ""
    host: str = ""
    port: int = 0

    def __hash__(self) -> int:
        # For every request to an external target: a hash of the whole would take ten times as long.
        return hash(self.path or self.host)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``unix:PATH`` or ``tcp:HOST:PORT`` (what ``str`` gives).

        Raises:
            ValueError: It is neither.
        """
        scheme, _, rest = text.partition(":")
        if scheme == "unix" and rest:
            return cls(path=rest)
        host, _, port = rest.rpartition(":")
        if scheme == "tcp" and host and port.isdigit() and 0 < int(port) < 65536:
            return cls(host=host.strip("[]"), port=int(port))
        raise ValueError(f"{text!r} is neither unix:PATH nor tcp:HOST:PORT")

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"


@frozen
class Files:
    """What a static deployment serves.

    Attributes:
        directory: Absolute path of the release's code on this host.
        root: Directory below it that is served; ``""`` for itself.
        spa: Whether navigations to what is not there get ``index.html``.
    """

    directory: str
    root: str = ""
    spa: bool = False


@frozen
class Target:
    """One instance that a route may choose, or the one place it always leads to.

    Attributes:
        instance: The instance's id; ``""`` for external targets and the control socket.  For
            `files` it is made up, so that what is in hand there can be counted and drained.
        address: Where it listens; empty for `files`.
        wire: How tasks reach it; always `HTTP` for kinds other than `TASK`.
        queue_directory: The instance's queue on this host; ``""`` where it has none.
        inner_queue: Where the instance itself finds that; ``""``: at the same place.
        files: Of a `STATIC` route; None otherwise.
    """

    instance: str
    address: Address
    wire: Wire = Wire.HTTP
    queue_directory: str = ""
    inner_queue: str = ""
    files: Files | None = None


@frozen
class RateLimit:
    """How often one client may call: so many times at once, and evenly from then on.

    Attributes:
        requests: At once, and on average in `seconds`.
    """

    requests: int
    seconds: float


@frozen
class Route:
    """What one (domain, path) leads to.

    Attributes:
        key: For `CONTROL` the domain is ``*``: it holds for every domain.
        deployment: The deployment's id; ``""`` for `CONTROL`.
        release: Number of the release behind it; 0 for `CONTROL`.
        targets: Healthy instances.  Empty: ``NO_HEALTHY_INSTANCE``.
        reason: Why there are no targets, in words for the caller; ``""`` otherwise.
        max_upload_bytes: Of a body that brings files to a task.
        rate_limit: Of each client; None for none.
        retries: How often a durable task may be run again that was begun and did not succeed.
        is_hidden: Its domain is disabled: no request finds it; durable tasks and schedules go on.
    """

    key: DeploymentKey
    kind: Kind
    deployment: str = ""
    release: int = 0
    targets: tuple[Target, ...] = ()
    reason: str = ""
    timeout_seconds: float = 30.0
    max_body_bytes: int = 16 * 1024 * 1024
    max_upload_bytes: int = 1024 * 1024 * 1024
    concurrency: int = 64
    auth: CallAuth = CallAuth.NONE
    rate_limit: RateLimit | None = None
    retries: int = 0
    is_hidden: bool = False


@frozen
class Principal:
    """Who calls.

    Attributes:
        id: ``Admin``, a key's name, or ``InternetUser`` for nobody.
        token_hash: Hex SHA-256 of the bearer token; ``""`` for nobody.
        expires_at: Unix seconds, or None for never.
        scope: Domains, or ``domain/path`` deployments, that any role but ``admin``
            is confined to; empty for everywhere.
        session: True for a login session, False for an API key.
        parent: The token hash of the key that it ends with: the one a session was opened
            with, or the deployer's that made this key; ``""`` for none.
        created_at: Unix seconds.
    """

    id: str
    role: Role | None
    token_hash: str = field(default="", repr=False)
    expires_at: float | None = None
    scope: tuple[str, ...] = ()
    session: bool = False
    parent: str = field(default="", repr=False)
    created_at: float = 0.0


NOBODY = Principal(id="InternetUser", role=None)
"""The principal of a call without a credential."""


class TaskCall(msgspec.Struct, frozen=True, gc=False):
    """One call of a command, ready for any wire.

    One is made for each task: a struct takes a tenth of the time of an attrs class.

    Attributes:
        task: Unique id; file names derive from it (``[a-z0-9-]{1,64}``).
        params: The params as JSON text of an array, exactly as the caller sent them.
        user: The principal's id.
        deadline_ms: Unix milliseconds at which it is aborted.
        request_id: ``[A-Za-z0-9._-]{1,128}``.
        to_events: Answer with Server-Sent Events, one an item, in place of JSON.  The deadline
            is then that of the first item.
    """

    task: str
    command: str
    params: bytes
    user: str
    deadline_ms: int
    request_id: str
    to_events: bool = False


@frozen
class RouteSnapshot:
    """All that a worker needs in order to answer: one generation of it.

    Attributes:
        generation: Grows with every change; a worker only ever moves forward.
    """

    generation: int
    routes: tuple[Route, ...]
    principals: tuple[Principal, ...] = ()


@frozen
class RouteChange:
    """What leads from one generation to a later one.

    Attributes:
        base: The generation that it is a change to; to any other it means nothing.
        generation: The one that it makes of it.
        routes: New ones, and those that take the place of the one with their key.
        gone: Keys of routes that stand no more.
        principals: New ones, and those that take the place of the one with their token.
        revoked: Token hashes of those that are valid no more.
    """

    base: int
    generation: int
    routes: tuple[Route, ...] = ()
    gone: tuple[DeploymentKey, ...] = ()
    principals: tuple[Principal, ...] = ()
    revoked: tuple[str, ...] = field(default=(), repr=False)


@frozen(kw_only=True)
class AuditEntry:
    """One change that somebody asked for, whatever came of it.

    Attributes:
        number: 1, 2, 3 ... in the order of writing; 0 before it is written.
        role: ``""`` for nobody.
        address: Where the request came from.
        subject: What it was about, such as ``localhost/demo``.
        status: Of the answer.
        code: Of the error; ``""`` where it was done.
        body: What was sent, as JSON without secrets; ``""`` for nothing.
        hash: SHA-256 over this entry and the hash of the one before, in hex.
    """

    at: float
    user: str
    role: str
    address: str
    action: str
    subject: str
    status: int
    code: str = ""
    request_id: str = ""
    body: str = ""
    number: int = 0
    hash: str = ""


@frozen
class AuditVerdict:
    """What became of checking the audit trail.

    Attributes:
        entries: How many there are.
        head: Hash of the last one; who keeps it elsewhere can tell later whether the trail was
            cut off after it.
        problem: Where the chain is broken; ``""`` where it holds.
    """

    entries: int
    head: str
    problem: str = ""


@frozen
class DeployRequest:
    """What a caller asks to be deployed, validated in form.

    Attributes:
        repository: URL or registered name; ``""``: search the registered ones.
        settings: Manifest settings that the deployment overrides, by manifest name.
        secrets: Names of variables whose values are masked wherever they would be shown.
        any_file_url: Whether the caller (an admin) may name any file URL.
    """

    key: DeploymentKey
    agent: str
    repository: str = ""
    branch: str = ""
    sub_path: str = ""
    image: str = ""
    target: str = ""
    environment: Mapping[str, str] = field(factory=dict, repr=False)
    settings: Mapping[str, Any] = field(factory=dict)
    secrets: tuple[str, ...] = ()
    any_file_url: bool = False


@frozen
class Release:
    """One immutable version of a deployment.

    Attributes:
        number: 1, 2, 3 ... within its deployment.
        commit: Full commit id; ``""`` for image-only and external.
        settings: The effective settings it was built with (manifest and request
            merged), by manifest name; JSON-serialisable.
        request: What was asked for, so that a restart can build it again.
        error: Code, step, message and output of a release that failed; None otherwise.
    """

    deployment: str
    number: int
    state: ReleaseState
    request: DeployRequest
    commit: str = ""
    image: str = ""
    settings: Mapping[str, Any] = field(factory=dict)
    environment: Mapping[str, str] = field(factory=dict, repr=False)
    created_at: float = 0.0
    error: Mapping[str, Any] | None = None


@frozen
class Deployment:
    """One agent at one (domain, path).

    Attributes:
        id: Unique for ever (``[a-z0-9]{12}``); directories and labels derive from it.
        active_release: Number of the release that serves; 0 before the first one did.
        wanted: ``running`` or ``stopped``: what its owner last asked for.
    """

    id: str
    key: DeploymentKey
    agent: str
    active_release: int = 0
    wanted: str = "running"
    created_at: float = 0.0
    updated_at: float = 0.0


@frozen
class DeploymentView:
    """A deployment as it stands now, for lists and answers.

    Attributes:
        step: What a deploy in progress is doing; ``""`` otherwise.
        error: Why the last release failed, ``{code, step, message, output}``; None if it did not.
        warnings: What its owner should know of the last deploy, one line each.
    """

    deployment: Deployment
    release: Release | None
    state: DeploymentState
    step: str = ""
    healthy_instances: int = 0
    error: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
