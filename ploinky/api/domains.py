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
            *(self._changing(verb) for verb in ("enable", "disable")),
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

    def _changing(self, verb: str) -> Endpoint:
        return Endpoint(
            f"domains.{verb}",
            "POST",
            f"{API}/domains/<name>/{verb}",
            self._enable if verb == "enable" else self._disable,
            gives=DomainAnswer,
            errors=(NotFound,),
        )

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

    async def _enable(self, call: Call) -> Answer:
        """Let what is deployed at a host name be reached again; all workers do once it is answered."""
        return await self._change(call, True)

    async def _disable(self, call: Call) -> Answer:
        """Answer 404 at a host name, on all workers before this is answered.

        What is deployed there goes on running, with its durable tasks and schedules, and is reached
        again as soon as the host name is enabled.
        """
        return await self._change(call, False)

    async def _change(self, call: Call, enabled: bool) -> Answer:
        name = validated_domain(call.parts["name"])

        async def change() -> None:
            await self._its.repositories.change_domain(name, enabled)
            await self._its.deployments.adopt_domains()

        await self._its.operations.begin(call.operation(name), change())
        return as_json(DomainAnswer(domain=DomainDocument(name, enabled)))

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

        async def remove() -> None:
            await self._its.repositories.remove_domain(name)
            await self._its.deployments.adopt_domains()  # its name may come back, enabled

        await self._its.operations.begin(call.operation(name), remove())
        return as_json(Success())
