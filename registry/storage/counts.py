"""How much is stored: under a key, by an issuer, for a host, of an owner, in all. Triggers keep most of it."""

from __future__ import annotations

import sqlite3
from typing import cast


class Counts:
    """Counts of what is stored. Lives as long as its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def slots_under(self, key_id: str) -> int:
        """How many records and tombstones lie under a key id."""
        return sum(self._under(key_id))

    def tombstones_under(self, key_id: str) -> int:
        """How many tombstones lie under a key id."""
        return self._under(key_id)[1]

    def slots_by(self, key_id: str, issuer: str) -> int:
        """How many records and tombstones of an issuer's lie under a key id."""
        row = self._connection.execute(
            "SELECT records + tombstones FROM issuers WHERE key_id = ? AND issued_by = ?", (key_id, issuer)
        ).fetchone()
        return int(row[0]) if row else 0

    def _under(self, key_id: str) -> tuple[int, int]:
        row = self._connection.execute(
            "SELECT records, tombstones FROM resources WHERE key_id = ?", (key_id,)
        ).fetchone()
        return cast("tuple[int, int]", row or (0, 0))

    def foreign_records(self, key_id: str, host_peer_id: str, issuer: str) -> tuple[int, int]:
        """How many of a key's records other peers host: (all, those by `issuer`)."""
        (own,) = self._connection.execute(
            "SELECT count(*) FROM states WHERE peer_id = ? AND is_tombstone = 0 AND key_id = ?", (host_peer_id, key_id)
        ).fetchone()
        (own_by_issuer,) = self._connection.execute(
            "SELECT count(*) FROM states WHERE key_id = ? AND issued_by = ? AND peer_id = ? AND is_tombstone = 0",
            (key_id, issuer, host_peer_id),
        ).fetchone()
        by_issuer = self._connection.execute(
            "SELECT records FROM issuers WHERE key_id = ? AND issued_by = ?", (key_id, issuer)
        ).fetchone()
        records, _ = self._under(key_id)
        return records - own, (by_issuer[0] if by_issuer else 0) - own_by_issuer

    def keys_or_tombstones_of(self, owner_peer_id: str) -> int:
        """How many keys and key tombstones of an owner's there are."""
        row = self._connection.execute("SELECT keys FROM owners WHERE owner_peer_id = ?", (owner_peer_id,)).fetchone()
        return int(row[0]) if row else 0

    def hosting(self, host_peer_id: str, issuer: str) -> tuple[int, int, int]:
        """What a host holds for others: (records, their bytes, records by `issuer`)."""
        row = self._connection.execute(
            "SELECT coalesce(sum(records), 0), coalesce(sum(bytes), 0), coalesce(sum(records * (issued_by = ?)), 0)"
            " FROM hosts WHERE peer_id = ? AND issued_by != ?",
            (issuer, host_peer_id, host_peer_id),
        ).fetchone()
        return cast("tuple[int, int, int]", row)

    def totals(self) -> tuple[int, int, int]:
        """(keys, records, tombstones) of the whole database."""
        return self._total("keys"), self._total("records"), self._total("tombstones")

    def _total(self, name: str) -> int:
        (amount,) = self._connection.execute("SELECT amount FROM totals WHERE name = ?", (name,)).fetchone()
        return int(amount)
