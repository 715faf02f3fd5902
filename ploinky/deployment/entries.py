"""One deployment as the manager holds it in memory, and as users see it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError

from ploinky.deploy_errors import DeployFailed
from ploinky.deployment.jobs import Job
from ploinky.deployment.life import Life
from ploinky.deployment.releases import OUTPUT_CHARACTERS, Say
from ploinky.deployment.spec import replicas_of
from ploinky.errors import GATEWAY, PloinkyError
from ploinky.interfaces import Report
from ploinky.values import (
    Deployment,
    DeploymentKey,
    DeploymentState,
    DeploymentView,
    Release,
    Target,
)

RUNNING = "running"
STOPPED = "stopped"
REMOVED = "removed"
"""What a deployment's owner last asked for; ``removed`` is on record until the removal is done."""


@define(eq=False)
class Entry:
    """One deployment.

    Attributes:
        release: The active one; None before the first one served.
        failed: The last one that failed, if it is newer than `release`.
        newest: Number of the newest release on record; 0 if there is none.
        job: The work that has its turn now.
        step: What that work is doing, for people; ``""`` between two pieces of work.
        on_record: Whether the store knows it.
        asked: How many instances the deploy in progress is about to start.
        warnings: What its owner should know of the last deploy.
    """

    deployment: Deployment
    life: Life = field(repr=False)
    release: Release | None = None
    failed: Release | None = None
    newest: int = 0
    job: Job | None = None
    step: str = ""
    on_record: bool = False
    asked: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The deployment's id."""
        return self.deployment.id

    @property
    def key(self) -> DeploymentKey:
        """Where it is reached."""
        return self.deployment.key

    @contextlib.contextmanager
    def working(self, job: Job, report: Report) -> Iterator[Say]:
        """Show that `job` has its turn, and which step it is in."""

        def say(step: str, line: str) -> None:
            self.step = step
            report(line)

        self.job = job
        try:
            yield say
        finally:
            self.job, self.step, self.asked = None, "", 0

    def tell_how_it_stands(self) -> None:
        """Tell its life what is on record."""
        if self.release is None:
            self.life.found_failed()
        elif self.deployment.wanted == STOPPED:
            self.life.found_stopped()
        else:
            self.life.found_serving()

    def serving(self) -> Release:
        """Give the active release of a deployment that has served."""
        assert self.release is not None, f"{self.key} never served"
        return self.release

    def places(self) -> int:
        """Tell how many instances it takes, or is about to."""
        runs = replicas_of(self.release) if self.release else 0
        if runs and self.life.seen_as() in (DeploymentState.STOPPED, DeploymentState.REMOVING):
            runs = 0
        return max(runs, self.asked)

    def view(self, healthy_instances: int, is_hidden: bool) -> DeploymentView:
        """Show it as it stands now."""
        state = self.life.seen_as()
        external = self.release is not None and bool(self.release.request.target)
        if state is DeploymentState.RUNNING and not healthy_instances and not external:
            state = DeploymentState.UNHEALTHY
        return DeploymentView(
            deployment=self.deployment,
            release=self.release or self.failed,
            state=state,
            step=self.step,
            healthy_instances=healthy_instances,
            error=self.failed.error if self.failed else None,
            warnings=(*self.warnings, *([_hidden(self.key.domain)] if is_hidden else ())),
        )


@define
class Attempt:
    """How far a deploy has come.

    Attributes:
        launched: Running, and not yet switched to.
        on_record: Whether the store knows the release.
    """

    release: Release
    launched: tuple[Target, ...] = ()
    on_record: bool = False


def _hidden(domain: str) -> str:
    return (
        f"the domain {domain} is disabled: nobody reaches it until p-cli cloud host enable {domain}"
    )


def unreported(line: str) -> None:
    """Nobody listens to the progress of this."""


def error_record(error: Exception, step: str) -> Mapping[str, Any]:
    """Give what is kept of a failure, for users: ``{code, step, failedAt, message, output}``."""
    if isinstance(error, DeployFailed):
        cause = {"details": error.details} if error.details is not None else {}
        output = error.output[-OUTPUT_CHARACTERS:]
        said = _record(error.code, error.step, error.message, output, error.failed_at)
        return {**said, **cause}
    if isinstance(error, PloinkyError):
        return _record(error.code, step, error.message, failed_at=error.failed_at)
    if isinstance(error, CancelledError):
        return _record("CANCELLED", step, "cancelled before it served")
    return _record("INTERNAL_ERROR", step, "the server failed; its log says more")


def interrupted_record() -> Mapping[str, Any]:
    """Give what is kept of a deploy whose server was killed."""
    return _record("INTERRUPTED", "deploy", "interrupted by a restart of the server")


def _record(
    code: str, step: str, message: str, output: str = "", failed_at: str = GATEWAY
) -> Mapping[str, Any]:
    return {
        "code": code,
        "step": step,
        "failedAt": failed_at,
        "message": message,
        "output": output,
    }
