"""What is stored by its position in the keyspace, with the digests that replicas compare."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import islice

import msgspec

from registry.model.expiry_horizon import ExpiryHorizon
from registry.storage.checked_rows import Place, is_text
from registry.storage.digests import NEVER, position_bytes

_PLACES_IN = """
    SELECT positions.position, key_id, CAST(digest AS BLOB),
        hosted > ? AND issued > ? AND ended > ? AND owned > ? AND removed > ? AND certified > ?,
        CAST(hosted AS INTEGER), CAST(issued AS INTEGER), CAST(ended AS INTEGER), CAST(owned AS INTEGER),
        CAST(removed AS INTEGER), CAST(certified AS INTEGER)
    FROM positions CROSS JOIN resources USING (key_id)
    WHERE (positions.position, positions.key_id) > (?, ?) AND positions.position <= ?
    ORDER BY positions.position, positions.key_id LIMIT ?
"""


class Positions:
    """The resources of which anything is here, by position and by id. Lives as long as its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def key_ids(self, after: str, count: int) -> list[str]:
        """The next `count` resources of which anything is here, in order of their ids; without those whose ids a disk
        spoilt."""
        rows = self._connection.execute("SELECT key_id FROM resources WHERE key_id > ? ORDER BY key_id", (after,))
        return list(islice((key_id for (key_id,) in rows if is_text(key_id)), count))

    def places_in(
        self, first: bytes, last: bytes, horizon: ExpiryHorizon, count: int, *, after: str = ""
    ) -> list[Place]:
        """The first `count` resources whose positions are `first` to `last` (32 bytes, both included), in order of
        position and id; of those at `first` the ones whose ids follow `after`."""
        rows = self._connection.execute(_PLACES_IN, (*_times(horizon), first, after, last, count))
        return [
            Place(position, key_id, digest, bool(alive), tuple(oldest))
            for position, key_id, digest, alive, *oldest in rows
        ]

    def digests(self, key_ids: Sequence[str], horizon: ExpiryHorizon) -> list[Place]:
        """These resources, as far as anything of them is here."""
        found: list[Place] = []
        for key_id in key_ids:
            row = self._connection.execute(
                "SELECT CAST(digest AS BLOB), hosted > ? AND issued > ? AND ended > ? AND owned > ? AND removed > ?"
                " AND certified > ? FROM resources WHERE key_id = ?",
                (*_times(horizon), key_id),
            ).fetchone()
            if row is not None:
                found.append(Place(position_bytes(key_id), key_id, row[0], bool(row[1])))
        return found


def _times(horizon: ExpiryHorizon) -> tuple[int, ...]:
    """The times of a horizon that a peer may have made up, as far as SQLite knows such numbers."""
    return tuple(min(max(time, -NEVER), NEVER) for time in msgspec.structs.astuple(horizon))
