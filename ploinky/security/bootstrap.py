"""Who may claim a new server: someone on its own machine, or who reads its first log line."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Sequence

from ploinky.security.tokens import BOOTSTRAP, mint, token_hash


class BootstrapToken:
    """One token that allows `init` from elsewhere; it lives in memory, as a hash.

    Args:
        random_bytes: Gives that many unpredictable bytes.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._hash = ""

    def mint(self) -> str:
        """Give a new token to be printed once; one given earlier is void."""
        token = mint(BOOTSTRAP, self._random_bytes)
        self._hash = token_hash(token)
        return token

    def admits(self, token: str) -> bool:
        """Tell whether this is the token."""
        return bool(self._hash) and hmac.compare_digest(self._hash, token_hash(token))

    def spend(self) -> None:
        """Make the token void."""
        self._hash = ""


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address, with or without a port, is this very machine.

    Names are taken by what they say, not by what they resolve to: whoever owns a name can let
    it resolve to 127.0.0.1 in another's browser.
    """
    name = _without_port(host.strip().lower()).rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if address.version == 6 else None
    return (mapped or address).is_loopback


def comes_from_here(forwarded_for: Sequence[str], host: str, proxied: bool) -> bool:
    """Tell whether a request was made on this machine, to this machine.

    Args:
        forwarded_for: The addresses it came through; only the gateway's own entry is expected.
        host: Its ``Host`` field: a page elsewhere cannot make a browser say ``localhost`` here.
        proxied: Whether it bears any other mark of a proxy.
    """
    return (
        not proxied
        and len(forwarded_for) == 1
        and is_loopback(forwarded_for[0])
        and is_loopback(host)
    )


def _without_port(host: str) -> str:
    if host.startswith("["):
        address, bracket, _ = host[1:].partition("]")
        return address if bracket else ""
    return host.partition(":")[0] if host.count(":") == 1 else host
