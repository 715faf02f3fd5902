"""What clients see of the server's values: answer types, and how they are made.

What is secret stops here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from attrs import Factory, frozen

from ploinky.api.shapes import Page, Success
from ploinky.observations import InstanceDeath
from ploinky.source_values import AgentListing, Repository
from ploinky.values import (
    Deployment,
    DeploymentState,
    DeploymentView,
    DeployRequest,
    Kind,
    Release,
    ReleaseState,
)

MASK = "********"


@frozen(kw_only=True)
class _Made:
    """What a release was made from.

    Attributes:
        image: Its name, as it was given.
        image_id: What that name led to then: the engine's own id, which stays the same.
        environment: Names, each with a mask for its value.
        secrets: Names of those variables whose values are masked in output as well.
    """

    kind: str | None = None
    image: str | None = None
    image_id: str | None = None
    commit: str | None = None
    repository: str | None = None
    branch: str | None = None
    sub_path: str | None = None
    target: str | None = None
    environment: Mapping[str, str] = Factory(dict)
    secrets: tuple[str, ...] = ()
    settings: Mapping[str, Any] = Factory(dict)


@frozen(kw_only=True)
class DeploymentDocument(_Made):
    """A deployment as it stands.

    Attributes:
        step: What a deploy in progress is doing.
        error: Why the last release failed: ``{code, step, failedAt, message, output}``.
        revision: For ``If-Match``.
    """

    id: str
    domain: str
    path: str
    agent: str
    status: DeploymentState
    step: str
    release: int
    healthy_instances: int
    error: Mapping[str, Any] | None
    warnings: tuple[str, ...]
    created_at: str | None
    updated_at: str | None
    revision: str


@frozen(kw_only=True)
class DeathDocument:
    """How an instance ended that should have gone on.

    Attributes:
        reason: In words.
        failed_at: Which part failed.
        probe: What it answered when it was asked last, in words.
    """

    instance: str
    release: int
    time: str | None
    reason: str
    failed_at: str
    exit_code: int | None
    out_of_memory: bool
    probe: str


@frozen(kw_only=True)
class LastWords(DeathDocument):
    """How an instance ended, and the last lines that it printed."""

    output: str


@frozen(kw_only=True)
class ReleaseDocument(_Made):
    """A release.

    Attributes:
        deaths: How instances of it died, the latest first.
    """

    number: int
    state: ReleaseState
    created_at: str | None
    error: Mapping[str, Any] | None
    deaths: Sequence[LastWords] = ()


@frozen
class RepositoryDocument:
    """A repository, without what opens it."""

    name: str
    url: str
    branch: str
    has_credential: bool
    created_at: str | None


@frozen
class AgentDocument:
    """An agent found in a repository."""

    name: str
    repository: str
    path: str
    about: str
    problem: str


@frozen(kw_only=True)
class DeploymentList(Page):
    """A page of deployments, ordered by domain and path."""

    deployments: list[DeploymentDocument]


@frozen(kw_only=True)
class ReleaseList(Page):
    """A page of releases, newest first."""

    releases: list[ReleaseDocument]


@frozen(kw_only=True)
class DeploymentAnswer(Success):
    """A change is done, or (202) under way."""

    deployment: DeploymentDocument


@frozen(kw_only=True)
class CommandDocument:
    """Something that an agent can be asked to do."""

    name: str
    kind: str
    about: str = ""


@frozen
class CommandList:
    """What an agent can be asked to do, by name."""

    commands: list[CommandDocument]


def moment(unix_seconds: float) -> str | None:
    """Give a time as ISO 8601 in UTC; None where there was none."""
    if not unix_seconds:
        return None
    told = datetime.fromtimestamp(unix_seconds, timezone.utc).isoformat(timespec="milliseconds")
    return told.replace("+00:00", "Z")


def deployment(view: DeploymentView) -> DeploymentDocument:
    """A deployment as it stands; values of its environment are masked."""
    kept = view.deployment
    return DeploymentDocument(
        id=kept.id,
        domain=kept.key.domain,
        path=kept.key.path,
        agent=kept.agent,
        status=view.state,
        step=view.step,
        release=kept.active_release,
        healthy_instances=view.healthy_instances,
        error=view.error,
        warnings=view.warnings,
        created_at=moment(kept.created_at),
        updated_at=moment(kept.updated_at),
        revision=revision(kept),
        **(_made_from(view.release) if view.release is not None else {}),
    )


def revision(kept: Deployment) -> str:
    """Name this version of a deployment: another one after every change of it."""
    said = f"{kept.id} {kept.active_release} {kept.wanted} {kept.updated_at}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def release(kept: Release, deaths: Sequence[LastWords] = ()) -> ReleaseDocument:
    """A release, and how instances of it died; values of its environment are masked."""
    return ReleaseDocument(
        number=kept.number,
        state=kept.state,
        created_at=moment(kept.created_at),
        error=kept.error,
        deaths=deaths,
        **_made_from(kept),
    )


def death(seen: InstanceDeath) -> DeathDocument:
    """How an instance ended, without what it printed."""
    return DeathDocument(**_of_death(seen))


def last_words(seen: InstanceDeath) -> LastWords:
    """How an instance ended, with what it printed."""
    return LastWords(**_of_death(seen), output=seen.output)


def repository(kept: Repository) -> RepositoryDocument:
    """A repository, without what opens it."""
    has_credential = kept.credential is not None
    created_at = moment(kept.created_at)
    return RepositoryDocument(kept.name, kept.url, kept.branch, has_credential, created_at)


def agent(listing: AgentListing, repository_name: str) -> AgentDocument:
    """An agent found in a repository."""
    return AgentDocument(
        listing.name, repository_name, listing.path, listing.about, listing.problem
    )


def _of_death(seen: InstanceDeath) -> dict[str, Any]:
    return {
        "instance": seen.instance,
        "release": seen.release,
        "time": moment(seen.at),
        "reason": seen.reason,
        "failed_at": seen.failed_at,
        "exit_code": seen.exit_code,
        "out_of_memory": seen.out_of_memory,
        "probe": seen.probe,
    }


def _made_from(release: Release) -> dict[str, Any]:
    request: DeployRequest = release.request
    return {
        "kind": Kind.EXTERNAL.value if request.target else release.settings.get("kind"),
        "image": request.image or (release.settings.get("image") if release.image else None),
        "image_id": release.image or None,
        "commit": release.commit,
        "repository": request.repository,
        "branch": request.branch,
        "sub_path": request.sub_path,
        "target": request.target,
        "environment": _masked(release.environment or request.environment),
        "secrets": request.secrets,
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
