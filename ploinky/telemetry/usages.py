"""What instances use, looked at every ten seconds.

Runtimes enter, figures leave.  An engine that is away, or an instance that went, is left out.
"""

from __future__ import annotations

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ploinky.deploy_errors import EngineError
from ploinky.instance_values import InstanceStatus
from ploinky.interfaces import IRuntime
from ploinky.observations import InstanceUsage

SAMPLE_SECONDS = 10.0


@frozen
class Figures:
    """One instance, as it was last looked at.

    Attributes:
        at: Unix seconds of that.
        usage: None where it does not run.
        cores: That it used on average since the look before; None at the first.
    """

    status: InstanceStatus
    at: float
    usage: InstanceUsage | None = None
    cores: float | None = None


class Usages(Service):
    """Looks, while it is running.

    Args:
        clock: Its seconds are Unix time.
        cluster: Only what carries this id is looked at.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, runtime: IRuntime, cluster: str) -> None:
        self._clock = clock
        self._runtime = runtime
        self._cluster = cluster
        self._figures: dict[str, Figures] = {}
        self._looks = LoopingCall(self._look)
        self._looks.clock = clock
        self._looking: Deferred[None] | None = None

    def startService(self) -> None:
        """Look now, and again and again."""
        super().startService()  # type: ignore[no-untyped-call]
        self._looks.start(SAMPLE_SECONDS)

    def stopService(self) -> None:
        """Give up the look in hand."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._looks.running:
            self._looks.stop()
        if self._looking is not None:
            self._looking.cancel()

    def figures(self) -> list[Figures]:
        """Give what was last seen, one entry an instance."""
        return list(self._figures.values())

    def _look(self) -> Deferred[None]:
        self._looking = Deferred.fromCoroutine(self.look())
        self._looking.addErrback(self._broke)
        return self._looking

    def _broke(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("a look at what instances use broke", failure)

    async def look(self) -> None:
        """Look at every instance once."""
        try:
            seen = [await self._seen(s) for s in await self._runtime.instances(self._cluster)]
        except EngineError as error:
            self._log.debug("what instances use is not known: {error}", error=error.message)
            return
        self._figures = {each.status.instance: each for each in seen}

    async def _seen(self, status: InstanceStatus) -> Figures:
        usage = await self._runtime.usage(status.instance) if status.running else None
        now = self._clock.seconds()
        before = self._figures.get(status.instance)
        cores = None
        if usage is not None and before is not None and before.usage is not None:
            used = usage.cpu_seconds - before.usage.cpu_seconds
            if now > before.at and used >= 0:  # less: it was started again
                cores = used / (now - before.at)
        return Figures(status, now, usage, cores)
