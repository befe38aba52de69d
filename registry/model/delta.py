"""What one replica knows of a resource that another doesn't."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from registry.model.merge import ResourceState
from registry.model.values import KeyOrTombstone, State

KeyOrder = tuple[int, bytes]
"""How keys and key tombstones are ordered: see `Key.order`."""
StateOrder = tuple[int, int, int, bytes]
"""How the states of a slot are ordered: see `Record.order`."""


class Orders(NamedTuple):
    """What a replica knows of a resource, without the values: the order of each. `states` by issuer and host."""

    key: KeyOrder | None
    key_tombstone: KeyOrder | None
    states: Mapping[tuple[str, str], StateOrder]

    @classmethod
    def of(cls, resource: ResourceState) -> Orders:
        """The orders of all that `resource` has."""
        return cls(
            resource.key.order() if resource.key is not None else None,
            resource.key_tombstone.order() if resource.key_tombstone is not None else None,
            {(slot.issued_by, slot.peer_id): state.order() for slot, state in resource.slots.items()},
        )


def delta(mine: ResourceState, theirs: Orders) -> list[tuple[KeyOrTombstone, State | None]]:
    """The writes that bring a replica that knows `theirs` to `mine`, or beyond."""
    writes: list[tuple[KeyOrTombstone, State | None]] = []
    if mine.key_tombstone is not None and (
        theirs.key_tombstone is None or theirs.key_tombstone < mine.key_tombstone.order()
    ):
        writes.append((mine.key_tombstone, None))
    key_or_tombstone = mine.key or mine.key_tombstone
    if key_or_tombstone is None:  # states whose key and key tombstone have gone: nobody takes them
        return writes
    states: list[State] = []
    for slot in sorted(mine.slots):
        order = theirs.states.get((slot.issued_by, slot.peer_id))
        if order is None or order < mine.slots[slot].order():
            states.append(mine.slots[slot])
    if mine.key is not None and not states and (theirs.key is None or theirs.key < mine.key.order()):
        writes.append((mine.key, None))
    writes.extend((key_or_tombstone, state) for state in states)
    return writes
