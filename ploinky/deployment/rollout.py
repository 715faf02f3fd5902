"""The steps of a deploy up to its switch: a request becomes a release with healthy instances.

An `Entry` and an `Attempt` enter each step; the attempt leaves with more of its release known, and
at the end with its instances.  In what order, and what is done where one fails, the manager says.
"""

from __future__ import annotations

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ploinky.deploy_errors import DeployFailed, ProbeFailed
from ploinky.deployment.board import RouteBoard
from ploinky.deployment.entries import Attempt, Entry, error_record
from ploinky.deployment.fleet import Fleet
from ploinky.deployment.register import Register
from ploinky.deployment.releases import ReleaseBuilder, Say
from ploinky.deployment.spec import Plans, replicas_of
from ploinky.store_interfaces import IDeploymentStore
from ploinky.values import DeploymentKey, DeployRequest, Release, ReleaseState


class Rollout:
    """Prepares releases, cleans away those that failed, and keeps those one may go back to.

    Args:
        clock: Tells the time.
        board: Asked which instances are well.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: IDeploymentStore,
        releases: ReleaseBuilder,
        fleet: Fleet,
        board: RouteBoard,
        register: Register,
        plans: Plans,
    ) -> None:
        self._clock = clock
        self._store = store
        self._releases = releases
        self._fleet = fleet
        self._board = board
        self._register = register
        self._plans = plans
        self._tried: set[DeploymentKey] = set()

    def begin(self, entry: Entry, request: DeployRequest) -> Attempt:
        """Give the next release its number; nothing is on record yet."""
        return Attempt(
            Release(
                deployment=entry.id,
                number=entry.newest + 1,
                state=ReleaseState.PREPARING,
                request=request,
                created_at=self._clock.seconds(),
            )
        )

    async def draft(self, entry: Entry, attempt: Attempt, say: Say) -> None:
        """Resolve, check out, read the manifest; see that there is room for it."""
        # A young mirror will do once; whoever deploys again expects what was pushed since.
        fresh = entry.on_record or entry.key in self._tried
        self._tried.add(entry.key)
        draft = await self._releases.draft(attempt.release, say, fresh=fresh)
        attempt.release = draft.release
        entry.warnings = draft.warnings
        self._register.take_places(entry, replicas_of(draft.release))

    async def record(self, entry: Entry, attempt: Attempt) -> None:
        """Put it on record as being prepared: from here on a failure is part of the history."""
        if not entry.on_record:
            await self._store.save_deployment(entry.deployment)
            entry.on_record = True
        await self._store.save_release(attempt.release)
        entry.newest = attempt.release.number
        attempt.on_record = True

    async def build(self, entry: Entry, attempt: Attempt, say: Say) -> None:
        """Get the image; install, or update what served before."""
        updating = entry.release is not None
        attempt.release = await self._releases.build(attempt.release, say, updating=updating)
        await self._store.save_release(attempt.release)

    async def launch(self, entry: Entry, attempt: Attempt, say: Say) -> None:
        """Start the instances and see all of them healthy.

        Raises:
            StartFailed, ProbeFailed
        """
        attempt.launched = await self._fleet.launch(attempt.release, entry.key, say)
        if len(self._board.healthy(attempt.launched)) < len(attempt.launched):
            raise ProbeFailed("an instance became ready, and died before it was switched to")

    async def give_up(self, entry: Entry, attempt: Attempt, error: Exception) -> None:
        """Clean away what a deploy began, and keep why it failed."""
        try:
            await self._fleet.end(attempt.launched)
            await self._releases.discard(attempt.release)
            if attempt.on_record or isinstance(error, DeployFailed):
                why = error_record(error, entry.step)
                failed = attrs.evolve(attempt.release, state=ReleaseState.FAILED, error=why)
                attempt.release = failed
                await self.record(entry, attempt)
                entry.failed = failed
            self.log.info("{key} was not deployed: {why}", key=str(entry.key), why=str(error))
        finally:
            entry.life.gave_up()
            if not entry.on_record:
                self._register.strike(entry)

    async def prune(self, entry: Entry) -> None:
        """Delete the code of releases that are too old to go back to."""
        releases = await self._store.releases(entry.id)
        whole = [one.number for one in releases if one.state is not ReleaseState.FAILED]
        kept = {entry.deployment.active_release, *whole[: self._plans.settings.releases_kept]}
        await self._releases.keep_only(entry.id, frozenset(kept))
