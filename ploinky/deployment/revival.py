"""What should run after a restart of the server and does not: started, again and again.

A deployment with too few instances enters; it leaves when it has all of them, or is stopped or
removed meanwhile.  Instances that die later are not its business: the supervisor brings them back.
"""

from __future__ import annotations

from itertools import chain, repeat

from twisted.internet.defer import CancelledError, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ploinky.deployment.board import RouteBoard
from ploinky.deployment.cutover import Cutover
from ploinky.deployment.entries import Entry, unreported
from ploinky.deployment.fleet import Fleet
from ploinky.deployment.jobs import Job
from ploinky.deployment.register import Register
from ploinky.deployment.releases import ReleaseBuilder
from ploinky.deployment.spec import replicas_of
from ploinky.errors import PloinkyError
from ploinky.values import DeploymentState

_WAIT_SECONDS = (5.0, 15.0, 60.0)
"""Between attempts; the last one is repeated."""

_AT_ONCE = 4
"""Deployments; a broken one takes its place for as long as it may take to become ready."""


class Revival:
    """Starts the instances that a deployment has too few.

    Args:
        clock: Paces attempts.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        releases: ReleaseBuilder,
        fleet: Fleet,
        board: RouteBoard,
        register: Register,
        cutover: Cutover,
    ) -> None:
        self._clock = clock
        self._releases = releases
        self._fleet = fleet
        self._board = board
        self._register = register
        self._cutover = cutover
        self._places = DeferredSemaphore(_AT_ONCE)

    def missing(self, entry: Entry) -> int:
        """Tell how many instances a deployment that should serve has too few."""
        if entry.life.seen_as() is not DeploymentState.RUNNING:
            return 0
        return max(0, replicas_of(entry.serving()) - len(self._board.targets(entry.id)))

    async def keep_trying(self, entry: Entry, job: Job) -> None:
        """Fires once no instance is missing.  Cancelling gives up, unless they are up already."""
        for wait_seconds in chain(_WAIT_SECONDS, repeat(_WAIT_SECONDS[-1])):
            try:
                async with self._places:
                    await self._revive(entry, job)
                return
            except PloinkyError as error:
                self.log.warn("cannot start {key}: {why}", key=str(entry.key), why=str(error))
            except CancelledError:
                raise
            except Exception:  # whatever it is: nobody else would try again
                self.log.failure("starting {key} broke, and is tried again", key=str(entry.key))
            await deferLater(self._clock, wait_seconds)

    async def _revive(self, entry: Entry, job: Job) -> None:
        async with self._register.turn(entry.key):
            missing = self.missing(entry)
            if not missing:
                return
            with self._register.working(entry, job, unreported) as say:
                release = await self._releases.image_here(entry.serving(), say)
                launched = await self._fleet.launch(release, entry.key, say, missing)
                job.commit()
                targets = self._board.targets(entry.id) + launched
                await self._cutover.switch(entry, release, targets, say)
