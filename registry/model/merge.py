"""How states of a resource become one: the join of a semilattice, so order and repetition don't matter.

A slot's states are totally ordered by (timestamp_issued, tombstone over record, timestamp_created, digest), keys by
(revision, policy, timestamp_created, digest), as `order` of each value in `registry.model.values` has it; the greatest
wins (docs/design.md, original's fault 11). A key tombstone beats keys below its revision, or without one up to its
second, and states up to its second, those that come later too. Of those tombstones two are kept, since one may end
more keys and another more states. States above both stay, with or without a key: a key may follow. Keys of the
winner's revision that lose are kept beside it, a few, and those of the revision before, for whoever edits.

Everything here is pure and works on verified values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Final, Self

import msgspec

from registry.model.policy_withholding import why_withheld
from registry.model.values import Key, KeyTombstone, Record, Slot, State, Tombstone, digest_of, encode
from registry.model.verification import is_expired
from registry.permission.policy import policy_digest
from registry.settings import RegistrySettings

MAX_SIBLINGS: Final = 4


class ResourceState(msgspec.Struct, frozen=True):
    """All that a replica knows of one resource: its key and the winning state of each slot, as far as its key tombstone
    doesn't end them."""

    key: Key | None = None
    slots: Mapping[Slot, State] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    key_tombstones: tuple[KeyTombstone, ...] = ()
    """No, one or two, as `kept_key_tombstones` has them."""
    siblings: tuple[Key, ...] = ()
    """Other keys of the winning one's revision, which another machine of the owner wrote at the same time, and those
    from which they were made: as `kept_keys` has them. They rule nothing, and aren't part of the digest; whoever edits
    the policy reads them."""

    @classmethod
    def of(
        cls,
        key: Key | None,
        states: Iterable[State],
        *key_tombstones: KeyTombstone | None,
        siblings: Iterable[Key] = (),
    ) -> Self:
        """The merge of a key and `siblings`, any states and key tombstones, in any order."""
        kept = kept_key_tombstones(key_tombstones)
        slots: dict[Slot, State] = {}
        for state in states:
            if not any(key_tombstone.kills(state) for key_tombstone in kept):
                slots[state.slot] = greater(slots.get(state.slot), state)
        keys = kept_keys(
            each
            for each in (key, *siblings)
            if each is not None and not any(key_tombstone.kills_key(each) for key_tombstone in kept)
        )
        return cls(keys[0] if keys else None, MappingProxyType(slots), kept, keys[1:])

    @property
    def has_siblings(self) -> bool:
        """Whether other keys of the winning one's revision are known."""
        return self.key is not None and any(each.revision == self.key.revision for each in self.siblings)

    @property
    def key_tombstone(self) -> KeyTombstone | None:
        """The key tombstone that ends most keys."""
        return self.key_tombstones[0] if self.key_tombstones else None

    def records(self, now: int, settings: RegistrySettings) -> list[Record]:
        """The live records that the key's policy permits, in an order that every replica agrees on."""
        live = [
            state
            for state in self.slots.values()
            if isinstance(state, Record)
            and is_served(state, now, settings)
            and why_withheld(self.key, state, now) is None
        ]
        return sorted(live, key=lambda record: record.slot)

    def tombstones(self) -> list[Tombstone]:
        """The tombstones, in an order that every replica agrees on."""
        stones = [state for state in self.slots.values() if isinstance(state, Tombstone)]
        return sorted(stones, key=lambda tombstone: tombstone.slot)

    def withheld(self, now: int) -> frozenset[Slot]:
        """The slots whose records the key's policy withholds at `now` (seconds)."""
        if self.key is None or self.key.policy is None:
            return frozenset()
        return frozenset(
            slot
            for slot, state in self.slots.items()
            if isinstance(state, Record) and why_withheld(self.key, state, now) is not None
        )

    def without(self, slots: Collection[Slot]) -> Self:
        """The same but for the states of these slots."""
        if not slots:
            return self
        kept = {slot: state for slot, state in self.slots.items() if slot not in slots}
        return msgspec.structs.replace(self, slots=MappingProxyType(kept))

    def size(self) -> int:
        """The bytes that it takes in CBOR."""
        states = sum(len(encode(state)) for state in self.slots.values())
        return states + sum(
            len(encode(key_or_tombstone))
            for key_or_tombstone in (self.key, *self.siblings, *self.key_tombstones)
            if key_or_tombstone
        )

    def is_empty(self) -> bool:
        """Whether nothing is known of the resource."""
        return self.key is None and not self.key_tombstones and not self.slots

    def digest(self) -> bytes:
        """Equal exactly when two replicas know the same. 32 bytes."""
        return sha256(b"".join(self.digests())).digest()

    def digests(self) -> Iterator[bytes]:
        """The digests of the key, the key tombstones and all states, in the order in which `digest` takes them."""
        if self.key is not None:
            yield digest_of(self.key)
        yield from map(digest_of, self.key_tombstones)
        for slot in sorted(self.slots):
            yield digest_of(self.slots[slot])


def greater(known: State | None, other: State) -> State:
    """The winner of two states of one slot."""
    return other if known is None or other.order() > known.order() else known


def kept_keys(known: Iterable[Key]) -> tuple[Key, ...]:
    """Of all keys of one id the winner; then up to `MAX_SIBLINGS` others of its revision, the greatest first; then
    those likewise of the revision before, from any of which these may have been made. Of each policy it is the key that
    was signed last."""
    keys = tuple(dict.fromkeys(known))
    if len(keys) < 2:
        return keys
    of_each: dict[bytes, Key] = {}
    for key in sorted(keys, key=Key.order):
        of_each[policy_digest(key.challenge_type, key.challenge) if key.revision else b""] = key
    winner, *others = sorted(of_each.values(), key=Key.order, reverse=True)
    siblings = [key for key in others if key.revision == winner.revision]
    below = [key for key in others if 0 < key.revision < winner.revision]
    before = [key for key in below if key.revision == below[0].revision]
    return (winner, *siblings[:MAX_SIBLINGS], *before[: MAX_SIBLINGS + 1])


def greater_key(known: Key | None, other: Key | None) -> Key | None:
    """The winner of two keys of one id."""
    if known is None or other is None:
        return known or other
    return other if other.order() > known.order() else known


def kept_key_tombstones(known: Iterable[KeyTombstone | None]) -> tuple[KeyTombstone, ...]:
    """Of all tombstones of one key those that end whatever any of them does: the one that ends most keys, and then, if
    it is another, the one that ends most states."""
    there = [key_tombstone for key_tombstone in known if key_tombstone is not None]
    if not there:
        return ()
    strongest, latest = max(there, key=KeyTombstone.order), max(there, key=KeyTombstone.lateness)
    return (strongest,) if latest == strongest else (strongest, latest)


def merged(a: ResourceState, b: ResourceState) -> ResourceState:
    """The join of what two replicas know of one resource."""
    states = [*a.slots.values(), *b.slots.values()]
    keys = [key for key in (a.key, b.key, *a.siblings, *b.siblings) if key is not None]
    return ResourceState.of(None, states, *a.key_tombstones, *b.key_tombstones, siblings=keys)


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
