"""py-libp2p's host as it comes, but for the list of security protocols: TLS alone, its fastest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libp2p import new_host
from libp2p.abc import IHost
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.security.tls.transport import PROTOCOL_ID as TLS_PROTOCOL_ID
from libp2p.security.tls.transport import TLSTransport
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from overlay.libp2p.workarounds.quiet_loggers import quieten_libp2p


@asynccontextmanager
async def stock_host() -> AsyncIterator[IHost]:
    """A host of libp2p's own that listens, while the block lasts."""
    quieten_libp2p()
    key_pair = create_new_key_pair()
    host = new_host(key_pair=key_pair, sec_opt={TLS_PROTOCOL_ID: TLSTransport(key_pair)})
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        yield host
        await host.close()
