"""How states of a resource become one: the join of a semilattice, so order and repetition don't matter.

A slot's states are totally ordered by (timestamp_issued, tombstone over record, timestamp_created, digest), keys by
(timestamp_created, digest); the greatest wins (docs/design.md, original's fault 11). A key tombstone beats keys and
states up to its second, which includes those that come later. States above it stay, with or without a key: a key may
follow.

Everything here is pure and works on verified values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Self

import msgspec

from registry.model.values import Key, KeyTombstone, Record, Slot, State, Tombstone, digest_of, encode
from registry.model.verification import is_expired
from registry.settings import RegistrySettings


class ResourceState(msgspec.Struct, frozen=True):
    """All that a replica knows of one resource: its key and the winning state of each slot, as far as its key tombstone
    doesn't end them."""

    key: Key | None = None
    slots: Mapping[Slot, State] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    key_tombstone: KeyTombstone | None = None

    @classmethod
    def of(cls, key: Key | None, states: Iterable[State], key_tombstone: KeyTombstone | None = None) -> Self:
        """The merge of a key, a key tombstone and any states, in any order."""
        slots: dict[Slot, State] = {}
        for state in states:
            if key_tombstone is None or not key_tombstone.kills(state):
                slots[state.slot] = greater(slots.get(state.slot), state)
        if key is not None and key_tombstone is not None and key_tombstone.kills_key(key):
            key = None
        return cls(key=key, slots=MappingProxyType(slots), key_tombstone=key_tombstone)

    def records(self, now: int, settings: RegistrySettings) -> list[Record]:
        """The live records, in an order that every replica agrees on."""
        live = [state for state in self.slots.values() if isinstance(state, Record) and is_served(state, now, settings)]
        return sorted(live, key=lambda record: record.slot)

    def tombstones(self) -> list[Tombstone]:
        """The tombstones, in an order that every replica agrees on."""
        stones = [state for state in self.slots.values() if isinstance(state, Tombstone)]
        return sorted(stones, key=lambda tombstone: tombstone.slot)

    def size(self) -> int:
        """Bytes in CBOR."""
        states = sum(len(encode(state)) for state in self.slots.values())
        return states + sum(
            len(encode(key_or_tombstone)) for key_or_tombstone in (self.key, self.key_tombstone) if key_or_tombstone
        )

    def is_empty(self) -> bool:
        """Whether nothing is known of the resource."""
        return self.key is None and self.key_tombstone is None and not self.slots

    def digest(self) -> bytes:
        """Equal exactly when two replicas know the same. 32 bytes."""
        return sha256(b"".join(self.digests())).digest()

    def digests(self) -> Iterator[bytes]:
        """The digests of the key, the key tombstone and all states, in the order in which `digest` takes them."""
        if self.key is not None:
            yield digest_of(self.key)
        if self.key_tombstone is not None:
            yield digest_of(self.key_tombstone)
        for slot in sorted(self.slots):
            yield digest_of(self.slots[slot])


def greater(known: State | None, other: State) -> State:
    """The winner of two states of one slot."""
    return other if known is None or other.order() > known.order() else known


def greater_key(known: Key | None, other: Key | None) -> Key | None:
    """The winner of two keys of one id."""
    if known is None or other is None:
        return known or other
    return other if other.order() > known.order() else known


def greater_key_tombstone(known: KeyTombstone | None, other: KeyTombstone | None) -> KeyTombstone | None:
    """The winner of two tombstones of one key."""
    if known is None or other is None:
        return known or other
    return other if other.order() > known.order() else known


def merged(a: ResourceState, b: ResourceState) -> ResourceState:
    """The join of what two replicas know of one resource."""
    key_tombstone = greater_key_tombstone(a.key_tombstone, b.key_tombstone)
    return ResourceState.of(greater_key(a.key, b.key), [*a.slots.values(), *b.slots.values()], key_tombstone)


def is_served(record: Record, now: int, settings: RegistrySettings) -> bool:
    """Whether a stored record is still given to readers: neither its host's nor its issuer's signature is too old."""
    return not is_expired(record.timestamp_created, settings.expired_age, now) and not is_expired(
        record.timestamp_issued, settings.record_lifetime, now
    )


def is_spent(state: State, now: int, settings: RegistrySettings) -> bool:
    """Whether nobody would accept a state any more, so that it isn't served either."""
    if isinstance(state, Record):
        return not is_served(state, now, settings)
    return is_expired(state.timestamp_issued, settings.tombstone_lifetime, now)
