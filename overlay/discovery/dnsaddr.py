"""The dnsaddr records of a name: TXT records that tell multiaddrs of peers, by py-multiaddr's resolver."""

from __future__ import annotations

from typing import Final

import structlog
import trio
from multiaddr import Multiaddr  # type: ignore[import-untyped]
from multiaddr.exceptions import MultiaddrError  # type: ignore[import-untyped]

from overlay.discovery.address_book import parse_peer_address
from overlay.errors import AddressError, BootstrapFailed

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_TIMEOUT: Final = 10.0  # seconds
_DEEPEST: Final = 4  # names that tell names


async def look_up_dnsaddr(name: str) -> list[str]:
    """The multiaddrs with peer ids that the records of a name tell. Raises `BootstrapFailed` where nobody tells."""
    # Few need these, and they import all of dnspython.
    from dns.exception import DNSException  # noqa: PLC0415
    from multiaddr.resolvers import DNSResolver  # type: ignore[import-untyped]  # noqa: PLC0415

    why = f"its name servers didn't answer within {_TIMEOUT:g} s"
    found: list[Multiaddr] | None = None
    with trio.move_on_after(_TIMEOUT):
        try:
            found = await DNSResolver().resolve(Multiaddr(f"/dnsaddr/{name}"), {"max_recursive_depth": _DEEPEST})
        except DNSException as error:  # as where /etc/resolv.conf is missing, or names no server
            why = f"this machine's resolver: {error}"
        except (MultiaddrError, OSError, ValueError) as error:
            why = str(error)
    if found is None:
        raise BootstrapFailed(f"the dnsaddr records of {name} can't be had: {why}")
    addresses: list[str] = []
    for each in found:
        try:
            transport, peer_id = parse_peer_address(str(each))
        except AddressError as error:
            log.debug("a dnsaddr record is of no use", name=name[:100], error=str(error)[:200])
        else:
            addresses.append(f"{transport}/p2p/{peer_id}")
    return list(dict.fromkeys(addresses))
