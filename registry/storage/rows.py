"""What rows of the database hold, as typed values."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from registry.errors import InvalidValue, StorageError
from registry.model.values import (
    Key,
    KeyTombstone,
    State,
    decode_key,
    decode_key_tombstone,
    decode_state,
)

NOTHING_ENDED: Final = -1
"""The victim of what ended nothing here."""
_REMEDY = "restore a copy, or move it away to start empty"


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
    """A resource where it is in the keyspace. `digest` is of all that is stored; `is_alive`: none of it is too old."""

    position: bytes
    key_id: str
    digest: bytes
    is_alive: bool


def stored_key(row: tuple[bytes, int, int]) -> StoredKey:
    """The key of a row (body, timestamp_published, weight). Raises `StorageError` for a damaged one."""
    try:
        return StoredKey(key=decode_key(row[0]), timestamp_published=row[1], weight=row[2])
    except InvalidValue as error:
        raise StorageError(f"the database holds a damaged key: {error}; {_REMEDY}") from error


def stored_key_tombstone(blob: bytes) -> KeyTombstone:
    """The key tombstone of a row's body. Raises `StorageError` for a damaged one."""
    try:
        return decode_key_tombstone(blob)
    except InvalidValue as error:
        raise StorageError(f"the database holds a damaged key tombstone: {error}; {_REMEDY}") from error


def stored_state(row: tuple[bytes, int, int]) -> StoredState:
    """The state of a row (body, weight, victim). Raises `StorageError` for a damaged one."""
    try:
        return StoredState(state=decode_state(row[0]), weight=row[1], victim=row[2])
    except InvalidValue as error:
        raise StorageError(f"the database holds a damaged record or tombstone: {error}; {_REMEDY}") from error
