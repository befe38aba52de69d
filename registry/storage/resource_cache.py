"""Resources as of the last commit, in memory, bounded in number and in bytes."""

from __future__ import annotations

from collections import OrderedDict
from types import MappingProxyType
from typing import Final

from registry.model.merge import ResourceState
from registry.model.values import KeyOrTombstone, State, encode
from registry.storage.transaction import Change

CACHED_RESOURCES: Final = 4096
CACHED_BYTES: Final = 2 * 2**20  # of cached resources in CBOR; as objects they take five times as much


class ResourceCache:
    """Forgets what was used longest ago."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[ResourceState, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key_id: str) -> ResourceState | None:
        entry = self._entries.get(key_id)
        if entry is None:
            return None
        self._entries.move_to_end(key_id)
        return entry[0]

    def remember(self, key_id: str, resource: ResourceState) -> None:
        self._put(key_id, resource, resource.size())

    def apply(self, key_id: str, change: Change) -> None:
        """Brings a resource, if it is here, to what was committed."""
        entry = self._entries.get(key_id)
        if entry is None:
            return
        known, size = entry
        key = change.key if change.key_changed else known.key
        key_tombstone = change.key_tombstone if change.key_tombstone_changed else known.key_tombstone
        size += _size(key) - _size(known.key) + _size(key_tombstone) - _size(known.key_tombstone)
        slots = dict(known.slots)
        for slot, state in change.slots.items():
            # The size is kept up by differences: adding a whole resource up costs a millisecond per write.
            size += _size(state) - _size(slots.pop(slot, None))
            if state is not None:
                slots[slot] = state
        self._put(key_id, ResourceState(key=key, slots=MappingProxyType(slots), key_tombstone=key_tombstone), size)

    def _put(self, key_id: str, resource: ResourceState, size: int) -> None:
        self._forget(key_id)
        self._entries[key_id] = resource, size
        self.bytes += size
        while len(self._entries) > CACHED_RESOURCES or self.bytes > CACHED_BYTES:
            self._forget(next(iter(self._entries)))

    def _forget(self, key_id: str) -> None:
        _, size = self._entries.pop(key_id, (None, 0))
        self.bytes -= size


def _size(value: KeyOrTombstone | State | None) -> int:
    return len(encode(value)) if value is not None else 0
