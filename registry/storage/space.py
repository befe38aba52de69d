"""How full a node's database is, measured against the budget that those who write keep to."""

from __future__ import annotations

import sqlite3
from typing import Final

SLACK: Final = 64
"""A full database has room again when this part of its budget is free, so that it doesn't change all the time."""
COLLECTED_EVERY: Final = 60
"""Seconds: looking for what is expired and finding nothing is dear."""


class Space:
    """Belongs to whoever runs the writes. A database is full when its budget refused something, or made it give way."""

    def __init__(self) -> None:
        self.used = 0
        """Bytes of the database that hold something."""
        self.budget = 0
        """Bytes; 0 until something was weighed against it."""
        self.is_full = False
        self.refused = 0
        """How many times something was refused."""
        self.gave_way = 0
        """How many things had to give way."""
        self._collected_at = -COLLECTED_EVERY

    def measured(self, used: int, budget: int | None = None) -> None:
        """So many bytes are used now; the budget may have been raised."""
        self.used = used
        if budget is not None:
            self.budget = budget
        if self.is_full and used <= self.budget - self.budget // SLACK:
            self.is_full = False

    def refuse(self) -> None:
        """There was no room for something."""
        self.is_full = True
        self.refused += 1

    def make_room(self, count: int) -> None:
        """So many things gave way to another."""
        self.is_full = True
        self.gave_way += count

    def is_collection_due(self, now: int) -> bool:
        """Whether a write that finds no room should look for what is expired; `now` in seconds of any clock."""
        return abs(now - self._collected_at) >= COLLECTED_EVERY

    def collected(self, now: int, count: int) -> None:
        """So much was expired: while there is more, it is looked for again at once."""
        if not count:
            self._collected_at = now


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the database that hold something."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def vacuum(connection: sqlite3.Connection, pages: int) -> int:
    """Shrinks the file by up to so many pages that are free in it; bytes, 0 when none is. Not within a write."""
    (free,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_size"))
    if free == 0:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return 0
    # Not `execute`, which would take only the first of its steps: they have no columns.
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")
    return int(min(free, pages) * size)
