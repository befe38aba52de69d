"""Names of hosts in multiaddrs, which the operating system's resolver knows: search domains, /etc/hosts, `localhost`.

libp2p asks name servers alone.
"""

from __future__ import annotations

import socket
from typing import Final

import structlog
import trio

from overlay.discovery.address_range import host_of

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_FAMILIES: Final = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}


def is_named(multiaddr: str) -> bool:
    """Whether a multiaddr has a host's name in place of a number."""
    return host_of(multiaddr)[0] in _FAMILIES


async def numbers_of(multiaddr: str) -> list[str]:
    """The same multiaddr with each number that its name stands for, in the resolver's order; none where it isn't known.

    One without a name stands for itself.
    """
    protocol, host = host_of(multiaddr)
    if protocol not in _FAMILIES:
        return [multiaddr]
    try:
        found = await trio.socket.getaddrinfo(host, None, _FAMILIES[protocol], socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        log.debug("a name isn't known", name=host[:100], error=repr(error)[:100])
        return []
    rest = multiaddr.removeprefix(f"/{protocol}/{host}")
    numbers = dict.fromkeys(str(entry[4][0]) for entry in found)
    return [f"/ip6/{number}{rest}" if ":" in number else f"/ip4/{number}{rest}" for number in numbers]
