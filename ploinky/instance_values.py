"""What runs: how an instance is to be started, probed and limited, and how it is.

Values like those in `ploinky.values`.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from ploinky.values import Address, DeploymentKey, Kind, Wire


@frozen
class Health:
    """How an instance is probed.

    Attributes:
        path: HTTP path; AgentCore's own ``/health`` for task agents.
        interval_seconds: Between probes of a ready instance.
        timeout_seconds: For one probe.
        retries: Failures in a row that make it unhealthy.
        start_period_seconds: How long it may take to become ready.
    """

    path: str = "/health"
    interval_seconds: float = 10.0
    timeout_seconds: float = 5.0
    retries: int = 3
    start_period_seconds: float = 60.0


@frozen
class Resources:
    """Limits of one instance; None means none.

    Attributes:
        memory_bytes: Memory, without swap.
        cpus: Cores, may be a fraction.
        pids: Processes and threads.
    """

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None


@frozen
class Volume:
    """A named volume that outlives releases.

    Attributes:
        name: As in the manifest; the runtime prefixes it with the deployment.
        path: Absolute path inside the container.
    """

    name: str
    path: str


@frozen
class InstanceSpec:
    """All that a runtime needs in order to start one instance.

    Attributes:
        instance: Unique id (``[a-z0-9]{12}``); container name and labels derive from it.
        cluster: This server's id; only what carries it is ever touched.
        command: Overrides the image's command; empty: AgentCore's ``run.sh``
            for `Kind.TASK`, the image's own command for `Kind.SERVICE`.
        entrypoint: Of a `Kind.SERVICE`, overrides the image's, and then its command too;
            empty: the image's own.
        environment: The deployment's own variables (may hold secrets) and the
            ``PLOINKY_*`` ones of the contract that do not depend on the runtime.
        code_directory: The release's checkout on this host, mounted read-write
            at ``/agent``; ``""`` for image-only deployments.
        queue_directory: This instance's queue on this host.
        user: ``uid[:gid]`` or name; ``""``: the default of its kind.
        capabilities: To keep; None: the default of its kind.
    """

    instance: str
    deployment: str
    release: int
    cluster: str
    key: DeploymentKey
    agent: str
    kind: Kind
    image: str
    queue_directory: str
    code_directory: str = ""
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(factory=dict, repr=False)
    wire: Wire = Wire.HTTP
    port: int | None = None
    health: Health = Health()
    resources: Resources = Resources()
    concurrency: int = 64
    user: str = ""
    capabilities: tuple[str, ...] | None = None
    volumes: tuple[Volume, ...] = ()


@frozen
class InstanceStatus:
    """What a runtime knows of one instance that carries this server's labels.

    Attributes:
        running: Whether its main process runs now.
        exit_code: Of the last run that ended; None while it never ended.
        out_of_memory: Whether the kernel ended it for its memory limit.
        restarts: How often it was started again.
        address: Where a service or a published AgentCore port is reached, where the runtime
            decides that (bridge address, published port); None: ``agent.sock`` in its queue.
        inner_queue: Where the instance itself finds its queue.
    """

    instance: str
    deployment: str
    release: int
    running: bool
    exit_code: int | None = None
    out_of_memory: bool = False
    restarts: int = 0
    address: Address | None = None
    inner_queue: str = "/agent/.ploinky/queue"


@frozen
class RunResult:
    """How a throw-away container ended.

    Attributes:
        output: Standard output and error as they came, the last 64 KiB.
    """

    exit_code: int
    output: str
