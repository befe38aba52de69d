"""A stock py-libp2p KadDHT peer in a process of its own, the reference of benchmarks/registry_operations.py.

`python -m benchmarks.kad_peer [BOOTSTRAP...]` prints its address, then serves until its standard input closes.
"""

from __future__ import annotations

import logging
import sys

import trio
from libp2p import new_host
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr  # type: ignore[import-untyped]

logging.disable(logging.CRITICAL)


async def main() -> None:
    """Measures, as the command line says."""
    host = new_host()
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        dht = KadDHT(host, DHTMode.SERVER)
        async with background_trio_service(dht):
            for address in sys.argv[1:]:
                info = info_from_p2p_addr(Multiaddr(address))
                await host.connect(info)
                await dht.add_peer(info.peer_id)
            await dht.refresh_routing_table()
            print(host.get_addrs()[0], flush=True)
            await trio.lowlevel.wait_readable(sys.stdin.fileno())
            await host.close()


trio.run(main)
