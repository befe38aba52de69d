"""Fault: the peer store forgets its own host's private key once it knows more than 1,000 peers.

`PeerStore._enforce_peer_limit` evicts entries without addresses first, and the host's own entry has none; afterwards
the host can sign nothing, so identify, gossip and Kad fail until a restart.

Remove when the own entry is exempt from eviction.
"""

from __future__ import annotations

from collections.abc import Sequence

from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from multiaddr import Multiaddr  # type: ignore[import-untyped]


class LastingPeerStore(PeerStore):
    """A peer store of at most `max_peers` peers that keeps the host's own keys."""

    def __init__(self, key_pair: KeyPair, max_peers: int) -> None:
        super().__init__(max_records=2 * max_peers, max_peers=max_peers)
        self._own_id = ID.from_pubkey(key_pair.public_key)
        self._own_key_pair = key_pair

    def add_addrs(self, peer_id: ID, addrs: Sequence[Multiaddr], ttl: int = 0) -> None:
        """Remember addresses of a peer, and restore our own keys if that pushed them out."""
        super().add_addrs(peer_id, addrs, ttl)
        if not self.has_peer(self._own_id):
            self.add_key_pair(self._own_id, self._own_key_pair)
