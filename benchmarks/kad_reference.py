"""How long py-libp2p's own KadDHT takes to put and get a value, over eight peers on loopback."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from libp2p import new_host
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from benchmarks.timing import Timing, timed

PATIENCE = 30.0  # seconds


async def measure(peers: int, count: int) -> tuple[Timing, Timing]:
    """Timings of `put_value` and `get_value` by a server and a client that join `peers` - 1 others."""
    logging.disable(logging.CRITICAL)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        addresses: list[str] = []
        for _ in range(peers - 1):
            process = subprocess.Popen(  # noqa: ASYNC220 - set-up, not measured
                [sys.executable, "-m", "benchmarks.kad_peer", *addresses],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            processes.append(process)
            assert process.stdout is not None
            line = await trio.to_thread.run_sync(process.stdout.readline)
            addresses.append(line.decode().strip())
        return await _measure(addresses, count)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()
        logging.disable(logging.NOTSET)


async def _measure(addresses: list[str], count: int) -> tuple[Timing, Timing]:
    # Values are kept by every server, so only a client's `get_value` asks the network.
    async with _joined(addresses, DHTMode.SERVER) as putter, _joined(addresses, DHTMode.CLIENT) as getter:

        async def put(number: int) -> bool:
            with trio.move_on_after(PATIENCE) as scope:
                await putter.put_value(f"key-{number}", b"x" * 300)
            return not scope.cancelled_caught

        async def get(number: int) -> bool:
            value = None
            with trio.move_on_after(PATIENCE):
                value = await getter.get_value(f"key-{number}")
            return value == b"x" * 300

        return await timed(put, count, 1), await timed(get, count, 1)


@asynccontextmanager
async def _joined(addresses: list[str], mode: DHTMode) -> AsyncIterator[KadDHT]:
    host = new_host()
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        dht = KadDHT(host, mode)
        async with background_trio_service(dht):
            for address in addresses:
                info = info_from_p2p_addr(Multiaddr(address))
                await host.connect(info)
                await dht.add_peer(info.peer_id)
            await dht.refresh_routing_table()
            yield dht
            await host.close()
