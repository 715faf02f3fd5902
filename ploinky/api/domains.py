"""`domains`: the host names that deployments may be reached at."""

from __future__ import annotations

from attrs import frozen

from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.requests import Call
from ploinky.api.shapes import NameForm, Page, PageQuery, Success
from ploinky.errors import Conflict, NotFound
from ploinky.security.roles import reaches_domain
from ploinky.values import validated_domain


@frozen
class DomainDocument:
    """A host name."""

    name: str
    enabled: bool


@frozen(kw_only=True)
class DomainList(Page):
    """A page of host names."""

    domains: list[DomainDocument]


@frozen(kw_only=True)
class DomainAnswer(Success):
    """The host name as it stands."""

    domain: DomainDocument


class DomainRoutes:
    """Adding a name changes no route by itself; a deployment does."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        home = f"{API}/domains"
        return [
            Endpoint("domains.list", "GET", home, self._list, queries=PageQuery, gives=DomainList),
            Endpoint(
                "domains.add",
                "POST",
                home,
                self._add,
                takes=NameForm,
                gives=DomainAnswer,
                errors=(Conflict,),
            ),
            Endpoint(
                "domains.remove",
                "DELETE",
                home,
                self._remove,
                takes=NameForm,
                gives=Success,
                errors=(Conflict, NotFound),
            ),
            Endpoint(
                "domains.remove-named",
                "DELETE",
                f"{home}/<name>",
                self._remove,
                gives=Success,
                errors=(Conflict, NotFound),
            ),
        ]

    async def _list(self, call: Call) -> Answer:
        """List the host names that deployments may be reached at."""
        page = call.queries(PageQuery)
        domains = await self._its.repositories.domains()
        seen = [DomainDocument(**d) for d in domains if reaches_domain(call.principal, d["name"])]
        return as_json(DomainList(domains=page.of(seen), **page.at(len(seen))))

    async def _add(self, call: Call) -> Answer:
        """Let deployments be reached at a host name."""
        name = validated_domain(call.form(NameForm).name)
        await self._its.operations.begin(
            call.operation(name), self._its.repositories.add_domain(name)
        )
        return as_json(DomainAnswer(domain=DomainDocument(name, True)))

    async def _remove(self, call: Call) -> Answer:
        """Forget a host name at which nothing is deployed."""
        name = validated_domain(call.parts.get("name") or call.form(NameForm).name)
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
        return as_json(Success())
