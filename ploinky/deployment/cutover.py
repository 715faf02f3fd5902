"""From the instances that serve to others, or to none: on record first, then in every worker.

A deployment, the release it should run and its targets enter; the record in the store and the
table on the board leave.  Switching is all it knows: not where releases come from, nor who starts
instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ploinky.deployment.board import RouteBoard
from ploinky.deployment.entries import RUNNING, STOPPED, Entry
from ploinky.deployment.fleet import Fleet
from ploinky.deployment.releases import Say
from ploinky.deployment.spec import Plans
from ploinky.settings import Settings
from ploinky.store_interfaces import IDeploymentStore
from ploinky.values import Release, ReleaseState, Target


class Cutover:
    """Switches deployments.

    Args:
        clock: Tells the time.
        board: Nobody else posts to it.
        fleet: Drains and ends what nothing leads to any more.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: IDeploymentStore,
        board: RouteBoard,
        fleet: Fleet,
        plans: Plans,
    ) -> None:
        self._clock = clock
        self._store = store
        self._board = board
        self._fleet = fleet
        self._plans = plans

    # --- on record --------------------------------------------------------------

    async def activate(self, entry: Entry, release: Release) -> Release:
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

    async def put_on_record(self, entry: Entry, release: Release) -> Release:
        """Let a release be the one that runs: the active one as it now is, or an earlier one."""
        if release.number != entry.deployment.active_release:
            return await self.activate(entry, release)
        if release != entry.release:
            await self._store.save_release(release)
        await self.want(entry, RUNNING)
        return release

    async def want(self, entry: Entry, wanted: str) -> None:
        """Put on record what its owner asks for: `RUNNING`, `STOPPED` or `REMOVED`."""
        deployment = attrs.evolve(entry.deployment, wanted=wanted, updated_at=self._clock.seconds())
        await self._store.save_deployment(deployment)
        entry.deployment = deployment

    # --- in every worker --------------------------------------------------------

    async def switch(
        self, entry: Entry, release: Release, targets: tuple[Target, ...], say: Say
    ) -> None:
        """Let every worker route to these instances, and no longer to others."""
        say("switch", "Switching")
        entry.release = release
        entry.life.serves()
        self._post(entry, release, targets)
        await self._board.publish()
        self.log.info("{key} serves release {release}", key=str(entry.key), release=release.number)

    async def retire(self, targets: Sequence[Target], say: Say) -> None:
        """Drain and end instances that nothing leads to any more."""
        if targets:
            say("drain", "Draining the old instances")
        await self._fleet.retire(targets)

    async def withdraw_instances(self, entry: Entry, say: Say) -> None:
        """Stop a deployment: its route says so from now on, and leads to nothing."""
        before = self._board.targets(entry.id)
        try:
            await self.want(entry, STOPPED)
        except Exception:  # not on record, not stopped
            entry.life.gave_up()
            raise
        self._post_stopped(entry)
        await self._board.publish()
        await self.retire(before, say)
        entry.life.stopped()
        self.log.info("{key} is stopped", key=str(entry.key))

    # --- what stands is posted again --------------------------------------------

    def post_found(self, entry: Entry, targets: tuple[Target, ...]) -> None:
        """Post what an earlier server left, and tell its life; publishing is left to the caller."""
        entry.tell_how_it_stands()
        if entry.release is not None and entry.deployment.wanted == STOPPED:
            self._post_stopped(entry)
        elif entry.release is not None:
            self._post(entry, entry.release, targets)

    async def adopt(self, settings: Settings, entries: Iterable[Entry]) -> None:
        """Go by these settings from now on; fires once every worker does."""
        self._plans.settings = settings
        for entry in entries:
            if entry.release is not None and (route := self._board.posted(entry.id)) is not None:
                self._post(entry, entry.release, route.targets, route.reason)
        await self._board.publish()

    def _post_stopped(self, entry: Entry) -> None:
        self._post(entry, entry.serving(), (), f"{entry.key} is stopped")

    def _post(
        self, entry: Entry, release: Release, targets: tuple[Target, ...], reason: str = ""
    ) -> None:
        route = self._plans.route(entry.deployment, release, targets)
        self._board.post(attrs.evolve(route, reason=reason))
