"""Resources as of the last commit, in memory, bounded in number and in bytes."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from cachetools import LRUCache

from registry.model.merge import ResourceState
from registry.model.values import KeyOrTombstone, State, encode
from registry.storage.change import Change

CACHED_BYTES: Final = 2 * 2**20  # of cached resources in CBOR; as objects they take five times as much
SMALLEST: Final = 512  # bytes that a resource counts as at least, which bounds their number to 4096


class ResourceCache:
    """Forgets what was used longest ago. A resource larger than the whole cache is never in it."""

    def __init__(self, max_bytes: int = CACHED_BYTES) -> None:
        self._entries: LRUCache[str, tuple[ResourceState, int]] = LRUCache(
            max_bytes, getsizeof=lambda entry: max(entry[1], SMALLEST)
        )

    @property
    def bytes(self) -> int:
        """What all resources here count as."""
        return int(self._entries.currsize)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._entries

    def get(self, key_id: str) -> ResourceState | None:
        """The resource, if it is here."""
        entry = self._entries.get(key_id)
        return None if entry is None else entry[0]

    def remember(self, key_id: str, resource: ResourceState, size: int) -> None:
        """Keeps a resource as it was read from the disk. `size`: its own, which takes long to add up."""
        self._put(key_id, resource, size)

    def apply(self, key_id: str, change: Change) -> None:
        """Brings a resource, if it is here, to what was committed."""
        entry = self._entries.get(key_id)
        if entry is None:
            return
        known, size = entry
        key = change.key if change.key_changed else known.key
        siblings = known.siblings if change.siblings is None else change.siblings
        size += sum(map(_size, siblings)) - sum(map(_size, known.siblings))
        ended = change.key_tombstones if change.key_tombstones_changed else known.key_tombstones
        size += _size(key) - _size(known.key) + sum(map(_size, ended)) - sum(map(_size, known.key_tombstones))
        slots = dict(known.slots)
        for slot, state in change.slots.items():
            # The size is kept up by differences: adding a whole resource up costs a millisecond per write.
            size += _size(state) - _size(slots.pop(slot, None))
            if state is not None:
                slots[slot] = state
        self._put(key_id, ResourceState(key, MappingProxyType(slots), ended, siblings), size)

    def _put(self, key_id: str, resource: ResourceState, size: int) -> None:
        self._entries.pop(key_id, None)
        if max(size, SMALLEST) <= self._entries.maxsize:
            self._entries[key_id] = resource, size


def _size(value: KeyOrTombstone | State | None) -> int:
    return len(encode(value)) if value is not None else 0
