"""`keys` and `sessions`: who else may come in, and who is in."""

from __future__ import annotations

from typing import Annotated

from attrs import Factory, frozen

from ploinky.api import documents
from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.requests import Call
from ploinky.api.shapes import Page, PageQuery, Success, whole
from ploinky.errors import Conflict, NotFound
from ploinky.security.keyring import WantedKey, handle_of
from ploinky.values import Principal, Role

_TEN_YEARS = 10 * 366 * 86_400


@frozen
class KeyWanted:
    """A key to make.

    Attributes:
        name: Unique; calls are made in this name.
        scope: Domains, or domain/path; empty: all that its maker has.
        expires_in: Seconds; without: as late as its maker's.
    """

    name: str
    role: Role
    scope: list[str] = Factory(list)
    expires_in: Annotated[int, whole(1, _TEN_YEARS)] | None = None


@frozen
class KeyGone:
    """Which key to remove.

    Attributes:
        force: Also the last admin's.
    """

    name: str
    force: bool = False


@frozen
class ForceQuery:
    """Whether to remove even the last admin key."""

    force: bool = False


@frozen(kw_only=True)
class KeyDocument:
    """A key, without what opens.

    Attributes:
        ends_with: The key with which it ends, if any.
        last_used_at: Of the management API; calls of agents do not count.
    """

    name: str
    role: Role | None
    scope: tuple[str, ...]
    expires_at: str | None
    created_at: str | None
    last_used_at: str | None
    ends_with: str | None


@frozen(kw_only=True)
class SessionDocument:
    """A login session, without what opens."""

    id: str
    key: str
    role: Role | None
    expires_at: str | None
    created_at: str | None
    last_used_at: str | None
    is_this_one: bool


@frozen(kw_only=True)
class KeyList(Page):
    """A page of keys, ordered by name."""

    keys: list[KeyDocument]


@frozen(kw_only=True)
class SessionList(Page):
    """A page of sessions, the newest first."""

    sessions: list[SessionDocument]


@frozen(kw_only=True)
class KeyMade(Success):
    """A new key; ``apiKey`` is shown this once."""

    api_key: str
    key: KeyDocument


class KeyRoutes:
    """Removing a key ends its sessions, in every worker, before it is answered."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        keys, sessions = f"{API}/keys", f"{API}/sessions"
        gone = (NotFound, Conflict)
        return [
            Endpoint("keys.list", "GET", keys, self._list, queries=PageQuery, gives=KeyList),
            Endpoint(
                "keys.add",
                "POST",
                keys,
                self._add,
                takes=KeyWanted,
                gives=KeyMade,
                errors=(Conflict,),
            ),
            Endpoint(
                "keys.remove",
                "DELETE",
                keys,
                self._remove,
                takes=KeyGone,
                gives=Success,
                errors=gone,
            ),
            Endpoint(
                "keys.remove-named",
                "DELETE",
                f"{keys}/<name>",
                self._remove_named,
                queries=ForceQuery,
                gives=Success,
                errors=gone,
            ),
            Endpoint(
                "sessions.list",
                "GET",
                sessions,
                self._sessions,
                queries=PageQuery,
                gives=SessionList,
            ),
            Endpoint(
                "sessions.end",
                "DELETE",
                f"{sessions}/<id>",
                self._end,
                gives=Success,
                errors=(NotFound,),
            ),
        ]

    async def _list(self, call: Call) -> Answer:
        """List the keys that the caller may see."""
        page = call.queries(PageQuery)
        keys = await self._its.keyring.keys(call.principal)
        shown = await self._shown(page.of(keys))
        return as_json(KeyList(keys=shown, **page.at(len(keys))))

    async def _add(self, call: Call) -> Answer:
        """Make a key that may do no more than the caller's; it is shown this once."""
        form = call.form(KeyWanted)
        seconds = form.expires_in
        wanted = WantedKey(form.name, form.role, tuple(form.scope), seconds)
        token, made = await self._its.operations.begin(
            call.operation(form.name), self._its.keyring.make(call.principal, wanted)
        )
        (shown,) = await self._shown([made])
        return as_json(KeyMade(api_key=token, key=shown))

    async def _remove(self, call: Call) -> Answer:
        """Remove a key, and end its sessions and what was made with it."""
        form = call.form(KeyGone)
        return await self._take_back(call, form.name, form.force)

    async def _remove_named(self, call: Call) -> Answer:
        """Remove a key, and end its sessions and what was made with it."""
        return await self._take_back(call, call.parts["name"], call.queries(ForceQuery).force)

    async def _take_back(self, call: Call, name: str, force: bool) -> Answer:
        operation = call.operation(name)
        key = await self._its.keyring.find_removable(call.principal, name, force)
        await self._its.operations.begin(operation, self._its.keyring.remove(key))
        return as_json(Success())

    async def _sessions(self, call: Call) -> Answer:
        """List the login sessions that the caller may see."""
        page = call.queries(PageQuery)
        sessions = await self._its.keyring.sessions(call.principal)
        used = await self._its.keys.last_used()
        shown = [
            SessionDocument(
                id=handle_of(one),
                key=one.id,
                role=one.role,
                expires_at=documents.moment(one.expires_at or 0),
                created_at=documents.moment(one.created_at),
                last_used_at=documents.moment(used.get(one.token_hash, 0)),
                is_this_one=one.token_hash == call.principal.token_hash,
            )
            for one in page.of(sessions)
        ]
        return as_json(SessionList(sessions=shown, **page.at(len(sessions))))

    async def _end(self, call: Call) -> Answer:
        """End a login session."""
        operation = call.operation(f"session {call.parts['id']}")
        session = await self._its.keyring.find_session(call.principal, call.parts["id"])
        await self._its.operations.begin(operation, self._its.keyring.remove(session))
        return as_json(Success())

    async def _shown(self, keys: list[Principal]) -> list[KeyDocument]:
        used = await self._its.keys.last_used()
        names = {one.token_hash: one.id for one in await self._its.keys.principals()}
        return [
            KeyDocument(
                name=one.id,
                role=one.role,
                scope=one.scope,
                expires_at=documents.moment(one.expires_at or 0),
                created_at=documents.moment(one.created_at),
                last_used_at=documents.moment(used.get(one.token_hash, 0)),
                ends_with=names.get(one.parent),
            )
            for one in keys
        ]
