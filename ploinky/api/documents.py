"""Values to what clients see of them.  What is secret stops here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ploinky.observations import InstanceDeath
from ploinky.values import AgentListing, DeploymentView, DeployRequest, Release, Repository

MASK = "********"


def moment(unix_seconds: float) -> str | None:
    """Give a time as ISO 8601 in UTC; None where there was none."""
    if not unix_seconds:
        return None
    told = datetime.fromtimestamp(unix_seconds, timezone.utc).isoformat(timespec="milliseconds")
    return told.replace("+00:00", "Z")


def deployment(view: DeploymentView) -> dict[str, Any]:
    """A deployment as it stands; values of its environment are masked."""
    kept, release = view.deployment, view.release
    document: dict[str, Any] = {
        "id": kept.id,
        "domain": kept.key.domain,
        "path": kept.key.path,
        "agent": kept.agent,
        "status": view.state.value,
        "step": view.step,
        "release": kept.active_release,
        "healthyInstances": view.healthy_instances,
        "error": view.error,
        "warnings": list(view.warnings),
        "createdAt": moment(kept.created_at),
        "updatedAt": moment(kept.updated_at),
    }
    if release is not None:
        document |= _made_from(release)
    return document


def release(kept: Release, deaths: Sequence[InstanceDeath]) -> dict[str, Any]:
    """A release, and how instances of it died; values of its environment are masked."""
    return {
        "number": kept.number,
        "state": kept.state.value,
        "createdAt": moment(kept.created_at),
        "error": kept.error,
        "deaths": [{**death(each), "output": each.output} for each in deaths],
        **_made_from(kept),
    }


def death(seen: InstanceDeath) -> dict[str, Any]:
    """How an instance ended, without what it printed."""
    return {
        "instance": seen.instance,
        "release": seen.release,
        "time": moment(seen.at),
        "reason": seen.reason,
        "failedAt": seen.failed_at,
        "exitCode": seen.exit_code,
        "outOfMemory": seen.out_of_memory,
        "probe": seen.probe,
    }


def repository(kept: Repository) -> dict[str, Any]:
    """A repository, without what opens it."""
    return {
        "name": kept.name,
        "url": kept.url,
        "branch": kept.branch,
        "hasCredential": kept.credential is not None,
        "createdAt": moment(kept.created_at),
    }


def agent(listing: AgentListing, repository_name: str) -> dict[str, Any]:
    """An agent found in a repository."""
    return {
        "name": listing.name,
        "repository": repository_name,
        "path": listing.path,
        "about": listing.about,
        "problem": listing.problem,
    }


def _made_from(release: Release) -> dict[str, Any]:
    request: DeployRequest = release.request
    return {
        "kind": release.settings.get("kind"),
        "image": release.image or request.image,
        "commit": release.commit,
        "repository": request.repository,
        "branch": request.branch,
        "subPath": request.sub_path,
        "target": request.target,
        "environment": _masked(release.environment or request.environment),
        "settings": _without_values(release.settings),
    }


def _masked(environment: Mapping[str, Any]) -> dict[str, str]:
    return dict.fromkeys(environment, MASK)


def _without_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A deployment's own `env` is no less secret for being a setting."""
    shown = dict(settings)
    if isinstance(shown.get("env"), Mapping):
        shown["env"] = _masked(shown["env"])
    return shown
