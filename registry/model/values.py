"""What the network keeps: keys (resources), records, tombstones, and key tombstones (ends of resources).

Immutable, and valid in form once they exist: whoever holds one need not check its fields again. A valid form says
nothing of signatures and times; those are judged by `registry.model.verification`.

On the wire and on disk a value is the CBOR array of its fields, tagged with its type; its *digest* is sha256 of that
array in deterministic encoding, signatures included (docs/design.md, State and merging). `registry.model.decoding`
reads it.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, cast

import cbor2
import msgspec

from registry.errors import InvalidValue
from registry.model.fields import MAX_NAME, check_bytes, check_option, check_peer_id, check_text, check_timestamp
from registry.model.signing import (
    key_digest,
    key_id_of,
    key_tombstone_digest,
    metadata_digest,
    record_digest,
    tombstone_digest,
)
from registry.permission.policy import MAX_REVISION, AnyPolicy, policy_digest, policy_in

MAX_LABEL = 4096  # bytes of UTF-8, like every limit here
MAX_VALUE = 65_536
MAX_PROOF = 4096  # challenge and solution
SIGNATURE_BYTES = 64
CACHED_BYTES = 2048  # values up to this size are kept in the caches of encodings and verdicts
MAX_BLOB = 128 * 1024  # bytes of one value in CBOR


class Slot(NamedTuple):
    """Where a state lives: at most one record or tombstone per key, issuer and hosting peer."""

    key_id: str
    issued_by: str
    peer_id: str


class Key(msgspec.Struct, frozen=True, cache_hash=True, array_like=True, forbid_unknown_fields=True, tag="key"):
    """A resource: a label under its owner's peer id (original: `Key`).

    `timestamp_created` is in whole seconds since 1970; `signature` is the owner's, over `signed_bytes`. The challenge
    may be a policy (`registry.permission.policy`); one that is malformed makes the key invalid.
    """

    label: str
    owner_peer_id: str
    timestamp_created: int
    challenge: bytes
    challenge_type: str
    signature: bytes

    def __post_init__(self) -> None:
        check_text("label", self.label, MAX_LABEL)
        check_peer_id("owner_peer_id", self.owner_peer_id)
        check_timestamp("timestamp_created", self.timestamp_created)
        check_bytes("challenge", self.challenge, MAX_PROOF)
        check_text("challenge_type", self.challenge_type, MAX_NAME)
        check_bytes("signature", self.signature, SIGNATURE_BYTES)
        _ = self.policy

    @property
    def id(self) -> str:
        """The resource id, a function of label and owner."""
        return _cached_key_id(self.label, self.owner_peer_id)

    @property
    def policy(self) -> AnyPolicy | None:
        """Who may register on the resource; None if anyone may, as without a policy."""
        return policy_in(self.challenge_type, self.challenge, self.owner_peer_id)

    @property
    def revision(self) -> int:
        """That of the policy, which grows with each change of it; 0 without one."""
        policy = self.policy
        return 0 if policy is None else policy.revision

    def signed_bytes(self) -> bytes:
        """What the owner signs. 32 bytes."""
        return key_digest(self.label, self.owner_peer_id, self.timestamp_created, self.challenge, self.challenge_type)

    def order(self) -> tuple[int, bytes, int, bytes]:
        """What decides between two keys of one id: the greater wins (docs/design.md, State and merging).

        The policy's digest comes before the time, so that signing a key anew never changes which of two policies of
        one revision wins.
        """
        revision = self.revision
        policy = policy_digest(self.challenge_type, self.challenge) if revision else b""
        return (revision, policy, self.timestamp_created, digest_of(self))


class RecordMetadata(
    msgspec.Struct, frozen=True, cache_hash=True, array_like=True, forbid_unknown_fields=True, tag="metadata"
):
    """What an issuer says of a service: it runs on `peer_id`, with a value (original: `RecordMetadata`).

    `relay_id` and `service_id` hold no or one string; `issuer_signature` is over `signed_bytes`.
    """

    key_id: str
    issued_by: str
    peer_id: str
    timestamp_issued: int
    solution: bytes
    value: str
    relay_id: tuple[str, ...]
    service_id: tuple[str, ...]
    issuer_signature: bytes

    def __post_init__(self) -> None:
        _check_slot(self)
        check_text("value", self.value, MAX_VALUE)
        check_option("relay_id", self.relay_id)
        check_option("service_id", self.service_id)

    @property
    def slot(self) -> Slot:
        """The slot that this is a state of."""
        return Slot(self.key_id, self.issued_by, self.peer_id)

    def signed_bytes(self) -> bytes:
        """What the issuer signs. 32 bytes."""
        return metadata_digest(
            self.key_id,
            self.issued_by,
            self.peer_id,
            self.timestamp_issued,
            self.solution,
            self.value,
            self.relay_id,
            self.service_id,
        )


class Record(msgspec.Struct, frozen=True, cache_hash=True, array_like=True, forbid_unknown_fields=True, tag="record"):
    """A live service: metadata, counter-signed by the hosting peer at `timestamp_created` (original: `Record`)."""

    metadata: RecordMetadata
    timestamp_created: int
    signature: bytes

    def __post_init__(self) -> None:
        if type(self.metadata) is not RecordMetadata:
            raise InvalidValue(f"metadata is {type(self.metadata).__name__}, not RecordMetadata")
        check_timestamp("timestamp_created", self.timestamp_created)
        check_bytes("signature", self.signature, SIGNATURE_BYTES)

    @property
    def slot(self) -> Slot:
        """The slot that this is a state of."""
        return self.metadata.slot

    @property
    def key_id(self) -> str:
        """The id of the record's resource."""
        return self.metadata.key_id

    @property
    def timestamp_issued(self) -> int:
        """When the issuer signed the metadata (seconds)."""
        return self.metadata.timestamp_issued

    def signed_bytes(self) -> bytes:
        """What the hosting peer signs. 32 bytes."""
        return record_digest(self.metadata.signed_bytes(), self.metadata.issuer_signature, self.timestamp_created)

    def order(self) -> tuple[int, int, int, bytes]:
        """What decides between two states of one slot: the greater wins (docs/design.md, State and merging)."""
        return (self.metadata.timestamp_issued, 0, self.timestamp_created, digest_of(self))


