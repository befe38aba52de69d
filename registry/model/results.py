"""The result types of the service `registry`, field for field the original's (tests/data/aqua-interface.json)."""

from __future__ import annotations

import msgspec

from registry.model.values import Key, Record, Tombstone


class WeightResult(msgspec.Struct, frozen=True):
    """How much a peer weighs (original: the trust graph's `get_weight`)."""

    success: bool
    weight: int
    peer_id: str
    error: str = ""


class RegistryResult(msgspec.Struct, frozen=True):
    success: bool
    error: str = ""


class RegisterKeyResult(msgspec.Struct, frozen=True):
    success: bool
    error: str = ""
    key_id: str = ""


class GetKeyMetadataResult(msgspec.Struct, frozen=True):
    """`key` is None where the original returned an empty key with `success` false."""

    success: bool
    error: str = ""
    key: Key | None = None


class GetRecordsResult(msgspec.Struct, frozen=True):
    success: bool
    error: str = ""
    result: tuple[Record, ...] = ()


class GetTombstonesResult(msgspec.Struct, frozen=True):
    success: bool
    error: str = ""
    result: tuple[Tombstone, ...] = ()


class MergeResult(msgspec.Struct, frozen=True):
    success: bool
    error: str = ""
    result: tuple[Record, ...] = ()


class MergeKeysResult(msgspec.Struct, frozen=True):
    success: bool
    error: str = ""
    key: Key | None = None


class RepublishRecordsResult(msgspec.Struct, frozen=True):
    success: bool
    error: str = ""
    updated: int = 0


class ClearExpiredResult(msgspec.Struct, frozen=True):
    success: bool
    error: str = ""
    count_keys: int = 0
    count_records: int = 0
    count_tombstones: int = 0


class EvictStaleItem(msgspec.Struct, frozen=True):
    key: Key
    records: tuple[Record, ...]
    tombstones: tuple[Tombstone, ...]


class EvictStaleResult(msgspec.Struct, frozen=True):
    success: bool
    error: str = ""
    results: tuple[EvictStaleItem, ...] = ()
