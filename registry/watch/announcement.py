"""Encodes one update as the payload of a topic: deterministic CBOR of the key and of the new state of one slot.

The same update has the same bytes, whoever announces it. Whether they are valid is a function of topic and payload
alone: form and signatures. Times, quotas and staleness are checked by `registry.watch.validator`.

Later versions may announce other things: payloads that begin with a text, which names their kind, and values of kinds
that aren't known here. They may add fields behind the two known ones, too. None of that is invalid.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import cbor2

from overlay.limits.decoder import DecodeError, decode
from registry.errors import InvalidValue, UnknownKind
from registry.model.values import Key, KeyTombstone, Record, encode
from registry.model.verification import (
    key_is_genuine,
    key_tombstone_is_genuine,
    record_is_genuine,
    tombstone_is_genuine,
)
from registry.protocol.messages import Item

MAX_ANNOUNCEMENT: Final = 320 * 1024  # bytes: two values of the largest size that a frame between replicas may hold


class Announced(NamedTuple):
    """What a payload says."""

    item: Item
    is_whole: bool
    """False with fields that aren't known here: nothing of those is verified, so they aren't forwarded."""


def announcement_of(item: Item) -> bytes:
    """Encodes an update as a payload."""
    return _encoded(item, [])


def announced(key_id: str, payload: bytes) -> Announced:
    """Decodes the update in a payload on the topic `key_id`.

    Raises UnknownKind for what only a later version understands, InvalidValue for what no honest peer sends or
    forwards.
    """
    try:
        parts = decode(payload, max_bytes=MAX_ANNOUNCEMENT)
    except DecodeError as error:
        raise InvalidValue(f"an announcement that {error}") from error
    match parts:
        case [bytes(key_or_tombstone), bytes(state), *further]:
            item = Item.decoded(key_or_tombstone, state)
        case [str(), *_]:
            raise UnknownKind("an announcement of a kind that this version doesn't know")
        case _:
            raise InvalidValue("an announcement of another form")
    if _encoded(item, further) != payload:
        raise InvalidValue("an announcement in another encoding than the one that all use")
    if item.key_id != key_id or (item.state is not None and item.state.slot.key_id != key_id):
        raise InvalidValue(f"an announcement of {item.key_id} on the topic {key_id}")
    if not _is_genuine(item):
        raise InvalidValue("an announcement whose signatures don't match")
    return Announced(item, is_whole=not further)


def _encoded(item: Item, further: list[Any]) -> bytes:
    state = encode(item.state) if item.state else b""
    return cbor2.dumps([encode(item.key_or_tombstone), state, *further], canonical=True)


def _is_genuine(item: Item) -> bool:
    key_or_tombstone, state = item.key_or_tombstone, item.state
    if isinstance(key_or_tombstone, KeyTombstone):
        return state is None and key_tombstone_is_genuine(key_or_tombstone)
    if not isinstance(key_or_tombstone, Key) or not key_is_genuine(key_or_tombstone):
        return False
    if state is None:  # without a policy a key alone is no news to anybody who watches
        return key_or_tombstone.revision > 0
    return record_is_genuine(state) if isinstance(state, Record) else tombstone_is_genuine(state)
