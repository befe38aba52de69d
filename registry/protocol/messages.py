"""The bodies of the registry's calls, parsed and bounded at the edge.

Values travel as the byte strings of their deterministic CBOR, so that what was signed, stored and compared is sent as
it is. Method names: `registry.*` between members, `node.*` from a client to the node that it acts through
(`registry.client.node_operations`).

Later versions may add fields behind those known here, and kinds of values: readers ignore the former and pass over the
latter, item by item (docs/wire-protocol-registry.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypeVar, cast

import msgspec

from registry.codes import Code
from registry.errors import InvalidValue
from registry.model.decoding import decode_key, decode_key_or_tombstone, decode_key_tombstone, decode_state
from registry.model.merge import ResourceState
from registry.model.values import Key, KeyOrTombstone, KeyTombstone, Record, Slot, State, digest_of, encode
from registry.protocol.error_info import ErrorInfo

PUT: Final = "registry.put"
PASSED_ON: Final = "registry.passed_on"
HOLDS: Final = "registry.holds"
READ: Final = "registry.read"
COUNTERSIGN: Final = "registry.countersign"

MAX_ITEMS: Final = 512  # of one put
MAX_PAGE: Final = 512 * 1024  # bytes of values in one body; frames hold 1 MiB
MAX_STATES: Final = 4096  # of one page
STATES_TOLD: Final = 1024  # of one page by this version: encoding them takes 10 ms
MAX_SIBLINGS_TOLD: Final = 16  # this version keeps nine
MAX_ERRORS: Final = 64  # told of one operation; further ones are left out
MAX_SPREAD_PEERS: Final = 16_384  # of one put, all its items together

Blob = Annotated[bytes, msgspec.Meta(max_length=128 * 1024)]
Name = Annotated[str, msgspec.Meta(max_length=1024)]
Digest = Annotated[bytes, msgspec.Meta(max_length=64)]
"""32 bytes today. Any other one, such as a later version's, is of something else than is known here."""
Entries = Annotated[tuple[Any, ...], msgspec.Meta(max_length=MAX_ITEMS)]
"""What is decoded one by one, so that an entry that isn't understood fails alone."""

Positions = Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, lt=MAX_SPREAD_PEERS)], ...], msgspec.Meta(max_length=128)]

LONGEST_TIME: Final = 3600.0  # seconds that a request may ask for; more counts as this
LARGEST_COUNT: Final = 2**15 - 1  # of replicas that a request may ask for; more counts as this


def bounded_time(seconds: float) -> float:
    """The time that a request gives, within bounds. Raises InvalidValue for what is no number."""
    if math.isnan(seconds):
        raise InvalidValue("a time that is no number")
    return min(max(seconds, 0.0), LONGEST_TIME)


def bounded_count(count: int) -> int:
    """The number of replicas that a request asks for, within bounds."""
    return min(max(count, -LARGEST_COUNT), LARGEST_COUNT)


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

    @classmethod
    def decoded(cls, key_or_tombstone: bytes, state: bytes) -> Item:
        """Out of the two CBORs as they travel, `state` empty where there is none. Raises InvalidValue."""
        return cls(decode_key_or_tombstone(key_or_tombstone), decode_state(state) if state else None)

    def as_resource(self) -> ResourceState:
        """The merged state of a resource of which only this is known."""
        states = [self.state] if self.state else []
        if isinstance(self.key_or_tombstone, KeyTombstone):
            return ResourceState.of(None, states, self.key_or_tombstone)
        return ResourceState.of(self.key_or_tombstone, states)

    def dated(self) -> int:
        """The latest time, in seconds since 1970, at which any of it says that it was signed."""
        written, state = self.key_or_tombstone, self.state
        latest = written.timestamp_issued if isinstance(written, KeyTombstone) else written.timestamp_created
        if state is not None:
            latest = max(latest, state.timestamp_issued)
        return max(latest, state.timestamp_created) if isinstance(state, Record) else latest

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

    items: Entries
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

    def decoded(self) -> list[Item | ErrorInfo]:
        """Each item, or why it is none that this version takes. Not verified yet."""
        decoded: list[Item | ErrorInfo] = []
        last = b""
        for entry in self.items:
            match entry:
                case [bytes(key_or_tombstone), bytes(state), *_]:
                    last = key_or_tombstone or last
                    decoded.append(_item_or_error(last, state))
                case _:
                    decoded.append(ErrorInfo(Code.UNKNOWN_KIND, "an item that isn't [key or key tombstone, state]"))
        return decoded


class PutAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Why each item was refused, in the order of the request; None for one that is on disk."""

    errors: Annotated[tuple[ErrorInfo | None, ...], msgspec.Meta(max_length=MAX_ITEMS)]


class PassedOnBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.passed_on`: how many replicas took a write from the one that is asked, by the write's id? Answered
    with `PassedOnAnswer`."""

    write_id: Name


class PassedOnAnswer(msgspec.Struct, frozen=True, array_like=True):
    """How many did, as far as is known."""

    stored: int


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
    digest: Digest = b""
    after: tuple[Name, Name, Name] | None = None


