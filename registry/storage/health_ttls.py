"""How long the services that this peer hosts pass without word from their providers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

_HOSTED = """
    EXISTS (
        SELECT 1 FROM states
        WHERE states.key_id = health_ttls.key_id AND states.issued_by = health_ttls.issued_by
            AND states.peer_id = ? AND is_tombstone = 0
    )
"""

Row = tuple[str, str, str]
"""(key id, issuer, instance)."""


class HealthTtls:
    """The times to live that services were given, in seconds. Lives as long as its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def of_hosted(self, host: str, limit: int) -> dict[Row, float]:
        """The times to live of services whose record on `host` is here, `limit` of them at most."""
        rows = self._connection.execute(
            f"SELECT key_id, issued_by, instance, ttl FROM health_ttls WHERE {_HOSTED} LIMIT ?",  # noqa: S608 - ours
            (host, limit),
        )
        return {(key_id, issued_by, instance): ttl for key_id, issued_by, instance, ttl in rows}

    def put(self, row: Row, ttl: float) -> None:
        """Stores the time to live of a service over whatever is there."""
        self._connection.execute("INSERT OR REPLACE INTO health_ttls VALUES (?, ?, ?, ?)", (*row, ttl))

    def drop(self, rows: Iterable[Row]) -> None:
        """Deletes those of some services."""
        self._connection.executemany(
            "DELETE FROM health_ttls WHERE key_id = ? AND issued_by = ? AND instance = ?", rows
        )

    def drop_unhosted(self, host: str) -> None:
        """Deletes those of services whose record isn't here any more."""
        self._connection.execute(f"DELETE FROM health_ttls WHERE NOT {_HOSTED}", (host,))  # noqa: S608 - ours
