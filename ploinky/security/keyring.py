"""Keys and sessions as those who hold some see them: made, listed and taken back, never beyond oneself."""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ploinky.errors import Conflict, Forbidden, NotFound, PloinkyError, ValidationFailed
from ploinky.security.admission import ADMIN_ID
from ploinky.security.roles import is_confined
from ploinky.security.tokens import API_KEY, mint, token_hash
from ploinky.store_interfaces import IKeyStore
from ploinky.task_values import SCHEDULE_ID
from ploinky.values import (
    NOBODY,
    DeploymentKey,
    Principal,
    Role,
    validated_domain,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_NOT_FOR_KEYS = (NOBODY.id.lower(), SCHEDULE_ID.lower())
"""Agents, and who owns a task, tell these from everybody with a key."""
_RANKS = (Role.ADMIN, Role.DEPLOYER, Role.VIEWER, Role.CALLER)
"""Each may do all that those after it may."""


@frozen
class WantedKey:
    """A key that somebody asks for.

    Attributes:
        scope: Domains or ``domain/path``; empty: all that its maker has.
        expires_in_seconds: None: as late as its maker's.
    """

    id: str
    role: Role
    scope: tuple[str, ...] = ()
    expires_in_seconds: int | None = None


class Keyring:
    """Gives out keys, and takes keys and sessions back.

    An admin sees and does everything.  Anyone else sees their own key, those made with it and the
    sessions of all of these.  A key that somebody other than an admin made ends with theirs: so
    whoever takes a leaked key back takes back all that was made with it.

    Args:
        clock: Its seconds are Unix time.
        keys: Where they are kept.
        random_bytes: Gives that many unpredictable bytes.
    """

    def __init__(
        self, clock: IReactorTime, keys: IKeyStore, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._clock = clock
        self._keys = keys
        self._random_bytes = random_bytes

    async def keys(self, viewer: Principal) -> list[Principal]:
        """Give the keys that somebody may see, ordered by name."""
        seen = await self._seen(viewer)
        return sorted((one for one in seen if not one.session), key=lambda key: key.id)

    async def sessions(self, viewer: Principal) -> list[Principal]:
        """Give the sessions that somebody may see, the newest first."""
        seen = await self._seen(viewer)
        return sorted((one for one in seen if one.session), key=lambda one: -one.created_at)

    async def make(self, maker: Principal, wanted: WantedKey) -> tuple[str, Principal]:
        """Make a key that may do no more than its maker's.

        Returns:
            The key, which is shown this once, and what is kept of it.

        Raises:
            ValidationFailed: It does not fit, or would reach further than its maker.
            Conflict: The name is taken.
        """
        own = await self._own_key(maker)
        scope, problems = _checked(own, wanted)
        now = self._clock.seconds()
        expires_at = own.expires_at
        if wanted.expires_in_seconds is not None:
            expires_at = now + wanted.expires_in_seconds
            if own.expires_at is not None and expires_at > own.expires_at:
                problems["expiresIn"] = f"{own.id} itself expires before that"
        if problems:
            raise ValidationFailed(problems)
        token = mint(API_KEY, self._random_bytes)
        made = Principal(
            id=wanted.id,
            role=wanted.role,
            token_hash=token_hash(token),
            expires_at=expires_at,
            scope=scope,
            parent="" if own.role is Role.ADMIN else own.token_hash,
            created_at=now,
        )
        await self._keys.add_principal(made)
        return token, made

    async def find_removable(self, remover: Principal, key_id: str, force: bool) -> Principal:
        """Give the key of this name, if it may be removed.

        Raises:
            NotFound: There is none that ``remover`` may see.
            Conflict: No admin's key would be left that is valid as long, and ``force`` is false.
        """
        key = next((one for one in await self.keys(remover) if one.id == key_id), None)
        if key is None:
            raise NotFound(f"there is no key {key_id!r}; see p-cli cloud keys list")
        others = [one for one in await self._keys.principals() if one is not key]
        last = key.role is Role.ADMIN and not any(_outlives(one, key) for one in others)
        if last and not force:
            raise Conflict(
                f"{key.id} is the last admin key; make another one first, or remove it with force"
                " (nobody will be able to administer this server any more)"
            )
        return key

    async def find_session(self, viewer: Principal, handle: str) -> Principal:
        """Give the session with this handle.

        Raises:
            NotFound: There is none that ``viewer`` may see.
        """
        for one in await self.sessions(viewer):
            if handle_of(one) == handle:
                return one
        raise NotFound(f"there is no session {handle!r}")

    async def remove(self, principal: Principal) -> None:
        """Take a key or session back, with all that ends with it, from every worker as well."""
        await self._keys.remove_principal(principal.token_hash)

    async def _own_key(self, principal: Principal) -> Principal:
        """Give the key that somebody acts by: for a session the one it was opened with.

        An admin may come from elsewhere: from a plugin, or with the setting ``auth: none``.
        """
        wanted = _acts_by(principal)
        for one in await self._keys.principals():
            if one.token_hash == wanted:
                return one
        if principal.role is Role.ADMIN:
            return principal
        raise Forbidden(f"{principal.id} has no key of this server, and so can make none")

    async def _seen(self, viewer: Principal) -> list[Principal]:
        known = await self._keys.principals()
        if viewer.role is Role.ADMIN:
            return known
        mine = {_acts_by(viewer)} - {""}  # a plugin's principal has no key, and sees none
        while more := {one.token_hash for one in known if one.parent in mine} - mine:
            mine |= more
        return [one for one in known if one.token_hash in mine]


def _acts_by(principal: Principal) -> str:
    """Give the token hash of the key that somebody acts by; ``""`` for none."""
    return principal.parent if principal.session else principal.token_hash


def handle_of(session: Principal) -> str:
    """Name a session; it opens nothing."""
    return session.token_hash[:12]


def _checked(own: Principal, wanted: WantedKey) -> tuple[tuple[str, ...], dict[str, str]]:
    """Give the scope in canonical form, and what does not fit."""
    problems: dict[str, str] = {}
    if not _NAME.match(wanted.id):
        problems["name"] = "expected letters, digits, . _ @ - (64 at most; a letter or digit first)"
    if wanted.id.lower() in _NOT_FOR_KEYS:
        problems["name"] = f"expected another name: {wanted.id} calls without a key"
    if wanted.id.lower() == ADMIN_ID.lower() and wanted.role is not Role.ADMIN:
        # Agents and the audit trail know the first admin by this name.
        problems["name"] = f"only an admin's key can be called {wanted.id}"
    if own.role is None or _RANKS.index(wanted.role) < _RANKS.index(own.role):
        problems["role"] = (
            f"{own.id} can give no more than {own.role.value if own.role else 'none'}"
        )
    scope = list(own.scope) if is_confined(own) and not wanted.scope else []
    for place in wanted.scope:
        try:
            canonical = _place(place)
        except PloinkyError:
            problems["scope"] = f"{place!r} is neither a domain nor domain/path"
            continue
        domain = canonical.partition("/")[0]
        if is_confined(own) and not {domain, canonical} & set(own.scope):
            problems["scope"] = f"{canonical} is not within {', '.join(own.scope)}"
        scope.append(canonical)
    if scope and wanted.role is Role.ADMIN:
        problems["scope"] = "an admin's key reaches everything; give it another role"
    return tuple(dict.fromkeys(scope)), problems


def _place(raw_place: str) -> str:
    domain, slash, path = raw_place.partition("/")
    return str(DeploymentKey.of(domain, path)) if slash else validated_domain(domain)


def _outlives(other: Principal, key: Principal) -> bool:
    """Tell whether another key lets an admin in for as long as this one."""
    if other.session or other.role is not Role.ADMIN:
        return False
    return other.expires_at is None or (
        key.expires_at is not None and other.expires_at >= key.expires_at
    )
