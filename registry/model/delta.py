"""What one replica knows of a resource that another doesn't."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from registry.model.merge import ResourceState
from registry.model.values import KeyOrTombstone, Slot, State

KeyOrder = tuple[int, bytes, int, bytes]
"""How keys are ordered: see `Key.order`."""
KeyTombstoneOrder = tuple[int, int, bytes]
"""How key tombstones are ordered: see `KeyTombstone.order` and `KeyTombstone.lateness`."""
StateOrder = tuple[int, int, int, bytes]
"""How the states of a slot are ordered: see `Record.order`."""


class Orders(NamedTuple):
    """What a replica knows of a resource, without the values: the order of each. `states` by issuer and host."""

    key: KeyOrder | None
    key_tombstone: KeyTombstoneOrder | None
    """The order of the one that ends most keys."""
    latest_key_tombstone: KeyTombstoneOrder | None
    """The lateness of the one that ends most states, which may be the same."""
    states: Mapping[tuple[str, str], StateOrder]

    @classmethod
    def of(cls, resource: ResourceState) -> Orders:
        """The orders of all that `resource` has."""
        return cls(
            resource.key.order() if resource.key is not None else None,
            resource.key_tombstones[0].order() if resource.key_tombstones else None,
            resource.key_tombstones[-1].lateness() if resource.key_tombstones else None,
            {(slot.issued_by, slot.peer_id): state.order() for slot, state in resource.slots.items()},
        )


def delta(
    mine: ResourceState, theirs: Orders, withheld: Collection[Slot] = ()
) -> list[tuple[KeyOrTombstone, State | None]]:
    """The writes that bring a replica that knows `theirs` to `mine`, or beyond.

    `withheld`: slots whose records the policy of the key withholds. Where the other one has nothing in such a slot, it
    would refuse it; where it has a lower state it wants it, and would else go on sending that one.
    """
    writes: list[tuple[KeyOrTombstone, State | None]] = []
    for each in mine.key_tombstones:
        is_stronger = theirs.key_tombstone is None or theirs.key_tombstone < each.order()
        is_later = theirs.latest_key_tombstone is None or theirs.latest_key_tombstone < each.lateness()
        if is_stronger or is_later:
            writes.append((each, None))
    key_or_tombstone = mine.key or mine.key_tombstone
    if key_or_tombstone is None:  # states whose key and key tombstone have gone: nobody takes them
        return writes
    states: list[State] = []
    for slot in sorted(mine.slots):
        order = theirs.states.get((slot.issued_by, slot.peer_id))
        if order is None and slot in withheld:
            continue
        if order is None or order < mine.slots[slot].order():
            states.append(mine.slots[slot])
    if mine.key is not None and not states and (theirs.key is None or theirs.key < mine.key.order()):
        writes.append((mine.key, None))
    writes.extend((key_or_tombstone, state) for state in states)
    return writes
