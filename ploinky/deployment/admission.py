"""What may be deployed, as far as the request alone tells: checked before anything is begun."""

from __future__ import annotations

import attrs

from ploinky.deployment.agents import check_place
from ploinky.deployment.board import RouteBoard
from ploinky.deployment.manifest import (
    GIVEN_CAPABILITIES,
    Manifest,
    check_environment,
    check_settings,
)
from ploinky.deployment.spec import Layout, external_target
from ploinky.errors import NotFound, ValidationFailed
from ploinky.store_interfaces import IRepositoryStore
from ploinky.values import DeployRequest


class Admission:
    """Checks requests.

    Args:
        board: Knows which paths are the server's own.
    """

    def __init__(self, repositories: IRepositoryStore, board: RouteBoard, layout: Layout) -> None:
        self._repositories = repositories
        self._board = board
        self._layout = layout

    async def admit(self, request: DeployRequest) -> DeployRequest:
        """Give the request, with its settings in their plain form.

        Raises:
            ValidationFailed: Fields that do not fit.
            Conflict: The path is one of the server's own.
            NotFound: The domain is not registered.
        """
        self._board.check_free(request.key)
        check_place(request)
        if request.target or request.settings.get("kind") == "external":
            request = self._external(request)
        check_settings({**request.settings, **({"image": request.image} if request.image else {})})
        check_environment(request.environment)
        _check_privileges(request)
        await self._check_domain(request.key.domain)
        return request

    def _external(self, request: DeployRequest) -> DeployRequest:
        """Check a deployment of something that already runs."""
        if not request.target:
            raise ValidationFailed({"target": "kind external leads somewhere: give a target"})
        problems = {
            name: "an external deployment has none: something else runs it"
            for name, given in (
                ("repository", request.repository),
                ("image", request.image),
                ("environment", request.environment),
            )
            if given
        }
        if problems:
            raise ValidationFailed(problems)
        external_target(request.target, self._layout, any_socket=request.any_file_url)
        settings = {name: value for name, value in request.settings.items() if name != "kind"}
        return attrs.evolve(request, settings=settings)

    async def _check_domain(self, domain: str) -> None:
        if domain not in {one["name"] for one in await self._repositories.domains()}:
            raise NotFound(
                f"the domain {domain} is not registered; add it with p-cli cloud host add {domain}"
            )

    async def disabled_domains(self) -> frozenset[str]:
        """Give the domains at which nothing is to be found; deploying there is no error."""
        domains = await self._repositories.domains()
        return frozenset(one["name"] for one in domains if not one["enabled"])


def _check_privileges(request: DeployRequest) -> None:
    """See that nobody but an admin grants what may lead out of a container."""
    asked = Manifest.of({"capabilities": request.settings.get("capabilities")}).capabilities
    beyond = sorted(set(asked or ()) - GIVEN_CAPABILITIES)
    if beyond and not request.any_file_url:
        raise ValidationFailed({"capabilities": f"only an admin may grant {', '.join(beyond)}"})
