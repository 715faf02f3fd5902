"""The deployment manager: the only writer of the route table.

Requests enter, routes leave.  It conducts: each step is one call to whoever can do it, and what it
decides itself is order.  Build the new, prove it healthy, switch one reference, drain the old; what
serves is never changed in place, and a deploy that fails leaves it alone.

One piece of work per deployment at a time, in the order in which it was asked for; deployments do
not wait for one another.  What may happen to a deployment is written down in `life`; the steps of a
deploy are in `rollout`, the switch itself in `cutover`, what is held of each in `register`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.deployment.admission import Admission
from ploinky.deployment.board import RouteBoard
from ploinky.deployment.cutover import Cutover
from ploinky.deployment.entries import REMOVED, Entry, unreported
from ploinky.deployment.fleet import Fleet
from ploinky.deployment.history import Mask, earlier_release, with_replicas
from ploinky.deployment.jobs import Job, Jobs
from ploinky.deployment.life import Life
from ploinky.deployment.recovery import Recovery, Survey, Survivor
from ploinky.deployment.register import Register
from ploinky.deployment.releases import ReleaseBuilder
from ploinky.deployment.revival import Revival
from ploinky.deployment.rollout import Rollout
from ploinky.deployment.spec import replicas_of
from ploinky.errors import Conflict
from ploinky.interfaces import IDeploymentManager, Report
from ploinky.leader_interfaces import IInstances
from ploinky.settings import Settings
from ploinky.store_interfaces import IDeploymentStore
from ploinky.values import Address, DeploymentKey, DeploymentView, DeployRequest, Release, Target


@implementer(IDeploymentManager)
class DeploymentManager(Service):
    """See `IDeploymentManager`.

    The root calls `recover` once before the first request; stopping the service cancels deploys
    that have not switched yet, waits for all other work, and leaves instances running.

    Args:
        register: All deployments; also gives each its turn.
        rollout: Makes healthy instances of a request.
        cutover: Switches to them; posts to the board, and nobody else does.
        revival: Starts again what should run.
    """

    log = Logger()

    def __init__(
        self,
        store: IDeploymentStore,
        admission: Admission,
        register: Register,
        releases: ReleaseBuilder,
        fleet: Fleet,
        board: RouteBoard,
        rollout: Rollout,
        cutover: Cutover,
        recovery: Recovery,
        revival: Revival,
        instances: IInstances,
    ) -> None:
        self._store = store
        self._admission = admission
        self._register = register
        self._releases = releases
        self._fleet = fleet
        self._board = board
        self._rollout = rollout
        self._cutover = cutover
        self._recovery = recovery
        self._revival = revival
        self._instances = instances
        self._jobs = Jobs()
        self._domains_in_turn = DeferredLock()
        self._opened = False

    # --- deploy -----------------------------------------------------------------

    async def deploy(self, request: DeployRequest, report: Report) -> DeploymentView:
        """See `IDeploymentManager.deploy`."""
        admitted = await self._admission.admit(request)
        return await self._jobs.run(lambda job: self._deploy(admitted, report, job))

    async def _deploy(self, request: DeployRequest, report: Report, job: Job) -> DeploymentView:
        mask = Mask(request)
        async with self._register.turn(request.key):
            entry = self._register.enter(request)
            entry.life.deploy()
            before = self._board.targets(entry.id)
            with self._register.working(entry, job, report, mask) as say:
                attempt = self._rollout.begin(entry, request)
                try:
                    await self._rollout.draft(entry, attempt, say)
                    await self._rollout.record(entry, attempt)
                    await self._rollout.build(entry, attempt, say)
                    await self._rollout.launch(entry, attempt, say)
                    job.commit()
                    release = await self._cutover.activate(entry, attempt.release)
                except Exception as error:  # refused, failed or cancelled: what served still does
                    job.clean_up()
                    mask.error(error)
                    await self._rollout.give_up(entry, attempt, error)
                    raise
                await self._cutover.switch(entry, release, attempt.launched, say)
                await self._cutover.retire(before, say)
                await self._rollout.prune(entry)
            return self._register.view(entry)

    # --- the other things that are asked for ------------------------------------

    async def restart(self, key: DeploymentKey) -> DeploymentView:
        """See `IDeploymentManager.restart`."""
        return await self._jobs.run(lambda job: self._renew(key, job, lambda life: life.restart()))

    async def start(self, key: DeploymentKey) -> DeploymentView:
        """See `IDeploymentManager.start`; what runs already is left alone."""
        return await self._jobs.run(lambda job: self._renew(key, job, lambda life: life.start()))

    async def _renew(
        self, key: DeploymentKey, job: Job, begin: Callable[[Life], bool]
    ) -> DeploymentView:
        """Start the active release anew, switch to the new instances, retire those before."""
        async with self._register.turn(key):
            entry = self._register.existing(key)
            if begin(entry.life):
                await self._replace_instances(entry, entry.serving(), job)
            return self._register.view(entry)

    async def rollback(self, key: DeploymentKey, number: int) -> DeploymentView:
        """See `IDeploymentManager.rollback`."""
        return await self._jobs.run(lambda job: self._rollback(key, number, job))

    async def _rollback(self, key: DeploymentKey, number: int, job: Job) -> DeploymentView:
        async with self._register.turn(key):
            entry = self._register.existing(key)
            known = await self._store.releases(entry.id)
            release = earlier_release(known, entry.deployment, number)
            await self._releases.check_kept(release)
            entry.life.deploy()
            await self._replace_instances(entry, release, job)
            return self._register.view(entry)

    async def scale(self, key: DeploymentKey, replicas: int) -> DeploymentView:
        """See `IDeploymentManager.scale`."""
        return await self._jobs.run(lambda job: self._scale(key, replicas, job))

    async def _scale(self, key: DeploymentKey, replicas: int, job: Job) -> DeploymentView:
        async with self._register.turn(key):
            entry = self._register.existing(key)
            scaled = entry.release and with_replicas(entry.release, replicas)
            entry.life.restart()  # it refuses what never served
            if scaled is not None:
                await self._replace_instances(entry, scaled, job, anew=False)
            return self._register.view(entry)

    async def _replace_instances(
        self, entry: Entry, release: Release, job: Job, *, anew: bool = True
    ) -> None:
        """Run what a release wants, and retire what that leaves over.

        Args:
            anew: With new instances alone; false: with those there are and as many as are missing.
        """
        before = self._board.targets(entry.id)
        launched: tuple[Target, ...] = ()
        wanted = replicas_of(release)
        with self._register.working(entry, job, unreported) as say:
            try:
                self._register.take_places(entry, wanted)
                release = await self._releases.image_here(release, say)
                missing = None if anew else max(0, wanted - len(before))
                launched = await self._fleet.launch(release, entry.key, say, missing)
                job.commit()
                release = await self._cutover.put_on_record(entry, release)
            except Exception:  # failed or cancelled: it stands as before
                job.clean_up()
                await self._fleet.end(launched)
                entry.life.gave_up()
                raise
            well = self._board.healthy(before)
            unwell = tuple(target for target in before if target not in well)
            serving = launched if anew else (*well, *unwell, *launched)[:wanted]
            await self._cutover.switch(entry, release, serving, say)
            await self._cutover.retire([target for target in before if target not in serving], say)

    async def stop(self, key: DeploymentKey) -> DeploymentView:
        """See `IDeploymentManager.stop`; what is stopped already is left alone."""
        return await self._jobs.run(lambda job: self._stop(key, job))

    async def _stop(self, key: DeploymentKey, job: Job) -> DeploymentView:
        async with self._register.turn(key):
            entry = self._register.existing(key)
            if entry.life.stop():
                job.commit()
                with self._register.working(entry, job, unreported) as say:
                    await self._cutover.withdraw_instances(entry, say)
            return self._register.view(entry)

    async def remove(self, key: DeploymentKey) -> None:
        """See `IDeploymentManager.remove`.  A deploy in progress is cancelled; volumes stay."""
        entry = self._register.existing(key)
        entry.life.remove()
        if entry.job is not None:
            entry.job.cancel(Conflict(f"{key} was removed meanwhile"))
        await self._jobs.run(lambda job: self._remove(entry, job))

    async def _remove(self, entry: Entry, job: Job) -> None:
        job.commit()
        async with self._register.turn(entry.key):
            if not self._register.has(entry):
                return
            entry.life.remove()  # again, where another removal has failed meanwhile
            with self._register.working(entry, job, unreported) as say:
                before = self._board.targets(entry.id)
                try:
                    await self._cutover.want(entry, REMOVED)
                except Exception:  # nothing has happened, and nothing will
                    entry.tell_how_it_stands()
                    raise
                self._board.withdraw(entry.id)
                await self._board.publish()
                await self._cutover.retire(before, say)
                await self._releases.forget(entry.id)
                await self._store.delete_deployment(entry.id)
                self._register.strike(entry)
        self.log.info("{key} is removed", key=str(entry.key))

    async def adopt(self, settings: Settings) -> None:
        """Go by these settings from now on; fires once every worker does."""
        await self._cutover.adopt(settings, self._register.entries())

    async def adopt_domains(self) -> None:
        """See `IDeploymentManager.adopt_domains`."""
        entries = self._register.entries()
        before = {entry.key for entry in entries if self._board.is_hidden(entry.key)}
        # One at a time: what was read first must not be adopted last.
        async with self._domains_in_turn:
            self._board.disable(await self._admission.disabled_domains())
        await self._board.publish()
        for entry in self._register.entries():
            if self._board.is_hidden(entry.key) != (entry.key in before):
                self._register.tell(entry.key)

    def deployments(self) -> list[DeploymentView]:
        """See `IDeploymentManager.deployments`."""
        return [self._register.view(entry) for entry in self._register.entries()]

    def deployment(self, key: DeploymentKey) -> DeploymentView:
        """See `IDeploymentManager.deployment`."""
        return self._register.view(self._register.existing(key))

    def deployment_of(self, deployment_id: str) -> DeploymentView | None:
        """See `IDeploymentManager.deployment_of`."""
        entry = self._register.of_id(deployment_id)
        return None if entry is None else self._register.view(entry)

    def watch(self, changed: Callable[[DeploymentKey, str], None]) -> None:
        """See `IDeploymentManager.watch`."""
        self._register.watch(changed)

    # --- from start to stop of the server ---------------------------------------

    async def recover(self) -> None:
        """Find what an earlier server left; fires once all workers route to what was adopted.

        What should run and does not is started in the background; what should not is ended.

        Raises:
            EngineUnavailable: What runs cannot be found out.
        """
        self._instances.watch(self._noticed)
        survey = await self._recovery.survey()
        entries = [self._recovered(survivor) for survivor in survey.survivors]
        self._board.disable(await self._admission.disabled_domains())  # before any table is out
        self._opened = True
        await self._board.publish()
        self._jobs.start(lambda job: self._tidy(survey))
        for entry in entries:
            self._resume(entry)

    def _recovered(self, survivor: Survivor) -> Entry:
        entry = self._register.recovered(survivor)
        self._cutover.post_found(entry, survivor.targets)
        return entry

    def _resume(self, entry: Entry) -> None:
        """Go on with what an earlier server had begun or kept up."""
        if entry.deployment.wanted == REMOVED:
            entry.life.remove()
            self._jobs.start(lambda job: self._remove(entry, job))
        elif self._revival.missing(entry):
            self._jobs.start(lambda job: self._revival.keep_trying(entry, job))

    async def _tidy(self, survey: Survey) -> None:
        """End what no table leads to any more; delete what belongs to nothing."""
        await self._fleet.retire(Target(stray, Address()) for stray in survey.strays)
        await self._recovery.delete(survey.rubbish)

    def _noticed(self, instance: str, healthy: bool) -> None:
        key = self._board.noticed(instance, healthy)
        if key is None:
            return
        if self._opened:
            self._jobs.start(lambda job: self._board.publish())
        self._register.tell(key)

    def stopService(self) -> Deferred[None]:
        """Cancel deploys that have not switched yet and wait for all work.  Instances stay."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._jobs.close())
