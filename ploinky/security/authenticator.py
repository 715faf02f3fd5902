"""The built-in authenticator: API keys and sessions."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from ploinky.interfaces import IAuthenticator
from ploinky.security.tokens import token_hash
from ploinky.store_interfaces import IKeyStore
from ploinky.values import Principal


@implementer(IAuthenticator)
class KeyAuthenticator:
    """Knows whom a key or session belongs to.

    Args:
        keys: All that are valid; asked each time, so a key that was revoked is refused at once.
    """

    def __init__(self, keys: IKeyStore) -> None:
        self._keys = keys

    async def authenticate(self, token: str) -> Principal | None:
        """See `IAuthenticator`."""
        wanted = token_hash(token)
        for principal in await self._keys.principals():
            if principal.token_hash == wanted:
                return principal
        return None


async def available(reactor: Any) -> str:
    """See `IAuthenticatorFactory`: it always is."""
    return ""


async def create(reactor: Any, settings: Any, keys: IKeyStore) -> IAuthenticator:
    """See `IAuthenticatorFactory`."""
    return KeyAuthenticator(keys)
