"""The events that a watcher of a resource is told."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from registry.health.health_reader import RecordHealth
from registry.model.values import Record, Slot

POLICY: Final = "policy"
CERTIFICATE: Final = "certificate"
TRUST: Final = "trust"


class EventKind(enum.Enum):
    """The kinds of events. The first event is a snapshot; each other one is of one record."""

    SNAPSHOT = "snapshot"
    ADDED = "added"
    UPDATED = "updated"
    REMOVED = "removed"
    """Its issuer unregistered it, the owner removed the resource, a policy withholds it now, or this watcher doesn't
    trust it any more (`reason`)."""
    EXPIRED = "expired"
    """Its host didn't renew it, or nobody knows it any more."""
    DOWN = "down"
    """Its host isn't there any more, as presence says. The record is kept: it comes back with its host."""
    UP = "up"
    """Its host is there again."""
    HEALTH = "health"
    """Its host says that the service is in another state (`health`)."""


class WatchEvent(msgspec.Struct, frozen=True):
    """One change of the visible records. A record that was only signed anew is no change."""

    kind: EventKind
    record: Record | None = None
    """The record as it is now, or as it was last seen if it went. None in a snapshot."""
    records: tuple[Record, ...] = ()
    """In a snapshot: all live records, without those that are down or don't pass unless they were asked for."""
    reason: str = ""
    """Of a record that its resource's policy withholds now: `CERTIFICATE` if its certificate ended, else `POLICY`.
    `TRUST` if it is there, and of those whom this watcher chose to trust it isn't any more."""
    coalesced: int = 0
    """How many earlier changes of the same record weren't told, because the watcher was slower than they came."""
    health: RecordHealth | None = None
    """Of the record, as it was when this was told; None where there is no presence, and in a snapshot."""
    healths: Mapping[Slot, RecordHealth] = {}
    """In a snapshot: of each of its records, as it was when this was told; empty where there is no presence."""


def same_content(one: Record, other: Record) -> bool:
    """Whether two records of one slot tell their users the same."""
    return _content(one) == _content(other)


def _content(record: Record) -> tuple[object, ...]:
    metadata = record.metadata
    return metadata.value, metadata.service_id, metadata.relay_id, metadata.solution


Visible = dict[Slot, Record]
"""The live records by slot."""
