"""A full node: a member of the network that stores its share of it, and the registry for its own identity."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
import trio
from overlay.peer import OverlayPeer, open_peer

from overlay.identity import Identity
from registry.data_folder import claimed
from registry.door import LocalDoor
from registry.doorway import open_doorway
from registry.hosting import Host
from registry.issuing import IssueLog
from registry.network import Clock
from registry.outbox import Outbox
from registry.reading import Reader
from registry.registry import Registry
from registry.replica import Replica
from registry.service import RegistryService
from registry.service.invocation import Invocation
from registry.settings import NodeSettings
from registry.shelf import StoreShelf
from registry.status import NodeStatus
from registry.storage import Store, open_store
from registry.weights import Weights
from registry.writing import Writer

DATABASE: Final = "registry.sqlite"
CATCH_UP: Final = 2.0  # seconds after joining at which a node's own state answers alone

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Node:
    """Use `open_node`."""

    def __init__(
        self, peer: OverlayPeer, registry: Registry, service: RegistryService, store: Store, clock: Clock
    ) -> None:
        self.peer = peer
        self.registry = registry
        self.service = service
        self._store = store
        self._clock = clock
        self._started = trio.current_time()

    async def status(self) -> NodeStatus:
        """A snapshot of this node."""
        return await node_status(self.peer, self._store, self._started)


@asynccontextmanager
async def open_node(
    identity: Identity, settings: NodeSettings, data_dir: Path, *, clock: Clock = time.time
) -> AsyncIterator[Node]:
    """Runs a node while the context is open. It may still be joining: see `node.peer.wait_joined`.

    Raises StorageError for a folder that can't be used, overlay.errors.OverlayError for addresses that can't.
    """
    started = trio.current_time()
    with claimed(data_dir):
        async with (
            open_store(data_dir / DATABASE) as store,
            open_peer(identity, settings.overlay) as peer,
            trio.open_nursery() as nursery,
        ):
            service = RegistryService(store, identity.peer_id, settings.registry)
            weights = Weights(settings.weights)
            replica = Replica(peer, store, service, weights, clock)
            outbox = Outbox(peer)
            writer = Writer(peer, replica, outbox)
            reader = Reader(peer, replica, clock)
            shelf = StoreShelf(store, replica, identity.peer_id)
            host = Host(peer, identity, shelf, settings.registry, clock)
            invocation = Invocation(service, identity.peer_id, weights, clock, replica.is_responsible)

            async def status() -> NodeStatus:
                return await node_status(peer, store, started)

            door = LocalDoor(peer, writer, reader, host, invocation, settings.registry.neighbourhood_size, status)
            open_doorway(peer, door)
            await nursery.start(outbox.run)
            await nursery.start(writer.run)
            nursery.start_soon(_catch_up, peer, reader, settings)
            registry = Registry(identity, door, host, IssueLog(store), settings.registry, clock)
            yield Node(peer, registry, service, store, clock)
            nursery.cancel_scope.cancel()


async def node_status(peer: OverlayPeer, store: Store, started: float) -> NodeStatus:
    """What a node tells of itself."""
    keys, records, tombstones = await store.read(lambda transaction: transaction.counts())
    return NodeStatus(
        peer_id=peer.peer_id,
        addresses=tuple(peer.addresses()),
        members=tuple(peer.members()),
        keys=keys,
        records=records,
        tombstones=tombstones,
        uptime=round(trio.current_time() - started, 3),
        ready=peer.ready,
        overlay=peer.statistics(),
    )


async def _catch_up(peer: OverlayPeer, reader: Reader, settings: NodeSettings) -> None:
    """A node that was away may have missed writes: its own state doesn't answer alone at once."""
    await peer.wait_joined()
    if settings.overlay.bootstrap:
        await trio.sleep(CATCH_UP)
    reader.is_caught_up = True
