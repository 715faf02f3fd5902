"""`domains`: the host names that deployments may be reached at."""

from __future__ import annotations

from attrs import frozen

from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.requests import Call
from ploinky.errors import Conflict
from ploinky.security.roles import reaches_domain
from ploinky.values import validated_domain


@frozen
class DomainForm:
    """``{"name": "api.example.com"}``."""

    name: str


class DomainRoutes:
    """Adding a name changes no route by itself; a deployment does."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        home = f"{API}/domains"
        return [
            Endpoint("domains.list", "GET", home, self._list),
            Endpoint("domains.add", "POST", home, self._add),
            Endpoint("domains.remove", "DELETE", home, self._remove),
            Endpoint("domains.remove-named", "DELETE", f"{home}/<name>", self._remove),
        ]

    async def _list(self, call: Call) -> Answer:
        domains = await self._its.repositories.domains()
        seen = [d for d in domains if reaches_domain(call.principal, d["name"])]
        return as_json({"domains": seen})

    async def _add(self, call: Call) -> Answer:
        name = validated_domain(call.form(DomainForm).name)
        await self._its.operations.begin(
            call.operation(name), self._its.repositories.add_domain(name)
        )
        return as_json({"success": True, "domain": {"name": name, "enabled": True}})

    async def _remove(self, call: Call) -> Answer:
        name = validated_domain(call.parts.get("name") or call.form(DomainForm).name)
        used = [
            str(view.deployment.key)
            for view in self._its.deployments.deployments()
            if view.deployment.key.domain == name
        ]
        if used:
            raise Conflict(f"{name} is in use by {', '.join(used)}; remove what is deployed first")
        await self._its.operations.begin(
            call.operation(name), self._its.repositories.remove_domain(name)
        )
        return as_json({"success": True})
