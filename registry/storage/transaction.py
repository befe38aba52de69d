"""What one write may read and change: rows as typed values, inside one SQLite transaction."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from typing import cast

import msgspec

from registry.errors import InvalidValue, StorageError
from registry.model.history import MAX_EVENTS, HistoryEvent
from registry.model.merge import ResourceState
from registry.model.values import (
    Key,
    KeyTombstone,
    Record,
    Slot,
    State,
    decode_key,
    decode_key_tombstone,
    decode_state,
    encode,
)

_HISTORY_PRUNED_EVERY = 1024  # events
_KEY_IDS = """
    SELECT key_id FROM (SELECT key_id FROM keys WHERE key_id > :after ORDER BY key_id LIMIT :count)
    UNION SELECT key_id FROM (SELECT key_id FROM key_tombstones WHERE key_id > :after ORDER BY key_id LIMIT :count)
    UNION SELECT key_id FROM (SELECT DISTINCT key_id FROM states WHERE key_id > :after ORDER BY key_id LIMIT :count)
    ORDER BY key_id LIMIT :count
"""  # each part has a limit of its own, so that SQLite reads no more of an index than it must
_REMEDY = "restore a copy, or move it away to start empty"


class StoredKey(msgspec.Struct, frozen=True):
    """A key with what only this node knows of it: when it was last published here (seconds), its owner's weight."""

    key: Key
    timestamp_published: int
    weight: int


class StoredState(msgspec.Struct, frozen=True):
    """A record or tombstone with the weight that its issuer had when it came."""

    state: State
    weight: int


class Change:
    """What one write changed under one key id; None where something was removed."""

    __slots__ = ("key", "key_changed", "key_tombstone", "key_tombstone_changed", "slots")

    def __init__(self) -> None:
        self.key: Key | None = None
        self.key_changed = False
        self.key_tombstone: KeyTombstone | None = None
        self.key_tombstone_changed = False
        self.slots: dict[Slot, State | None] = {}


