"""The bodies of the registry's calls, parsed and bounded at the edge.

Values travel as the byte strings of their deterministic CBOR, so that what was signed, stored and compared is sent as
it is. Method names: `registry.*` between members, `node.*` from a client to the node that it acts through
(`registry.client.node_operations`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypeVar, cast

import msgspec

from registry.errors import InvalidValue
from registry.model.merge import ResourceState
from registry.model.values import (
    Key,
    KeyOrTombstone,
    KeyTombstone,
    Slot,
    State,
    decode_key,
    decode_key_tombstone,
    decode_state,
    digest_of,
    encode,
)
from registry.protocol.error_info import ErrorInfo

PUT: Final = "registry.put"
PASSED_ON: Final = "registry.passed_on"
HOLDS: Final = "registry.holds"
READ: Final = "registry.read"
COUNTERSIGN: Final = "registry.countersign"

MAX_ITEMS: Final = 512  # of one put
MAX_PAGE: Final = 512 * 1024  # bytes of values in one body; frames hold 1 MiB
MAX_ERRORS: Final = 64
MAX_SPREAD_PEERS: Final = 16_384  # of one put, all its items together

Blob = Annotated[bytes, msgspec.Meta(max_length=128 * 1024)]
Name = Annotated[str, msgspec.Meta(max_length=1024)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Positions = Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, lt=MAX_SPREAD_PEERS)], ...], msgspec.Meta(max_length=128)]
Count = Annotated[int, msgspec.Meta(ge=-(2**15), lt=2**15)]


class Item(msgspec.Struct, frozen=True):
    """One write: a key and under it a state or nothing; or a key tombstone.

    Between replicas a state may also come with the key tombstone that it survived.
    """

    key_or_tombstone: KeyOrTombstone
    state: State | None = None

    @property
    def key_id(self) -> str:
        """The id of the resource that is written to."""
        return self.key_or_tombstone.id

    def as_resource(self) -> ResourceState:
        """The merged state of a resource of which only this is known."""
        states = [self.state] if self.state else []
        if isinstance(self.key_or_tombstone, KeyTombstone):
            return ResourceState.of(None, states, self.key_or_tombstone)
        return ResourceState.of(self.key_or_tombstone, states)

    def size(self) -> int:
        """Bytes on the wire, about."""
        return len(encode(self.key_or_tombstone)) + (len(encode(self.state)) if self.state else 0) + 16

    def digest(self) -> bytes:
        """The identity of what is written: of the state, or the key or key tombstone alone. 32 bytes."""
        return digest_of(self.key_or_tombstone if self.state is None else self.state)


class Spread(NamedTuple):
    """What a write asks of a replica that takes it: to pass it on to its `share` of `targets`, all to whom it goes.

    `direct`: those of them that get it from the writer.
    """

    share: tuple[str, ...]
    targets: tuple[str, ...]
    direct: tuple[str, ...] = ()


class PutBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.put`: [key or key tombstone, state or empty] each; an empty first one repeats the last.

    `spreads`: of each item [share, targets, direct], as `Spread` with positions in `peers`; empty when none is to be
    passed on. Answered with `PutAnswer`.
    """

    items: Annotated[tuple[tuple[Blob, Blob], ...], msgspec.Meta(max_length=MAX_ITEMS)]
    peers: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_SPREAD_PEERS)] = ()
    spreads: Annotated[tuple[tuple[Positions, Positions, Positions], ...], msgspec.Meta(max_length=MAX_ITEMS)] = ()

    def spread_of(self, position: int) -> Spread | None:
        """To whom the item at this position is to be passed on; None when to nobody. Positions of no peer are left
        out."""
        if position >= len(self.spreads) or not any(self.spreads[position]):
            return None
        return Spread(*map(self._named, self.spreads[position]))

    def _named(self, positions: Positions) -> tuple[str, ...]:
        return tuple(self.peers[position] for position in positions if position < len(self.peers))

    @classmethod
    def of(cls, items: Iterable[Item], spreads: Sequence[Spread | None] = ()) -> PutBody:
        """The body that carries these items, in their order; `spreads` of each, or of none."""
        pairs: list[tuple[bytes, bytes]] = []
        last: KeyOrTombstone | None = None
        for item in items:
            key_or_tombstone = b"" if item.key_or_tombstone is last else encode(item.key_or_tombstone)
            pairs.append((key_or_tombstone, encode(item.state) if item.state else b""))
            last = item.key_or_tombstone
        if not any(spreads):
            return cls(tuple(pairs))
        peers: dict[str, int] = {}

        def positions(peer_ids: Iterable[str]) -> Positions:
            return tuple(peers.setdefault(peer_id, len(peers)) for peer_id in peer_ids)

        of_each = tuple(
            (positions(of.share), positions(of.targets), positions(of.direct)) if of else ((), (), ()) for of in spreads
        )
        return cls(tuple(pairs), tuple(peers), of_each)


class PutAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Why each item was refused, in the order of the request; None for one that is on disk."""

    errors: Annotated[tuple[ErrorInfo | None, ...], msgspec.Meta(max_length=MAX_ITEMS)]


class PassedOnBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.passed_on`: how many replicas took a write from the one that is asked, by the write's id? Answered
    with `PassedOnAnswer`."""

    write_id: Name


class PassedOnAnswer(msgspec.Struct, frozen=True, array_like=True):
    """How many did, as far as is known."""

    stored: Count


class HoldsBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.holds`: are these stored? [key id, digest of a key, key tombstone or state] each."""

    entries: Annotated[
        tuple[tuple[Name, Annotated[bytes, msgspec.Meta(max_length=32)]], ...], msgspec.Meta(max_length=MAX_ITEMS)
    ]


class HoldsAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Whether each is, in the order of the request."""

    held: Annotated[tuple[bool, ...], msgspec.Meta(max_length=MAX_ITEMS)]


class ReadBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.read`: asks for what a replica knows of a resource, from the slot after `after` on.

    `digest` is of what the asker knows already; a replica that knows the same sends no states.
    """

    key_id: Name
    digest: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    after: tuple[Name, Name, Name] | None = None


class StatePage(msgspec.Struct, frozen=True, array_like=True):
    """A part of a resource's state: `more` says that there are slots after the last one here.

    Of a replica that hasn't caught up since it was away (`caught_up` false), what it lacks proves nothing.
    """

    holds_key: bool
    same: bool
    key: Blob
    states: Annotated[tuple[Blob, ...], msgspec.Meta(max_length=4096)]
    more: bool
    key_tombstone: Blob = b""
    caught_up: bool = True

    @classmethod
    def of(cls, resource: ResourceState, after: tuple[str, str, str] | None, *, caught_up: bool = True) -> StatePage:
        """The page that follows the slot `after`."""
        blobs: list[bytes] = []
        size = 0
        slots = sorted(slot for slot in resource.slots if after is None or tuple(slot) > after)
        for slot in slots:
            blob = encode(resource.slots[slot])
            size += len(blob)
            if blobs and (size > MAX_PAGE or len(blobs) == 4096):
                break
            blobs.append(blob)
        return cls(
            holds_key=resource.key is not None,
            same=False,
            key=encode(resource.key) if resource.key else b"",
            states=tuple(blobs),
            more=len(blobs) < len(slots),
            key_tombstone=encode(resource.key_tombstone) if resource.key_tombstone else b"",
            caught_up=caught_up,
        )

    def decoded(self) -> tuple[Key | None, KeyTombstone | None, list[State]]:
        """Raises InvalidValue. Not verified yet."""
        return (
            decode_key(self.key) if self.key else None,
            decode_key_tombstone(self.key_tombstone) if self.key_tombstone else None,
            [decode_state(blob) for blob in self.states],
        )


class CountersignBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.countersign`: asks a peer to sign a record as its host. The answer is the record."""

    key: Blob
    metadata: Blob


class WriteOutcome(msgspec.Struct, frozen=True, array_like=True):
    """How a write went: replicas that have it on disk, each by its own word; replicas that it goes to; errors whose
    texts name their peers. `told`: replicas that took it from others, as those say."""

    stored: int
    targets: int
    errors: Annotated[tuple[ErrorInfo, ...], msgspec.Meta(max_length=MAX_ERRORS)] = ()
    timed_out: bool = False
    write_id: str = ""
    told: int = 0


class ReadAnswer(msgspec.Struct, frozen=True, array_like=True):
    """How a read went: replicas that answered for the key, what they know together, errors whose texts name their
    peers."""

    answered: int
    page: StatePage
    errors: Annotated[tuple[ErrorInfo, ...], msgspec.Meta(max_length=MAX_ERRORS)] = ()
    timed_out: bool = False


Form = TypeVar("Form")


def parse(body: object, form: type[Form]) -> Form:
    """A typed body out of decoded CBOR. Raises InvalidValue."""
    try:
        return msgspec.convert(body, form, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidValue(f"malformed {form.__name__}: {error}") from error


def build(body: msgspec.Struct) -> list[Any]:
    """The body as CBOR-able values."""
    return cast("list[Any]", msgspec.to_builtins(body, builtin_types=(bytes,)))


def last_slot(states: Sequence[State]) -> Slot | None:
    """Where the next page begins."""
    return states[-1].slot if states else None
