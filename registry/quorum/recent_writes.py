"""What was written through this node in the last minute, so that its own clients never read an older state.

A write is successful once some replicas have it; whom a read asks may not have it yet.
"""

from __future__ import annotations

import math
from typing import Final

import trio
from cachetools import TTLCache

from registry.model.merge import ResourceState, merged
from registry.model.owner_index import IndexEntry, ToldPage
from registry.model.values import Slot
from registry.protocol.messages import Item

REMEMBERED_FOR: Final = 60.0  # seconds
MAX_BYTES: Final = 16 * 2**20  # of all items, each counted with `OVERHEAD`: so their number is bounded too
OVERHEAD: Final = 1024  # bytes
MAX_SLOTS: Final = 64  # of one resource, the last ones written
MAX_OWNERS: Final = 1024  # whose entries are remembered
MAX_ENTRIES: Final = 256  # of one owner, the last ones written

_Written = dict[Slot | tuple[type, int], tuple[float, Item]]
"""By slot, or the type and revision of a key or key tombstone: when it was written, and what."""


class RecentWrites:
    """Items that verified and that some replica has stored, for a minute each."""

    def __init__(self) -> None:
        self._written: TTLCache[str, _Written] = TTLCache(
            MAX_BYTES, REMEMBERED_FOR, timer=trio.current_time, getsizeof=_size
        )

    def remember(self, item: Item) -> None:
        """Has `item` be part of `of` from now on."""
        written = _lately(self._written.get(item.key_id, {}))
        alone = item.key_or_tombstone
        slot = item.state.slot if item.state is not None else (type(alone), alone.revision)
        _, before = written.pop(slot, (0.0, item))
        written[slot] = (trio.current_time(), _greater(before, item))  # at the end
        while len(written) > MAX_SLOTS:
            del written[next(iter(written))]
        self._written[item.key_id] = written

    def of(self, key_id: str, until: float = math.inf) -> ResourceState:
        """The merge of what was written of a resource lately, but for what says that it was signed after `until`
        (seconds): while this machine's clock was wrong it took what no other takes."""
        state = ResourceState()
        for _, item in _lately(self._written.get(key_id, {})).values():
            if item.dated() <= until:
                state = merged(state, item.as_resource())
        return state


class RecentEntries:
    """Entries of owners' indexes that were written through this node, for a minute each: those who keep an index get
    them in a moment."""

    def __init__(self) -> None:
        self._of_owners: TTLCache[str, dict[str, tuple[float, IndexEntry]]] = TTLCache(
            MAX_OWNERS, REMEMBERED_FOR, timer=trio.current_time
        )

    def remember(self, item: Item) -> None:
        """Has a key or key tombstone be part of `after` from now on."""
        entry, now = IndexEntry.of(item.key_or_tombstone), trio.current_time()
        of_owner = self._of_owners.get(entry.owner_peer_id, {})
        _, known = of_owner.pop(entry.label, (now, entry))
        of_owner[entry.label] = now, known.merged(entry)  # at the end
        if len(of_owner) > MAX_ENTRIES:
            del of_owner[next(iter(of_owner))]
        self._of_owners[entry.owner_peer_id] = of_owner

    def after(self, owner_peer_id: str, label: str | None) -> ToldPage:
        """An owner's whose labels follow this one."""
        earliest = trio.current_time() - REMEMBERED_FOR
        entries = [entry for at, entry in self._of_owners.get(owner_peer_id, {}).values() if at > earliest]
        following = (entry for entry in entries if label is None or entry.label > label)
        return ToldPage(sorted(following, key=lambda entry: entry.label), None)


def _greater(one: Item, other: Item) -> Item:
    """Of two writes of one slot, two keys, or two key tombstones, the one that wins."""
    if one.state is not None and other.state is not None:
        return one if one.state.order() > other.state.order() else other
    first, second = one.as_resource(), other.as_resource()
    both = merged(first, second)
    return one if (both.key, both.key_tombstone) == (first.key, first.key_tombstone) else other


def _lately(written: _Written) -> _Written:
    earliest = trio.current_time() - REMEMBERED_FOR
    return {slot: entry for slot, entry in written.items() if entry[0] > earliest}


def _size(written: _Written) -> int:
    return sum(item.size() + OVERHEAD for _, item in written.values())
