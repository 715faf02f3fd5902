"""Which addresses count as one client: for whoever counts, in workers and leader alike."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def client_of(address: str) -> str:
    """Give what is counted as one: an address, or the /64 network of an IPv6 address."""
    if ":" not in address:
        return address
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))
