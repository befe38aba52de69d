"""Keeps, within the transaction that changed a resource, the digest of everything in it and where it is.

Triggers empty the digest of what a write touches (`registry.storage.database`); `settle` computes it from the rows, so
that comparing replicas needs no resource to be loaded. A stored digest is that of `ResourceState.digest`.
"""

from __future__ import annotations

import sqlite3
from hashlib import sha256
from typing import Final

from overlay.discovery.keyspace import POSITION_BYTES, resource_position

NEVER: Final = 2**63 - 1
"""In the place of the oldest signature of a kind, where there is none (SQLite's greatest number)."""


def settle(connection: sqlite3.Connection, limit: int = -1) -> int:
    """Computes the digests of resources that changed, of `limit` of them at most; how many it did."""
    key_ids = connection.execute("SELECT key_id FROM resources WHERE digest = x'' LIMIT ?", (limit,)).fetchall()
    for (key_id,) in key_ids:
        _settle_one(connection, key_id)
    return len(key_ids)


def position_bytes(key_id: str) -> bytes:
    """The position of a resource as the database has it."""
    return resource_position(key_id).to_bytes(POSITION_BYTES, "big")


def _settle_one(connection: sqlite3.Connection, key_id: str) -> None:
    summary, oldest = sha256(), [NEVER] * 5
    key = connection.execute("SELECT body, timestamp_created FROM keys WHERE key_id = ?", (key_id,)).fetchone()
    ended = connection.execute(
        "SELECT body, timestamp_issued FROM key_tombstones WHERE key_id = ?", (key_id,)
    ).fetchone()
    for index, row in ((3, key), (4, ended)):
        if row is not None:
            summary.update(sha256(row[0]).digest())
            oldest[index] = row[1]
    states = connection.execute(
        "SELECT body, is_tombstone, timestamp_created, timestamp_issued FROM states WHERE key_id = ?"
        " ORDER BY issued_by, peer_id",
        (key_id,),
    ).fetchall()
    for body, is_tombstone, created, issued in states:
        summary.update(sha256(body).digest())
        if is_tombstone:
            oldest[2] = min(oldest[2], issued)
        else:
            oldest[0], oldest[1] = min(oldest[0], created), min(oldest[1], issued)
    if key is None and ended is None and not states:
        connection.execute("DELETE FROM resources WHERE key_id = ?", (key_id,))
        connection.execute("DELETE FROM positions WHERE position = ? AND key_id = ?", (position_bytes(key_id), key_id))
        return
    connection.execute(
        "UPDATE resources SET digest = ?, hosted = ?, issued = ?, ended = ?, owned = ?, removed = ? WHERE key_id = ?",
        (summary.digest(), *oldest, key_id),
    )
    connection.execute("INSERT OR IGNORE INTO positions VALUES (?, ?)", (position_bytes(key_id), key_id))
