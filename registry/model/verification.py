"""Is a value genuine, and is its time acceptable? Pure: the clock comes in as an argument.

A signature's truth is a function of the value alone, so verdicts are cached by value (bounded); times are judged anew
each time. The checks and their errors come in the original's order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from overlay.identity import verify
from registry.errors import (
    InvalidKeySignature,
    InvalidKeyTimestamp,
    InvalidKeyTombstoneSignature,
    InvalidRecordMetadataSignature,
    InvalidRecordMetadataTimestamp,
    InvalidRecordSignature,
    InvalidRecordTimestamp,
    InvalidTombstoneSignature,
    InvalidTombstoneTimestamp,
    InvalidValue,
    KeyAlreadyExpired,
    RecordAlreadyExpired,
    RegistryRefusal,
    TombstoneAlreadyExpired,
)
from registry.model.values import (
    Key,
    KeyOrTombstone,
    KeyTombstone,
    Record,
    RecordMetadata,
    State,
    Tombstone,
    Value,
    is_small,
)
from registry.settings import RegistrySettings

VERIFIED_AT_ONCE: Final = 32
"""Values after which other tasks get their turn: a frame can hold thousands, each with two signatures."""

_REASON = "signature doesn't match"


def is_expired(timestamp: int, age: int, now: int) -> bool:
    """Whether the age has reached `age`: one boundary everywhere (docs/design.md, original's fault 10). In seconds."""
    return now - timestamp >= age


def check_key(key: Key, now: int, settings: RegistrySettings) -> None:
    """Raises RegistryRefusal: from the future, older than its owner's signature is good for, or not the owner's."""
    if key.timestamp_created > now + settings.clock_skew:
        raise InvalidKeyTimestamp
    if is_expired(key.timestamp_created, settings.key_lifetime, now):
        raise KeyAlreadyExpired
    if not key_is_genuine(key):
        raise InvalidKeySignature(key.id, key.label, key.owner_peer_id, _REASON)


def check_record(record: Record, now: int, settings: RegistrySettings) -> None:
    """Raises RegistryRefusal: from the future, expired, or not signed by issuer and host."""
    metadata = record.metadata
    if record.timestamp_created > now + settings.clock_skew:
        raise InvalidRecordTimestamp
    if is_expired(record.timestamp_created, settings.expired_age, now):
        raise RecordAlreadyExpired
    check_metadata(metadata, now, settings)
    if not record_is_genuine(record):
        raise InvalidRecordSignature(metadata.key_id, metadata.issued_by, _REASON)


def check_metadata(metadata: RecordMetadata, now: int, settings: RegistrySettings) -> None:
    """Raises RegistryRefusal: from the future, older than its issuer's signature is good for, or not the issuer's."""
    if metadata.timestamp_issued > now + settings.clock_skew:
        raise InvalidRecordMetadataTimestamp
    if is_expired(metadata.timestamp_issued, settings.record_lifetime, now):
        raise RecordAlreadyExpired
    if not metadata_is_genuine(metadata):
        raise InvalidRecordMetadataSignature(metadata.key_id, metadata.issued_by, _REASON)


def check_tombstone(tombstone: Tombstone, now: int, settings: RegistrySettings) -> None:
    """Raises RegistryRefusal: from the future, older than anything it could kill, or not the issuer's."""
    if tombstone.timestamp_issued > now + settings.clock_skew:
        raise InvalidTombstoneTimestamp
    if is_expired(tombstone.timestamp_issued, settings.tombstone_lifetime, now):
        raise TombstoneAlreadyExpired
    if not tombstone_is_genuine(tombstone):
        raise InvalidTombstoneSignature(tombstone.key_id, tombstone.issued_by, _REASON)


def check_key_tombstone(key_tombstone: KeyTombstone, now: int, settings: RegistrySettings) -> None:
    """Raises RegistryRefusal: from the future, older than anything it could kill, or not the owner's."""
    if key_tombstone.timestamp_issued > now + settings.clock_skew:
        raise InvalidTombstoneTimestamp
    if is_expired(key_tombstone.timestamp_issued, settings.key_tombstone_lifetime, now):
        raise TombstoneAlreadyExpired
    if not key_tombstone_is_genuine(key_tombstone):
        raise InvalidKeyTombstoneSignature(key_tombstone.key_id, _REASON)


def check_key_or_tombstone(key_or_tombstone: KeyOrTombstone, now: int, settings: RegistrySettings) -> None:
    """Checks a key as `check_key` does, and its tombstone as `check_key_tombstone` does."""
    if isinstance(key_or_tombstone, Key):
        check_key(key_or_tombstone, now, settings)
    else:
        check_key_tombstone(key_or_tombstone, now, settings)


def check_state(state: State, now: int, settings: RegistrySettings) -> None:
    """Checks a record as `check_record` does, and a tombstone as `check_tombstone` does."""
    if isinstance(state, Record):
        check_record(state, now, settings)
    else:
        check_tombstone(state, now, settings)


def check_field_limits(value: KeyOrTombstone | RecordMetadata | State, settings: RegistrySettings) -> None:
    """Raises InvalidValue where the operator's limits are tighter than the form's."""
    if isinstance(value, Key | KeyTombstone):
        if len(value.label.encode()) > settings.max_label:
            raise InvalidValue(f"label has {len(value.label.encode())} bytes, more than {settings.max_label}")
    elif not isinstance(value, Tombstone):
        metadata = value.metadata if isinstance(value, Record) else value
        if len(metadata.value.encode()) > settings.max_value:
            raise InvalidValue(f"value has {len(metadata.value.encode())} bytes, more than {settings.max_value}")


def is_good(state: State, now: int, settings: RegistrySettings) -> bool:
    """Whether a state may be merged, stored and served now."""
    try:
        check_state(state, now, settings)
    except RegistryRefusal:
        return False
    return True


def key_is_good(key: Key, now: int, settings: RegistrySettings) -> bool:
    """Whether a key may be merged, stored and served now."""
    try:
        check_key(key, now, settings)
    except RegistryRefusal:
        return False
    return True


def key_tombstone_is_good(key_tombstone: KeyTombstone, now: int, settings: RegistrySettings) -> bool:
    """Whether a key tombstone may be merged, stored and served now."""
    try:
        check_key_tombstone(key_tombstone, now, settings)
    except RegistryRefusal:
        return False
    return True


def key_tombstone_is_genuine(key_tombstone: KeyTombstone) -> bool:
    """Signed by the resource's owner."""
    return _is_genuine(key_tombstone)


def key_is_genuine(key: Key) -> bool:
    """Signed by its owner."""
    return _is_genuine(key)


def metadata_is_genuine(metadata: RecordMetadata) -> bool:
    """Signed by its issuer."""
    return _is_genuine(metadata)


def record_is_genuine(record: Record) -> bool:
    """Signed by its issuer and its host."""
    return _is_genuine(record.metadata) and _is_genuine(record)


def tombstone_is_genuine(tombstone: Tombstone) -> bool:
    """Signed by its issuer."""
    return _is_genuine(tombstone)


def _is_genuine(value: Value) -> bool:
    return _verdict_cached(value) if is_small(value) else _verdict(value)


@lru_cache(maxsize=4096)
def _verdict_cached(value: Value) -> bool:
    return _verdict(value)


def _verdict(value: Value) -> bool:
    """Whether the value's own signature is its signer's; a record's metadata is another value."""
    if isinstance(value, Key | KeyTombstone):
        signer, signature = value.owner_peer_id, value.signature
    elif isinstance(value, Record):
        signer, signature = value.metadata.peer_id, value.signature
    else:
        signer, signature = value.issued_by, value.issuer_signature
    return verify(signer, value.signed_bytes(), signature)
