"""A simulated node's disk: a real database, and what befalls it. It fills up, fails, and rots."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

import trio

from registry.storage import Store
from registry.storage.database import open_database

_UNBOUNDED: Final = 2**30  # pages
_BODIES: Final = (("states", ("key_id", "issued_by", "peer_id")), ("keys", ("key_id",)))
"""Tables whose rows may rot, and what names a row in them."""


class Disk:
    """Made by `open_disk`. What goes wrong here SQLite meets as on a real disk."""

    def __init__(self, connection: sqlite3.Connection, store: Store) -> None:
        self._connection = connection
        self.store = store

    def fill(self) -> None:
        """No page can be added: larger writes fail."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        self._connection.execute(f"PRAGMA max_page_count={pages}")

    def fail(self) -> None:
        """Every write fails."""
        self._connection.execute("PRAGMA query_only=ON")

    def mend(self) -> None:
        """There is room, and writes succeed again."""
        self._connection.execute(f"PRAGMA max_page_count={_UNBOUNDED}")
        self._connection.execute("PRAGMA query_only=OFF")

    def rot(self, randomness: random.Random) -> str | None:
        """Change a byte in the body of some row, behind the store's back; which resource it belongs to, if any did."""
        table, names = randomness.choice(_BODIES)
        columns = ", ".join(names)
        rows = self._connection.execute(f"SELECT CAST(body AS BLOB), {columns} FROM {table} ORDER BY {columns}")
        found = rows.fetchall()
        if not found:
            return None
        body, *where = randomness.choice(found)
        at = randomness.randrange(len(body))
        rotten = body[:at] + bytes([body[at] ^ 1 << randomness.randrange(8)]) + body[at + 1 :]
        condition = " AND ".join(f"{name} = ?" for name in names)
        self._connection.execute(f"UPDATE {table} SET body = ? WHERE {condition}", (rotten, *where))
        return str(where[0])


@asynccontextmanager
async def open_disk(path: Path) -> AsyncIterator[Disk]:
    """A node's storage in the file `path`, as `registry.storage.open_store` opens it, for virtual time."""
    with closing(open_database(path)) as connection:
        store = Store(connection, path, inline=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run_shielded, store)
            try:
                yield Disk(connection, store)
            finally:
                store.close()


async def _run_shielded(store: Store) -> None:
    with trio.CancelScope(shield=True):
        await store.run()
