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
from registry.replication.hash_tree import DIGEST

MAX_PEERS: Final = 256
MAX_OF_A_PEER: Final = 4096
MAX_ENTRIES: Final = 65_536  # of indexes, all peers' together; 200 bytes each
REMEMBERED_FOR: Final = 6 * 3600.0  # seconds
NO_KEY: Final = b"no key"
"""In the place of a key's digest where neither this node nor the peer tells of one: the peer may get one meanwhile."""


class Refusals:
    """Values by the peer that refused them."""

    def __init__(self) -> None:
        self._of: LRUCache[str, TTLCache[bytes, tuple[str, bytes]]] = LRUCache(MAX_PEERS)

    def __len__(self) -> int:
        return sum(len(refused) for refused in self._of.values())

    def remember(self, peer_id: str, key_id: str, value: KeyOrTombstone | State, under: bytes = b"") -> None:
        """The peer won't take a value of this resource. `under`: the digest of the key by whose policy, if it was for
        that: of its own, where that is greater than ours; `NO_KEY` where nobody told of any."""
        refused = self._of.get(peer_id)
        if refused is None:
            refused = self._of[peer_id] = TTLCache(MAX_OF_A_PEER, REMEMBERED_FOR, timer=trio.current_time)
        refused[digest_of(value)] = key_id, under

    def forget(self, peer_id: str, value: KeyOrTombstone | State) -> None:
        """The peer has it after all."""
        if peer_id in self._of:
            self._of[peer_id].pop(digest_of(value), None)

    def knows(self, peer_id: str, value: KeyOrTombstone | State, ruling: bytes = b"") -> bool:
        """Whether the peer refused a value lately; `ruling`: the digest of the key by whose policy it decides now."""
        _, under = self._of[peer_id].get(digest_of(value), ("", None)) if peer_id in self._of else ("", None)
        return under in (b"", ruling)

    def of(self, peer_id: str) -> Mapping[str, Mapping[bytes, bytes]]:
        """The digests of what a peer refused, per resource, each with that of the key by whose policy, or empty."""
        found: dict[str, dict[bytes, bytes]] = {}
        for digest, (key_id, under) in self._of[peer_id].items() if peer_id in self._of else ():
            found.setdefault(key_id, {})[digest] = under
        return found


class RefusedEntries:
    """Entries of owners' indexes by the peer that refused them: one whose owner has as many there already, say."""

    def __init__(self) -> None:
        self._known: TTLCache[tuple[str, bytes], None] = TTLCache(MAX_ENTRIES, REMEMBERED_FOR, timer=trio.current_time)
        self._peers: TTLCache[str, None] = TTLCache(MAX_ENTRIES, REMEMBERED_FOR, timer=trio.current_time)

    def remember(self, peer_id: str, digest: bytes) -> None:
        """The peer won't take an entry with this digest."""
        self._known[peer_id, digest[:DIGEST]] = None
        self._peers[peer_id] = None

    def has_any(self, peer_id: str) -> bool:
        """Whether the peer refused anything lately."""
        return peer_id in self._peers

    def knows(self, peer_id: str, digest: bytes) -> bool:
        """Whether the peer refused an entry lately; the digest as it stands in a tree will do."""
        return (peer_id, digest[:DIGEST]) in self._known


def without(resource: ResourceState, refusals: Mapping[bytes, bytes]) -> ResourceState:
    """A resource but for the values of these digests, as far as they were refused under its key or any."""
    key = resource.key
    ruling = digest_of(key) if key is not None else NO_KEY
    refused = {digest for digest, under in refusals.items() if under in (b"", ruling)}
    return ResourceState(
        key=None if key is None or digest_of(key) in refused else key,
        slots={slot: state for slot, state in resource.slots.items() if digest_of(state) not in refused},
        key_tombstones=tuple(each for each in resource.key_tombstones if digest_of(each) not in refused),
    )