class Tombstone(
    msgspec.Struct, frozen=True, cache_hash=True, array_like=True, forbid_unknown_fields=True, tag="tombstone"
):
    """What an issuer says of a service that ended; beats every record of its slot up to its second."""

    key_id: str
    issued_by: str
    peer_id: str
    timestamp_issued: int
    solution: bytes
    issuer_signature: bytes

    def __post_init__(self) -> None:
        _check_slot(self)

    @property
    def slot(self) -> Slot:
        """The slot that this is a state of."""
        return Slot(self.key_id, self.issued_by, self.peer_id)

    def signed_bytes(self) -> bytes:
        """What the issuer signs. 32 bytes."""
        return tombstone_digest(self.key_id, self.issued_by, self.peer_id, self.timestamp_issued, self.solution)

    def order(self) -> tuple[int, int, int, bytes]:
        """What decides between two states of one slot: the greater wins (docs/design.md, State and merging)."""
        return (self.timestamp_issued, 1, 0, digest_of(self))


class KeyTombstone(
    msgspec.Struct, frozen=True, cache_hash=True, array_like=True, forbid_unknown_fields=True, tag="key-tombstone"
):
    """What an owner says of a resource that ended; beats its keys and all states under them up to its second.

    `revision`: 0 for a resource without a policy, else more than the policy that was removed had. Then it beats
    keys by revision instead of by time, or one of an older policy would bring the resource back. Without it the value
    is encoded, and signed, as it was before there were policies.

    Ours: the original promised to remove keys and never did (docs/design.md, State and merging).
    """

    key_id: str
    label: str
    owner_peer_id: str
    timestamp_issued: int
    signature: bytes
    revision: int = 0

    def __post_init__(self) -> None:
        check_text("key_id", self.key_id, MAX_NAME)
        check_text("label", self.label, MAX_LABEL)
        check_peer_id("owner_peer_id", self.owner_peer_id)
        check_timestamp("timestamp_issued", self.timestamp_issued)
        check_bytes("signature", self.signature, SIGNATURE_BYTES)
        if type(self.revision) is not int or not 0 <= self.revision <= MAX_REVISION + 1:
            raise InvalidValue(f"revision isn't within 0 and {MAX_REVISION + 1}")
        if self.key_id != _cached_key_id(self.label, self.owner_peer_id):
            raise InvalidValue(f"key_id {self.key_id} isn't that of this label and owner")

    @property
    def id(self) -> str:
        """The resource id, as a key's."""
        return self.key_id

    def signed_bytes(self) -> bytes:
        """What the owner signs. 32 bytes."""
        return key_tombstone_digest(self.key_id, self.label, self.owner_peer_id, self.timestamp_issued, self.revision)

    def order(self) -> tuple[int, int, bytes]:
        """What decides which tombstone of a key ends most keys: the greater."""
        return (self.revision, self.timestamp_issued, digest_of(self))

    def lateness(self) -> tuple[int, int, bytes]:
        """What decides which tombstone of a key ends most states: the greater."""
        return (self.timestamp_issued, self.revision, digest_of(self))

    def kills_key(self, key: Key) -> bool:
        """Whether it ends this key, which must be of the same id."""
        if self.revision == 0 == key.revision:
            return key.timestamp_created <= self.timestamp_issued
        return key.revision < self.revision

    def kills(self, state: Record | Tombstone) -> bool:
        """Whether it ends this state, which must be under the same key."""
        return state.timestamp_issued <= self.timestamp_issued


