"""The bodies of the calls with which replicas compare and repair each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Any, Final, Self

import msgspec

from overlay.discovery.keyspace import POSITION_BITS, POSITION_BYTES
from registry.errors import InvalidValue
from registry.model.delta import KeyOrder, KeyTombstoneOrder, Orders
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.merge import ResourceState
from registry.model.values import Key, KeyOrTombstone, Record, State, digest_of
from registry.protocol.messages import Entries, Name
from registry.replication.hash_tree import DEEPEST, DIGEST, ENTRY, LEAF
from registry.replication.ranges import Range, Ranges

COMPARE: Final = "registry.compare"
REPLICATE: Final = "registry.replicate"
COMPARE_RANGES: Final = "registry.ranges"
PULL: Final = "registry.pull"
MAX_ENTRIES: Final = 512  # resources of one comparison
MAX_SUMMARIES: Final = 1024  # slots told of in one answer, unless one resource has more
MAX_RANGES: Final = 1024
MAX_NODES: Final = 512  # of one answer, 140 kB
MAX_SLOTS: Final = 3584  # told of one resource; what lies beyond is sent whether it is lacking or not

Digest = Annotated[bytes, msgspec.Meta(max_length=32)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Bound = Annotated[bytes, msgspec.Meta(max_length=POSITION_BYTES)]
SentRanges = Annotated[tuple[tuple[Bound, Bound], ...], msgspec.Meta(max_length=MAX_RANGES)]


class PullBody(msgspec.Struct, frozen=True, array_like=True):
    """Asks a replica to compare all that both keep, now; it answers when that is done."""


class PullAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The comparison is done, and what was lacking was sent."""


class SlotSummary(msgspec.Struct, frozen=True, array_like=True):
    """The slot and the order of a state, without the state itself."""

    issued_by: Name
    peer_id: Name
    timestamp_issued: Seconds
    is_tombstone: bool
    timestamp_created: Seconds
    digest: Digest

    @classmethod
    def of(cls, state: State) -> Self:
        """The summary of `state`."""
        created = state.timestamp_created if isinstance(state, Record) else 0
        slot, is_tombstone = state.slot, not isinstance(state, Record)
        return cls(slot.issued_by, slot.peer_id, state.timestamp_issued, is_tombstone, created, digest_of(state))

    def order(self) -> tuple[int, int, int, bytes]:
        """The order of the state, as `order` of the state itself."""
        return (self.timestamp_issued, int(self.is_tombstone), self.timestamp_created, self.digest)


class KeySummary(msgspec.Struct, frozen=True, array_like=True):
    """The order of a key or key tombstone."""

    time: Seconds
    digest: Digest
    revision: Seconds = 0
    policy: Digest = b""
    """Of a key's policy."""

    @classmethod
    def of(cls, value: KeyOrTombstone) -> Self:
        """The summary of a key or key tombstone."""
        if isinstance(value, Key):
            revision, policy, time, digest = value.order()
            return cls(time, digest, revision, policy)
        revision, time, digest = value.order()
        return cls(time, digest, revision)

    def order(self) -> KeyOrder:
        """The order of a key, as `order` of the key itself."""
        return (self.revision, self.policy, self.time, self.digest)

    def tombstone_order(self) -> KeyTombstoneOrder:
        """The order of a key tombstone, as `order` of the tombstone itself."""
        return (self.revision, self.time, self.digest)

    def lateness(self) -> KeyTombstoneOrder:
        """What decides which of two key tombstones ends most states, as `KeyTombstone.lateness` does."""
        return (self.time, self.revision, self.digest)


