"""Which role may use which route of the management API.

One rule a route, by the route's name.  What has no rule here is refused: a
route that someone forgets to think about does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from ploinky.errors import Forbidden, Unauthenticated
from ploinky.values import NOBODY, DeploymentKey, Principal, Role


@frozen
class Rule:
    """Who may use a route.

    Attributes:
        roles: Empty: everybody, also without a credential.
        confined: Whether principals with a scope may use it.  Such a route must itself keep
            to the scope; one about the server as a whole cannot.
    """

    roles: frozenset[Role] = frozenset()
    confined: bool = True


READERS = frozenset({Role.ADMIN, Role.DEPLOYER, Role.VIEWER})
"""Those who may look at more than whether the server is up."""

_EVERYBODY = Rule()
_READ = Rule(READERS)
_READ_ALL = Rule(READERS, confined=False)
_DEPLOY = Rule(frozenset({Role.ADMIN, Role.DEPLOYER}))
_DEPLOY_ALL = Rule(frozenset({Role.ADMIN, Role.DEPLOYER}), confined=False)
_ADMIN = Rule(frozenset({Role.ADMIN}))
_SOMEBODY = Rule(frozenset(Role))

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "root": _EVERYBODY,
        "page": _EVERYBODY,
        "page.file": _EVERYBODY,
        "init": _EVERYBODY,
        "auth": _EVERYBODY,
        "check-auth": _EVERYBODY,
        "health": _EVERYBODY,
        "config": _READ_ALL,
        "settings.show": _READ_ALL,
        "settings.change": _ADMIN,
        "all.stop": _ADMIN,
        "backup": _ADMIN,
        "hooks.push": _EVERYBODY,
        "openapi": _EVERYBODY,
        "docs": _EVERYBODY,
        "keys.list": _DEPLOY,
        "keys.add": _DEPLOY,
        "keys.remove": _DEPLOY,
        "keys.remove-named": _DEPLOY,
        "sessions.list": _SOMEBODY,
        "sessions.end": _SOMEBODY,
        "audit.list": _ADMIN,
        "audit.verify": _ADMIN,
        "overview": _READ_ALL,
        "metrics": _READ,
        "prometheus": _EVERYBODY,  # it looks itself: an admin, or somebody on this machine
        "events": _READ,
        "logs": _READ_ALL,
        "logs.list": _READ_ALL,
        "logs.download": _READ_ALL,
        "deployments.list": _READ,
        "deployments.show": _READ,
        "deployments.releases": _READ,
        "deployments.logs": _READ,
        "deployments.commands": _READ,
        "deployments.stats": _READ,
        "instances.ending": _EVERYBODY,  # it looks itself: a worker
        "deployments.deploy": _DEPLOY,
        "deployments.update": _DEPLOY,
        "deployments.rollback": _DEPLOY,
        "deployments.scale": _DEPLOY,
        "deployments.hook": _DEPLOY,
        "deployments.remove": _DEPLOY,
        "deployments.remove-named": _DEPLOY,
        "deployments.restart": _DEPLOY,
        "deployments.stop": _DEPLOY,
        "deployments.start": _DEPLOY,
        "deployments.sync": _DEPLOY,
        "domains.list": _READ,
        "domains.add": _ADMIN,
        "domains.enable": _ADMIN,
        "domains.disable": _ADMIN,
        "domains.remove": _ADMIN,
        "domains.remove-named": _ADMIN,
        "repositories.list": _READ,
        "repositories.add": _DEPLOY_ALL,
        "repositories.remove": _DEPLOY_ALL,
        "repositories.remove-named": _DEPLOY_ALL,
        "repositories.agents": _READ,
        "repositories.sync": _DEPLOY,
        "agents.list": _READ,
        # The route itself sees that a worker asks; a caller's own tasks are its caller's to see.
        "tasks.submit": _EVERYBODY,
        "tasks.own": _EVERYBODY,
        "tasks.cancel-own": _EVERYBODY,
        "tasks.list": _READ,
        "tasks.dead": _READ,
        "tasks.show": _READ,
        "tasks.cancel": _DEPLOY,
        "tasks.retry": _DEPLOY,
        "agents.start": _DEPLOY,
        "agents.stop": _DEPLOY,
        "agents.restart": _DEPLOY,
    }
)


def check(route: str, principal: Principal) -> None:
    """See that a principal may use a route.

    Raises:
        Unauthenticated: It takes a credential, and there is none.
        Forbidden: The role or the scope does not reach so far, or the route has no rule.
    """
    rule = RULES.get(route)
    if rule is None:
        raise Forbidden(f"no rule says who may use {route}, so nobody may")
    if not rule.roles:
        return
    if principal == NOBODY:
        raise Unauthenticated(
            "this takes an API key or a session: log in with p-cli cloud login <API_KEY>"
        )
    if principal.role not in rule.roles:
        needed = " or ".join(role.value for role in Role if role in rule.roles)
        has = principal.role.value if principal.role else "no role"
        raise Forbidden(f"this takes the role {needed}; {principal.id} is {has}")
    if is_confined(principal) and not rule.confined:
        raise Forbidden(f"{principal.id} is confined to {', '.join(principal.scope)}")


def is_open(route: str) -> bool:
    """Tell whether a route takes no credential."""
    rule = RULES.get(route)
    return rule is not None and not rule.roles


def is_confined(principal: Principal) -> bool:
    """Tell whether a scope holds for a principal; it never does for an admin."""
    return bool(principal.scope) and principal.role is not Role.ADMIN


def reaches(principal: Principal, key: DeploymentKey) -> bool:
    """Tell whether a deployment is within a principal's scope."""
    return (
        not is_confined(principal) or key.domain in principal.scope or str(key) in principal.scope
    )


def reaches_domain(principal: Principal, domain: str) -> bool:
    """Tell whether a domain, or any deployment of it, is within a principal's scope."""
    return not is_confined(principal) or any(
        place.partition("/")[0] == domain for place in principal.scope
    )
