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

    def until(self, issued_until: int) -> list[tuple[str, str]]:
        """(key id, hosting peer) of what this node's identity issued at `issued_until` (seconds) or before."""
        return self._connection.execute(
            "SELECT key_id, peer_id FROM issued WHERE timestamp_issued <= ?", (issued_until,)
        ).fetchall()

    def record(self, key_id: str, peer_id: str, timestamp_issued: int) -> None:
        """Notes the timestamp (seconds) that this node's identity gives to a slot; `last` never goes back."""
        self._connection.execute(
            "INSERT INTO issued VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET timestamp_issued = max(timestamp_issued, excluded.timestamp_issued)",
            (key_id, peer_id, timestamp_issued),
        )

    def forget(self, issued_until: int, limit: int = -1) -> int:
        """Drops what no replica can hold any more, `limit` slots at most; how many."""
        return self._connection.execute(
            "DELETE FROM issued WHERE (key_id, peer_id) IN"
            " (SELECT key_id, peer_id FROM issued WHERE timestamp_issued <= ? LIMIT ?)",
            (issued_until, limit),
        ).rowcount
