"""What somebody who watches a resource is told."""

from __future__ import annotations

import enum

import msgspec

from registry.model.values import Record, Slot


class EventKind(enum.Enum):
    """The first event is a snapshot; each other one is of one record."""

    SNAPSHOT = "snapshot"
    ADDED = "added"
    UPDATED = "updated"
    REMOVED = "removed"
    """Its issuer unregistered it, or the owner removed the resource."""
    EXPIRED = "expired"
    """Its host didn't renew it, or nobody knows it any more."""


class WatchEvent(msgspec.Struct, frozen=True):
    """One change. A record that was only signed anew is no change."""

    kind: EventKind
    record: Record | None = None
    """As it is now; of what went, as it was last seen. None in a snapshot."""
    records: tuple[Record, ...] = ()
    """In a snapshot: all live records."""
    coalesced: int = 0
    """Changes of the same record before this one that weren't told, because whoever watches was slower than they."""


def same_content(one: Record, other: Record) -> bool:
    """Whether users of two records of one slot are told the same."""
    return _content(one) == _content(other)


def _content(record: Record) -> tuple[object, ...]:
    metadata = record.metadata
    return metadata.value, metadata.service_id, metadata.relay_id, metadata.solution


Visible = dict[Slot, Record]
"""The live records by slot."""