class StatePage(msgspec.Struct, frozen=True, array_like=True):
    """A part of a resource's state: `more` says that there are slots after `last`, the last one here.

    Of a replica that hasn't caught up since it was away (`caught_up` false), what it lacks proves nothing.
    """

    holds_key: bool
    same: bool
    key: Blob
    states: Annotated[tuple[Any, ...], msgspec.Meta(max_length=MAX_STATES)]
    more: bool
    key_tombstone: Blob = b""
    caught_up: bool = True
    last: tuple[Name, Name, Name] | None = None
    latest_key_tombstone: Blob = b""
    """Another one than `key_tombstone`, which ends more states."""
    siblings: Annotated[tuple[Blob, ...], msgspec.Meta(max_length=MAX_SIBLINGS_TOLD)] = ()
    """Other keys of the revision of `key`, which another machine of the owner wrote, and those from which any of that
    revision may have been made; on the first page, and where `same`: another replica may have the others."""

    @classmethod
    def of(cls, resource: ResourceState, after: tuple[str, str, str] | None, *, caught_up: bool = True) -> StatePage:
        """The page that follows the slot `after`."""
        blobs: list[bytes] = []
        last: Slot | None = None
        size = 0
        slots = sorted(slot for slot in resource.slots if after is None or tuple(slot) > after)
        for slot in slots:
            blob = encode(resource.slots[slot])
            size += len(blob)
            if blobs and (size > MAX_PAGE or len(blobs) == STATES_TOLD):
                break
            blobs.append(blob)
            last = slot
        return cls(
            holds_key=resource.key is not None,
            same=False,
            key=encode(resource.key) if resource.key else b"",
            states=tuple(blobs),
            more=len(blobs) < len(slots),
            key_tombstone=b"".join(map(encode, resource.key_tombstones[:1])),
            caught_up=caught_up,
            last=last,
            latest_key_tombstone=b"".join(map(encode, resource.key_tombstones[1:])),
            siblings=tuple(map(encode, resource.siblings)) if after is None else (),
        )

    @classmethod
    def of_same(cls, resource: ResourceState, *, caught_up: bool = True) -> StatePage:
        """The page for one whose digest is the same: of siblings that tells nothing."""
        siblings = tuple(map(encode, resource.siblings))
        holds_key = resource.key is not None
        return cls(holds_key, same=True, key=b"", states=(), more=False, caught_up=caught_up, siblings=siblings)

    def decoded_siblings(self) -> list[Key]:
        """The siblings that this version understands. Not verified yet."""
        keys = (_understood(decode_key, blob) for blob in self.siblings)
        return [key for key in keys if key is not None]

    def decoded(self) -> tuple[Key | None, list[KeyTombstone], list[State]]:
        """What of this is understood: key, key tombstones, states. Not verified yet."""
        return (*self.decoded_keys(), list(self.decoded_states()))

    def decoded_keys(self) -> tuple[Key | None, list[KeyTombstone]]:
        """As of `decoded`, the key and key tombstones."""
        ended = [_understood(decode_key_tombstone, blob) for blob in (self.key_tombstone, self.latest_key_tombstone)]
        return _understood(decode_key, self.key), [each for each in ended if each is not None]

    def decoded_states(self) -> Iterator[State]:
        """As of `decoded`, the states, one after the other: thousands take long."""
        states = (_understood(decode_state, blob) for blob in self.states)
        return (state for state in states if state is not None)

    def next_after(self, after: Slot | None) -> Slot | None:
        """The slot after which the next page begins; None when this, asked for with `after`, is the last page."""
        if not self.more or self.last is None:
            return None
        last = Slot(*self.last)
        return last if after is None or last > after else None  # who goes round in circles lies


class CountersignBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.countersign`: asks a peer to sign a record as its host. The answer is the record."""

    key: Blob
    metadata: Blob


class WriteOutcome(msgspec.Struct, frozen=True, array_like=True):
    """How a write went: replicas that have it on disk, each by its own word; replicas that it goes to; errors whose
    texts name their peers. `told`: replicas that took it from others, as those say."""

    stored: int
    targets: int
    errors: tuple[ErrorInfo, ...] = ()
    timed_out: bool = False
    write_id: str = ""
    told: int = 0

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "errors", self.errors[:MAX_ERRORS])


class ReadAnswer(msgspec.Struct, frozen=True, array_like=True):
    """How a read went: replicas that answered for the key, what they know together, errors whose texts name their
    peers."""

    answered: int
    page: StatePage
    errors: tuple[ErrorInfo, ...] = ()
    timed_out: bool = False

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "errors", self.errors[:MAX_ERRORS])


Form = TypeVar("Form")
Value = TypeVar("Value")


def parse(body: object, form: type[Form]) -> Form:
    """A typed body out of decoded CBOR. Raises InvalidValue."""
    try:
        return msgspec.convert(body, form, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidValue(f"malformed {form.__name__}: {error}") from error


def build(body: msgspec.Struct) -> list[Any]:
    """The body as CBOR-able values."""
    return cast("list[Any]", msgspec.to_builtins(body, builtin_types=(bytes,)))


def _item_or_error(key_or_tombstone: bytes, state: bytes) -> Item | ErrorInfo:
    try:
        return Item.decoded(key_or_tombstone, state)
    except InvalidValue as error:
        return ErrorInfo.of(error)


def _understood(decode: Callable[[bytes], Value], blob: object) -> Value | None:
    """The value, or None for an empty one and for what this version doesn't understand."""
    if not isinstance(blob, bytes) or not blob:
        return None
    try:
        return decode(blob)
    except InvalidValue:
        return None
