"""Our calls: a service of a node that is called directly, and one of a light client that is called through its node.

As a process: `python -m benchmarks.call_methods.ours [NODE]` serves as a node, or as a light client of `NODE`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from aqua_compat import ServiceLimits, connect, node
from aqua_compat.cli.node_process import NodeProcess
from aqua_compat.rpc.client import OnPeer
from benchmarks.call_methods.method import CALL_TIMEOUT, CONCURRENCY, Measure, measured, serve_until_told, server

LIMITS = ServiceLimits(concurrency=CONCURRENCY)
RELAY_RULES = (
    f"[overlay.relaying]\nmax_by_caller = {CONCURRENCY}\nmax_to_target = {CONCURRENCY}\nmax_between = {CONCURRENCY}\n"
)


class Echo:
    """The service that is called."""

    async def echo(self, payload: bytes) -> bytes:
        """Returns what it is given."""
        return payload


@asynccontextmanager
async def direct() -> AsyncIterator[Measure]:
    """A light client calls the node that it is linked with."""
    async with server("ours") as address, connect(address) as caller:
        yield measured(partial(_echo, caller.on(peer_of(address), timeout=CALL_TIMEOUT)))


@asynccontextmanager
async def relayed() -> AsyncIterator[Measure]:
    """A light client calls another one of the same node, all three in processes of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "relay.toml").write_text(RELAY_RULES)
        relay = NodeProcess(folder / "node", folder / "log")
        await relay.start("--listen", "/ip4/127.0.0.1/tcp/0", "--config", str(folder / "relay.toml"))
        try:
            async with server("ours", relay.address) as provider, connect(relay.address) as caller:
                yield measured(partial(_echo, caller.on(provider, via=relay.peer_id, timeout=CALL_TIMEOUT)))
        finally:
            with trio.CancelScope(shield=True):
                await relay.stop()


def peer_of(address: str) -> str:
    """The peer id in a multiaddr."""
    return address.rpartition("/p2p/")[2]


async def _echo(peer: OnPeer, payload: bytes) -> bytes:
    return await peer.call("echo", "echo", payload, returns=bytes)


async def serve(relay: str | None = None) -> None:
    """Answers callers until told to end: as a node, or through the `relay` at this address."""
    if relay is not None:
        async with connect(relay) as provider:
            provider.serve("echo", Echo(), limits=LIMITS)
            await serve_until_told(provider.peer_id)
        return
    with tempfile.TemporaryDirectory() as folder:
        async with node(Path(folder)) as provider:
            provider.serve("echo", Echo(), limits=LIMITS)
            identified = await provider.on(provider.peer_id).call("peer", "identify")
            await serve_until_told(identified["external_addresses"][0])


if __name__ == "__main__":
    trio.run(serve, *sys.argv[1:])
