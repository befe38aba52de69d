"""What rows of the database hold, as typed values, once it is clear that it is what was stored there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar
from zlib import crc32

import cbor2
import msgspec

from overlay.limits.decoder import DecodeError, decode
from registry.errors import InvalidValue
from registry.model.decoding import decode_key, decode_key_tombstone, decode_state
from registry.model.values import MAX_BLOB, Key, KeyTombstone, Slot, State, encode

Value = TypeVar("Value")

NOTHING_ENDED: Final = -1
"""The victim of what ended nothing here."""
ROTTEN: Final = "the body doesn't match its checksum"


class StoredKey(msgspec.Struct, frozen=True):
    """A key with what only this node knows of it: when it was last published here (seconds), its owner's weight."""

    key: Key
    timestamp_published: int
    weight: int


class StoredState(msgspec.Struct, frozen=True):
    """A record or tombstone with the weight that its issuer had when it came.

    `victim`: the latest timestamp_issued of the records that tombstones of this slot ended here, -1 for none.
    """

    state: State
    weight: int
    victim: int = NOTHING_ENDED


class Place(NamedTuple):
    """A resource where it is in the keyspace. `digest` is of all that is stored; `is_alive`: none of it is too old.
    `oldest`: the oldest signature of each kind, as `ExpiryHorizon` has them, where that was asked for too."""

    position: bytes
    key_id: str
    digest: bytes
    is_alive: bool
    oldest: tuple[int, ...] = ()


class DamagedRow(NamedTuple):
    """Where a row is that doesn't hold what was stored there: a slot's state, or the key or tombstone of a resource."""

    key_id: str
    slot: Slot | None
    is_key_tombstone: bool
    reason: str


class Damage(Exception):
    """A row doesn't hold what was stored there."""


def checksum_of(body: bytes) -> int:
    """What is stored beside a body, so that a change of either by the disk is noticed: its CRC-32."""
    return crc32(body)


def is_whole(body: object, checksum: object) -> bool:
    """Whether a body is what was stored. A page that rotted may hold any type that SQLite knows."""
    return isinstance(body, bytes) and checksum_of(body) == checksum


def text_of(raw: bytes) -> str:
    """What a column of text holds, whatever a disk made of it: SQLite's own reading fails for all rows at once."""
    return raw.decode("utf-8", "surrogateescape")


def is_text(text: str) -> bool:
    """Whether `text_of` read text, which SQLite can be asked for: not so where a disk changed its bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def bytes_of(text: str) -> bytes:
    """What `text_of` read."""
    return text.encode("utf-8", "surrogateescape")


def shown(text: str) -> str:
    """What `text_of` read, as logs can hold it."""
    return bytes_of(text).decode("utf-8", "backslashreplace")


def delete_damaged_state(connection: sqlite3.Connection, slot: Slot) -> None:
    """Deletes a row of `states`, the columns of whose slot may not even be text any more."""
    key_id, *parts = slot
    connection.execute(
        "DELETE FROM states WHERE key_id = ? AND CAST(issued_by AS BLOB) = ? AND CAST(peer_id AS BLOB) = ?",
        (key_id, *map(bytes_of, parts)),
    )


def stored_key(key_id: str, row: tuple[bytes, int, int, int]) -> StoredKey:
    """The key in a row (body, checksum, timestamp_published, weight). Raises `Damage`."""
    key = _value(decode_key, row[0], row[1])
    if key.id != key_id:
        raise Damage(f"a key of another id, {key.id}")
    return StoredKey(key=key, timestamp_published=row[2], weight=row[3])


def packed_siblings(siblings: Iterable[Key]) -> bytes:
    """The body of a row of `siblings`."""
    return cbor2.dumps([encode(key) for key in siblings], canonical=True)


def stored_siblings(key_id: str, row: tuple[bytes, int]) -> tuple[Key, ...]:
    """The keys in a row (body, checksum); none if it isn't what was stored."""
    body, checksum = row
    if not is_whole(body, checksum):
        return ()
    try:
        blobs = decode(body, max_bytes=MAX_BLOB)
        keys = tuple(map(decode_key, blobs)) if isinstance(blobs, list) else ()
    except (DecodeError, InvalidValue):
        return ()
    return keys if all(key.id == key_id for key in keys) else ()


def stored_key_tombstones(key_id: str, row: tuple[bytes, int, bytes, int]) -> tuple[KeyTombstone, ...]:
    """The key tombstones in a row (body, checksum, latest, its checksum). Raises `Damage`."""
    found = [_value(decode_key_tombstone, row[0], row[1])]
    if row[2] != b"":
        found.append(_value(decode_key_tombstone, row[2], row[3]))
    for key_tombstone in found:
        if key_tombstone.id != key_id:
            raise Damage(f"a tombstone of another key, {key_tombstone.id}")
    return tuple(found)


def stored_state(slot: Slot, row: tuple[bytes, int, int, int]) -> StoredState:
    """The state in a row (body, checksum, weight, victim). Raises `Damage`."""
    state = _value(decode_state, row[0], row[1])
    if state.slot != slot:
        raise Damage(f"a state of another slot, {state.slot}")
    return StoredState(state=state, weight=row[2], victim=row[3])


def _value(decode: Callable[[bytes], Value], body: bytes, checksum: int) -> Value:
    if not is_whole(body, checksum):
        raise Damage(ROTTEN)
    try:
        return decode(body)
    except InvalidValue as error:
        raise Damage(str(error)) from error
