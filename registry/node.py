"""A full node: a member of the network that stores its share of it, and the registry for its own identity."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from overlay.identity import Identity
from overlay.peer import OverlayPeer, open_peer
from registry.assembly import assembled
from registry.background import background
from registry.data_folder import claimed
from registry.network import Clock
from registry.reading import Reader
from registry.registry import Registry
from registry.service import RegistryService
from registry.settings import NodeSettings
from registry.status import NodeStatus
from registry.storage import Store, open_store

DATABASE: Final = "registry.sqlite"
CATCH_UP: Final = 2.0  # seconds after joining at which a node's own state answers alone


class Node:
    """Use `open_node`."""

    def __init__(self, peer: OverlayPeer, store: Store) -> None:
        self.peer = peer
        self.registry: Registry
        self.service: RegistryService
        self._store = store
        self._started = trio.current_time()

    async def status(self) -> NodeStatus:
        """A snapshot of this node. Raises StorageError."""
        keys, records, tombstones = await self._store.read(lambda transaction: transaction.counts())
        return NodeStatus(
            peer_id=self.peer.peer_id,
            addresses=tuple(self.peer.addresses()),
            members=tuple(self.peer.members()),
            keys=keys,
            records=records,
            tombstones=tombstones,
            uptime=round(trio.current_time() - self._started, 3),
            ready=self.peer.ready,
            overlay=self.peer.statistics(),
        )


@asynccontextmanager
async def open_node(
    identity: Identity, settings: NodeSettings, data_dir: Path, *, clock: Clock = time.time
) -> AsyncIterator[Node]:
    """Runs a node while the context is open. It may still be joining: see `node.peer.wait_joined`.

    Raises StorageError for a folder that can't be used, overlay.errors.OverlayError for addresses that can't.
    """
    with claimed(data_dir):
        async with open_store(data_dir / DATABASE) as store, open_peer(identity, settings.overlay) as peer:
            node = Node(peer, store)
            async with assembled(peer, identity, store, settings, node.status, clock) as parts:
                node.registry, node.service = parts.registry, parts.service
                async with background() as nursery:
                    nursery.start_soon(_catch_up, peer, parts.reader, settings)
                    yield node


async def _catch_up(peer: OverlayPeer, reader: Reader, settings: NodeSettings) -> None:
    """A node that was away may have missed writes: its own state doesn't answer alone at once."""
    await peer.wait_joined()
    if settings.overlay.bootstrap:
        await trio.sleep(CATCH_UP)
    reader.is_caught_up = True
