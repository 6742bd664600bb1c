"""Whom an address stands for, where the limiter's key is a client's address."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address


@lru_cache(maxsize=4_096)
def client_network(address: str) -> str:
    """Whom an address stands for: an IPv4 address for itself, an IPv6 address for the /64 that one client is given.

    What is no address stands for itself.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Network((int(parsed), 64), strict=False))
    return address
