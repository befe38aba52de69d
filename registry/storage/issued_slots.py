"""Which timestamps this node's identity gave to slots as their issuer."""

from __future__ import annotations

import sqlite3


class IssuedSlots:
    """The last timestamp of each slot that this node's identity issued. Lives as long as its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def last(self, key_id: str, peer_id: str) -> int:
        """The last timestamp_issued that this node's identity gave to a slot; -1 for none."""
        row = self._connection.execute(
            "SELECT timestamp_issued FROM issued WHERE key_id = ? AND peer_id = ?", (key_id, peer_id)
        ).fetchone()
        return row[0] if row else -1

    def forsaken(self, key_id: str, peer_id: str) -> int:
        """A timestamp that isn't given to a slot again though `last` is before it, -1 for none."""
        row = self._connection.execute(
            "SELECT forsaken FROM issued WHERE key_id = ? AND peer_id = ?", (key_id, peer_id)
        ).fetchone()
        return row[0] if row else -1

    def after(self, issued_after: int) -> list[tuple[str, str]]:
        """(key id, hosting peer) of what this node's identity issued later than `issued_after` (seconds)."""
        return self._connection.execute(
            "SELECT key_id, peer_id FROM issued WHERE timestamp_issued > ?", (issued_after,)
        ).fetchall()

    def forsake(self, key_id: str, peer_id: str, timestamp_issued: int) -> None:
        """Has `last` go back to a time (seconds), because nobody ever took what was issued later."""
        self._connection.execute(
            "UPDATE issued SET forsaken = max(forsaken, timestamp_issued), timestamp_issued = ?3"
            " WHERE key_id = ?1 AND peer_id = ?2 AND timestamp_issued > ?3",
            (key_id, peer_id, timestamp_issued),
        )

    def until(self, issued_until: int) -> list[tuple[str, str]]:
        """(key id, hosting peer) of what this node's identity issued at `issued_until` (seconds) or before."""
        return self._connection.execute(
            "SELECT key_id, peer_id FROM issued WHERE timestamp_issued <= ?", (issued_until,)
        ).fetchall()

    def record(self, key_id: str, peer_id: str, timestamp_issued: int) -> None:
        """Notes the timestamp (seconds) that this node's identity gives to a slot; `last` doesn't go back by that."""
        self._connection.execute(
            "INSERT INTO issued (key_id, peer_id, timestamp_issued) VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET timestamp_issued = max(timestamp_issued, excluded.timestamp_issued)",
            (key_id, peer_id, timestamp_issued),
        )

    def forget(self, issued_until: int, limit: int = -1) -> int:
        """Drops what no replica can hold any more, `limit` slots at most; how many."""
        return self._connection.execute(
            "DELETE FROM issued WHERE (key_id, peer_id) IN"
            " (SELECT key_id, peer_id FROM issued WHERE max(timestamp_issued, forsaken) <= ? LIMIT ?)",
            (issued_until, limit),
        ).rowcount
