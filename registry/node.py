"""Runs a full node: a member of the network that stores its share of it, and the registry for its own identity."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from overlay.assembly import open_peer
from overlay.identity import Identity
from overlay.peer import OverlayPeer
from registry.assembly import Parts, assembled
from registry.client.certificate_files import CertificateFiles
from registry.client.node_status import DiskStatus, NodeStatus
from registry.errors import NodeUnavailable
from registry.protocol.network import Clock
from registry.settings import NodeSettings
from registry.storage import Store, open_store
from registry.storage.data_folder import claimed

DATABASE: Final = "registry.sqlite"


class Node:
    """A running node; made by `open_node`."""

    def __init__(
        self, peer: OverlayPeer, store: Store, parts: Parts, particles: Callable[[], dict[str, float]] | None
    ) -> None:
        self.peer = peer
        self.store = store
        self.parts = parts
        self.registry = parts.registry
        self.service = parts.service
        self.upkeep = parts.upkeep
        self._started = trio.current_time()
        self._particles = particles

    async def status(self) -> NodeStatus:
        """A snapshot of this node. Raises StorageError."""
        watching = self.parts.watches.statistics()
        (keys, records, tombstones), used = await self.store.read(
            lambda transaction: (transaction.counts.totals(), transaction.used_bytes())
        )
        space = self.store.space
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
            caught_up=self.parts.replica.is_caught_up,
            lacking=self.parts.replica.behind.causes(),
            replication=self.parts.replication.status(),
            schedules=self.upkeep.status(),
            topics=self.peer.topics.statistics(),
            subscriptions=self.parts.subscriptions.count(),
            watched=watching.resources,
            sources=watching.sources,
            disk=DiskStatus(
                used,
                self.parts.replica.settings.max_disk_bytes,
                space.is_full,
                space.refused,
                space.gave_way,
                self.store.damaged,
            ),
            particles=self._particles() if self._particles is not None else None,
            clock=self.peer.compared_clock.verdict(),
            network=self.peer.network_status(),
            versions=self.peer.versions(),
        )


@asynccontextmanager
async def open_node(
    identity: Identity,
    settings: NodeSettings,
    data_dir: Path,
    *,
    clock: Clock = time.time,
    particles: Callable[[], dict[str, float]] | None = None,
    issuers: Sequence[Identity] = (),
) -> AsyncIterator[Node]:
    """Runs a node while the context is open. It may still be joining: see `node.peer.wait_joined`.

    `particles`: what `NodeStatus.particles` tells, where the layer above serves particles. `issuers`: identities under
    which services are registered here besides the node's own (`node.parts.registries`).
    Raises StorageError for a folder that can't be used, overlay.errors.OverlayError for addresses that can't.
    """
    with claimed(data_dir):
        async with (
            open_store(data_dir / DATABASE, refill=settings.refill_damaged) as store,
            open_peer(identity, settings.overlay, clock=clock, data_dir=data_dir) as peer,
        ):
            node: Node | None = None

            async def status() -> NodeStatus:
                if node is None:  # a client was quicker than the rest of the start
                    raise NodeUnavailable("the node is starting")
                return await node.status()

            starts_network = not settings.overlay.bootstrap
            async with assembled(
                peer,
                identity,
                store,
                settings,
                status,
                clock,
                starts_network=starts_network,
                presence=peer.presence,
                issuers=issuers,
            ) as parts:
                if settings.certificates:
                    parts.registry.use_certificates(CertificateFiles([Path(settings.certificates)]))
                node = Node(peer, store, parts, particles)
                yield node
