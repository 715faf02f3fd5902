"""The doors between rooms.

Interfaces and nothing else; each says what a caller gets, when a Deferred
fires, what cancelling does and who ends what is returned.  The values that
pass through are in `ploinky.values`, the errors in `ploinky.errors`.  What only the
leader's rooms are to one another is in `ploinky.leader_interfaces`.

Unless a method says otherwise, cancelling an ``async`` method's Deferred gives
up the wait and leaves nothing behind that a later call would trip over.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from ploinky.errors import CallFailed
    from ploinky.instance_values import InstanceSpec, InstanceStatus, RunResult
    from ploinky.observations import InstanceDeath, InstanceUsage, OutputPart
    from ploinky.values import (
        DeploymentKey,
        DeploymentView,
        DeployRequest,
        Principal,
        Route,
        RouteChange,
        RouteSnapshot,
        Target,
    )

Report = Callable[[str], None]
"""Takes one line of progress for people."""

Cause = Callable[[str, float], "Coroutine[Any, Any, InstanceDeath | None]"]
"""Gives how an instance (its id) died since a moment (Unix seconds), if that is known soon."""


# --- the data corridor ------------------------------------------------------


class IRoutes(Interface):
    """The routes that stand now, whether requests find them or their domain is disabled."""

    def route_at(key: DeploymentKey) -> Route | None:
        """Give the one with this key; None where there is none."""

    def routes() -> Iterator[Route]:
        """Give all, in no order."""


class IRouter(IRoutes):
    """(host, path) to a route.  Pure and synchronous: no I/O, no waiting."""

    generation: int = Attribute("Of the snapshot in use; memos made under another are stale.")

    def match(host: bytes, path: bytes) -> Route:
        """Find the route with the longest path prefix, on whole segments.

        Args:
            host: The ``Host`` field's value, port and upper case allowed.
            path: The request target's path, still escaped, beginning with ``/``.

        Raises:
            NoSuchRoute: Nothing is deployed there.
        """

    def principal(token: str) -> Principal:
        """Tell whose bearer token this is; `NOBODY` where it is unknown or has expired."""

    def knows(principal: Principal) -> bool:
        """Tell whether somebody of an earlier `principal` is valid still."""

    def adopt(snapshot: RouteSnapshot) -> Sequence[Route]:
        """Route by ``snapshot`` from now on; one of an older generation is ignored.

        Returns:
            The routes that stand no more, or not as they were.
        """

    def amend(change: RouteChange) -> Sequence[Route]:
        """Route by what ``change`` makes of the generation that is its base; as `adopt`.

        Raises:
            ValueError: It is a change to another generation; nothing has changed.
        """


class ILease(Interface):
    """One claimed place at one instance.  Whoever claimed it releases it, once."""

    route: Route = Attribute("The route it was claimed for.")
    target: Target = Attribute("The chosen instance.")

    def release(failed: bool = False) -> None:
        """Give the place back.  A second call does nothing.

        Args:
            failed: The instance could not be reached; others are preferred for a while.
        """


class IStanding(ILease):
    """A lease on any number of places at a route's only target, for who claims there again and again.

    `take` is `IOrchestrator.claim` without a lease to be made, and each call of `ILease.release`
    gives one place back: whoever took it does so once.  It holds for as long as the route does.
    """

    def take() -> bool:
        """Count one more; False where every place is taken."""

    def lease() -> ILease:
        """Give a lease on a place that was taken, to be released in its stead."""


class IOrchestrator(Interface):
    """Route to a lease on one healthy instance; counts what is in flight."""

    def claim(route: Route) -> ILease | None:
        """Choose and count in one step, without waiting.

        Returns:
            A lease, or None where every instance is at its ``concurrency``: then `claim_later`.

        Raises:
            NoHealthyInstance: The route has no targets.
        """

    def standing(route: Route) -> IStanding | None:
        """Give what claims at a route's only target; None where it has several, or none."""

    async def claim_later(
        route: Route, timeout_seconds: float, tried: Sequence[Target] = ()
    ) -> ILease:
        """Wait in the bounded queue before the route's instances.  Cancelling leaves the queue.

        Args:
            tried: Which of them are out of the question.

        Raises:
            Overloaded: The queue is full, or the wait was over first.
            NoHealthyInstance: The last instance went away meanwhile.
        """

    async def drained(instances: frozenset[str], timeout_seconds: float) -> int:
        """Wait until nothing is in flight at these instances.

        Returns:
            How many requests were still in flight when the time was up; 0 is clean.
        """

    def in_flight() -> int:
        """Tell how many leases are out."""


