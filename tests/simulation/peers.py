"""Whole peers of the overlay over the simulated internet: what a scenario's nodes are joined by."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from overlay.errors import Refusal
from overlay.identity import Identity
from overlay.libp2p.kad import KadRouting
from overlay.peer import OverlayPeer
from overlay.rpc.server import Handler
from overlay.settings import OverlaySettings
from overlay.tasks import background
from registry.codes import Code
from registry.protocol.messages import parse
from registry.protocol.network import Clock
from registry.replication.messages import REPLICATE, ReplicateBody
from tests.simulation.host import open_host
from tests.simulation.internet import Internet

SILENTLY = 0.3
"""Part of the crashes in which a host loses its power."""


RETRY_AFTER = 2.0
"""Seconds after which who has too much to do says that one may come back."""


class BusyPeer(OverlayPeer):
    """A peer that refuses all that others ask of its registry while it has too much to do."""

    busy: Callable[[str], bool] = staticmethod(lambda peer_id: False)
    """Whether a peer has too much to do."""
    note_call: Callable[[str, str, object], None] = staticmethod(lambda method, caller, body: None)
    """Is told of each call."""

    def serve(self, method: str, handler: Handler, *, relayed: bool = False) -> None:
        """See `OverlayPeer.serve`."""

        async def answer(caller: str, body: object) -> object:
            if self.busy(self.peer_id):
                raise Refusal(Code.OVERLOADED, "too much to do", RETRY_AFTER)
            self.note_call(method, caller, body)
            return await handler(caller, body)

        super().serve(method, answer, relayed=relayed)


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
        self.busy: set[str] = set()
        """Peers that have too much to do."""
        self.repairs = 0
        """Items that honest replicas sent each other after they had compared."""

    @asynccontextmanager
    async def joined(self, identity: Identity, clock: Clock, randomness: random.Random) -> AsyncIterator[OverlayPeer]:
        """A peer that is new, or back, until it ends or is said to have crashed."""
        async with open_host(self, identity.peer_id, self.settings) as host, background() as nursery:
            routing = KadRouting(host, self.settings, serve=True)
            peer = BusyPeer(host, routing, identity, self.settings, clock=clock, randomness=randomness)
            peer.busy = lambda peer_id: peer_id in self.busy
            peer.note_call = self._note_call
            self.peers[identity.peer_id] = peer
            await nursery.start(peer.run)
            yield peer

    def _note_call(self, method: str, caller: str, body: object) -> None:
        if method == REPLICATE and caller in self.peers:
            self.repairs += len(parse(body, ReplicateBody).items)

    def crash(self, peer_id: str) -> None:
        """kill -9 of a peer's process, or the end of its host's power."""
        self.hosts[peer_id].lose(silently=self.random.random() < SILENTLY)
        del self.peers[peer_id]
