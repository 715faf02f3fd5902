"""What the rooms of the leader are to one another; `ploinky.interfaces` has what all may build on.

Of a room here the others know no more than this.  Plugins provide none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import Interface

from ploinky.interfaces import Report

if TYPE_CHECKING:
    from ploinky.instance_values import InstanceSpec, InstanceStatus
    from ploinky.observations import InstanceDeath
    from ploinky.source_values import AgentListing, GitSource
    from ploinky.task_values import (
        Submission,
        Task,
    )
    from ploinky.values import (
        Principal,
        Route,
        Target,
    )


class IDurableTasks(Interface):
    """Calls that outlive who made them.  The leader alone has them."""

    async def submit(call: Submission) -> Task:
        """Take a call; it is on disk when this fires.

        Returns:
            The task, which may be over already where this is a repeat.

        Raises:
            NoSuchRoute: The deployment is gone.
            IdempotencyKeyReused: Something else was called under this key.
            Overloaded: There is no room for more.
        """

    async def finished(task: str, timeout_seconds: float) -> Task:
        """Wait until it is over, or time is up.

        Returns:
            The task as it stands then.

        Raises:
            NotFound: There is none of this id, or it is not kept any more.
        """

    async def cancel(task: str) -> Task:
        """End it, wherever it is; a running handler is aborted.  Again is no error.

        Raises:
            NotFound: As above.
            Conflict: It is over.
        """

    async def retry(task: str) -> Task:
        """Queue one again that failed or was cancelled.

        Raises:
            NotFound: As above.
            Conflict: It is not over, or did succeed.
            NoSuchRoute: The deployment is gone.
        """

    def watch(changed: Callable[[Task], None]) -> None:
        """Call ``changed(task)`` with each task that comes, or stands differently, once that is on disk.

        It is called amid the task's way: it should make a note and return, and must not raise.
        """


class IWorkerGroup(Interface):
    """The leader's view of all workers at once."""

    async def publish(routes: Sequence[Route]) -> int:
        """Make `routes` the table of every worker.

        Returns:
            The generation, once every live worker serves by it.  A worker that does not
            acknowledge within 5 s is ended and replaced, and then counts as done.
        """

    async def publish_principals(principals: Sequence[Principal]) -> int:
        """Make ``principals`` the valid credentials in every worker; as `publish`."""

    async def drain(instances: frozenset[str], timeout_seconds: float) -> int:
        """Wait until no worker has a request in hand at these instances.

        Returns:
            How many requests were left when the time was up.
        """

    async def gather_counts() -> None:
        """Fires once every worker has reported each call that it answered before.

        A worker that does not within a second is not waited for: its counts come when they come.
        """

    def status() -> list[dict[str, Any]]:
        """One entry a worker: ``{slot, pid, state, generation, restarts}``."""


class IRuntimeEvents(Interface):
    """What a runtime may provide besides `IRuntime`: word of an end as soon as there is one."""

    def listen(ended: Callable[[str], None]) -> None:
        """Call ``ended(instance)`` when an instance may have ended.  Replaces who listened before."""


class IVolumeCopy(Interface):
    """What a volume holds, as a tar of the form that `ploinky.packing` describes."""

    async def read() -> bytes:
        """Give the next piece; ``b""`` at the end.

        Raises:
            EngineError: It cannot be read.
        """

    async def close() -> None:
        """End it, read to the end or not; whoever opened it calls this once."""


class IRuntimeVolumes(Interface):
    """What a runtime may provide besides `IRuntime`: the volumes that it keeps itself.

    It is also who fills them again: before an instance starts whose volume came out of a backup.
    """

    async def open_volume(spec: InstanceSpec, name: str) -> IVolumeCopy | None:
        """Begin to read a service's volume, whether instances use it or not.

        Args:
            spec: Of an instance that would have it.

        Returns:
            None where there is no such volume.

        Raises:
            EngineError: It cannot be read.
        """


class IInstances(Interface):
    """The lives of all instances of this server: started, probed, restarted, ended."""

    async def launch(spec: InstanceSpec, report: Report) -> Target:
        """Start an instance and wait until it is ready.  Ended again where that fails or is cancelled.

        Raises:
            StartFailed: The engine refused.
            ProbeFailed: It died (exit code, out-of-memory flag, last output) or never became ready.
        """

    async def adopt(spec: InstanceSpec) -> Target | None:
        """Take over one that an earlier leader started.

        Returns:
            Its target once it answers its probe; None where it does not, and it is then ended.
        """

    async def end(instance: str, grace_seconds: float) -> None:
        """Stop and remove it, and forget it.  One that is gone already is no error."""

    def target(instance: str) -> Target | None:
        """Where it is reached now; None while it is not ready.

        A service that was started again may have another address than `launch` gave: ask
        again whenever `watch` tells that it is healthy.
        """

    async def discover() -> list[InstanceStatus]:
        """All that carry this server's label, known to this process or not."""

    def watch(changed: Callable[[str, bool], None]) -> None:
        """Call ``changed(instance, healthy)`` whenever a launched or adopted one changes."""


class IInstanceHistory(Interface):
    """Who keeps what became of instances.  All are called synchronously, and raise nothing."""

    def started(spec: InstanceSpec, seconds: float) -> None:
        """An instance became ready, so long after it was begun to be started."""

    def fell(death: InstanceDeath) -> None:
        """An instance ended; `died` follows, with what it printed, once that could be read."""

    def died(death: InstanceDeath) -> None:
        """An instance ended that should have gone on, or never became ready."""

    def parted(deployment: str, release: int, instance: str, output: str) -> None:
        """An instance was removed; this is the end of what it printed."""


class ISource(Interface):
    """Git repositories: mirrors, and checkouts by commit."""

    async def resolve(source: GitSource, fresh: bool) -> str:
        """Find the commit that the source's ref names.

        Args:
            fresh: Fetch even where the mirror is younger than ``cacheTime``.

        Raises:
            UrlRefused, RepositoryUnreachable, RefNotFound, SourceTooLarge
        """

    async def checkout(source: GitSource, commit: str, sub_path: str, destination: str) -> None:
        """Write one sub-directory (``""``: all) of a commit to a directory that does not exist yet.

        All or nothing: on failure and on cancel nothing stands at ``destination``.

        Raises:
            RefNotFound: There is no such sub-directory.
            SourceTooLarge: It is over the limit.
        """

    async def agents(source: GitSource) -> list[AgentListing]:
        """List the agents of a repository: its root and each directory with a manifest."""

    async def forget(url: str) -> None:
        """Delete the mirror of a repository that is not registered any more."""


class ISecretBox(Interface):
    """Seals what is secret before it is written down.  Quick and synchronous, from any thread."""

    def seal(plain: bytes, purpose: str) -> bytes:
        """Encrypt; what comes back opens for the same ``purpose`` only."""

    def unseal(sealed: bytes, purpose: str) -> bytes:
        """Decrypt.

        Args:
            purpose: Where it was written down, as given to `seal`.

        Raises:
            StateUnusable: It was sealed by another key or for another purpose, or was changed.
        """