class Transaction:
    """Reads see the writes before them. Values are verified before they come here: what is read is trusted.

    `changes` collects, per key id, what this write changed; `events` why. `source` tells where the write came from.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.changes: defaultdict[str, Change] = defaultdict(Change)
        self.events: list[HistoryEvent] = []
        self.source = ""

    def key(self, key_id: str) -> StoredKey | None:
        """The key of a resource, if it is here."""
        row = self._connection.execute(
            "SELECT body, timestamp_published, weight FROM keys WHERE key_id = ?", (key_id,)
        ).fetchone()
        return _stored_key(row) if row else None

    def has_key(self, key_id: str) -> bool:
        """Whether the key of a resource is here."""
        return self._connection.execute("SELECT 1 FROM keys WHERE key_id = ?", (key_id,)).fetchone() is not None

    def put_key(self, key: Key, timestamp_published: int, weight: int) -> None:
        """Stores a key over whatever is there; `timestamp_published` in seconds."""
        self._connection.execute(
            "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?)",
            (key.id, key.owner_peer_id, key.timestamp_created, timestamp_published, weight, encode(key)),
        )
        self._key_changed(key.id, key)

    def remove_key(self, key_id: str) -> None:
        """Deletes a key; what lies under it stays."""
        self._connection.execute("DELETE FROM keys WHERE key_id = ?", (key_id,))
        self._key_changed(key_id, None)

    def _key_changed(self, key_id: str, key: Key | None) -> None:
        change = self.changes[key_id]
        change.key, change.key_changed = key, True

    def key_tombstone(self, key_id: str) -> KeyTombstone | None:
        """The tombstone of a key, if its owner removed it."""
        row = self._connection.execute("SELECT body FROM key_tombstones WHERE key_id = ?", (key_id,)).fetchone()
        return _stored_key_tombstone(row[0]) if row else None

    def put_key_tombstone(self, key_tombstone: KeyTombstone) -> None:
        """Stores a key tombstone over whatever is there; what it kills stays."""
        self._connection.execute(
            "INSERT OR REPLACE INTO key_tombstones VALUES (?, ?, ?, ?)",
            (key_tombstone.key_id, key_tombstone.owner_peer_id, key_tombstone.timestamp_issued, encode(key_tombstone)),
        )
        self._key_tombstone_changed(key_tombstone.key_id, key_tombstone)

    def forget_key_tombstones(self, issued_until: int) -> int:
        """Drops key tombstones issued no later than this (seconds); how many."""
        rows = self._connection.execute(
            "SELECT key_id FROM key_tombstones WHERE timestamp_issued <= ?", (issued_until,)
        )
        key_ids = [key_id for (key_id,) in rows.fetchall()]
        for key_id in key_ids:
            self._connection.execute("DELETE FROM key_tombstones WHERE key_id = ?", (key_id,))
            self._key_tombstone_changed(key_id, None)
        return len(key_ids)

    def _key_tombstone_changed(self, key_id: str, key_tombstone: KeyTombstone | None) -> None:
        change = self.changes[key_id]
        change.key_tombstone, change.key_tombstone_changed = key_tombstone, True

    def keys_or_tombstones_of(self, owner_peer_id: str) -> int:
        """How many keys and key tombstones of an owner's there are."""
        (count,) = self._connection.execute(
            "SELECT (SELECT count(*) FROM keys WHERE owner_peer_id = :owner)"
            " + (SELECT count(*) FROM key_tombstones WHERE owner_peer_id = :owner)",
            {"owner": owner_peer_id},
        ).fetchone()
        return int(count)

    def owned_keys(self, owner_peer_id: str, created_until: int) -> list[Key]:
        """An owner's keys, as far as they are here, created at `created_until` (seconds) or before."""
        rows = self._connection.execute(
            "SELECT body, timestamp_published, weight FROM keys WHERE owner_peer_id = ? AND timestamp_created <= ?",
            (owner_peer_id, created_until),
        )
        return [_stored_key(row).key for row in rows]

    def key_ids(self, after: str, count: int) -> list[str]:
        """The next `count` resources of which anything is here, in order of their ids."""
        rows = self._connection.execute(_KEY_IDS, {"after": after, "count": count})
        return [key_id for (key_id,) in rows]

    def note(self, event: HistoryEvent) -> None:
        """Writes down what happened and why, with this change."""
        if self.source and not event.detail:
            event = msgspec.structs.replace(event, detail=self.source)
        self.events.append(event)
        number = self._connection.execute(
            "INSERT INTO history (time, key_id, issued_by, peer_id, what, detail) VALUES (?, ?, ?, ?, ?, ?)",
            msgspec.structs.astuple(event),
        ).lastrowid
        if number is not None and number % _HISTORY_PRUNED_EVERY == 0:
            self._connection.execute("DELETE FROM history WHERE number <= ?", (number - MAX_EVENTS,))

    def history(self, key_id: str, count: int) -> list[HistoryEvent]:
        """The last `count` events of a resource, oldest first."""
        rows = self._connection.execute(
            "SELECT time, key_id, issued_by, peer_id, what, detail FROM history WHERE key_id = ?"
            " ORDER BY number DESC LIMIT ?",
            (key_id, count),
        )
        return [HistoryEvent(*row) for row in reversed(rows.fetchall())]

    def vacuum(self) -> int:
        """Shrinks the file by what is free in it; bytes. Not within a write."""
        (free,), (size,) = (
            self._connection.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_size")
        )
        self._connection.execute("PRAGMA incremental_vacuum").fetchall()
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return int(free * size)

    def used_bytes(self) -> int:
        """Bytes of the database that hold something."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def stale_keys(self, published_until: int) -> list[StoredKey]:
        """Keys last published at `published_until` (seconds) or before."""
        return [
            _stored_key(row)
            for row in self._connection.execute(
                "SELECT body, timestamp_published, weight FROM keys WHERE timestamp_published <= ?", (published_until,)
            )
        ]

    def empty_keys(self, created_until: int) -> list[str]:
        """Ids of keys created at `created_until` (seconds) or before that nothing lives under."""
        return [
            key_id
            for (key_id,) in self._connection.execute(
                "SELECT key_id FROM keys WHERE timestamp_created <= ?"
                " AND NOT EXISTS (SELECT 1 FROM states WHERE states.key_id = keys.key_id)",
                (created_until,),
            )
        ]

    def state(self, slot: Slot) -> StoredState | None:
        """The state of a slot, if one is here."""
        row = self._connection.execute(
            "SELECT body, weight FROM states WHERE key_id = ? AND issued_by = ? AND peer_id = ?", slot
        ).fetchone()
        return _stored_state(row) if row else None

    def states(self, key_id: str) -> Iterator[StoredState]:
        """All states under a key id."""
        for row in self._connection.execute("SELECT body, weight FROM states WHERE key_id = ?", (key_id,)):
            yield _stored_state(row)

    def resource(self, key_id: str) -> ResourceState:
        """Everything under one key id."""
        stored = self.key(key_id)
        states = (item.state for item in self.states(key_id))
        return ResourceState.of(stored.key if stored else None, states, self.key_tombstone(key_id))

    def put_state(self, state: State, weight: int) -> None:
        """Puts `state` into its slot, over whatever is there."""
        is_record = isinstance(state, Record)
        created = state.timestamp_created if isinstance(state, Record) else 0
        self._connection.execute(
            "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*state.slot, int(not is_record), state.timestamp_issued, created, weight, encode(state)),
        )
        self.changes[state.slot.key_id].slots[state.slot] = state

    def remove_state(self, slot: Slot) -> None:
        """Deletes the state of a slot."""
        self._connection.execute("DELETE FROM states WHERE key_id = ? AND issued_by = ? AND peer_id = ?", slot)
        self.changes[slot.key_id].slots[slot] = None

    def slots_under(self, key_id: str) -> int:
        """How many records and tombstones lie under a key id."""
        (count,) = self._connection.execute("SELECT count(*) FROM states WHERE key_id = ?", (key_id,)).fetchone()
        return int(count)

    def tombstones_under(self, key_id: str) -> int:
        """How many tombstones lie under a key id."""
        (count,) = self._connection.execute(
            "SELECT count(*) FROM states WHERE key_id = ? AND is_tombstone = 1", (key_id,)
        ).fetchone()
        return int(count)

    def foreign_records(self, key_id: str, host_peer_id: str, issuer: str) -> tuple[int, int]:
        """Of a key's records that other peers host: (all, those by `issuer`)."""
        row = self._connection.execute(
            "SELECT count(*), coalesce(sum(issued_by = ?), 0) FROM states"
            " WHERE key_id = ? AND is_tombstone = 0 AND peer_id != ?",
            (issuer, key_id, host_peer_id),
        ).fetchone()
        return cast("tuple[int, int]", row)

    def lightest_foreign_record(self, key_id: str, host_peer_id: str) -> tuple[int, Slot]:
        """(weight, slot) of the lightest of a key's records that other peers host, the oldest among equals.

        There must be one.
        """
        weight, *slot = self._connection.execute(
            "SELECT weight, key_id, issued_by, peer_id FROM states"
            " WHERE key_id = ? AND is_tombstone = 0 AND peer_id != ?"
            " ORDER BY weight, timestamp_issued, issued_by, peer_id LIMIT 1",
            (key_id, host_peer_id),
        ).fetchone()
        return weight, Slot(*slot)

    def hosted_records(self, host_peer_id: str, created_until: int) -> list[Record]:
        """Records that `host_peer_id` signed as their host at `created_until` (seconds) or before."""
        rows = self._connection.execute(
            "SELECT body, weight FROM states WHERE peer_id = ? AND is_tombstone = 0 AND timestamp_created <= ?",
            (host_peer_id, created_until),
        )
        return [cast("Record", _stored_state(row).state) for row in rows]

    def hosting(self, host_peer_id: str, issuer: str) -> tuple[int, int, int]:
        """What a host holds for others: (records, their bytes, records by `issuer`)."""
        row = self._connection.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0), coalesce(sum(issued_by = ?), 0) FROM states"
            " WHERE peer_id = ? AND is_tombstone = 0 AND issued_by != ?",
            (issuer, host_peer_id, host_peer_id),
        ).fetchone()
        return cast("tuple[int, int, int]", row)

    def expired_slots(self, created_until: int, records_issued_until: int) -> list[Slot]:
        """Slots of records whose host or issuer signed no later than these (seconds)."""
        rows = self._connection.execute(
            "SELECT key_id, issued_by, peer_id FROM states WHERE is_tombstone = 0"
            " AND (timestamp_created <= ? OR timestamp_issued <= ?)",
            (created_until, records_issued_until),
        )
        return [Slot(*row) for row in rows]

    def expired_foreign_slots(
        self, key_id: str, host_peer_id: str, created_until: int, issued_until: int
    ) -> list[Slot]:
        """Of a key's records that other peers host, those signed by host or issuer no later than these (seconds)."""
        rows = self._connection.execute(
            "SELECT key_id, issued_by, peer_id FROM states WHERE key_id = ? AND is_tombstone = 0 AND peer_id != ?"
            " AND (timestamp_created <= ? OR timestamp_issued <= ?)",
            (key_id, host_peer_id, created_until, issued_until),
        )
        return [Slot(*row) for row in rows.fetchall()]

    def expired_tombstones(self, issued_until: int) -> list[Slot]:
        """Slots of tombstones issued no later than this (seconds)."""
        rows = self._connection.execute(
            "SELECT key_id, issued_by, peer_id FROM states WHERE is_tombstone = 1 AND timestamp_issued <= ?",
            (issued_until,),
        )
        return [Slot(*row) for row in rows]

    def last_issued(self, key_id: str, peer_id: str) -> int:
        """The last timestamp_issued that this node's identity gave to a slot; -1 for none."""
        row = self._connection.execute(
            "SELECT timestamp_issued FROM issued WHERE key_id = ? AND peer_id = ?", (key_id, peer_id)
        ).fetchone()
        return row[0] if row else -1

    def issued_slots(self, issued_until: int) -> list[tuple[str, str]]:
        """(key id, hosting peer) of what this node's identity issued at `issued_until` (seconds) or before."""
        return self._connection.execute(
            "SELECT key_id, peer_id FROM issued WHERE timestamp_issued <= ?", (issued_until,)
        ).fetchall()

    def record_issued(self, key_id: str, peer_id: str, timestamp_issued: int) -> None:
        """Notes the timestamp (seconds) that this node's identity gives to a slot; `last_issued` never goes back."""
        self._connection.execute(
            "INSERT INTO issued VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET timestamp_issued = max(timestamp_issued, excluded.timestamp_issued)",
            (key_id, peer_id, timestamp_issued),
        )

    def forget_issued(self, issued_until: int) -> None:
        """Drops what no replica can hold any more."""
        self._connection.execute("DELETE FROM issued WHERE timestamp_issued <= ?", (issued_until,))

    def counts(self) -> tuple[int, int, int]:
        """(keys, records, tombstones)."""
        (keys,) = self._connection.execute("SELECT count(*) FROM keys").fetchone()
        records, tombstones = self._connection.execute(
            "SELECT coalesce(sum(is_tombstone = 0), 0), coalesce(sum(is_tombstone = 1), 0) FROM states"
        ).fetchone()
        return keys, records, tombstones


def _stored_key(row: tuple[bytes, int, int]) -> StoredKey:
    try:
        return StoredKey(key=decode_key(row[0]), timestamp_published=row[1], weight=row[2])
    except InvalidValue as error:
        raise StorageError(f"the database holds a damaged key: {error}; {_REMEDY}") from error


def _stored_key_tombstone(blob: bytes) -> KeyTombstone:
    try:
        return decode_key_tombstone(blob)
    except InvalidValue as error:
        raise StorageError(f"the database holds a damaged key tombstone: {error}; {_REMEDY}") from error


def _stored_state(row: tuple[bytes, int]) -> StoredState:
    try:
        return StoredState(state=decode_state(row[0]), weight=row[1])
    except InvalidValue as error:
        raise StorageError(f"the database holds a damaged record or tombstone: {error}; {_REMEDY}") from error
