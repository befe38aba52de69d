"""Faults of libp2p's routing table: it isn't Kademlia's.

- It splits every full bucket, up to 256, and so after 10,000 contacts kept 4 of its own 20 nearest.
- It pings the oldest contact of a full bucket for each newcomer, over a new stream and under a lock.
- It finds a bucket by hashing the peer once per bucket.

Here only the bucket that holds our own position splits, and a full one takes a newcomer only in place of a contact that
failed. Nothing waits. Remove when `RoutingTable._should_split_bucket` looks at our own position and `KBucket.add_peer`
leaves live contacts alone.
"""

from __future__ import annotations

import time
from typing import Any, cast

from libp2p.kad_dht.routing_table import KBucket, RoutingTable, peer_id_to_key
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo


class KademliaTable(RoutingTable):
    """A routing table as in Kademlia: the nearer to us, the more contacts are known."""

    def __init__(self, local_id: ID) -> None:
        # Many nodes of one network in one data centre are the common case here, so subnets don't matter. The host is
        # what libp2p would ping and dial contacts by: nothing here does.
        super().__init__(local_id, cast("Any", None), max_peers_per_subnet=0)
        self._local_key = peer_id_to_key(local_id)
        self._failed: set[ID] = set()

    def enter(self, peer: PeerInfo) -> bool:
        """Enter a contact that lives, or refresh its entry; False where there is no place for it."""
        peer_id = peer.peer_id
        if peer_id == self.local_id:
            return False
        self._failed.discard(peer_id)
        bucket = self.find_bucket(peer_id)
        while bucket.size() >= bucket.bucket_size and not bucket.has_peer(peer_id):
            if bucket.key_in_range(self._local_key) and bucket.max_range - bucket.min_range > 1:
                place = self.buckets.index(bucket)
                self.buckets[place : place + 1] = bucket.split()
                bucket = self.find_bucket(peer_id)
                continue
            failed = next((other for other in bucket.peer_ids() if other in self._failed), None)
            if failed is None:
                return False
            self.remove_peer(failed)
        bucket.peers.pop(peer_id, None)
        bucket.peers[peer_id] = (peer, time.time())
        return True

    async def add_peer(self, peer_obj: PeerInfo | ID, *, skip_server_mode_check: bool = False) -> bool:  # noqa: ARG002
        """Enter nobody: only `enter` does, for contacts that were verified."""
        return False

    def note_failure(self, peer_id: ID) -> None:
        """A contact couldn't be reached: the next newcomer of its full bucket takes its place."""
        if self.peer_in_table(peer_id):
            self._failed.add(peer_id)

    def has_failed(self, peer_id: ID) -> bool:
        """Whether a contact couldn't be reached since it was entered last."""
        return peer_id in self._failed

    def remove_peer(self, peer_id: ID) -> bool:
        """Take a contact out; False when it wasn't in."""
        self._failed.discard(peer_id)
        return super().remove_peer(peer_id)

    def find_bucket(self, peer_id: ID) -> KBucket:
        """The bucket of a peer."""
        key = peer_id_to_key(peer_id)
        return next(bucket for bucket in self.buckets if bucket.key_in_range(key))