class IAnswer(Interface):
    """Where a transport puts what the agent says.  The gateway implements it.

    Order: `started`, any number of `data`, `ended`; or `failed` at any point
    before `ended`, after which nothing more comes.  Or `complete`, and nothing else.
    All are called synchronously.
    """

    def started(status: int, fields: Sequence[tuple[bytes, bytes]], length: int | None) -> None:
        """The agent's final head, parsed strictly.

        Args:
            fields: End-to-end fields only: hop-by-hop ones and ``Content-Length`` are gone.
            length: Of the body in bytes; None where it is not known beforehand.
        """

    def data(chunk: bytes) -> None:
        """Body bytes, decoded from any transfer coding."""

    def ended() -> None:
        """The answer is whole."""

    def complete(status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """The answer came in one piece: as `started`, `data` and `ended`, in one step."""

    def failed(error: CallFailed) -> None:
        """No (whole) answer will come."""


class IMovable(Interface):
    """The answer of a request that another instance may get while the chosen one got nothing."""

    candidates: int = Attribute("Instances to try: a connection to each has its share of the time.")


class IUpgradeAnswer(IAnswer):
    """Where the answer to a request for another protocol goes.

    An agent that stays with HTTP answers as ever.  Else `switched` comes first, then any number
    of `data` (the agent's bytes as they are), perhaps `half_closed`, and `ended` or `failed`.
    `IExchange.write` and `IExchange.finish` are the client's side of it.
    """

    def switched(fields: Sequence[tuple[bytes, bytes]], protocol: bytes) -> None:
        """The agent's 101, held to what was asked.

        Args:
            fields: End-to-end fields only.
            protocol: As the agent names it.
        """

    def half_closed() -> None:
        """The agent will send nothing more; it still takes what comes."""


class IExchange(Interface):
    """One request on its way to an agent; the transport implements it."""

    def write(chunk: bytes) -> None:
        """Send body bytes of a request whose body does not come whole."""

    def finish() -> None:
        """The request body is whole."""

    def cancel() -> None:
        """The client left or time is up: abort inside the agent.  The answer gets no further call."""

    def pause() -> None:
        """Read no further from the agent: the client is slower than it."""

    def resume() -> None:
        """Go on after `pause`."""


class IAgentTransport(Interface):
    """(lease, task) to an answer.  Knows wires, knows nothing of routes."""

    def send(lease: ILease, request: Any, answer: Any) -> IExchange:
        """Begin an exchange; everything it yields goes to `answer`, never by exception.

        Where no byte of the task has reached the instance, and it is sure that none will, the
        error's ``got_nothing`` says so: then another instance may get it.

        Args:
            request: `ploinky.values.TaskCall`.
            answer: Provides `IAnswer`.
        """


class IOutlet(Interface):
    """The sending half of a connection: at once where the kernel takes it, else in order behind it."""

    queued: int = Attribute("Bytes taken by `send` that have not gone out yet.")
    broken: bool = Attribute("The kernel would not take any: the other side had closed before.")

    def send(data: bytes) -> int:
        """Send ``data`` after all that was sent before, and give `queued`.  Takes any amount."""


class IUpstream(Interface):
    """Keep-alive connections to agents, pooled by address."""

    def exchange(address: Any, head: bytes, body: bytes | None, answer: Any) -> IExchange:
        """Send one HTTP/1.1 request and parse its answer strictly.

        A connection that turns out to be stale (closed before one byte of the answer was
        read, on a reused connection) is replaced and the request sent once more, if and
        only if its whole body is at hand in ``body``.

        Args:
            address: `ploinky.values.Address`.
            head: Request line and fields, ending in an empty line, with framing that fits ``body``.
            body: The whole body, or None where `IExchange.write` will bring it.
            answer: Provides `IAnswer`, and perhaps `IMovable`.  `AgentUnreachable`, `AgentBroken`
                are its failures, and `Overloaded` where the agent takes no more connections.
        """

    def pool(address: Any) -> Any:
        """Give the connections to one address, for the routing room's short way.

        Args:
            address: `ploinky.values.Address`.

        Returns:
            A `ploinky.routing.upstream.Pool`; None where there are none.
        """

    def upgrade(address: Any, head: bytes, asked: bytes, key: bytes, answer: Any) -> IExchange:
        """Send a request for another protocol, on a connection of its own.

        Args:
            asked: The protocols in ``head``'s ``Upgrade``; the agent may choose one of them.
            key: Its ``Sec-WebSocket-Key``, or ``b""``; the agent's answer must fit it.
            answer: Provides `IUpgradeAnswer`.
        """

    def close() -> None:
        """Close idle connections; those in use end with their exchange."""


# --- the control corridor ---------------------------------------------------


class IDeploymentManager(Interface):
    """The only writer of the route table.  Conducts; does no I/O of its own.

    Serialised per deployment, parallel across.  Every method raises `NotFound` for a
    key that is not deployed, except `deploy`.
    """

    async def deploy(request: DeployRequest, report: Report) -> DeploymentView:
        """Create or redeploy.  Fires once every worker serves the new release.

        Cancelling stops the deploy at its next step; what served before still serves.

        Raises:
            RequestRefused: Before anything was changed.
            DeployFailed: With step and output; the old release still serves.
        """

    async def remove(key: DeploymentKey) -> None:
        """Take the route away, drain, stop every instance, delete what belonged to it."""

    async def restart(key: DeploymentKey) -> DeploymentView:
        """Replace the instances of the active release by new ones, dropping no request."""

    async def stop(key: DeploymentKey) -> DeploymentView:
        """Drain and stop the instances; calls get ``NO_HEALTHY_INSTANCE`` that says so."""

    async def start(key: DeploymentKey) -> DeploymentView:
        """Start the active release of a stopped deployment."""

    async def rollback(key: DeploymentKey, number: int) -> DeploymentView:
        """Serve an earlier release again, with the code and image it had; drops no request.

        Args:
            number: Of the release; 0: the newest before the active one that served.

        Raises:
            NotFound: There is no such release, or its code is not kept any more.
            Conflict: It is the active one, or never served.
        """

    async def scale(key: DeploymentKey, replicas: int) -> DeploymentView:
        """Run that many instances of the active release, from now on; drops no request.

        Raises:
            Conflict: It has no instances of its own, or there is no room for so many.
        """

    async def adopt_domains() -> None:
        """Hide what is on domains that are disabled on record, and show what is on others.

        Instances, durable tasks and schedules go on.  Fires once every worker goes by it.

        Raises:
            StateUnusable: The record cannot be read.
        """

    def deployments() -> list[DeploymentView]:
        """All of them, ordered by key."""

    def deployment(key: DeploymentKey) -> DeploymentView:
        """The one at a key, without looking at others."""

    def deployment_of(deployment_id: str) -> DeploymentView | None:
        """The one with this id, in the same way; None where there is none (any more)."""

    def watch(changed: Callable[[DeploymentKey, str], None]) -> None:
        """Call ``changed(key, line)`` whenever a deployment changes.

        ``line`` is what the work in hand says of itself; ``""`` where the change is another.
        """


class IRuntime(Interface):
    """A container engine, or what stands in for one.  Blocking work is done elsewhere.

    Every method raises `EngineUnavailable` where the engine does not answer.
    """

    name: str = Attribute("`docker`, `podman`, `process` or a plugin's own.")

    async def prepare(image: str, report: Report) -> str:
        """See that the image is here, pulling it if absent.

        Returns:
            The image's own id (content address) where the engine has one, else ``image``.

        Raises:
            ImageUnavailable: With the engine's own message.
        """

    async def run_once(
        spec: InstanceSpec, shell_command: str, timeout_seconds: float, report: Report
    ) -> RunResult:
        """Run a shell command in a throw-away container of the spec's image and mounts.

        It is gone when the Deferred fires, also after a time-out (exit code 124) or cancel.
        """

    async def start(spec: InstanceSpec) -> InstanceStatus:
        """Create and start; leaves nothing behind where it fails.

        Raises:
            StartFailed: The engine refused; its own message.
        """

    async def remove(instance: str, grace_seconds: float) -> str:
        """Stop (SIGTERM, then SIGKILL) and remove.  One that is gone already is no error.

        Returns:
            The end of all that it printed, at most `LAST_WORDS_BYTES`; ``""`` if it was gone.
        """

    async def instances(cluster: str) -> list[InstanceStatus]:
        """All instances, running or not, that carry this cluster's label."""

    async def output(instance: str, lines: int) -> str:
        """The last lines of its standard output and error; ``""`` if it is gone."""

    async def output_after(instance: str, mark: str, lines: int) -> OutputPart:
        """Some of what it printed after a mark; whoever follows an instance asks again and again.

        Args:
            mark: Of the part before; ``""``: give the last ``lines``.

        Returns:
            The next part, of bounded size; an empty one where nothing more was printed yet, or
            where the instance is gone.
        """

    async def usage(instance: str) -> InstanceUsage | None:
        """What it uses; None where it does not run or this cannot be found out."""


class IRuntimeFactory(Interface):
    """A plugin in `ploinky.plugins` that adds a runtime; light to import."""

    name: str = Attribute("What the setting `runtime` calls it.")

    def describe() -> str:
        """One line for listings."""

    async def available(reactor: Any) -> str:
        """Find out whether it can be used here and now.

        Returns:
            ``""`` if it can, else the reason in words for a user, with the next step.
        """

    async def create(reactor: Any, settings: Any) -> Any:
        """Give an `IRuntime` (which may also be an ``IService``: it is then started and stopped).

        Raises:
            EngineUnavailable: It does not answer after all.
        """


class IAuthenticatorFactory(Interface):
    """A plugin in `ploinky.plugins` that adds a way to log in; light to import."""

    name: str = Attribute("Shown in listings.")

    def describe() -> str:
        """One line for listings."""

    async def available(reactor: Any) -> str:
        """As for `IRuntimeFactory`."""

    async def create(reactor: Any, settings: Any, keys: Any) -> Any:
        """Give an `IAuthenticator`."""


class IAuthenticator(Interface):
    """Credential to principal, on the management side."""

    async def authenticate(token: str) -> Principal | None:
        """Tell whose credential this is; None where it is not valid (for this authenticator)."""