State = Record | Tombstone
KeyOrTombstone = Key | KeyTombstone
"""What a state comes with: the key that it lies under, or the tombstone of that key."""
Value = Key | Record | Tombstone | RecordMetadata | KeyTombstone


def encode(value: Value) -> bytes:
    """The deterministic CBOR of a value."""
    return _encode_cached(value) if is_small(value) else _encode(value)


def digest_of(value: KeyOrTombstone | State) -> bytes:
    """sha256 of the whole value, signatures included: the identity of a state. 32 bytes."""
    return _digest_cached(value) if is_small(value) else sha256(_encode(value)).digest()


def is_small(value: Value) -> bool:
    """Whether a value may be kept in caches: their memory is bounded by count, so large values stay out."""
    if isinstance(value, Record):
        return is_small(value.metadata)
    if isinstance(value, RecordMetadata):
        return len(value.value) + len(value.solution) <= CACHED_BYTES
    if isinstance(value, Key):
        return len(value.label) + len(value.challenge) <= CACHED_BYTES
    if isinstance(value, KeyTombstone):
        return len(value.label) <= CACHED_BYTES
    return len(value.solution) <= CACHED_BYTES


@lru_cache(maxsize=1024)
def _encode_cached(value: Value) -> bytes:
    return _encode(value)


def _encode(value: Value) -> bytes:
    return cbor2.dumps(as_builtins(value), canonical=True)


@lru_cache(maxsize=2048)
def _digest_cached(value: KeyOrTombstone | State) -> bytes:
    return sha256(encode(value)).digest()


def as_builtins(value: Value) -> list[Any]:
    """The value as nested lists for the CBOR encoder, bytes kept."""
    fields = cast("list[Any]", msgspec.to_builtins(value, builtin_types=(bytes,)))
    if isinstance(value, KeyTombstone) and value.revision == 0:
        del fields[-1]
    return fields


@lru_cache(maxsize=8192)
def _cached_key_id(label: str, owner_peer_id: str) -> str:
    return key_id_of(label, owner_peer_id)


def _check_slot(value: RecordMetadata | Tombstone) -> None:
    check_text("key_id", value.key_id, MAX_NAME)
    check_peer_id("issued_by", value.issued_by)
    check_peer_id("peer_id", value.peer_id)
    check_timestamp("timestamp_issued", value.timestamp_issued)
    check_bytes("solution", value.solution, MAX_PROOF)
    check_bytes("issuer_signature", value.issuer_signature, SIGNATURE_BYTES)
