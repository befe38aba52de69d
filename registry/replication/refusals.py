"""What other replicas refused to take from this one: it isn't offered again, and left out when the two compare.

A replica whose limits are reached keeps other records than this one, for good: counted as a difference, they would be
looked for again each hour. What changes is another value, and so offered; and after some hours a peer may have room.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio
from cachetools import LRUCache, TTLCache

from registry.model.merge import ResourceState
from registry.model.values import KeyOrTombstone, State, digest_of

MAX_PEERS: Final = 256
MAX_OF_A_PEER: Final = 4096
REMEMBERED_FOR: Final = 6 * 3600.0  # seconds


class Refusals:
    """Values by the peer that refused them."""

    def __init__(self) -> None:
        self._of: LRUCache[str, TTLCache[bytes, str]] = LRUCache(MAX_PEERS)

    def __len__(self) -> int:
        return sum(len(refused) for refused in self._of.values())

    def remember(self, peer_id: str, key_id: str, value: KeyOrTombstone | State) -> None:
        """The peer won't take a value of this resource."""
        refused = self._of.get(peer_id)
        if refused is None:
            refused = self._of[peer_id] = TTLCache(MAX_OF_A_PEER, REMEMBERED_FOR, timer=trio.current_time)
        refused[digest_of(value)] = key_id

    def forget(self, peer_id: str, value: KeyOrTombstone | State) -> None:
        """The peer has it after all."""
        if peer_id in self._of:
            self._of[peer_id].pop(digest_of(value), None)

    def knows(self, peer_id: str, value: KeyOrTombstone | State) -> bool:
        """Whether the peer refused a value lately."""
        return peer_id in self._of and digest_of(value) in self._of[peer_id]

    def of(self, peer_id: str) -> Mapping[str, frozenset[bytes]]:
        """The digests of what a peer refused, per resource."""
        found: dict[str, set[bytes]] = {}
        for digest, key_id in self._of[peer_id].items() if peer_id in self._of else ():
            found.setdefault(key_id, set()).add(digest)
        return {key_id: frozenset(digests) for key_id, digests in found.items()}


def without(resource: ResourceState, refused: frozenset[bytes]) -> ResourceState:
    """A resource but for the values of these digests."""
    key, key_tombstone = resource.key, resource.key_tombstone
    return ResourceState(
        key=None if key is None or digest_of(key) in refused else key,
        slots={slot: state for slot, state in resource.slots.items() if digest_of(state) not in refused},
        key_tombstone=None if key_tombstone is None or digest_of(key_tombstone) in refused else key_tombstone,
    )
