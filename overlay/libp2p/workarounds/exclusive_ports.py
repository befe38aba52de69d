"""Fault: libp2p listens with SO_REUSEPORT, so a second node on a taken port starts, and each gets half of the callers.

The option is there for hole punching, but nothing tells that another process has the port (`transport/tcp/tcp.py`).

Remove when listening on a port of another process fails.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from multiaddr import Multiaddr  # type: ignore[import-untyped]


def taken_ports(addresses: Sequence[Multiaddr]) -> list[str]:
    """Those of `addresses` (`/ip4|ip6/../tcp/N`) on whose port somebody listens already."""
    return [str(address) for address in addresses if _is_taken(address)]


def _is_taken(address: Multiaddr) -> bool:
    names = [protocol.name for protocol in address.protocols()]
    port = int(address.value_for_protocol("tcp"))
    if port == 0 or names[0] not in ("ip4", "ip6"):
        return False
    family = socket.AF_INET if names[0] == "ip4" else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.value_for_protocol(names[0]), port))
        except OSError as error:
            # Anything else than a taken port is told by the real listener.
            return error.errno == errno.EADDRINUSE
    return False
