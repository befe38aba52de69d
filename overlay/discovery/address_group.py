"""Which peers' addresses lie so close to each other that one party is likely to run them all."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

_IPV4_BYTES: Final = 2  # of an address: what one network is mostly given at least
_IPV6_BYTES: Final = 4


def address_group(addresses: Iterable[str]) -> str:
    """The /16 of the first IPv4 address, or the /32 of an IPv6 one, among a peer's multiaddrs, or else the name of a
    host; empty when none tells."""
    for address in addresses:
        _, protocol, value, *_ = *address.split("/"), "", ""
        if protocol.startswith("dns"):
            return value.lower()
        try:
            if protocol == "ip4":
                return IPv4Address(value).packed[:_IPV4_BYTES].hex()
            if protocol == "ip6":
                parsed = IPv6Address(value)
                mapped = parsed.ipv4_mapped
                return mapped.packed[:_IPV4_BYTES].hex() if mapped else parsed.packed[:_IPV6_BYTES].hex()
        except AddressValueError:
            continue
    return ""
