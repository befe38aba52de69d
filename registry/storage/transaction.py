"""What one write may read and change: rows as typed values, inside one SQLite transaction."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from registry.model.history import HistoryEvent
from registry.model.merge import ResourceState
from registry.model.values import (
    Key,
    KeyOrTombstone,
    KeyTombstone,
    Record,
    Slot,
    State,
    encode,
)
from registry.storage.accounts import Accounts
from registry.storage.change import Change
from registry.storage.checked_rows import (
    NOTHING_ENDED,
    Damage,
    DamagedRow,
    StoredKey,
    StoredState,
    bytes_of,
    checksum_of,
    delete_damaged_state,
    is_text,
    packed_siblings,
    stored_key,
    stored_key_tombstones,
    stored_siblings,
    stored_state,
)
from registry.storage.counts import Counts
from registry.storage.digests import settle
from registry.storage.expired_rows import ExpiredRows
from registry.storage.health_ttls import HealthTtls
from registry.storage.history_table import HistoryTable
from registry.storage.index_table import IndexTable
from registry.storage.issued_slots import IssuedSlots
from registry.storage.positions import Positions
from registry.storage.space import Space, used_bytes, vacuum
from registry.storage.trust_table import TrustTable


class Transaction:
    """Reads see the writes before them. Values are verified before they come here: what is read is trusted, once its
    checksum shows that it is what was stored. What isn't counts as absent; `damaged` collects where it was met, and
    `dropped_as_damaged` what was deleted for it.

    `changes` collects, per key id, what this write changed; `events` why. `source` tells where the write came from.
    `space`: how full the database is, which outlives the transaction, also one that refuses. `may_collect`: whether
    what is old may be deleted for that.
    """

    def __init__(self, connection: sqlite3.Connection, space: Space | None = None, *, may_collect: bool = True) -> None:
        self._connection = connection
        self.may_collect = may_collect
        self.space = space or Space()
        self.changes: defaultdict[str, Change] = defaultdict(Change)
        self.events: list[HistoryEvent] = []
        self.damaged: list[DamagedRow] = []
        self.dropped_as_damaged: list[DamagedRow] = []
        self.accounts = Accounts(connection)
        self.counts = Counts(connection)
        self.expired = ExpiredRows(connection)
        self.health_ttls = HealthTtls(connection)
        self.history = HistoryTable(connection)
        self.index = IndexTable(connection)
        self.issued = IssuedSlots(connection)
        self.positions = Positions(connection)
        self.trust = TrustTable(connection)
        self.source = ""

    def key(self, key_id: str) -> StoredKey | None:
        """The key of a resource, if it is here."""
        row = self._connection.execute(
            "SELECT CAST(body AS BLOB), checksum, timestamp_published, weight FROM keys WHERE key_id = ?", (key_id,)
        ).fetchone()
        return self._key_in(key_id, row) if row else None

    def keys_of(self, owner_peer_id: str, limit: int) -> list[Key]:
        """The newest keys of an owner that are here, `limit` at most."""
        rows = self._connection.execute(
            "SELECT key_id, CAST(body AS BLOB), checksum, timestamp_published, weight FROM keys WHERE owner_peer_id = ?"
            " ORDER BY timestamp_created DESC LIMIT ?",
            (owner_peer_id, limit),
        ).fetchall()
        return [stored.key for key_id, *row in rows if (stored := self._key_in(key_id, tuple(row))) is not None]

    def has_key(self, key_id: str) -> bool:
        """Whether the key of a resource is here."""
        return self._connection.execute("SELECT 1 FROM keys WHERE key_id = ?", (key_id,)).fetchone() is not None

    def owner_of(self, key_id: str) -> str | None:
        """Who owns a resource of which the key, or a tombstone of it, is here."""
        row = self._connection.execute(
            "SELECT owner_peer_id FROM keys WHERE key_id = ?1 UNION ALL"
            " SELECT owner_peer_id FROM key_tombstones WHERE key_id = ?1 LIMIT 1",
            (key_id,),
        ).fetchone()
        return str(row[0]) if row else None

    def siblings(self, key_id: str) -> tuple[Key, ...]:
        """The other keys of the stored one's revision (`ResourceState.siblings`). Those that a disk spoilt are lost:
        they are no more than what other replicas keep too."""
        row = self._connection.execute(
            "SELECT CAST(body AS BLOB), checksum FROM siblings WHERE key_id = ?", (key_id,)
        ).fetchone()
        return stored_siblings(key_id, row) if row else ()

    def put_siblings(self, key: Key, siblings: tuple[Key, ...], weight: int) -> None:
        """Stores the siblings of a key over whatever is there."""
        if not siblings:
            if self._connection.execute("DELETE FROM siblings WHERE key_id = ?", (key.id,)).rowcount:
                self.changes[key.id].siblings = ()
            return
        body = packed_siblings(siblings)
        self._connection.execute(
            "INSERT INTO siblings VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " weight = excluded.weight, body = excluded.body, checksum = excluded.checksum",
            (key.id, key.owner_peer_id, weight, body, checksum_of(body)),
        )
        self.changes[key.id].siblings = siblings

    def put_key(self, key: Key, timestamp_published: int, weight: int) -> None:
        """Stores a key over whatever is there; `timestamp_published` in seconds."""
        self._connection.execute(
            "INSERT INTO keys (key_id, owner_peer_id, timestamp_created, timestamp_published, weight, body, checksum,"
            " has_policy) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " owner_peer_id = excluded.owner_peer_id, timestamp_created = excluded.timestamp_created,"
            " timestamp_published = excluded.timestamp_published, weight = excluded.weight, body = excluded.body,"
            " checksum = excluded.checksum, has_policy = excluded.has_policy",
            (
                key.id,
                key.owner_peer_id,
                key.timestamp_created,
                timestamp_published,
                weight,
                body := encode(key),
                checksum_of(body),
                int(key.revision > 0),
            ),
        )
        self._key_changed(key.id, key)

    def remove_key(self, key_id: str) -> None:
        """Deletes a key, and its siblings; what lies under it stays."""
        self._connection.execute("DELETE FROM keys WHERE key_id = ?", (key_id,))
        self._key_changed(key_id, None)
        self.changes[key_id].siblings = ()

    def _key_in(self, key_id: str, row: tuple[Any, ...]) -> StoredKey | None:
        try:
            return stored_key(key_id, row)
        except Damage as damage:
            self.damaged.append(DamagedRow(key_id, None, False, str(damage)))
            return None

    def _state_in(self, slot: Slot, row: tuple[Any, ...]) -> StoredState | None:
        try:
            return stored_state(slot, row)
        except Damage as damage:
            self.damaged.append(DamagedRow(slot.key_id, slot, False, str(damage)))
            return None

    def drop_damaged(self, row: DamagedRow) -> None:
        """Deletes a row, if it is damaged still."""
        before = len(self.damaged)
        if row.slot is not None:
            for _ in self.states(row.key_id):
                pass
        elif row.is_key_tombstone:
            self.key_tombstones(row.key_id)
        else:
            self.key(row.key_id)
        found = [each[:3] for each in self.damaged[before:]]
        del self.damaged[before:]
        if row[:3] in found:
            self._remove_damaged(row)

    def _remove_damaged(self, row: DamagedRow) -> None:
        if row.slot is not None:
            delete_damaged_state(self._connection, row.slot)
            self.changes[row.key_id].slots[row.slot] = None
        elif row.is_key_tombstone:
            self.remove_key_tombstones(row.key_id)
        else:
            self.remove_key(row.key_id)
        self.dropped_as_damaged.append(row)

    def _key_changed(self, key_id: str, key: Key | None) -> None:
        change = self.changes[key_id]
        change.key, change.key_changed = key, True

    def key_tombstones(self, key_id: str) -> tuple[KeyTombstone, ...]:
        """The tombstones of a key, as `ResourceState` has them: none unless its owner removed it."""
        row = self._connection.execute(
            "SELECT CAST(body AS BLOB), checksum, CAST(latest AS BLOB), latest_checksum FROM key_tombstones"
            " WHERE key_id = ?",
            (key_id,),
        ).fetchone()
        if row is None:
            return ()
        try:
            return stored_key_tombstones(key_id, row)
        except Damage as damage:
            self.damaged.append(DamagedRow(key_id, None, True, str(damage)))
            return ()

    def put_key_tombstones(
        self, key_tombstones: tuple[KeyTombstone, ...], weight: int = 0, victim: int = NOTHING_ENDED
    ) -> None:
        """Stores the tombstones of a key, one or two of them (`kept_key_tombstones`), over whatever is there; what they
        kill stays. See `victim_of_key_tombstone`."""
        first = key_tombstones[0]
        body, latest = encode(first), b"".join(map(encode, key_tombstones[1:]))
        self._connection.execute(
            "INSERT INTO key_tombstones (key_id, owner_peer_id, timestamp_issued, body, weight, victim, checksum,"
            " latest, latest_checksum)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " owner_peer_id = excluded.owner_peer_id, timestamp_issued = excluded.timestamp_issued,"
            " body = excluded.body, weight = excluded.weight, victim = excluded.victim, checksum = excluded.checksum,"
            " latest = excluded.latest, latest_checksum = excluded.latest_checksum",
            (
                first.key_id,
                first.owner_peer_id,
                first.timestamp_issued,
                body,
                weight,
                victim,
                checksum_of(body),
                latest,
                checksum_of(latest),
            ),
        )
        self._key_tombstones_changed(first.key_id, key_tombstones)

    def remove_key_tombstones(self, key_id: str) -> None:
        """Deletes the tombstones of a key."""
        self._connection.execute("DELETE FROM key_tombstones WHERE key_id = ?", (key_id,))
        self._key_tombstones_changed(key_id, ())

    def victim_of_key_tombstone(self, key_id: str) -> int:
        """The latest time (seconds) at which what the tombstones of this key ended here was signed; -1 for nothing."""
        row = self._connection.execute("SELECT victim FROM key_tombstones WHERE key_id = ?", (key_id,)).fetchone()
        return int(row[0]) if row else NOTHING_ENDED

    def forget_key_tombstones(self, issued_until: int, limit: int = -1) -> int:
        """Drops key tombstones issued no later than this (seconds), `limit` of them at most; how many."""
        rows = self._connection.execute(
            "SELECT key_id FROM key_tombstones WHERE timestamp_issued <= ? LIMIT ?", (issued_until, limit)
        )
        key_ids = [key_id for (key_id,) in rows.fetchall()]
        for key_id in key_ids:
            if not is_text(key_id):
                self._connection.execute(
                    "DELETE FROM key_tombstones WHERE CAST(key_id AS BLOB) = ?", (bytes_of(key_id),)
                )
                continue
            left = tuple(each for each in self.key_tombstones(key_id) if each.timestamp_issued > issued_until)
            if left:
                self.put_key_tombstones(
                    left, self._weight_of_key_tombstone(key_id), self.victim_of_key_tombstone(key_id)
                )
            else:
                self.remove_key_tombstones(key_id)
        return len(key_ids)

    def _weight_of_key_tombstone(self, key_id: str) -> int:
        row = self._connection.execute("SELECT weight FROM key_tombstones WHERE key_id = ?", (key_id,)).fetchone()
        return int(row[0]) if row else 0

    def _key_tombstones_changed(self, key_id: str, key_tombstones: tuple[KeyTombstone, ...]) -> None:
        change = self.changes[key_id]
        change.key_tombstones, change.key_tombstones_changed = key_tombstones, True

    def owned_keys(self, owner_peer_id: str, created_until: int) -> list[Key]:
        """An owner's keys, as far as they are here, created at `created_until` (seconds) or before."""
        rows = self._connection.execute(
            "SELECT key_id, CAST(body AS BLOB), checksum, timestamp_published, weight FROM keys"
            " WHERE owner_peer_id = ? AND timestamp_created <= ?",
            (owner_peer_id, created_until),
        )
        return [stored.key for key_id, *row in rows if (stored := self._key_in(key_id, tuple(row)))]

    def note(self, event: HistoryEvent) -> None:
        """Writes down what happened and why, with this change."""
        if self.source and not event.detail:
            event = msgspec.structs.replace(event, detail=self.source)
        self.events.append(event)
        self.history.add(event)

    def vacuum(self, pages: int) -> int:
        """Shrinks the file by up to so many pages that are free in it; bytes, 0 when none is. Not within a write."""
        return vacuum(self._connection, pages)

    def used_bytes(self) -> int:
        """Bytes of the database that hold something."""
        return used_bytes(self._connection)

    def stale_keys(self, published_until: int) -> list[StoredKey]:
        """Keys last published at `published_until` (seconds) or before."""
        rows = self._connection.execute(
            "SELECT key_id, CAST(body AS BLOB), checksum, timestamp_published, weight FROM keys"
            " WHERE timestamp_published <= ?",
            (published_until,),
        )
        return [stored for key_id, *row in rows if (stored := self._key_in(key_id, tuple(row)))]

    def state(self, slot: Slot) -> StoredState | None:
        """The state of a slot, if one is here."""
        row = self._connection.execute(
            "SELECT CAST(body AS BLOB), checksum, weight, victim FROM states"
            " WHERE key_id = ? AND issued_by = ? AND peer_id = ?",
            slot,
        ).fetchone()
        return self._state_in(Slot(*slot), row) if row else None

    def size_of(self, value: KeyOrTombstone | State) -> int:
        """Bytes of what is stored in the place of a value, 0 for nothing."""
        if isinstance(value, Key | KeyTombstone):
            table = "keys" if isinstance(value, Key) else "key_tombstones"
            query, place = f"SELECT length(body) FROM {table} WHERE key_id = ?", (value.id,)  # noqa: S608 - two names
            row = self._connection.execute(query, place).fetchone()
        else:
            row = self._connection.execute(
                "SELECT length(body) FROM states WHERE key_id = ? AND issued_by = ? AND peer_id = ?", value.slot
            ).fetchone()
        return int(row[0]) if row else 0

    def states(self, key_id: str) -> Iterator[StoredState]:
        """All states under a key id."""
        rows = self._connection.execute(
            "SELECT issued_by, peer_id, CAST(body AS BLOB), checksum, weight, victim FROM states WHERE key_id = ?",
            (key_id,),
        )
        for issued_by, peer_id, *row in rows:
            stored = self._state_in(Slot(key_id, issued_by, peer_id), tuple(row))
            if stored is not None:
                yield stored

    def resource(self, key_id: str) -> ResourceState:
        """Everything under one key id."""
        stored = self.key(key_id)
        states = (item.state for item in self.states(key_id))
        siblings = self.siblings(key_id) if stored is not None and stored.key.revision else ()
        key = stored.key if stored is not None else None
        return ResourceState.of(key, states, *self.key_tombstones(key_id), siblings=siblings)

    def put_state(self, state: State, weight: int, victim: int = NOTHING_ENDED, *, is_named: bool = False) -> None:
        """Puts `state` into its slot, over whatever is there. `victim`: see `StoredState`. `is_named`: whether the
        resource's policy names its issuer, or it is certified."""
        is_record, body = isinstance(state, Record), encode(state)
        created = state.timestamp_created if isinstance(state, Record) else 0
        self._delete_state(state.slot)
        self._connection.execute(
            "INSERT INTO states (key_id, issued_by, peer_id, is_tombstone, timestamp_issued, timestamp_created, weight,"
            " body, victim, checksum, is_named) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *state.slot,
                int(not is_record),
                state.timestamp_issued,
                created,
                weight,
                body,
                victim,
                checksum_of(body),
                int(is_named),
            ),
        )
        self.changes[state.slot.key_id].slots[state.slot] = state

    def remove_state(self, slot: Slot) -> None:
        """Deletes the state of a slot."""
        self._delete_state(slot)
        self.changes[slot.key_id].slots[slot] = None

    def _delete_state(self, slot: Slot) -> None:
        self._connection.execute("DELETE FROM states WHERE key_id = ? AND issued_by = ? AND peer_id = ?", slot)

    def hosted_records(self, host_peer_id: str, created_until: int) -> list[Record]:
        """Records that `host_peer_id` signed as their host at `created_until` (seconds) or before."""
        rows = self._connection.execute(
            "SELECT key_id, issued_by, CAST(body AS BLOB), checksum, weight, victim FROM states"
            " WHERE peer_id = ? AND is_tombstone = 0 AND timestamp_created <= ?",
            (host_peer_id, created_until),
        )
        stored = (self._state_in(Slot(key_id, by, host_peer_id), tuple(row)) for key_id, by, *row in rows)
        return [each.state for each in stored if each is not None and isinstance(each.state, Record)]

    def signed_after(self, peer_id: str, after: int, here: str) -> set[str]:
        """Resources of which something is here that an identity of this process signed for later than `after`
        (seconds): a key or key tombstone as their owner, a state as its issuer, a record as its host. `here`: the
        process's own peer id."""
        rows = self._connection.execute(
            "SELECT key_id FROM keys WHERE owner_peer_id = ?1 AND timestamp_created > ?2"
            " UNION SELECT key_id FROM key_tombstones WHERE owner_peer_id = ?1 AND timestamp_issued > ?2"
            " UNION SELECT key_id FROM states WHERE peer_id = ?1 AND is_tombstone = 0 AND timestamp_created > ?2",
            (peer_id, after),
        )
        return {key_id for (key_id,) in rows} | {key_id for key_id, _ in self.issued.of(peer_id, here).after(after)}

    def settle(self) -> None:
        """Computes the digests of what changed: `Store` does it before each commit, and what needs the ages of what a
        write itself changed does it before."""
        for row in settle(self._connection):
            self._remove_damaged(row)
