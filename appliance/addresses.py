"""Which addresses are of the house, and which can only be outside it. Imports the standard library only."""

from __future__ import annotations

import ipaddress

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# A list of our own: `is_private` of Python's holds link-local addresses too, among them the one at which clouds
# tell machines their credentials, and 0.0.0.0, which is another way to say this very host.
_PRIVATE = [
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128"
    )
]  # fmt: skip
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given out. Outside it lie, among others, addresses that once were local to a site."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Holds the IPv4 address to which it leads, on networks that speak IPv6 only."""
# They hold an IPv4 address to which a translator on the way leads: 6to4, Teredo.
_TRANSLATED = [ipaddress.ip_network(network) for network in ("2002::/16", "2001::/32")]


def with_port(host: str, port: int) -> str:
    """`host:port`, as people write it: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_private(address: str) -> bool:
    """Whether an IP address is of the house. Raises `ValueError` for anything else."""
    found = _parse(address)
    return any(found in network for network in _PRIVATE)


def is_public(address: str) -> bool:
    """Whether an IP address is of the internet at large: not private, link-local or reserved, nor a detour to such.

    Raises `ValueError` for anything else.
    """
    found = _parse(address)
    if found in _NAT64:
        found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    if isinstance(found, ipaddress.IPv6Address):
        return found.is_global and found in _GLOBAL_UNICAST and not any(found in network for network in _TRANSLATED)
    return found.is_global and not found.is_multicast


def _parse(address: str) -> _Address:
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
