"""What this node keeps of the indexes of owners: one row for each resource, by owner and label."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import cbor2

from overlay.discovery.keyspace import POSITION_BYTES, resource_position
from overlay.limits.decoder import DecodeError, decode
from registry.errors import InvalidValue
from registry.model.decoding import decode_key_or_tombstone
from registry.model.owner_index import IndexEntry, ToldPage
from registry.model.values import MAX_BLOB, encode
from registry.storage.accounts import Account, Charged
from registry.storage.checked_rows import bytes_of, checksum_of, is_text, is_whole
from registry.storage.migrations import ROW_BYTES

_NEVER: Final = 2**63 - 1
"""In the place of a time that isn't there (SQLite's greatest number)."""


class IndexPlace(NamedTuple):
    """A resource in its owner's index, where that is in the keyspace. `digest`: of the whole entry; `is_alive`: none of
    it is too old; `oldest`: when its key was created and its oldest tombstone issued (seconds)."""

    position: bytes
    key_id: str
    owner_peer_id: str
    label: str
    digest: bytes
    is_alive: bool
    oldest: tuple[int, int]


def index_position(owner_peer_id: str) -> bytes:
    """Where an owner's index is in the keyspace: where a resource would be whose id is the owner's. 32 bytes."""
    return resource_position(owner_peer_id).to_bytes(POSITION_BYTES, "big")


class IndexTable:
    """The rows of `listed`. Lives as long as its transaction. A row that isn't what was stored there counts as absent;
    `damaged` collects (owner, label) of those that were met, so that they are dropped, and fetched from others."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.damaged: list[tuple[str, str]] = []
        self.changed: set[str] = set()
        """Owners of whose indexes something was written or deleted."""

    def entry(self, owner_peer_id: str, label: str) -> IndexEntry | None:
        """What is known of one resource."""
        row = self._connection.execute(
            "SELECT key_id, CAST(body AS BLOB), checksum FROM listed WHERE owner_peer_id = ? AND label = ?",
            (owner_peer_id, label),
        ).fetchone()
        return self._entry_in(owner_peer_id, label, row) if row else None

    def _entry_in(self, owner_peer_id: str, label: str, row: Sequence[Any]) -> IndexEntry | None:
        entry = stored_entry(row)
        if entry is None or (entry.owner_peer_id, entry.label) != (owner_peer_id, label):
            self.damaged.append((owner_peer_id, label))
            return None
        return entry

    def drop_damaged(self, owner_peer_id: str, label: str) -> bool:
        """Deletes an entry, if it is damaged still; whether it was."""
        if not (is_text(owner_peer_id) and is_text(label)):
            return self._remove_spoilt(owner_peer_id, label)
        before = len(self.damaged)
        self.entry(owner_peer_id, label)
        is_damaged = len(self.damaged) > before
        del self.damaged[before:]
        if is_damaged:
            self.remove(owner_peer_id, label)
        return is_damaged

    def _remove_spoilt(self, owner_peer_id: str, label: str) -> bool:
        """Deletes an entry whose owner or label isn't even text any more; whether it was there."""
        self.changed.add(owner_peer_id)
        found = self._connection.execute(
            "DELETE FROM listed WHERE CAST(owner_peer_id AS BLOB) = ? AND CAST(label AS BLOB) = ?",
            (bytes_of(owner_peer_id), bytes_of(label)),
        )
        return found.rowcount > 0

    def digest_of(self, owner_peer_id: str, key_id: str) -> bytes:
        """The digest of an entry, empty for none."""
        row = self._connection.execute(
            "SELECT digest FROM listed WHERE position = ? AND key_id = ?", (index_position(owner_peer_id), key_id)
        ).fetchone()
        return bytes(row[0]) if row else b""

    def put(self, entry: IndexEntry, weight: int, victim: int = -1) -> None:
        """Stores an entry over whatever is there. `weight`: the owner's; `victim`: when the key was created (seconds)
        that it ends here, -1 for none: the latest one is remembered."""
        self.changed.add(entry.owner_peer_id)
        body = cbor2.dumps([encode(value) for value in entry.values()], canonical=True)
        self._connection.execute(
            "INSERT INTO listed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " created = excluded.created, removed = excluded.removed, newest = excluded.newest,"
            " weight = excluded.weight, digest = excluded.digest, body = excluded.body, checksum = excluded.checksum,"
            " victim = max(victim, excluded.victim)",
            (
                entry.owner_peer_id,
                entry.label,
                entry.key_id,
                index_position(entry.owner_peer_id),
                _NEVER if entry.key is None else entry.key.timestamp_created,
                min((each.timestamp_issued for each in entry.key_tombstones), default=_NEVER),
                entry.newest,
                weight,
                entry.digest(),
                body,
                checksum_of(body),
                victim,
            ),
        )

    def remove(self, owner_peer_id: str, label: str) -> None:
        """Deletes one entry."""
        self.changed.add(owner_peer_id)
        self._connection.execute("DELETE FROM listed WHERE owner_peer_id = ? AND label = ?", (owner_peer_id, label))

    def count(self, owner_peer_id: str) -> int:
        """How many resources of an owner's are listed here."""
        row = self._connection.execute(
            "SELECT entries FROM listed_owners WHERE owner_peer_id = ?", (owner_peer_id,)
        ).fetchone()
        return int(row[0]) if row else 0

    def oldest(self, owner_peer_id: str) -> tuple[int, str] | None:
        """(time, label) of the entry that its owner hasn't signed for the longest time."""
        row = self._connection.execute(
            "SELECT newest, label FROM listed WHERE owner_peer_id = ? ORDER BY newest, label LIMIT 1", (owner_peer_id,)
        ).fetchone()
        return (int(row[0]), str(row[1])) if row else None

    def page(
        self, owner_peer_id: str, after: str | None, limit: int, most_bytes: int, created_until: int, removed_until: int
    ) -> ToldPage:
        """The next entries after a label, or from the first one on: `limit` of them, or `most_bytes`, but one at least.
        Left out is what was signed at these times (seconds) or before: see `IndexEntry.fresh`."""
        query = "SELECT key_id, CAST(body AS BLOB), checksum, label FROM listed WHERE owner_peer_id = ?"
        query += " ORDER BY label" if after is None else " AND label > ? ORDER BY label"
        rows = self._connection.execute(query, (owner_peer_id,) if after is None else (owner_peer_id, after))
        entries: list[IndexEntry] = []
        size, last = 0, after
        for *row, label in rows:
            entry = self._entry_in(owner_peer_id, label, row)
            entry = entry.fresh(created_until, removed_until) if entry is not None else None
            if entry is None:
                continue
            size += entry.size()
            if entries and (size > most_bytes or len(entries) == limit):
                rows.close()
                return ToldPage(entries, last)
            entries.append(entry)
            last = label
        return ToldPage(entries, None)

    def places_in(
        self, first: bytes, last: bytes, created_until: int, removed_until: int, count: int, *, after: str = ""
    ) -> list[IndexPlace]:
        """The first `count` entries of indexes whose positions are `first` to `last` (32 bytes, both included), in
        order of position and id; of those at `first` the ones whose ids follow `after`. Alive is what was signed after
        these times (seconds)."""
        rows = self._connection.execute(
            "SELECT position, key_id, owner_peer_id, label, CAST(digest AS BLOB), created > ? AND removed > ?,"
            " CAST(created AS INTEGER), CAST(removed AS INTEGER)"
            " FROM listed WHERE (position, key_id) > (?, ?) AND position <= ? ORDER BY position, key_id",
            (_bounded(created_until), _bounded(removed_until), first, after, last),
        )
        return list(islice(self._places_in(rows), count))

    def _places_in(self, rows: Iterable[Sequence[Any]]) -> Iterator[IndexPlace]:
        for position, key_id, owner, label, digest, is_alive, created, removed in rows:
            if all(map(is_text, (key_id, owner, label))):
                yield IndexPlace(position, key_id, owner, label, digest, bool(is_alive), (created, removed))
            else:
                self.damaged.append((owner, label))

    def forget(self, created_until: int, removed_until: int, limit: int) -> int:
        """Drops what was signed at these times (seconds) or before, of `limit` entries at most; of how many."""
        rows = self._connection.execute(
            "SELECT owner_peer_id, label, weight FROM listed WHERE created <= ?1"
            " UNION SELECT owner_peer_id, label, weight FROM listed WHERE removed <= ?2 LIMIT ?3",
            (created_until, removed_until, limit),
        ).fetchall()
        for owner_peer_id, label, weight in rows:
            if not (is_text(owner_peer_id) and is_text(label)):
                self._remove_spoilt(owner_peer_id, label)
                continue
            entry = self.entry(owner_peer_id, label)
            left = entry.fresh(created_until, removed_until) if entry is not None else None
            if left is None:
                self.remove(owner_peer_id, label)
            else:
                self.put(left, weight)
        return len(rows)

    def removals(self, weight: int, until: int, host_peer_id: str, limit: int) -> list[Charged]:
        """What would free some of the disk of entries that tell of a removal and nothing else, of owners other than
        this host that weigh `weight` at most; the newest first. None that ended a key here which was created after
        `until` (seconds), and so could still be good: somebody else may bring it again."""
        rows = self._connection.execute(
            "SELECT owner_peer_id, key_id, label, length(body) FROM listed"
            " WHERE created = ? AND victim <= ? AND weight <= ? AND owner_peer_id != ? ORDER BY newest DESC LIMIT ?",
            (_NEVER, until, weight, host_peer_id, limit),
        )
        return [Charged(None, key_id, True, size + ROW_BYTES, (owner, label)) for owner, key_id, label, size in rows]

    def newest_of(self, account: Account, limit: int) -> list[Charged]:
        """What would free some of the disk of an owner's entries, the newest first; none that ended a key here."""
        rows = self._connection.execute(
            "SELECT key_id, label, length(body) FROM listed WHERE owner_peer_id = ? AND victim = -1 AND weight = ?"
            " ORDER BY newest DESC LIMIT ?",
            (account.peer_id, account.weight, limit),
        )
        return [
            Charged(None, key_id, False, size + ROW_BYTES, (account.peer_id, label)) for key_id, label, size in rows
        ]


def stored_entry(row: Sequence[Any]) -> IndexEntry | None:
    """The entry in a row (key id, body, checksum); None if it isn't what was stored there."""
    key_id, body, checksum = row
    if not is_whole(body, checksum):
        return None
    try:
        blobs = decode(body, max_bytes=4 * MAX_BLOB)
        entry = IndexEntry.of(*map(decode_key_or_tombstone, blobs)) if isinstance(blobs, list) else None
    except (DecodeError, InvalidValue):
        return None
    return entry if entry is not None and entry.key_id == key_id else None


def _bounded(time: int) -> int:
    """A time that a peer may have made up, as far as SQLite knows such numbers."""
    return min(max(time, -_NEVER), _NEVER)