class Summary(msgspec.Struct, frozen=True, array_like=True):
    """What a replica knows of a resource whose digest differs. `number`: of the entry that it answers."""

    number: int
    wanted: bool
    """False when it isn't responsible for the resource."""
    digest: Digest = b""
    key: KeySummary | None = None
    key_tombstone: KeySummary | None = None
    slots: Annotated[tuple[SlotSummary, ...], msgspec.Meta(max_length=MAX_SLOTS)] = ()
    latest_key_tombstone: KeySummary | None = None
    """Another one than `key_tombstone`, which ends more states."""

    def orders(self) -> Orders:
        """The orders in this summary, as `registry.model.delta` compares them."""
        latest = self.latest_key_tombstone or self.key_tombstone
        return Orders(
            self.key.order() if self.key is not None else None,
            self.key_tombstone.tombstone_order() if self.key_tombstone is not None else None,
            latest.lateness() if latest is not None else None,
            {(slot.issued_by, slot.peer_id): slot.order() for slot in self.slots},
        )

    @classmethod
    def of(cls, number: int, resource: ResourceState, slots: Sequence[SlotSummary] | None = None) -> Self:
        """The summary of `resource`, for the entry `number`.

        `slots`: of all states in the order of their slots, where they were made before, since thousands take long.
        """
        key, ended = resource.key, [KeySummary.of(each) for each in resource.key_tombstones]
        if slots is None:
            slots = list(slot_summaries(resource))
        digests = [digest_of(value) for value in (key, *resource.key_tombstones) if value is not None]
        return cls(
            number=number,
            wanted=True,
            digest=sha256(b"".join([*digests, *(slot.digest for slot in slots)])).digest(),
            key=KeySummary.of(key) if key else None,
            key_tombstone=ended[0] if ended else None,
            slots=tuple(slots[:MAX_SLOTS]),
            latest_key_tombstone=ended[1] if len(ended) > 1 else None,
        )


def slot_summaries(resource: ResourceState) -> Iterator[SlotSummary]:
    """The summaries of all states, in the order of their slots."""
    return (SlotSummary.of(resource.slots[slot]) for slot in sorted(resource.slots))


class CompareBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.compare`: [key id, digest of what the sender knows under its expiry horizon] each."""

    now: Seconds
    horizon: ExpiryHorizon
    entries: Annotated[tuple[tuple[Name, Digest], ...], msgspec.Meta(max_length=MAX_ENTRIES)]


class CompareAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The first `compared` entries were looked at, under `horizon`; `summaries` tell of those that differ."""

    horizon: ExpiryHorizon
    compared: int
    summaries: Annotated[tuple[Summary, ...], msgspec.Meta(max_length=MAX_ENTRIES)]


class ReplicateBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.replicate`: as `registry.put`, for states that may outlive their key. `last`: of this comparison."""

    items: Entries
    last: bool


class RangesBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.ranges`: asks for nodes of the hash tree over what the callee knows in these ranges of positions.

    What was signed too long before `epoch` isn't counted: by the callee's own rules, or as `horizon` says.
    `root`: the digest of the caller's own root, with which a comparison begins; nothing is told when it is the
    callee's as well, and `last` says that this would be all for now.
    """

    epoch: Seconds
    horizon: ExpiryHorizon | None
    ranges: SentRanges
    root: Annotated[bytes, msgspec.Meta(max_length=DIGEST)]
    prefixes: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=DEEPEST)], ...], msgspec.Meta(max_length=MAX_NODES)
    ]
    last: bool


class RangesAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The nodes asked for, or the root when a comparison begins; none when it is `same`.

    None of them either when `horizon` tells of other rules than were asked by, or `ranges` of all that the callee
    takes, which isn't all that was asked about.
    """

    same: bool
    nodes: Annotated[
        tuple[tuple[bool, Annotated[bytes, msgspec.Meta(max_length=LEAF * ENTRY)]], ...],
        msgspec.Meta(max_length=MAX_NODES),
    ] = ()
    horizon: ExpiryHorizon | None = None
    ranges: SentRanges | None = None


def packed(ranges: Ranges) -> tuple[tuple[bytes, bytes], ...]:
    """Ranges as they are sent: the bounds without their last zeros, which aligned ones have many of."""
    return tuple((_packed(part.start), _packed(part.end % 2**POSITION_BITS)) for part in ranges)


def unpacked(ranges: Sequence[tuple[bytes, bytes]]) -> Ranges:
    """Ranges as they came. Raises InvalidValue for what isn't in order."""
    found = tuple(Range(_unpacked(start), _unpacked(end) or 2**POSITION_BITS) for start, end in ranges)
    if any(part.start >= part.end for part in found) or any(one.end > other.start for one, other in pairwise(found)):
        raise InvalidValue("ranges of positions aren't in order")
    return found


def _packed(position: int) -> bytes:
    return position.to_bytes(POSITION_BYTES, "big").rstrip(b"\0")


def _unpacked(bound: bytes) -> int:
    return int.from_bytes(bound.ljust(POSITION_BYTES, b"\0"), "big")


def size_of(body: Any) -> int:
    """Bytes of the values in a body, about."""
    if isinstance(body, bytes | str):
        return len(body) + 2
    if isinstance(body, list | tuple):
        return 1 + sum(map(size_of, body))
    return 5
