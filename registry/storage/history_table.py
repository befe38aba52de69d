"""The history of resources: what happened to them here and why, as far as there is room for it."""

from __future__ import annotations

import sqlite3

import msgspec

from registry.model.history import (
    FEWEST_BYTES,
    MAX_EVENTS,
    MAX_EVENTS_OF_A_RESOURCE,
    SHARE_OF_THE_DATABASE,
    HistoryEvent,
)
from registry.storage.space import used_bytes

_PRUNED_EVERY = 256  # events, and as many go at once when there are too many


class HistoryTable:
    """The events of all resources. Lives as long as its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, event: HistoryEvent) -> None:
        """Writes an event down; the oldest go, of its resource's and of all, where they are too many."""
        number = self._connection.execute(
            "INSERT INTO history (time, key_id, issued_by, peer_id, what, detail) VALUES (?, ?, ?, ?, ?, ?)",
            msgspec.structs.astuple(event),
        ).lastrowid
        self._connection.execute(
            "DELETE FROM history WHERE number IN"
            " (SELECT number FROM history WHERE key_id = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (event.key_id, MAX_EVENTS_OF_A_RESOURCE),
        )
        if number is not None and number % _PRUNED_EVERY == 0:
            self._prune(number)

    def last(self, key_id: str, count: int) -> list[HistoryEvent]:
        """The last `count` events of a resource, oldest first."""
        rows = self._connection.execute(
            "SELECT time, key_id, issued_by, peer_id, what, detail FROM history WHERE key_id = ?"
            " ORDER BY number DESC LIMIT ?",
            (key_id, count),
        )
        return [HistoryEvent(*row) for row in reversed(rows.fetchall())]

    def _prune(self, last: int) -> None:
        """Drops the oldest events, a few times as many as can have come since it was last done."""
        (oldest,) = self._connection.execute("SELECT min(number) FROM history").fetchone()
        (size,) = self._connection.execute("SELECT amount FROM totals WHERE name = 'history'").fetchone()
        bound = max(used_bytes(self._connection) // SHARE_OF_THE_DATABASE, FEWEST_BYTES)
        if size > bound or last - oldest >= MAX_EVENTS:
            self._connection.execute("DELETE FROM history WHERE number < ?", (oldest + 2 * _PRUNED_EVERY,))
