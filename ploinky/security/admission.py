"""How one becomes somebody: the first key, login and logout."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from ploinky.errors import Conflict, Unauthenticated
from ploinky.security.tokens import API_KEY, SESSION, mint, token_hash
from ploinky.store_interfaces import IKeyStore
from ploinky.values import Principal, Role

ADMIN_ID = "Admin"
SESSION_SECONDS = 12 * 3600.0


class Admission:
    """Gives out keys and sessions, and takes sessions back.

    None of its methods should be cancelled: a change of who may do what is finished once begun.

    Args:
        clock: When sessions begin; its seconds are Unix time.
        keys: Where both are kept.
        random_bytes: Gives that many unpredictable bytes.
    """

    def __init__(
        self, clock: IReactorTime, keys: IKeyStore, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._clock = clock
        self._keys = keys
        self._random_bytes = random_bytes

    async def initialized(self) -> bool:
        """Tell whether there is a key already."""
        return any(not principal.session for principal in await self._keys.principals())

    async def initialize(self) -> str:
        """Make the first admin key, which is shown this once.

        Raises:
            Conflict: There is a key already.
        """
        key = mint(API_KEY, self._random_bytes)
        now = self._clock.seconds()
        first = Principal(ADMIN_ID, Role.ADMIN, token_hash(key), created_at=now)
        if not await self._keys.add_first_key(first):
            raise Conflict("Already initialized")
        return key

    async def login(self, api_key: str) -> tuple[str, Principal]:
        """Exchange a key for a session that does what the key does, for 12 hours at most.

        Returns:
            The session's token, and the session.

        Raises:
            Unauthenticated: It is not a key, or not a valid one any more.
        """
        wanted = token_hash(api_key)
        for key in await self._keys.principals():
            if key.token_hash == wanted and not key.session:
                break
        else:
            raise Unauthenticated("this API key is not valid")
        token = mint(SESSION, self._random_bytes)
        now = self._clock.seconds()
        ends_at = now + SESSION_SECONDS
        session = Principal(
            id=key.id,
            role=key.role,
            token_hash=token_hash(token),
            expires_at=ends_at if key.expires_at is None else min(ends_at, key.expires_at),
            scope=key.scope,
            session=True,
            parent=key.token_hash,
            created_at=now,
        )
        await self._keys.add_principal(session)
        return token, session

    async def logout(self, token: str) -> None:
        """End a session; a token that is none, an API key say, is left alone."""
        wanted = token_hash(token)
        for principal in await self._keys.principals():
            if principal.token_hash == wanted and principal.session:
                await self._keys.remove_principal(wanted)
