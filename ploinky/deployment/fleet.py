"""The instances of releases: launched all or none, and retired without dropping a request.

A `Release` enters, a `Target` for each instance leaves.  It knows what runs, not what is routed to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger

from ploinky.deploy_errors import EngineError, StartFailed
from ploinky.deployment.jobs import together
from ploinky.deployment.releases import Say, remove_tree
from ploinky.deployment.sites import check_site
from ploinky.deployment.spec import Plans, external_target, kind_of, replicas_of
from ploinky.leader_interfaces import IInstances, IWorkerGroup
from ploinky.threads import Blocking
from ploinky.values import DeploymentKey, Kind, Release, Target

DRAIN_SECONDS = 30.0
GRACE_SECONDS = 10.0
AT_ONCE = 8
"""Instances adopted or ended at the same time, over all deployments."""


class Fleet:
    """Starts and ends instances.

    Args:
        new_id: Gives ids for instances.
        blocking: Runs what touches the file system.
        ended: Told of each instance that is gone.
    """

    log = Logger()

    def __init__(
        self,
        new_id: Callable[[], str],
        blocking: Blocking,
        instances: IInstances,
        workers: IWorkerGroup,
        plans: Plans,
        ended: Callable[[str], None],
    ) -> None:
        self._new_id = new_id
        self._blocking = blocking
        self._instances = instances
        self._workers = workers
        self._plans = plans
        self._ended = ended
        self._places = DeferredSemaphore(AT_ONCE)
        self._unended: set[str] = set()
        self._ending: set[str] = set()

    async def launch(
        self, release: Release, key: DeploymentKey, say: Say, count: int | None = None
    ) -> tuple[Target, ...]:
        """Start instances of a release and wait until each is ready.  All, or none is left.

        Args:
            count: How many; None: as many as the release wants.

        Raises:
            StartFailed, ProbeFailed
        """
        if release.request.target:
            return (external_target(release.request.target, self._plans.layout, any_socket=True),)
        if kind_of(release) is Kind.STATIC:
            return (await self.site(release, say),)
        wanted = [self._new_id() for _ in range(replicas_of(release) if count is None else count)]
        say("start", f"Starting {len(wanted)} instance{'s' if len(wanted) != 1 else ''}")
        try:
            return tuple(await together(self._launch_one(release, key, one, say) for one in wanted))
        except Exception:  # cancelled or failed: those that came up are of no use alone
            await self._end(wanted)
            raise

    async def site(self, release: Release, say: Say) -> Target:
        """See that the files of a static release can be served.

        Raises:
            ProbeFailed: They cannot.
        """
        target = self._plans.static_target(release)
        assert target.files is not None
        say("probe", f"Looking for the files in {target.files.root or 'the release'}")
        await self._blocking.run(check_site, target.files)
        return target

    async def _launch_one(
        self, release: Release, key: DeploymentKey, instance: str, say: Say
    ) -> Target:
        spec = self._plans.spec(release, key, instance)
        try:
            return await self._instances.launch(spec, lambda line: say("start", line))
        except EngineError as error:
            raise StartFailed(error.message, details={"cause": error.code}) from error

    async def adopt(self, release: Release, key: DeploymentKey, instance: str) -> Target | None:
        """Take over an instance that an earlier leader started; None where it does not answer."""
        spec = self._plans.spec(release, key, instance)
        async with self._places:
            try:
                return await self._instances.adopt(spec)
            except EngineError as error:
                self.log.warn("cannot adopt {instance}: {why}", instance=instance, why=str(error))
                return None

    async def retire(self, targets: Iterable[Target]) -> None:
        """End instances that no route leads to any more, once their requests are answered.

        A request still in hand after 30 s is cut off.
        """
        retired = [target for target in targets if target.instance]
        if not retired:
            return
        drained = frozenset(target.instance for target in retired)
        left = await self._workers.drain(drained, DRAIN_SECONDS)
        if left:
            self.log.warn(
                "{left} requests were cut off after {seconds} s", left=left, seconds=DRAIN_SECONDS
            )
        await self.end(retired)

    async def end(self, targets: Iterable[Target]) -> None:
        """End instances and delete their queues; files and external targets stay as they are.

        One that the engine will not end now, or whose end is cut short, is tried again with
        the next ones, and at the next start of the server.
        """
        await self._end(one.instance for one in targets if one.instance and one.files is None)

    async def _end(self, instances: Iterable[str]) -> None:
        self._unended.update(instances)
        doomed = sorted(self._unended - self._ending)
        await together(self._end_one(instance) for instance in doomed)

    async def _end_one(self, instance: str) -> None:
        self._ending.add(instance)
        try:
            async with self._places:
                await self._instances.end(instance, GRACE_SECONDS)
            await self._blocking.run(remove_tree, self._plans.layout.queue(instance))
        except EngineError as error:
            self.log.warn("cannot end {instance}: {why}", instance=instance, why=str(error))
        else:
            self._unended.discard(instance)
            self._ended(instance)
        finally:
            self._ending.discard(instance)
