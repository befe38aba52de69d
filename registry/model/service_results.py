"""The result types of the service `registry`, field for field those of the original's interface file."""

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
    """What a function comes to that returns nothing else."""

    success: bool
    error: str = ""


class RegisterKeyResult(msgspec.Struct, frozen=True):
    """The id of the key that was stored; empty when it wasn't."""

    success: bool
    error: str = ""
    key_id: str = ""


class GetKeyMetadataResult(msgspec.Struct, frozen=True):
    """`key` is None where the original returned an empty key with `success` false."""

    success: bool
    error: str = ""
    key: Key | None = None


class GetRecordsResult(msgspec.Struct, frozen=True):
    """Records of a resource."""

    success: bool
    error: str = ""
    result: tuple[Record, ...] = ()


class GetTombstonesResult(msgspec.Struct, frozen=True):
    """Tombstones of a resource."""

    success: bool
    error: str = ""
    result: tuple[Tombstone, ...] = ()


class MergeResult(msgspec.Struct, frozen=True):
    """The winners among several replicas' records."""

    success: bool
    error: str = ""
    result: tuple[Record, ...] = ()


class MergeKeysResult(msgspec.Struct, frozen=True):
    """The winner among several replicas' keys; None where the original returned an empty key."""

    success: bool
    error: str = ""
    key: Key | None = None


class RepublishRecordsResult(msgspec.Struct, frozen=True):
    """How many of the records given were news."""

    success: bool
    error: str = ""
    updated: int = 0


class ClearExpiredResult(msgspec.Struct, frozen=True):
    """How much was collected; key tombstones count as tombstones."""

    success: bool
    error: str = ""
    count_keys: int = 0
    count_records: int = 0
    count_tombstones: int = 0


class EvictStaleItem(msgspec.Struct, frozen=True):
    """A stale key with all that lives under it."""

    key: Key
    records: tuple[Record, ...]
    tombstones: tuple[Tombstone, ...]


class EvictStaleResult(msgspec.Struct, frozen=True):
    """What is handed out for others to keep."""

    success: bool
    error: str = ""
    results: tuple[EvictStaleItem, ...] = ()
