"""Encodes one update as the payload of a topic: deterministic CBOR of the key and of the new state of one slot.

The same update has the same bytes, whoever announces it. Whether they are valid is a function of topic and payload
alone: form and signatures. Times, quotas and staleness are checked by `registry.watch.validator`.
"""

from __future__ import annotations

from typing import Final

import cbor2

from overlay.limits.decoder import DecodeError, decode
from registry.errors import InvalidValue
from registry.model.values import Key, KeyTombstone, Record, decode_key_or_tombstone, decode_state, encode
from registry.model.verification import (
    key_is_genuine,
    key_tombstone_is_genuine,
    record_is_genuine,
    tombstone_is_genuine,
)
from registry.protocol.messages import Item

MAX_ANNOUNCEMENT: Final = 320 * 1024  # bytes: two values of the largest size that a frame between replicas may hold


def announcement_of(item: Item) -> bytes:
    """Encodes an update as a payload."""
    return cbor2.dumps([encode(item.key_or_tombstone), encode(item.state) if item.state else b""], canonical=True)


def announced(key_id: str, payload: bytes) -> Item:
    """Decodes the update in a payload on the topic `key_id`. Raises InvalidValue for what no honest peer sends or
    forwards."""
    try:
        parts = decode(payload, max_bytes=MAX_ANNOUNCEMENT)
    except DecodeError as error:
        raise InvalidValue(f"an announcement that {error}") from error
    match parts:
        case [bytes(key_or_tombstone), bytes(state)]:
            item = Item(decode_key_or_tombstone(key_or_tombstone), decode_state(state) if state else None)
        case _:
            raise InvalidValue("an announcement of another form")
    if announcement_of(item) != payload:
        raise InvalidValue("an announcement in another encoding than the one that all use")
    if item.key_id != key_id or (item.state is not None and item.state.slot.key_id != key_id):
        raise InvalidValue(f"an announcement of {item.key_id} on the topic {key_id}")
    if not _is_genuine(item):
        raise InvalidValue("an announcement whose signatures don't match")
    return item


def _is_genuine(item: Item) -> bool:
    key_or_tombstone, state = item.key_or_tombstone, item.state
    if isinstance(key_or_tombstone, KeyTombstone):
        return state is None and key_tombstone_is_genuine(key_or_tombstone)
    if state is None or not isinstance(key_or_tombstone, Key) or not key_is_genuine(key_or_tombstone):
        return False  # a key alone is no news to anybody who watches
    return record_is_genuine(state) if isinstance(state, Record) else tombstone_is_genuine(state)
