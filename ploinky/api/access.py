"""``POST init``, ``POST /auth``, ``GET check-auth``: becoming somebody, and being told who one is."""

from __future__ import annotations

from typing import Annotated

from attrs import Factory, frozen

from ploinky.api.answers import Answer, as_json
from ploinky.api.endpoints import API, Collaborators, Endpoint
from ploinky.api.requests import COOKIE, Call
from ploinky.api.shapes import SECRET, Success
from ploinky.errors import (
    Conflict,
    Forbidden,
    TooManyRequests,
    Unauthenticated,
    ValidationFailed,
)
from ploinky.security.admission import SESSION_SECONDS
from ploinky.values import NOBODY, Role


@frozen
class InitForm:
    """`token`: the bootstrap token; not needed on the server's own machine.

    Attributes:
        token: The bootstrap token.
    """

    token: Annotated[str, SECRET] = ""


@frozen
class AuthForm:
    """``{"command": "login", "params": [apiKey]}`` or ``{"command": "logout"}``.

    Attributes:
        params: The API key.
    """

    command: str
    params: Annotated[list[str], SECRET] = Factory(list)


@frozen(kw_only=True)
class FirstKey(Success):
    """The first admin key, shown this once."""

    api_key: str


@frozen(kw_only=True)
class LoggedIn(Success):
    """A session, or that it has ended."""

    authorization_token: str | None = None
    user_id: str | None = None


@frozen
class Who:
    """Who calls.

    Attributes:
        scope: Domains, or ``domain/path``, to which that role is confined; empty: it is not.
    """

    authenticated: bool
    user_id: str | None = None
    role: Role | None = None
    scope: tuple[str, ...] | None = None


class AccessRoutes:
    """Who may come in.

    A change of keys or sessions runs as an operation: it is carried through to every worker
    even if the client leaves meanwhile.
    """

    def __init__(self, collaborators: Collaborators) -> None:
        self._its = collaborators

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint(
                "init",
                "POST",
                f"{API}/init",
                self._init,
                takes=InitForm,
                gives=FirstKey,
                errors=(Conflict, TooManyRequests),
            ),
            Endpoint(
                "auth",
                "POST",
                "/auth",
                self._auth,
                takes=AuthForm,
                gives=LoggedIn,
                errors=(Unauthenticated, TooManyRequests),
            ),
            Endpoint("check-auth", "GET", f"{API}/check-auth", self._check, gives=Who),
        ]

    async def _init(self, call: Call) -> Answer:
        """Make the first admin key of a new server."""
        form = call.form(InitForm)
        if await self._its.admission.initialized():
            raise Conflict("Already initialized")
        if form.token:
            self._its.throttle.attempt(call.peer.address)
        if not (call.peer.is_here or self._its.bootstrap.admits(form.token)):
            raise Forbidden(
                "a new server can be claimed on its own machine (at http://localhost), or with the"
                " bootstrap token that it printed at its first start:"
                " p-cli cloud init --token <TOKEN>"
            )
        key = await self._its.operations.begin(
            call.operation("this server"), self._its.admission.initialize()
        )
        self._its.bootstrap.spend()
        return as_json(FirstKey(api_key=key))

    async def _auth(self, call: Call) -> Answer:
        """Log in with an API key, or log out."""
        form = call.form(AuthForm)
        if form.command == "login":
            return await self._login(call, form.params)
        if form.command == "logout":
            return await self._logout(call)
        raise ValidationFailed({"command": "expected login or logout"})

    async def _login(self, call: Call, params: list[str]) -> Answer:
        if len(params) != 1:
            raise ValidationFailed({"params": "expected one: the API key"})
        self._its.throttle.attempt(call.peer.address)
        token, session = await self._its.operations.begin(
            None, self._its.admission.login(params[0])
        )
        self._its.throttle.succeeded(call.peer.address)
        call.subjects.append(session.id)
        document = {"success": True, "authorizationToken": token, "userId": session.id}
        return as_json(document, fields=(_cookie(call, token, int(SESSION_SECONDS)),))

    async def _logout(self, call: Call) -> Answer:
        if call.credential is not None:
            await self._its.operations.begin(
                None, self._its.admission.logout(call.credential.token)
            )
        return as_json({"success": True}, fields=(_cookie(call, "", 0),))

    async def _check(self, call: Call) -> Answer:
        """Tell who calls; never 401."""
        if call.principal == NOBODY:
            return as_json({"authenticated": False})
        role = call.principal.role
        return as_json(
            {
                "authenticated": True,
                "userId": call.principal.id,
                "role": role.value if role else None,
                "scope": call.principal.scope,
            }
        )


def _cookie(call: Call, token: str, seconds: int) -> tuple[str, str]:
    secure = "; Secure" if call.peer.is_secure else ""
    value = f"{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
    return "Set-Cookie", value
