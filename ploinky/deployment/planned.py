"""Which schedules are in force: those of task agents that serve, or should."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ploinky.deployment.manifest import Manifest
from ploinky.deployment.spec import kind_of
from ploinky.task_values import Planned
from ploinky.values import (
    DeploymentState,
    DeploymentView,
    Kind,
)

_IN_FORCE = (DeploymentState.RUNNING, DeploymentState.UNHEALTHY, DeploymentState.DEPLOYING)


def planned(views: Iterable[DeploymentView]) -> Iterator[Planned]:
    """Give the schedules of these deployments' active releases, each since its release was made."""
    for view in views:
        release = view.release
        if release is None or release.number != view.deployment.active_release:
            continue
        if not release.settings.get("schedule") or view.state not in _IN_FORCE:
            continue
        if kind_of(release) is Kind.TASK:
            for schedule in Manifest.of(release.settings).schedule:
                yield Planned(view.deployment.id, release.created_at, schedule)
