"""Whole peers of the overlay over the simulated internet: what a scenario's nodes are joined by."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from overlay.identity import Identity
from overlay.libp2p.kad import KadRouting
from overlay.peer import OverlayPeer
from overlay.settings import OverlaySettings
from overlay.tasks import background
from registry.protocol.network import Clock
from tests.simulation.host import open_host
from tests.simulation.internet import Internet

SILENTLY = 0.3
"""Part of the crashes in which a host loses its power."""


class PeerNetwork(Internet):
    """Peers that find each other by themselves, through a few of them."""

    def __init__(
        self,
        randomness: random.Random,
        settings: OverlaySettings,
        bootstrap: Sequence[str],
        note: Callable[[str], None] = lambda event: None,
    ) -> None:
        """`bootstrap`: ids of those through whom all join."""
        super().__init__(randomness, note)
        addresses = tuple(f"{self.address_of(peer_id)}/p2p/{peer_id}" for peer_id in bootstrap)
        self.settings = msgspec.structs.replace(settings, bootstrap=addresses)
        self.peers: dict[str, OverlayPeer] = {}

    @asynccontextmanager
    async def joined(self, identity: Identity, clock: Clock, randomness: random.Random) -> AsyncIterator[OverlayPeer]:
        """A peer that is new, or back, until it ends or is said to have crashed."""
        async with open_host(self, identity.peer_id, self.settings) as host, background() as nursery:
            routing = KadRouting(host, self.settings, serve=True)
            peer = OverlayPeer(host, routing, identity, self.settings, clock=clock, randomness=randomness)
            self.peers[identity.peer_id] = peer
            await nursery.start(peer.run)
            yield peer

    def crash(self, peer_id: str) -> None:
        """kill -9 of a peer's process, or the end of its host's power."""
        self.hosts[peer_id].lose(silently=self.random.random() < SILENTLY)
        del self.peers[peer_id]
