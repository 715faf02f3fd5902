"""What the routes of deployments share: finding one, its releases, and the version a caller saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from ploinky.api.documents import revision
from ploinky.api.endpoints import Collaborators
from ploinky.api.requests import Call
from ploinky.deploy_errors import (
    DeployFailed,
    EngineError,
    EngineUnavailable,
    ImageFailed,
    InstallFailed,
    ProbeFailed,
    SourceFailed,
    StartFailed,
    UrlRefused,
)
from ploinky.errors import (
    AgentAmbiguous,
    AgentNotFound,
    Conflict,
    EnvironmentMissing,
    ManifestInvalid,
    NotFound,
    PreconditionFailed,
)
from ploinky.observations import InstanceDeath
from ploinky.telemetry.masking import NoMask, StreamMask
from ploinky.telemetry.redaction import Redactor
from ploinky.values import DeploymentKey, DeploymentState, DeploymentView, Release

CHANGE = (NotFound, Conflict, EngineError, EngineUnavailable, ImageFailed, StartFailed, ProbeFailed)
"""What may come of changing what is deployed."""

DEPLOY = (
    *CHANGE,
    UrlRefused,
    AgentAmbiguous,
    AgentNotFound,
    ManifestInvalid,
    EnvironmentMissing,
    DeployFailed,
    SourceFailed,
    InstallFailed,
)
"""What may come of a deploy."""

_CHANGING = (DeploymentState.DEPLOYING, DeploymentState.REMOVING)


class Places:
    """Finds what is deployed."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def find(self, key: DeploymentKey) -> DeploymentView:
        """Give the deployment at a place.

        Raises:
            NotFound: Nothing is there.
        """
        view: DeploymentView = self._its.deployments.deployment(key)
        return view

    async def release(self, view: DeploymentView, number: int) -> Release | None:
        """Give a release by its number; 0 is the newest."""
        for release in await self._its.deployment_store.releases(view.deployment.id):
            if number in (0, release.number):
                return release
        return None

    async def death(self, view: DeploymentView, seen: InstanceDeath) -> InstanceDeath:
        """Give how an instance died, without the secrets of the release that it was of.

        That may be another one than serves: one that fails, or that is drained.
        """
        return masked_death(seen, await self.release(view, seen.release))

    async def served(self, key: DeploymentKey) -> Release:
        """Give the release that serves, or else the newest that was tried.

        Raises:
            NotFound: There is none.
        """
        view = self.find(key)
        release = await self.release(view, view.deployment.active_release)
        if release is None:
            raise NotFound(f"{key} has no release yet that could be deployed again")
        return release


class Revisions:
    """Holds a change to the version of a deployment that its caller saw (``If-Match``).

    Source: RFC 9110, section 13.1.1.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._held: set[DeploymentKey] = set()

    @contextmanager
    def held(self, call: Call, key: DeploymentKey) -> Iterator[None]:
        """Let a change happen within, if nothing has changed since.

        Of two that come with the same version at once, the first is let through.

        Raises:
            PreconditionFailed: It has changed, or is being changed.
        """
        wanted = call.request.text_field("If-Match")
        if not wanted:
            yield
            return
        self._check(key, wanted)
        self._held.add(key)
        try:
            yield
        finally:
            self._held.discard(key)

    def _check(self, key: DeploymentKey, wanted: str) -> None:
        try:
            view = self._places.find(key)
        except NotFound as error:
            raise PreconditionFailed(f"{key} is not deployed any more") from error
        if key in self._held or view.state in _CHANGING:
            raise PreconditionFailed(f"{key} is being changed now; look again when that is done")
        seen = {one.strip().strip('"') for one in wanted.split(",")}
        if not seen & {"*", revision(view.deployment)}:
            raise PreconditionFailed(f"{key} has changed since you saw it; look again")


def masked(text: str, release: Release | None) -> str:
    """Give the end of what an instance printed, without the values of its secret variables."""
    redactor = _redactor(release)
    return text if redactor is None else redactor.part(text)


def masked_death(death: InstanceDeath, release: Release | None) -> InstanceDeath:
    """Give how an instance died, in the same way."""
    redactor = _redactor(release)
    if redactor is None:
        return death
    return attrs.evolve(
        death,
        reason=redactor.part(death.reason),
        probe=redactor.part(death.probe),
        output=redactor.part(death.output),
    )


def mask_of(release: Release | None) -> StreamMask | NoMask:
    """Give what hides them in output that comes piece by piece."""
    redactor = _redactor(release)
    return NoMask() if redactor is None else redactor.stream()


def _redactor(release: Release | None) -> Redactor | None:
    if release is None or not release.request.secrets:
        return None
    redactor = Redactor()
    redactor.add(*(release.request.environment.get(name, "") for name in release.request.secrets))
    return redactor
