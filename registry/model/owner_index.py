"""What an owner's index tells: the keys and key tombstones of its resources, by label; and how pages of it are merged.

Each is signed by the owner, so nobody can enter anything for somebody else. An entry is a join-semilattice like the
resource that it stands for (docs/design.md, Names and lists). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple, Self

import msgspec

from registry.errors import InvalidValue
from registry.model.merge import ResourceState
from registry.model.values import Key, KeyOrTombstone, KeyTombstone, digest_of, encode
from registry.model.verification import is_expired
from registry.settings import RegistrySettings


class IndexEntry(msgspec.Struct, frozen=True):
    """One resource of an owner's: its key, or the tombstones that ended it (`kept_key_tombstones`), or both."""

    key: Key | None
    key_tombstones: tuple[KeyTombstone, ...] = ()

    @classmethod
    def of(cls, *values: KeyOrTombstone) -> Self:
        """The merge of keys and key tombstones of one resource, at least one of either. Raises InvalidValue for those
        of several."""
        if len({value.id for value in values}) != 1:
            raise InvalidValue("an entry of an index is of one resource")
        keys = [value for value in values if isinstance(value, Key)]
        known = ResourceState.of(None, [], *(each for each in values if isinstance(each, KeyTombstone)), siblings=keys)
        return cls(known.key, known.key_tombstones)

    def values(self) -> tuple[KeyOrTombstone, ...]:
        """The values that it consists of, the key first."""
        return (*((self.key,) if self.key is not None else ()), *self.key_tombstones)

    @property
    def label(self) -> str:
        """The resource's, by which an index is in order."""
        return self.values()[0].label

    @property
    def owner_peer_id(self) -> str:
        """Whose index it belongs to."""
        return self.values()[0].owner_peer_id

    @property
    def key_id(self) -> str:
        """The resource's id."""
        return self.values()[0].id

    @property
    def newest(self) -> int:
        """When the owner last signed any of it (seconds)."""
        return max(_time_of(value) for value in self.values())

    def merged(self, other: IndexEntry) -> IndexEntry:
        """The join with another entry of the same resource."""
        return IndexEntry.of(*self.values(), *other.values())

    def fresh(self, created_until: int, removed_until: int) -> IndexEntry | None:
        """Without the key if it was created, and tombstones that were issued, at these times (seconds) or before; None
        when nothing is left."""
        key = self.key if self.key is not None and self.key.timestamp_created > created_until else None
        ended = tuple(each for each in self.key_tombstones if each.timestamp_issued > removed_until)
        if key is self.key and len(ended) == len(self.key_tombstones):
            return self
        return IndexEntry(key, ended) if key is not None or ended else None

    def digest(self) -> bytes:
        """The identity of an entry: no resource has the same. 32 bytes."""
        return sha256(b"index" + b"".join(map(digest_of, self.values()))).digest()

    def size(self) -> int:
        """The bytes that it takes in CBOR."""
        return sum(len(encode(value)) for value in self.values())


class ResourceStanding(StrEnum):
    """How a resource of an index is: `live`; `expired`, when its owner hasn't renewed it for the expired age, so that
    it lasts only where something is registered on it; or `removed` by its owner."""

    LIVE = "live"
    EXPIRED = "expired"
    REMOVED = "removed"


class ListedResource(msgspec.Struct, frozen=True):
    """A resource as a list of its owner's shows it. `time`: when its owner last created, renewed or removed it (seconds
    since 1970)."""

    resource_id: str
    label: str
    owner_peer_id: str
    standing: ResourceStanding
    time: int


def listed(entry: IndexEntry, now: int, settings: RegistrySettings) -> ListedResource:
    """How an entry is shown at `now` (seconds)."""
    if entry.key is None:
        standing, time = ResourceStanding.REMOVED, max(each.timestamp_issued for each in entry.key_tombstones)
    else:
        time = entry.key.timestamp_created
        is_old = is_expired(time, settings.expired_age, now)
        standing = ResourceStanding.EXPIRED if is_old else ResourceStanding.LIVE
    return ListedResource(entry.key_id, entry.label, entry.owner_peer_id, standing, time)


class ToldPage(NamedTuple):
    """A page that one replica told of an index, in order of the labels. `last`: the label up to which it told all that
    it has; None at the end of its index."""

    entries: Sequence[IndexEntry]
    last: str | None


def merged_page(pages: Iterable[ToldPage], limit: int) -> tuple[list[IndexEntry], str | None]:
    """What several replicas' pages, all asked for after one label, come to: up to `limit` entries, and the label after
    which the next page begins, None at the end.

    It ends where the first of them ends: what lies beyond, that one may have otherwise.
    """
    told = list(pages)
    bound = min((page.last for page in told if page.last is not None), default=None)
    of_each: dict[str, IndexEntry] = {}
    for entry in (entry for page in told for entry in page.entries):
        if bound is None or entry.label <= bound:
            known = of_each.get(entry.label)
            of_each[entry.label] = entry if known is None else known.merged(entry)
    labels = sorted(of_each)
    found = [of_each[label] for label in labels[:limit]]
    if len(labels) > limit:
        return found, labels[limit - 1]
    return found, bound


def _time_of(value: KeyOrTombstone) -> int:
    return value.timestamp_created if isinstance(value, Key) else value.timestamp_issued
