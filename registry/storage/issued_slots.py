"""Which timestamps this process's identities gave to slots as their issuers."""

from __future__ import annotations

import sqlite3


class IssuedSlots:
    """The last timestamp of each slot that one identity issued here. Lives as long as its transaction."""

    def __init__(self, connection: sqlite3.Connection, issuer: str = "") -> None:
        """`issuer`: its peer id; empty for the process's own."""
        self._connection = connection
        self._issuer = issuer

    def of(self, issuer: str, here: str) -> IssuedSlots:
        """Those of another identity. `here`: the process's own peer id."""
        return IssuedSlots(self._connection, "" if issuer == here else issuer)

    def last(self, key_id: str, peer_id: str) -> int:
        """The last timestamp_issued that the identity gave to a slot; -1 for none."""
        row = self._connection.execute(
            "SELECT timestamp_issued FROM issued WHERE issued_by = ? AND key_id = ? AND peer_id = ?",
            (self._issuer, key_id, peer_id),
        ).fetchone()
        return row[0] if row else -1

    def forsaken(self, key_id: str, peer_id: str) -> int:
        """A timestamp that isn't given to a slot again though `last` is before it, -1 for none."""
        row = self._connection.execute(
            "SELECT forsaken FROM issued WHERE issued_by = ? AND key_id = ? AND peer_id = ?",
            (self._issuer, key_id, peer_id),
        ).fetchone()
        return row[0] if row else -1

    def after(self, issued_after: int) -> list[tuple[str, str]]:
        """(key id, hosting peer) of what the identity issued later than `issued_after` (seconds)."""
        return self._connection.execute(
            "SELECT key_id, peer_id FROM issued WHERE issued_by = ? AND timestamp_issued > ?",
            (self._issuer, issued_after),
        ).fetchall()

    def forsake(self, key_id: str, peer_id: str, timestamp_issued: int) -> None:
        """Has `last` go back to a time (seconds), because nobody ever took what was issued later."""
        self._connection.execute(
            "UPDATE issued SET forsaken = max(forsaken, timestamp_issued), timestamp_issued = ?4"
            " WHERE issued_by = ?1 AND key_id = ?2 AND peer_id = ?3 AND timestamp_issued > ?4",
            (self._issuer, key_id, peer_id, timestamp_issued),
        )

    def until(self, issued_until: int) -> list[tuple[str, str]]:
        """(key id, hosting peer) of what the identity issued at `issued_until` (seconds) or before."""
        return self._connection.execute(
            "SELECT key_id, peer_id FROM issued WHERE issued_by = ? AND timestamp_issued <= ?",
            (self._issuer, issued_until),
        ).fetchall()

    def record(self, key_id: str, peer_id: str, timestamp_issued: int) -> None:
        """Notes the timestamp (seconds) that the identity gives to a slot; `last` doesn't go back by that."""
        self._connection.execute(
            "INSERT INTO issued (issued_by, key_id, peer_id, timestamp_issued) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET timestamp_issued = max(timestamp_issued, excluded.timestamp_issued)",
            (self._issuer, key_id, peer_id, timestamp_issued),
        )

    def forget(self, issued_until: int, limit: int = -1) -> int:
        """Drops what no replica can hold any more, of all identities, `limit` slots at most; how many."""
        return self._connection.execute(
            "DELETE FROM issued WHERE (issued_by, key_id, peer_id) IN"
            " (SELECT issued_by, key_id, peer_id FROM issued WHERE max(timestamp_issued, forsaken) <= ? LIMIT ?)",
            (issued_until, limit),
        ).rowcount
