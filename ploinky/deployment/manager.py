"""The deployment manager: the only writer of the route table.

Requests enter, routes leave.  It conducts: each step is one call to whoever can do it, and what it
decides itself is order.  Build the new, prove it healthy, switch one reference, drain the old; what
serves is never changed in place, and a deploy that fails leaves it alone.

One piece of work per deployment at a time, in the order in which it was asked for; deployments do
not wait for one another.  What may happen to a deployment is written down in `life`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, repeat

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from ploinky.deploy_errors import DeployFailed, ProbeFailed
from ploinky.deployment.admission import Admission
from ploinky.deployment.board import RouteBoard
from ploinky.deployment.entries import (
    REMOVED,
    RUNNING,
    STOPPED,
    Attempt,
    Entry,
    error_record,
    unreported,
)
from ploinky.deployment.fleet import Fleet
from ploinky.deployment.history import Mask, earlier_release, with_replicas
from ploinky.deployment.jobs import Job, Jobs, Turns
from ploinky.deployment.life import Life, life_machine
from ploinky.deployment.recovery import Recovery, Survey, Survivor
from ploinky.deployment.register import Register
from ploinky.deployment.releases import ReleaseBuilder, Say
from ploinky.deployment.spec import Plans, replicas_of
from ploinky.errors import Conflict, PloinkyError
from ploinky.interfaces import IDeploymentManager, Report
from ploinky.leader_interfaces import IInstances
from ploinky.settings import Settings
from ploinky.store_interfaces import IDeploymentStore
from ploinky.values import (
    Address,
    Deployment,
    DeploymentKey,
    DeploymentState,
    DeploymentView,
    DeployRequest,
    Release,
    ReleaseState,
    Target,
)

_REVIVAL_SECONDS = (5.0, 15.0, 60.0)
"""Waits between attempts to start again what should run; the last one is repeated."""

_REVIVED_AT_ONCE = 4
"""Deployments; a broken one takes its place for as long as it may take to become ready."""


@implementer(IDeploymentManager)
class DeploymentManager(Service):
    """See `IDeploymentManager`.

    The root calls `recover` once before the first request; stopping the service cancels deploys
    that have not switched yet, waits for all other work, and leaves instances running.

    Args:
        clock: Tells the time and paces revivals.
        new_id: Gives ids for deployments.
        board: Nobody else posts to it.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        new_id: Callable[[], str],
        store: IDeploymentStore,
        admission: Admission,
        releases: ReleaseBuilder,
        fleet: Fleet,
        board: RouteBoard,
        recovery: Recovery,
        instances: IInstances,
        plans: Plans,
    ) -> None:
        self._clock = clock
        self._new_id = new_id
        self._store = store
        self._admission = admission
        self._releases = releases
        self._fleet = fleet
        self._board = board
        self._recovery = recovery
        self._instances = instances
        self._plans = plans
        self._new_life = life_machine()
        self._register = Register(board)
        self._turns: Turns[DeploymentKey] = Turns()
        self._jobs = Jobs()
        self._tried: set[DeploymentKey] = set()
        self._reviving = DeferredSemaphore(_REVIVED_AT_ONCE)
        self._domains_in_turn = DeferredLock()
        self._opened = False

    # --- deploy -----------------------------------------------------------------

    async def deploy(self, request: DeployRequest, report: Report) -> DeploymentView:
        """See `IDeploymentManager.deploy`."""
        admitted = await self._admission.admit(request)
        return await self._jobs.run(lambda job: self._deploy(admitted, report, job))

    async def _deploy(self, request: DeployRequest, report: Report, job: Job) -> DeploymentView:
        mask = Mask(request)
        async with self._turns.of(request.key):
            entry = self._register.entries.get(request.key) or self._new_entry(request)
            entry.life.deploy()
            before = self._board.targets(entry.id)
            with self._register.working(entry, job, report, mask) as say:
                attempt = self._begin(entry, request)
                try:
                    await self._draft(entry, attempt, say)
                    await self._record(entry, attempt)
                    await self._build(entry, attempt, say)
                    await self._launch(entry, attempt, say)
                    job.commit()
                    release = await self._activate(entry, attempt.release)
                except Exception as error:  # refused, failed or cancelled: what served still does
                    job.clean_up()
                    mask.error(error)
                    await self._give_up(entry, attempt, error)
                    raise
                await self._switch(entry, release, attempt.launched, say)
                await self._retire(before, say)
                await self._prune(entry)
            return self._register.view(entry)

    def _new_entry(self, request: DeployRequest) -> Entry:
        now = self._clock.seconds()
        deployment = Deployment(
            self._new_id(), request.key, request.agent, created_at=now, updated_at=now
        )
        entry = Entry(deployment, self._new_life(request.key))
        self._register.entries[request.key] = entry
        return entry

    def _begin(self, entry: Entry, request: DeployRequest) -> Attempt:
        return Attempt(
            Release(
                deployment=entry.id,
                number=entry.newest + 1,
                state=ReleaseState.PREPARING,
                request=request,
                created_at=self._clock.seconds(),
            )
        )

    async def _draft(self, entry: Entry, attempt: Attempt, say: Say) -> None:
        """Resolve, check out, read the manifest; see that there is room for it."""
        # A young mirror will do once; whoever deploys again expects what was pushed since.
        fresh = entry.on_record or entry.key in self._tried
        self._tried.add(entry.key)
        draft = await self._releases.draft(attempt.release, say, fresh=fresh)
        attempt.release = draft.release
        entry.warnings = draft.warnings
        self._check_room(entry, replicas_of(draft.release))

    async def _record(self, entry: Entry, attempt: Attempt) -> None:
        """Put it on record as being prepared: from here on a failure is part of the history."""
        if not entry.on_record:
            await self._store.save_deployment(entry.deployment)
            entry.on_record = True
        await self._store.save_release(attempt.release)
        entry.newest = attempt.release.number
        attempt.on_record = True

    async def _build(self, entry: Entry, attempt: Attempt, say: Say) -> None:
        """Get the image; install, or update what served before."""
        updating = entry.release is not None
        attempt.release = await self._releases.build(attempt.release, say, updating=updating)
        await self._store.save_release(attempt.release)

    async def _launch(self, entry: Entry, attempt: Attempt, say: Say) -> None:
        """Start the instances and see all of them healthy.

        Raises:
            StartFailed, ProbeFailed
        """
        attempt.launched = await self._fleet.launch(attempt.release, entry.key, say)
        if len(self._board.healthy(attempt.launched)) < len(attempt.launched):
            raise ProbeFailed("an instance became ready, and died before it was switched to")

    async def _activate(self, entry: Entry, release: Release) -> Release:
        """Switch, on record: one transaction, and the point of no return."""
        deployment = attrs.evolve(
            entry.deployment,
            agent=release.request.agent,
            wanted=RUNNING,
            updated_at=self._clock.seconds(),
        )
        entry.deployment = await self._store.activate(deployment, release.number)
        entry.failed = None
        return attrs.evolve(release, state=ReleaseState.ACTIVE)

    async def _switch(
        self, entry: Entry, release: Release, targets: tuple[Target, ...], say: Say
    ) -> None:
        """Let every worker route to these instances, and no longer to others."""
        say("switch", "Switching")
        entry.release = release
        entry.life.serves()
        self._board.post(self._plans.route(entry.deployment, release, targets))
        await self._board.publish()
        self.log.info("{key} serves release {release}", key=str(entry.key), release=release.number)

    async def _retire(self, targets: Sequence[Target], say: Say) -> None:
        """Drain and end instances that nothing leads to any more."""
        if targets:
            say("drain", "Draining the old instances")
        await self._fleet.retire(targets)

    async def _prune(self, entry: Entry) -> None:
        """Delete the code of releases that are too old to go back to."""
        releases = await self._store.releases(entry.id)
        whole = [one.number for one in releases if one.state is not ReleaseState.FAILED]
        kept = {entry.deployment.active_release, *whole[: self._plans.settings.releases_kept]}
        await self._releases.keep_only(entry.id, frozenset(kept))

    async def _give_up(self, entry: Entry, attempt: Attempt, error: Exception) -> None:
        """Clean away what a deploy began, and keep why it failed."""
        try:
            await self._fleet.end(attempt.launched)
            await self._releases.discard(attempt.release)
            if attempt.on_record or isinstance(error, DeployFailed):
                why = error_record(error, entry.step)
                failed = attrs.evolve(attempt.release, state=ReleaseState.FAILED, error=why)
                attempt.release = failed
                await self._record(entry, attempt)
                entry.failed = failed
            self.log.info("{key} was not deployed: {why}", key=str(entry.key), why=str(error))
        finally:
            entry.life.gave_up()
            if not entry.on_record:
                del self._register.entries[entry.key]

    def _check_room(self, entry: Entry, wanted: int) -> None:
        most = self._plans.settings.max_containers
        others = sum(
            other.places() for other in self._register.entries.values() if other is not entry
        )
        if others + wanted > most:
            raise Conflict(
                f"{entry.key} wants {wanted} instances, and {others} of at most {most} are taken;"
                " stop or remove a deployment, or raise the setting maxContainers"
            )
        entry.asked = wanted

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
        async with self._turns.of(key):
            entry = self._register.existing(key)
            if begin(entry.life):
                await self._replace_instances(entry, entry.serving(), job)
            return self._register.view(entry)

    async def rollback(self, key: DeploymentKey, number: int) -> DeploymentView:
        """See `IDeploymentManager.rollback`."""
        return await self._jobs.run(lambda job: self._rollback(key, number, job))

    async def _rollback(self, key: DeploymentKey, number: int, job: Job) -> DeploymentView:
        async with self._turns.of(key):
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
        async with self._turns.of(key):
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
                self._check_room(entry, wanted)
                release = await self._releases.image_here(release, say)
                missing = None if anew else max(0, wanted - len(before))
                launched = await self._fleet.launch(release, entry.key, say, missing)
                job.commit()
                release = await self._put_on_record(entry, release)
            except Exception:  # failed or cancelled: it stands as before
                job.clean_up()
                await self._fleet.end(launched)
                entry.life.gave_up()
                raise
            well = self._board.healthy(before)
            unwell = tuple(target for target in before if target not in well)
            serving = launched if anew else (*well, *unwell, *launched)[:wanted]
            await self._switch(entry, release, serving, say)
            await self._retire([target for target in before if target not in serving], say)

    async def _put_on_record(self, entry: Entry, release: Release) -> Release:
        """Let a release be the one that runs: the active one as it now is, or an earlier one."""
        if release.number != entry.deployment.active_release:
            return await self._activate(entry, release)
        if release != entry.release:
            await self._store.save_release(release)
        await self._want(entry, RUNNING)
        return release

    async def stop(self, key: DeploymentKey) -> DeploymentView:
        """See `IDeploymentManager.stop`; what is stopped already is left alone."""
        return await self._jobs.run(lambda job: self._stop(key, job))

    async def _stop(self, key: DeploymentKey, job: Job) -> DeploymentView:
        async with self._turns.of(key):
            entry = self._register.existing(key)
            if entry.life.stop():
                job.commit()
                with self._register.working(entry, job, unreported) as say:
                    await self._withdraw_instances(entry, say)
            return self._register.view(entry)

    async def _withdraw_instances(self, entry: Entry, say: Say) -> None:
        before = self._board.targets(entry.id)
        try:
            await self._want(entry, STOPPED)
        except Exception:  # not on record, not stopped
            entry.life.gave_up()
            raise
        self._post_stopped(entry)
        await self._board.publish()
        await self._retire(before, say)
        entry.life.stopped()
        self.log.info("{key} is stopped", key=str(entry.key))

    def _post_stopped(self, entry: Entry) -> None:
        route = self._plans.route(entry.deployment, entry.serving(), ())
        self._board.post(attrs.evolve(route, reason=f"{entry.key} is stopped"))

    async def _want(self, entry: Entry, wanted: str) -> None:
        deployment = attrs.evolve(entry.deployment, wanted=wanted, updated_at=self._clock.seconds())
        await self._store.save_deployment(deployment)
        entry.deployment = deployment

    async def remove(self, key: DeploymentKey) -> None:
        """See `IDeploymentManager.remove`.  A deploy in progress is cancelled; volumes stay."""
        entry = self._register.existing(key)
        entry.life.remove()
        if entry.job is not None:
            entry.job.cancel()
        await self._jobs.run(lambda job: self._remove(entry, job))

    async def _remove(self, entry: Entry, job: Job) -> None:
        job.commit()
        async with self._turns.of(entry.key):
            if self._register.entries.get(entry.key) is not entry:
                return
            with self._register.working(entry, job, unreported) as say:
                before = self._board.targets(entry.id)
                await self._want(entry, REMOVED)
                self._board.withdraw(entry.id)
                await self._board.publish()
                await self._retire(before, say)
                await self._releases.forget(entry.id)
                await self._store.delete_deployment(entry.id)
                del self._register.entries[entry.key]
        self.log.info("{key} is removed", key=str(entry.key))

    async def adopt(self, settings: Settings) -> None:
        """Go by these settings from now on; fires once every worker does."""
        self._plans.settings = settings
        for entry in self._register.entries.values():
            if entry.release is not None and (route := self._board.posted(entry.id)) is not None:
                fresh = self._plans.route(entry.deployment, entry.release, route.targets)
                self._board.post(attrs.evolve(fresh, reason=route.reason))
        await self._board.publish()

    async def adopt_domains(self) -> None:
        """See `IDeploymentManager.adopt_domains`."""
        before = {key for key in self._register.entries if self._board.is_hidden(key)}
        # One at a time: what was read first must not be adopted last.
        async with self._domains_in_turn:
            self._board.disable(await self._admission.disabled_domains())
        await self._board.publish()
        for key in [
            key for key in self._register.entries if self._board.is_hidden(key) != (key in before)
        ]:
            self._register.tell(key)

    def deployments(self) -> list[DeploymentView]:
        """See `IDeploymentManager.deployments`."""
        return self._register.views()

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
        deployment = survivor.deployment
        life = self._new_life(deployment.key)
        entry = Entry(deployment, life, survivor.release, survivor.failed, survivor.newest)
        entry.on_record = True
        self._register.entries[deployment.key] = entry
        if survivor.release is None:
            life.found_failed()
        elif deployment.wanted == STOPPED:
            life.found_stopped()
            self._post_stopped(entry)
        else:
            life.found_serving()
            route = self._plans.route(deployment, survivor.release, survivor.targets)
            self._board.post(route)
        return entry

    def _resume(self, entry: Entry) -> None:
        """Go on with what an earlier server had begun or kept up."""
        if entry.deployment.wanted == REMOVED:
            entry.life.remove()
            self._jobs.start(lambda job: self._remove(entry, job))
        elif self._missing(entry):
            self._jobs.start(lambda job: self._keep_reviving(entry, job))

    async def _tidy(self, survey: Survey) -> None:
        """End what no table leads to any more; delete what belongs to nothing."""
        await self._fleet.retire(Target(stray, Address()) for stray in survey.strays)
        await self._recovery.delete(survey.rubbish)

    def _missing(self, entry: Entry) -> int:
        """Tell how many instances a deployment that should serve has too few."""
        if entry.life.seen_as() is not DeploymentState.RUNNING:
            return 0
        return max(0, replicas_of(entry.serving()) - len(self._board.targets(entry.id)))

    async def _keep_reviving(self, entry: Entry, job: Job) -> None:
        for wait_seconds in chain(_REVIVAL_SECONDS, repeat(_REVIVAL_SECONDS[-1])):
            try:
                async with self._reviving:
                    await self._revive(entry, job)
                return
            except PloinkyError as error:
                self.log.warn("cannot start {key}: {why}", key=str(entry.key), why=str(error))
            await deferLater(self._clock, wait_seconds)

    async def _revive(self, entry: Entry, job: Job) -> None:
        async with self._turns.of(entry.key):
            missing = self._missing(entry)
            if not missing:
                return
            with self._register.working(entry, job, unreported) as say:
                release = await self._releases.image_here(entry.serving(), say)
                launched = await self._fleet.launch(release, entry.key, say, missing)
                job.commit()
                targets = self._board.targets(entry.id) + launched
                await self._switch(entry, release, targets, say)

    def _noticed(self, instance: str, healthy: bool) -> None:
        if not self._board.noticed(instance, healthy):
            return
        if self._opened:
            self._jobs.start(lambda job: self._board.publish())
        for entry in self._register.entries.values():
            if any(one.instance == instance for one in self._board.targets(entry.id)):
                self._register.tell(entry.key)

    def stopService(self) -> Deferred[None]:
        """Cancel deploys that have not switched yet and wait for all work.  Instances stay."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._jobs.close())
