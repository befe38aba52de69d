"""Which part of the internet an IP address belongs to: everybody's, or one that means another network everywhere."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

GLOBAL: Final = "global"
LOOPBACK: Final = "loopback"
UNUSABLE: Final = "unusable"
"""Nobody is there: multicast, unspecified, reserved."""
OTHER: Final = "other"
"""Not everybody's, and none of those below."""

_PRIVATE: Final = [
    ip_network(network)
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    )
]


def address_range(address: str) -> str:
    """`GLOBAL`, `LOOPBACK`, `UNUSABLE`, a private network such as "10.0.0.0/8", or `OTHER`.

    Raises ValueError for what is no IP address.
    """
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_loopback:
        return LOOPBACK
    if parsed.is_multicast or parsed.is_unspecified:
        return UNUSABLE
    private = next((net for net in _PRIVATE if net.version == parsed.version and parsed in net), None)
    if private is not None:
        return str(private)
    if parsed.is_reserved:
        return UNUSABLE
    return GLOBAL if parsed.is_global else OTHER


def host_of(multiaddr: str) -> tuple[str, str]:
    """The protocol and the value that a multiaddr begins with, as ("ip4", "192.0.2.1") or ("dns4", "node.example")."""
    _, protocol, value, *_ = *multiaddr.split("/"), "", "", ""
    return protocol, value
