"""Releases looked back at: which one to go back to, which settings may change in place, what to hide.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ploinky.deploy_errors import DeployFailed
from ploinky.errors import Conflict, NotFound, PloinkyError
from ploinky.interfaces import Report
from ploinky.telemetry.redaction import Redactor
from ploinky.values import Deployment, DeployRequest, Release, ReleaseState


def earlier_release(releases: Sequence[Release], deployment: Deployment, number: int) -> Release:
    """Find the release to go back to.

    Args:
        releases: Newest first.
        number: 0: the newest before the active one that served.

    Raises:
        NotFound: There is none.
        Conflict: It is the active one, or never served.
    """
    active = deployment.active_release
    if number and number == active:
        raise Conflict(f"release {number} serves already; p-cli cloud releases lists the others")
    for release in releases:
        served = release.state is ReleaseState.RETIRED
        if release.number == number and not served:
            raise Conflict(f"release {number} never served: it is {release.state.value}")
        if served and (release.number == number or (not number and release.number < active)):
            return release
    wanted = f"no release {number}" if number else "no earlier release that served"
    raise NotFound(f"there is {wanted} of {deployment.key}; see p-cli cloud releases")


def with_replicas(release: Release, replicas: int) -> Release:
    """Give the release with another number of instances, also for what is deployed again later.

    Raises:
        Conflict: Its instances are not ours.
    """
    if release.request.target:
        raise Conflict("what runs elsewhere has no instances here that could be scaled")
    settings = {"replicas": replicas}
    asked = attrs.evolve(release.request, settings={**release.request.settings, **settings})
    return attrs.evolve(release, settings={**release.settings, **settings}, request=asked)


class Mask:
    """Hides the secret variables of a deploy in all that is told or kept of it.

    Outputs are told line by line and kept from somewhere on: halves of secrets are hidden as well.
    """

    def __init__(self, request: DeployRequest) -> None:
        self._redact = Redactor()
        self._redact.add(*(request.environment.get(name, "") for name in request.secrets))

    def report(self, report: Report) -> Report:
        """Hide them in what is reported."""
        return lambda line: report(self._redact.part(line))

    def error(self, error: Exception) -> None:
        """Hide them in an error, in place: it is on its way already."""
        if not isinstance(error, PloinkyError):
            return
        error.message = self._redact.part(error.message)
        error.args = (error.message,)
        error.details = self._hidden(error.details)
        if isinstance(error, DeployFailed):
            error.output = self._redact.part(error.output)

    def _hidden(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact.part(value)
        if isinstance(value, Mapping):
            return {name: self._hidden(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._hidden(one) for one in value]
        return value
