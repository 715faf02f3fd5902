"""Bearer tokens: made here, and known everywhere else by their hash alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

API_KEY = "pk_"
SESSION = "ps_"
BOOTSTRAP = "pb_"
HOOK = "ph_"

_TOKEN_BYTES = 32


def mint(kind: str, random_bytes: Callable[[int], bytes]) -> str:
    """Give a new token: ``kind``, then 43 URL-safe characters that hold 256 bits."""
    return kind + base64.urlsafe_b64encode(random_bytes(_TOKEN_BYTES)).rstrip(b"=").decode()


def token_hash(token: str) -> str:
    """Give the hex SHA-256 by which a token is kept and compared.

    Tokens are random, so there is nothing to guess that a slow hash would protect.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
