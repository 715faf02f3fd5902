"""What one instance's history is told of it: its starts, its ends, and what it printed last.

What the engine was seen to say enters, and what came of each start; an `InstanceDeath` leaves,
once for each end.  It neither asks the engine nor decides what comes next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attrs import evolve
from twisted.internet.interfaces import IReactorTime

from ploinky.deploy_errors import DeployFailed
from ploinky.errors import GATEWAY, INSTANCE
from ploinky.instance_values import InstanceSpec, InstanceStatus
from ploinky.observations import InstanceDeath
from ploinky.runtime.endings import how_it_was_seen, last_words, part_that_failed


@dataclass
class Chronicle:
    """One instance's.

    Attributes:
        history: Provides `IInstanceHistory`.
    """

    clock: IReactorTime
    spec: InstanceSpec
    history: Any
    _seen: InstanceStatus | None = None
    _vanished: bool = False
    _began_at: float | None = None
    _death: InstanceDeath | None = None

    def begins(self) -> None:
        """Note that it is about to be started; what was seen of it is of another life."""
        self._began_at, self._seen = self.clock.seconds(), None
        self._vanished = False

    def is_ready(self) -> None:
        """Tell how long its start took, if it was we who started it."""
        began_at, self._began_at = self._began_at, None
        if began_at is not None:
            self.history.started(self.spec, self.clock.seconds() - began_at)

    def was_seen(self, status: InstanceStatus | None, *, ended: bool) -> None:
        """Note what the engine says of it.

        Args:
            status: None: the engine has it no more, and we did not remove it.
            ended: Whether it says something of an end.
        """
        if ended:
            self._seen = status
        self._vanished = status is None

    def how_it_was_seen(self) -> dict[str, Any]:
        """Give what the engine knows of its end, for errors' ``details``."""
        return how_it_was_seen(self._seen)

    def part_that_failed(self) -> str:
        """Tell which part failed, as far as was seen."""
        return INSTANCE if self._vanished else part_that_failed(self._seen)

    def fell(self, reason: str, failed_at: str = "", probe: str = "") -> None:
        """Say how it ended; it is told again with its last words, once its container is removed."""
        seen = self._seen
        self._death = InstanceDeath(
            instance=self.spec.instance,
            deployment=self.spec.deployment,
            release=self.spec.release,
            at=self.clock.seconds(),
            reason=reason,
            failed_at=failed_at or self.part_that_failed(),
            exit_code=seen.exit_code if seen else None,
            out_of_memory=bool(seen and seen.out_of_memory),
            probe=probe,
        )
        self.history.fell(self._death)

    def fell_with(self, error: Exception) -> None:
        """Note that it ended as an error says."""
        if isinstance(error, DeployFailed):
            probe = (error.details or {}).get("probe", "")
            self.fell(error.message, error.failed_at, probe)
        elif self._death is None:
            self.fell(str(error), getattr(error, "failed_at", GATEWAY))

    def tell_death(self, printed: str = "") -> None:
        """Tell of its death, if it was not told before."""
        death, self._death = self._death, None
        if death is not None:
            self.history.died(evolve(death, output=last_words(printed)))

    def parted(self, printed: str) -> None:
        """Tell that it was removed, and what it had printed."""
        if printed:
            spec = self.spec
            self.history.parted(spec.deployment, spec.release, spec.instance, printed)
        self.tell_death(printed)
